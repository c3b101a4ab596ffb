"""The kernel's KUnit module, and how long a test of it may take."""

from __future__ import annotations

from collections.abc import Sequence

from vfio_user_xe.device_models.xe.scenarios.ktap import KtapTest
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run

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
    script = f"test -d {RESULTS} || modprobe kunit enable=1; test ! -w {_LIMIT} || echo {_SECONDS} > {_LIMIT}; test -d {RESULTS}"
    return machine.run(script).returncode == 0


def must_pass(run: Run, tests: Sequence[KtapTest]) -> None:
    """Fail with the names of those that have failed."""
    failed = [test.name for test in tests if not test.passed]
    run.check(not failed, f"{len(failed)} of {len(tests)} tests failed: {', '.join(failed)}")
