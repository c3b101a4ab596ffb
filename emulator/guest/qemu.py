"""QEMU's command line for a guest of ours: the machine, its kernel, and the channels to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_user_xe.emulator.guest.accelerator import Accelerator
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.machine import KVM, Machine


@dataclass(frozen=True)
class Ports:
    """File descriptors that QEMU inherits: the guest's console, the command channel (to read, to write) and QMP."""

    console: int
    channel: tuple[int, int]
    qmp: int
    terminal: int | None = None
    """A socket for a third serial port."""


def command_line(
    environment: Environment,
    accelerator: Accelerator,
    machine: Machine,
    kernel: Path,
    initramfs: Path,
    append: str,
    ports: Ports,
) -> list[str]:
    """The whole command, beginning with the program (see `Environment.qemu`)."""
    command = [*environment.qemu.command, "-no-user-config", "-nodefaults", "-display", "none"]
    command += machine.whole(accelerator.name)
    command += ["-accel", "kvm" if accelerator.name == KVM else "tcg,thread=multi"]
    if machine.ovmf:
        # snapshot=on: changes of the variables go to a temporary file that QEMU has unlinked.
        code, variables = environment.ovmf_code, environment.ovmf_variables
        command += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_escaped(code)}"]
        command += ["-drive", f"if=pflash,unit=1,format=raw,snapshot=on,file={_escaped(variables)}"]
    command += ["-kernel", str(kernel), "-initrd", str(initramfs), "-append", append]
    command += ["-chardev", f"file,id=console,path=/proc/self/fd/{ports.console}", "-serial", "chardev:console"]
    reads, writes = (f"/proc/self/fd/{fd}" for fd in ports.channel)
    command += ["-chardev", f"file,id=channel,path={writes},input-path={reads}", "-serial", "chardev:channel"]
    command += ["-chardev", f"socket,id=qmp,fd={ports.qmp}", "-qmp", "chardev:qmp"]
    if ports.terminal is not None:
        command += ["-chardev", f"socket,id=terminal,fd={ports.terminal}", "-serial", "chardev:terminal"]
    return [*command, *machine.devices()]


def kernel_command_line(machine: Machine, extra: str = "", *, tsc_khz: int | None = None) -> str:
    """The kernel's command line: console, what makes booting under TCG quick, the rate of its TSC, the vIOMMU, and `extra`.

    The mitigations would switch page tables at each system call, which TCG pays for with its whole TLB; the crypto
    self-tests take a second.  The kernel's timer check allows ten ticks of real time, which a busy host does not
    always give a guest under TCG, and behind an interrupt-remapping IOMMU a failed check is a panic.
    """
    words = ["console=ttyS0,115200", "mitigations=off", "cryptomgr.notests", "no_timer_check"]
    if tsc_khz is not None:
        words.append(f"tsc_early_khz={tsc_khz}")
    if machine.iommu is not None:
        words.append("intel_iommu=on")
    return " ".join([*words, *([extra] if extra else [])])


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
