"""What QEMU's events say of a guest that was woken."""

from __future__ import annotations

import pytest

from vfio_user_xe.emulator.guest.suspend import lost_by_waking


@pytest.mark.parametrize(
    ("events", "lost"),
    [
        ("", False),
        ("RESET", False),
        ("SUSPEND", False),
        ("SUSPEND RESET", False),
        ("SUSPEND WAKEUP SUSPEND", False),
        ("SUSPEND WAKEUP", True),
        ("RESET SUSPEND WAKEUP RESET RESET", True),
        ("SUSPEND WAKEUP RESET RESET RESET", False),
    ],
    ids=["nothing", "a reboot", "asleep", "reset asleep", "asleep again", "woken", "woken and reset", "rebooted later"],
)
def test_a_reboot_that_follows_a_suspend_is_one_of_waking(events: str, lost: bool) -> None:
    assert lost_by_waking([{"event": name} for name in events.split()]) is lost
