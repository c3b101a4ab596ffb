"""What booting a guest needs: its settings, and what is found or built for them before QEMU starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vfio_user_xe.emulator.guest import accelerator as accelerators
from vfio_user_xe.emulator.guest import environment as environments
from vfio_user_xe.emulator.guest import vmlinux
from vfio_user_xe.emulator.guest.accelerator import Accelerator
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import KernelLacks
from vfio_user_xe.emulator.guest.initramfs import Content, Contents, initramfs
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.machine import Machine
from vfio_user_xe.emulator.guest.root_filesystem import RootFileSystem


@dataclass(frozen=True)
class GuestSpec:
    """The settings of a guest to boot.

    `modules`, `load`, `firmware`, `files`: see `initramfs.Contents`. `kernel` None is the fetched one; `append` goes to its command
    line. `accelerator`: auto, kvm or tcg. `boot_timeout`: seconds from QEMU's start until the agent answers. `console_log`: a file
    that gets the whole console. `direct_boot`: start the unpacked kernel (see vmlinux.py) where that is possible, which saves a
    second or two under TCG (not with OVMF; no such guest wakes from suspend to RAM: suspend.py). `root`: a folder or an image that
    commands run in, not changed (see root_filesystem.py). `interactive`: a third serial port, `Guest.terminal`, for `terminal.interact`.
    """

    machine: Machine = field(default_factory=Machine)
    modules: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    files: Mapping[str, Content] = field(default_factory=dict)
    kernel: Kernel | None = None
    append: str = ""
    accelerator: str = "auto"
    boot_timeout: float = 300
    console_log: Path | None = None
    direct_boot: bool = True
    environment: Environment | None = None
    root: Path | None = None
    interactive: bool = False


@dataclass(frozen=True)
class Prepared:
    """What `prepare` has found or built."""

    environment: Environment
    kernel: Kernel
    accelerator: Accelerator
    tsc_khz: int | None
    """`Accelerator.tsc_khz`, which takes time to measure."""
    image: Path
    initramfs: Path
    root: RootFileSystem | None = None


def prepare(spec: GuestSpec) -> Prepared:
    """Find or build everything that booting `spec` needs: environment, initramfs, accelerator.

    Raises:
        MissingEnvironment: the guest environment was not fetched, or lacks something.
        KernelError: the kernel or one of its modules cannot be used; `KernelLacks`: not with this firmware.
        RootError: the root file system cannot be used.
        InitramfsError: something cannot be put into the initramfs.
    """
    root = RootFileSystem.at(spec.root) if spec.root is not None else None
    environment = spec.environment if spec.environment is not None else environments.locate()
    kernel = spec.kernel if spec.kernel is not None else Kernel.packaged(environment)
    if spec.machine.ovmf:
        _ = environment.ovmf_code, environment.ovmf_variables
        if not kernel.efi_stub:
            raise KernelLacks(f"{kernel.image}: UEFI firmware cannot start it: it is built without CONFIG_EFI_STUB")
    archive = initramfs(environment, kernel, Contents(spec.modules, spec.load, spec.firmware, spec.files, root))
    image = vmlinux.unpacked(kernel) if spec.direct_boot and not spec.machine.ovmf else None
    accelerator = accelerators.choose(environment, spec.accelerator)
    return Prepared(environment, kernel, accelerator, accelerator.tsc_khz, image or kernel.image, archive, root)
