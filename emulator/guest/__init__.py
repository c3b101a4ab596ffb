"""Guests: fetch QEMU and a kernel, boot in seconds, run commands inside, and leave nothing behind."""

from __future__ import annotations

from emulator.guest.accelerator import Accelerator
from emulator.guest.blocking import BlockingGuest
from emulator.guest.channel import Result
from emulator.guest.environment import Environment, Manifest, Qemu, fetch, locate
from emulator.guest.errors import (
    BootFailed,
    ChannelLost,
    CommandFailed,
    CommandTimeout,
    ConsoleTimeout,
    FetchFailed,
    GuestError,
    GuestPanic,
    InitramfsError,
    KernelError,
    MissingEnvironment,
    QemuFailed,
    QmpError,
)
from emulator.guest.guest import Guest, GuestSpec, boot
from emulator.guest.kernel import Kernel
from emulator.guest.qemu import Iommu, Machine

__all__ = [
    "Accelerator",
    "BlockingGuest",
    "BootFailed",
    "ChannelLost",
    "CommandFailed",
    "CommandTimeout",
    "ConsoleTimeout",
    "Environment",
    "FetchFailed",
    "Guest",
    "GuestError",
    "GuestPanic",
    "GuestSpec",
    "InitramfsError",
    "Iommu",
    "Kernel",
    "KernelError",
    "Machine",
    "Manifest",
    "MissingEnvironment",
    "Qemu",
    "QemuFailed",
    "QmpError",
    "Result",
    "boot",
    "fetch",
    "locate",
]
