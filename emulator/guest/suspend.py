"""Suspend to RAM: why a guest whose kernel QEMU has loaded reboots when it is woken, and how that is told.

A wake-up is a reset of the machine, at which QEMU writes the ELF image that it was given with `-kernel` into memory again (hw/core/loader.c:rom_reset):
over the kernel that sleeps there. A bzImage is loaded by the firmware, which leaves memory alone when it wakes (Linux's
Documentation/arch/x86/boot.rst; ACPI 6.5, 16.1.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vfio_user_xe.emulator.guest.errors import ChannelLost, GuestError

ADVICE = (
    "a directly booted guest cannot be woken: boot it with --no-direct-boot (the setting direct_boot=False), or with --ovmf (ovmf=True), "
    "which keeps VFs as well"
)
_RESETS = 2
"""QEMU 11.1 tells SUSPEND, WAKEUP, and two resets while the kernel is started anew."""


def lost_by_waking(events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a directly booted guest rebooted because it was woken: QEMU's latest events are that it was, and at most two resets.

    One that sleeps still, or was reset while it slept, was lost by something else.
    """
    resets = 0
    for event in reversed(list(events)):
        match event.get("event"):
            case "RESET":
                resets += 1
            case "WAKEUP":
                return resets <= _RESETS
            case "SUSPEND":
                return False
    return False


def explained(error: GuestError, direct: bool, events: Iterable[Mapping[str, Any]]) -> GuestError:
    """The error; with what to do if it is the loss of the channel of a guest, directly booted if `direct`, that was woken."""
    if not (direct and isinstance(error, ChannelLost) and lost_by_waking(events)):
        return error
    return ChannelLost(
        f"the guest was suspended to RAM, and rebooted instead of waking up; {ADVICE}", console_tail=error.console_tail
    )
