"""Either side may be killed at any time: the other goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.guest.lab import open_lab
from tests.support.processes import descriptors
from tests.support.wait import eventually
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.guest import GuestSpec
from vfio_user_xe.emulator.guest.served import ServedCard

pytestmark = pytest.mark.guest

EDU = ["--model", "edu"]
_READ_IDS = "cat /sys/bus/pci/devices/0000:01:00.0/config | head -c 4 | od -An -tx1"
_PRESENT = " 34 12 e8 11"


def test_the_server_survives_killed_qemus_and_serves_the_next() -> None:
    with open_lab(EDU) as lab:
        assert lab.sh(_READ_IDS) == _PRESENT
        spec = lab.guest.spec
        connected = len(descriptors(lab.card.pid))
        # In the middle of accesses: the guest reads configuration space as fast as it can.
        lab.guest.run("(while :; do cat /sys/bus/pci/devices/0000:01:00.0/config; done) >/dev/null 2>&1 3>&- &")
        os.kill(lab.guest.pid, signal.SIGKILL)
        with pytest.raises(GuestError):
            lab.guest.run("true")
        # Killed while the firmware still finds its devices, at three moments.
        for delay in (0.2, 0.7, 1.5):
            _boot_and_kill(lab.card, spec, delay)
        with BlockingGuest(spec) as following:
            assert following.run(_READ_IDS).stdout.rstrip("\n") == _PRESENT
            eventually(
                lambda: len(descriptors(lab.card.pid)) <= connected, "descriptors of dead clients are still open"
            )
        assert lab.card.process.poll() is None


def _boot_and_kill(card: ServedCard, spec: GuestSpec, delay: float) -> None:
    """Kill QEMU `delay` seconds after its process began, wherever its start has got to by then."""

    def kill() -> None:
        eventually(lambda: _qemu_of(card) is not None, "QEMU does not start", interval=0.01)
        time.sleep(delay)
        pid = _qemu_of(card)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(GuestError), BlockingGuest(spec):
        pass
    killer.join()


def _qemu_of(card: ServedCard) -> int | None:
    """The process whose command line names the PF's socket."""
    socket = card.description.functions[0].socket.encode()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and socket in (process / "cmdline").read_bytes():
                return int(process.name)
    return None


def test_a_guest_survives_the_server_s_kill() -> None:
    with open_lab(EDU) as lab:
        assert lab.sh(_READ_IDS) == _PRESENT
        os.kill(lab.card.pid, signal.SIGKILL)
        lab.card.process.wait()
        # The first access may wait for the client's message timeout; then the device reads as all ones.
        lab.sh(_READ_IDS, timeout=90)
        assert lab.sh("echo alive; uname -s", timeout=30) == "alive\nLinux"
        assert lab.sh(_READ_IDS, timeout=30) != _PRESENT, "the device is gone: the guest sees that"
