"""Fuses: which parts of the chip are present (`xe_gt_topology.c`, `xe_hw_engine.c:read_media_fuses` and its kin).

On Xe2 a set bit is a part that is there. How many are there follows from the device id (`parts.py`); which of them a product lacks
is not published: here it is the last ones. Nor is how the fuses of L3 read: one node of four banks stands for all of it.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.profiles.parts import EUS_PER_XE_CORE
from vfio_user_xe.device_models.xe.profiles.profile import (
    COMPUTE,
    L3_BANKS_PER_NODE,
    L3_NODES,
    VIDEO_DECODE,
    VIDEO_ENHANCE,
)
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, Field, Register, field, flag

FUSE4 = 0x9114
MIRROR_FUSE3 = 0x9118
MIRROR_FUSE1 = 0x911C
FUSE2 = 0x9120
MIRROR_L3BANK_ENABLE = 0x9130
EU_ENABLE = 0x9134
GEOMETRY_DSS = (0x913C, 0x9150, 0x9154)
COMPUTE_DSS = (0x9144, 0x9148, 0x914C)
VEBOX_VDBOX = 0x9140

_PRODUCTION = 1 << 2  # FUSE2: a production part (xe_device.c:detect_preproduction_hw)


def _bits(count: int) -> int:
    return (1 << count) - 1


class Fuses:
    """The fuse registers of one GT."""

    def __init__(self, gt: Gt, registers: RegisterFile) -> None:
        engines = gt.infos
        present = {
            c: sum(1 for info in engines if info.engine_class == c) for c in (COMPUTE, VIDEO_DECODE, VIDEO_ENHANCE)
        }
        cores = _bits(gt.gpu.profile.part.xe_cores) if gt.index == 0 else 0

        def fuse(name: str, offset: int, value: int, *fields: Field) -> Register:
            return gt.register(name, offset, reset=value, access=RO, fields=fields)

        registers.add(
            [
                fuse(
                    "XEHP_FUSE4",
                    FUSE4,
                    _bits(present[COMPUTE]) << 16,
                    field(4, 6, "GT_L3_EXC"),
                    field(16, 19, "CCS_EN"),
                    flag(20, "CFEG_WMTP_DISABLE"),
                ),
                fuse(
                    "MIRROR_FUSE3",
                    MIRROR_FUSE3,
                    _bits(L3_NODES) << 16 | _bits(L3_BANKS_PER_NODE) << 4,
                    field(4, 7, "GT_L3_MODE"),
                    field(16, 31, "NODE_ENABLE"),
                ),
                fuse("MIRROR_FUSE1", MIRROR_FUSE1, 0),
                fuse("FUSE2", FUSE2, _PRODUCTION, flag(2, "PRODUCTION_HW")),
                fuse("MIRROR_L3BANK_ENABLE", MIRROR_L3BANK_ENABLE, 0xF),
                fuse("XELP_EU_ENABLE", EU_ENABLE, _bits(EUS_PER_XE_CORE) if cores else 0, field(0, 7, "EU_MASK")),
                fuse("XELP_GT_GEOMETRY_DSS_ENABLE", GEOMETRY_DSS[0], cores),
                fuse("XE2_GT_GEOMETRY_DSS_1", GEOMETRY_DSS[1], 0),
                fuse("XE2_GT_GEOMETRY_DSS_2", GEOMETRY_DSS[2], 0),
                fuse("XEHP_GT_COMPUTE_DSS_ENABLE", COMPUTE_DSS[0], cores),
                fuse("XEHPC_GT_COMPUTE_DSS_ENABLE_EXT", COMPUTE_DSS[1], 0),
                fuse("XE2_GT_COMPUTE_DSS_2", COMPUTE_DSS[2], 0),
                fuse(
                    "GT_VEBOX_VDBOX_DISABLE",
                    VEBOX_VDBOX,
                    _bits(present[VIDEO_ENHANCE]) << 16 | _bits(present[VIDEO_DECODE]),
                    field(0, 7, "VDBOX"),
                    field(16, 19, "VEBOX"),
                ),
            ]
        )
