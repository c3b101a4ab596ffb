"""What tests and scenarios may ask of a guest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from vfio_user_xe.emulator.guest.initramfs import Content
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.ports import PortRole

USUAL_MEMORY = 1024
"""MiB of a guest for which nothing else is asked."""


class GuestSettings(TypedDict, total=False):
    """What a guest may be told; all of it may be left out."""

    modules: Sequence[str]
    """Kernel modules that the guest has, with all that they need; `modprobe` loads them. "vgem?": if the kernel has it."""
    load: Sequence[str]
    """Modules that are loaded at boot, in this order, each with its parameters."""
    firmware: Sequence[str] | None
    """Firmware files, below /lib/firmware; None: what drivers among the modules want."""
    files: Mapping[str, Content] | None
    """Further files: path in the guest, and a path here or bytes."""
    memory: int
    """In MiB; 1024 unless told otherwise."""
    cpus: int
    """Processors of the guest."""
    cpu: str | None
    """QEMU's `-cpu`, where the usual one does not do."""
    iommu: bool
    """A vIOMMU."""
    ovmf: bool
    """UEFI firmware instead of SeaBIOS."""
    direct_boot: bool
    """False: the kernel's image is booted, not the unpacked kernel; suspend to RAM needs it (UEFI firmware always does)."""
    qemu_arguments: Sequence[str]
    """Further arguments of QEMU."""
    append: str
    """More for the kernel's command line."""
    kernel: Kernel | None
    """None: the fetched one."""
    image: bool
    """The kernel's image is in the guest too, as /boot/kernel: for kexec."""
    userland: str | None
    """A fetched userland (`vfio-user-xe guest fetch --userland NAME`) that commands run in."""
    root: Path | None
    """One's own root file system, a folder or an image, that commands run in; it is not changed."""
    accelerator: str
    """`auto`, `kvm` or `tcg`."""
    boot_timeout: float
    """In seconds, until the guest's agent answers."""
    console: Path | None
    """A file for the guest's console."""
    qtest: bool
    """Whether VF BARs are programmed over QEMU's qtest socket."""
    unplugged: bool
    """The card's functions are left out, for QMP's `device_add`; its root port is there."""
    window: int | None
    """Bytes of 64-bit prefetchable memory behind the root port; None: what the card's BARs need."""
    ports: Mapping[str, PortRole]
    """Byte streams to other guests of the card, by name (`ports.py`)."""
    root_bus: bool
    """Without a root port."""


@dataclass(frozen=True)
class Beside:
    """A further guest with functions of the same card, for cards whose topology gives some away: a virtual machine of the first."""

    functions: tuple[str, ...]
    """Names of the functions that it has, or that are plugged into it later."""
    guest: GuestSettings
