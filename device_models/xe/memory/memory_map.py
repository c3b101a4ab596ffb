"""How VRAM is divided: what the driver may use, and what is reserved at the top (`xe_vram.c`, `xe_ttm_stolen_mgr.c`).

From the bottom: memory for buffers, flat CCS storage (when it is on), GSM (the page tables of the GGTT), DSM
("stolen" memory), whose last 8 MiB are WOPCM.
"""

from __future__ import annotations

from dataclasses import dataclass

from vfio_user_xe.device_models.xe.profiles.profile import L3_NODES
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, Register, field, flag

GIB = 1 << 30
MIB = 1 << 20

SG_TILE_ADDR_RANGE = 0x1083A0
XEHP_TILE_ADDR_RANGE = 0x4900
"""The same in the GT, replicated: drivers before 7.0 look here (`regs/xe_gt_regs.h` of 6.18)."""
DSMBASE = 0x1080C0
GSMBASE = 0x108100
STOLEN_RESERVED = 0x1082C0
FLAT_CCS_LOWER = 0x8800
FLAT_CCS_UPPER = 0x8804

_RESERVED = 128 * MIB
_GSM_SIZE = 8 * MIB
_WOPCM_8_MIB = 3 << 7  # size code in bits 9:7 of STOLEN_RESERVED
_BYTES_PER_CCS_BYTE = 512
_TILE = (field(1, 7, "OFFSET"), field(8, 17, "SIZE"))
"""In GiB (`xe_vram.c:tile_vram_size`)."""


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """Places in VRAM, as DPAs. `usable` is where the driver's buffers end."""

    size: int
    usable: int
    flat_ccs: int
    """Start of flat CCS storage; 0 when it is off."""
    gsm: int
    dsm: int

    @classmethod
    def of(cls, vram: int, flat_ccs: bool) -> MemoryMap:
        """The map of `vram` bytes (a multiple of 1 GiB)."""
        gsm = vram - _RESERVED
        ccs = (gsm - vram // _BYTES_PER_CCS_BYTE) & -(128 * 1024) if flat_ccs else 0
        return cls(size=vram, usable=ccs or gsm, flat_ccs=ccs, gsm=gsm, dsm=gsm + _GSM_SIZE)

    def declare(self, registers: RegisterFile) -> None:
        """Add the registers that tell the driver this map."""
        ccs = self.flat_ccs // L3_NODES
        tile = self.size // GIB << 8  # where the tile ends, in GiB; it starts at 0
        registers.add(
            [
                Register("SG_TILE_ADDR_RANGE(0)", SG_TILE_ADDR_RANGE, reset=tile, access=RO, fields=_TILE),
                Register("XEHP_TILE_ADDR_RANGE(0)", XEHP_TILE_ADDR_RANGE, reset=tile, access=RO, fields=_TILE),
                Register("SG_TILE_ADDR_RANGE(1)", SG_TILE_ADDR_RANGE + 4, access=RO, fields=_TILE),
                Register("GSMBASE", GSMBASE, reset=self.gsm, access=RO, width=8),
                Register("DSMBASE", DSMBASE, reset=self.dsm, access=RO, width=8, fields=[field(20, 63, "BDSM")]),
                Register(
                    "STOLEN_RESERVED",
                    STOLEN_RESERVED,
                    reset=_WOPCM_8_MIB,
                    access=RO,
                    width=8,
                    fields=[field(7, 9, "WOPCM_SIZE", {3: "8_MIB"})],
                ),
                Register(
                    "XE2_FLAT_CCS_BASE_RANGE_LOWER",
                    FLAT_CCS_LOWER,
                    reset=(ccs & 0xFFFFFFC0) | bool(ccs),
                    access=RO,
                    fields=[flag(0, "ENABLE"), field(6, 31, "ADDRESS")],
                ),
                Register(
                    "XE2_FLAT_CCS_BASE_RANGE_UPPER",
                    FLAT_CCS_UPPER,
                    reset=ccs >> 32,
                    access=RO,
                    fields=[field(0, 7, "ADDRESS")],
                ),
            ]
        )
