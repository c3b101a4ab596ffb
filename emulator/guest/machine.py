"""QEMU's machine, described once: for `guest run` and tests, `qemu-args` and `vng-args`.

Three facts shape it (tried with QEMU 11.1.3). Guest memory is a shared memfd, because a vfio-user server maps it. `-cpu max`
alone is an AMD processor with 40 address bits: QEMU then reserves the range below 1 TiB where the firmware puts 64-bit BARs,
and Linux finds no room for VF BARs; `vendor=GenuineIntel,phys-bits=46` cures that. The vIOMMU has to come before the devices
behind it, and interrupt remapping under KVM needs a split irqchip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KVM, TCG = "kvm", "tcg"
PORTABLE_CPU = "max,vendor=GenuineIntel,phys-bits=46"
"""Runs under TCG and under KVM."""
KVM_CPU = "host"


@dataclass(frozen=True)
class Iommu:
    """A vIOMMU (QEMU's `-device intel-iommu`); the guest's kernel wants `intel_iommu=on`.

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
    """The virtual machine: memory, number of processors, `-cpu` override, vIOMMU, OVMF instead of SeaBIOS.

    `memory` is in MiB. `arguments` are added as they are: the devices. `hugepages`: the memory is of the host's huge pages.

    The methods render parts of QEMU's command line. `accelerator` is `KVM` or `TCG`, or None when it is not known.
    """

    memory: int = 1024
    cpus: int = 1
    cpu: str | None = None
    iommu: Iommu | None = None
    ovmf: bool = False
    arguments: Sequence[str] = ()
    hugepages: bool = False

    def board(self, accelerator: str | None) -> list[str]:
        """The chipset with its memory, which the devices' servers map."""
        board = "q35,memory-backend=ram"
        if accelerator != TCG and self.iommu is not None and self.iommu.intremap:
            board += ",kernel-irqchip=split"
        huge = ",hugetlb=on" if self.hugepages else ""
        return ["-machine", board, "-object", f"memory-backend-memfd,id=ram,size={self.memory_size},share=on{huge}"]

    def sizes(self) -> list[str]:
        """Memory and number of processors."""
        return ["-m", self.memory_size, "-smp", str(self.cpus)]

    def processor(self, accelerator: str | None) -> list[str]:
        """The processor's model."""
        return ["-cpu", self.cpu or (KVM_CPU if accelerator == KVM else PORTABLE_CPU)]

    def whole(self, accelerator: str | None) -> list[str]:
        """Chipset, memory, processors: everything but the devices and the vIOMMU."""
        return [*self.board(accelerator), *self.sizes(), *self.processor(accelerator)]

    def devices(self) -> list[str]:
        """The vIOMMU, if there is one, and the devices, which may be behind it."""
        return [*(["-device", self.iommu.argument()] if self.iommu is not None else []), *self.arguments]

    @property
    def memory_size(self) -> str:
        """The memory as QEMU takes it."""
        return f"{self.memory}M"


def _switch(value: bool) -> str:
    return "on" if value else "off"
