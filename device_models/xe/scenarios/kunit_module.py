"""The kernel's KUnit module, and how long a test of it may take."""

from __future__ import annotations

from vfio_user_xe.emulator.scenarios.machine import Machine

RESULTS = "/sys/kernel/debug/kunit"
LOADING = 900.0
"""Seconds: a suite runs while its module is loaded, and on a debug kernel that takes minutes."""
_LIMIT = "/sys/module/kunit/parameters/timeout"
_SECONDS = 800
"""KUnit's own limit is 300 s for a test. Under sanitizers on an emulated processor that is no sign of anything: `test_wait_backward`
of dma-buf-fence-chain took 520 s."""


def load(machine: Machine) -> bool:
    """Load KUnit where it is not built in, and give its tests more time where the kernel lets us.

    False: it has none, or does not tell results in debugfs (CONFIG_KUNIT_DEBUGFS).

    Raises:
        GuestError: the guest does not answer.
    """
    machine.run(f"test -d {RESULTS} || modprobe kunit enable=1")
    machine.run(f"test ! -w {_LIMIT} || echo {_SECONDS} > {_LIMIT}")
    return machine.run(f"test -d {RESULTS}").returncode == 0
