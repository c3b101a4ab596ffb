"""Guests: fetch QEMU and a kernel, boot in seconds, run commands inside, and leave nothing behind."""

from __future__ import annotations

from vfio_user_xe.emulator.guest.accelerator import Accelerator
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.environment import Environment, Manifest, Qemu, fetch, locate
from vfio_user_xe.emulator.guest.errors import (
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
from vfio_user_xe.emulator.guest.guest import Guest, GuestSpec, boot
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.machine import Iommu, Machine

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
