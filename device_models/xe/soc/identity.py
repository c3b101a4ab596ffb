"""The device's identity: IP versions, the VF capability bit, and the few system-agent registers that the driver reads."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.profiles.profile import MEDIA_GSI_OFFSET, Profile
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import PF, RO, VF, Register, field, flag
from vfio_user_xe.emulator.pci.config_space import ConfigRegister

GMD_ID = 0xD8C
GMD_ID_DISPLAY = 0x510A0
VF_CAP = 0x1901F8
GU_CNTL_PROTECTED = 0x10100C
GU_CNTL = 0x101010
GU_DEBUG = 0x101018
HECI2 = 0x374000

GGC = 0x50
_GGMS_8_MIB = 3 << 6

_DRIVERINT_FLR_DIS = 1 << 31
_LMEM_INIT = 1 << 7
_NVM_ACCESS_MODE = 1 << 3

# regs/xe_gt_regs.h
_GMD_ID = (field(0, 5, "REVID"), field(14, 21, "RELEASE"), field(22, 31, "ARCH"))

BARRIER_PAGE = 0x7FF000
"""The page of BAR0 that user space may map to fence its writes: reads 0xdeadbeef, writes are dropped."""
BARRIER_VALUE = 0xDEADBEEF


class Gttmmadr(RegisterFile):
    """The register part of BAR0. Storage ends at `size`; between it and the GGTT window nothing is decoded but the
    barrier page (`xe_device.c:xe_pci_barrier_mmap` maps BAR0 + 8 MiB - 4 KiB)."""

    def write(self, offset: int, size: int, value: int) -> None:
        """As `RegisterFile.write`; dropped beyond the storage."""
        if offset < self.size:
            super().write(offset, size, value)

    def _read_unmodelled(self, offset: int) -> int:
        if offset < self.size:
            return super()._read_unmodelled(offset)
        return BARRIER_VALUE if offset >= BARRIER_PAGE else 0


def configuration() -> list[ConfigRegister]:
    """The PF's registers in configuration space: GGC tells how large the GSM is (`xe_ggtt.c:probe_gsm_size`; drivers
    up to 6.16 ask discrete cards too)."""
    return [ConfigRegister("GGC", GGC, 2, reset=_GGMS_8_MIB)]


def declare_identity(registers: RegisterFile, profile: Profile) -> None:
    """Add the PF's identity registers."""
    registers.add(
        [
            Register("GMD_ID", GMD_ID, reset=profile.graphics, access=RO, fields=_GMD_ID),
            # Without a media GT nothing answers at its offset but this.
            Register("GT1.GMD_ID", GMD_ID + MEDIA_GSI_OFFSET, reset=profile.media, access=RO, fields=_GMD_ID),
            # Version 0: no display (intel_display_device.c:probe_gmdid_display).
            Register("GMD_ID_DISPLAY", GMD_ID_DISPLAY, access=RO),
            Register(
                "GU_CNTL_PROTECTED",
                GU_CNTL_PROTECTED,
                reset=_DRIVERINT_FLR_DIS,
                access=RO,
                fields=[flag(31, "DRIVERINT_FLR_DIS")],
            ),
            Register("GU_CNTL", GU_CNTL, reset=_LMEM_INIT, access=RO, fields=[flag(7, "LMEM_INIT")]),
            Register("GU_DEBUG", GU_DEBUG, access=RO),
            # Access to the flash is locked, as on a card that has left the factory (xe_nvm.c).
            Register("HECI_FWSTS2(HECI2)", HECI2 + 0xC48, reset=_NVM_ACCESS_MODE, access=RO),
        ]
    )


def declare_vf_cap(registers: RegisterFile) -> None:
    """Add VF_CAP_REG: bit 0 is what tells a VF that it is one (`xe_sriov.c:test_is_vf`).

    The driver writes it as a barrier, very often (`xe_device.c:xe_device_wmb`).
    """
    if registers.kind == VF:
        registers.add(
            [Register("VF_CAP_REG", VF_CAP, reset=1, access=RO, visible=frozenset({VF}), fields=[flag(0, "VF_CAP")])]
        )
    else:
        registers.add([Register("VF_CAP_REG", VF_CAP, access=RO, visible=frozenset({PF}))])
