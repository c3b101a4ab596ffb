"""QEMU's command line for a guest that vfio-user devices are attached to.

Three facts shape it.  Guest memory is a shared memfd, because a vfio-user server maps it.  `-cpu max` alone is an AMD
processor with 40 address bits: QEMU then reserves the range below 1 TiB where the firmware puts 64-bit BARs, and
Linux finds no room for VF BARs; `vendor=GenuineIntel,phys-bits=46` cures that.  The vIOMMU has to come before the
devices behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vfio_user_xe.emulator.guest.accelerator import Accelerator
from vfio_user_xe.emulator.guest.environment import Environment

TCG_CPU = "max,vendor=GenuineIntel,phys-bits=46"
KVM_CPU = "host"


@dataclass(frozen=True)
class Iommu:
    """An Intel vIOMMU (`-device intel-iommu`).

    `intremap` adds interrupt remapping; `caching_mode` makes the guest report every new mapping, which vfio-user
    devices behind it need to learn of it.
    """

    intremap: bool = True
    caching_mode: bool = True

    def argument(self) -> str:
        """The device for QEMU's command line."""
        return f"intel-iommu,intremap={_switch(self.intremap)},caching-mode={_switch(self.caching_mode)}"


@dataclass(frozen=True)
class Machine:
    """The virtual machine: memory in MiB, number of processors, `-cpu` override, vIOMMU, OVMF instead of SeaBIOS.

    `arguments` are added as they are: the devices.
    """

    memory: int = 1024
    cpus: int = 1
    cpu: str | None = None
    iommu: Iommu | None = None
    ovmf: bool = False
    arguments: Sequence[str] = ()


@dataclass(frozen=True)
class Ports:
    """File descriptors that QEMU inherits: the guest's console, the command channel (to read, to write) and QMP."""

    console: int
    channel: tuple[int, int]
    qmp: int


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
    board = "q35,memory-backend=ram"
    if accelerator.name == "kvm" and machine.iommu is not None and machine.iommu.intremap:
        board += ",kernel-irqchip=split"
    command = [*environment.qemu.command, "-no-user-config", "-nodefaults", "-display", "none"]
    command += ["-object", f"memory-backend-memfd,id=ram,size={machine.memory}M,share=on"]
    command += ["-machine", board, "-m", f"{machine.memory}M", "-smp", str(machine.cpus)]
    command += ["-accel", "kvm" if accelerator.name == "kvm" else "tcg,thread=multi"]
    command += ["-cpu", machine.cpu or (KVM_CPU if accelerator.name == "kvm" else TCG_CPU)]
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
    if machine.iommu is not None:
        command += ["-device", machine.iommu.argument()]
    return [*command, *machine.arguments]


def kernel_command_line(machine: Machine, extra: str = "") -> str:
    """The kernel's command line: console, what makes booting under TCG quick, the vIOMMU, and `extra`.

    The mitigations would switch page tables at each system call, which TCG pays for with its whole TLB; the crypto
    self-tests take a second.  The kernel's timer check allows ten ticks of real time, which a busy host does not
    always give a guest under TCG, and behind an interrupt-remapping IOMMU a failed check is a panic.
    """
    words = ["console=ttyS0,115200", "mitigations=off", "cryptomgr.notests", "no_timer_check"]
    if machine.iommu is not None:
        words.append("intel_iommu=on")
    return " ".join([*words, *([extra] if extra else [])])


def _switch(value: bool) -> str:
    return "on" if value else "off"


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
