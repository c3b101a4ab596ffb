"""Registers of an engine that only hold what the driver programs (`xe_hw_engine.c`, `regs/xe_engine_regs.h`).

Registers that show what an engine does (ring, addresses, timestamps) are declared by the engines themselves.
"""

from __future__ import annotations

from collections.abc import Collection

from vfio_user_xe.device_models.xe.profiles.profile import EngineInfo
from vfio_user_xe.emulator.model.registers import MASKED, RO, RW, Register

NONPRIV_SLOTS = 12

PWRCTX_MAXCNT = 0x40
"""Units of 640 ns. With work-arounds 16023105232 and 14025941587 the idle delay that the driver computes must stay
below it (`xe_hw_engine.c:adjust_idledly`)."""

# (offset from the engine's base, name, access)
_STORAGE = (
    (0x50, "RING_PSMI_CTL", MASKED),
    (0x80, "RING_HWS_PGA", RW),
    (0x98, "RING_HWSTAM", RW),
    (0x9C, "RING_MI_MODE", MASKED),
    (0xA0, "FF_THREAD_MODE", RW),
    (0xA4, "RING_INT_SRC_RPT_PTR", RW),
    (0xA8, "RING_IMR", RW),
    (0xAC, "RING_INT_STATUS_RPT_PTR", RW),
    (0xB0, "RING_EIR", RW),
    (0xB4, "RING_EMR", RW),
    (0xB8, "RING_ESR", RW),
    (0xC0, "INSTPM", MASKED),
    (0xC4, "RING_CMD_CCTL", MASKED),
    (0xCC, "CS_MMIO_GROUP_INSTANCE_SELECT", RW),
    (0xD4, "CSFE_CHICKEN1", MASKED),
    (0xD8, "CS_DEBUG_MODE2", MASKED),
    (0xE0, "FF_SLICE_CS_CHICKEN1", MASKED),
    (0xEC, "CS_DEBUG_MODE1", MASKED),
    (0x204, "BLIT_CCTL", RW),
    (0x23C, "RING_IDLEDLY", RW),
    (0x29C, "GFX_MODE", MASKED),
    (0x580, "CS_CHICKEN1", MASKED),
)
_VIDEO_STORAGE = ((0x3F08, "VDBOX_CGCTL3F08", RW), (0x3F1C, "VDBOX_CGCTL3F1C", RW))


def registers_of(info: EngineInfo, taken: Collection[int]) -> list[Register]:
    """The storage registers of the engine, without those at the offsets in `taken`."""
    name = info.name.upper()
    storage = list(_STORAGE) + (list(_VIDEO_STORAGE) if info.name.startswith("vcs") else [])
    storage += [(0x4D0 + 4 * n, f"RING_FORCE_TO_NONPRIV({n})", RW) for n in range(NONPRIV_SLOTS)]
    declared = [Register(f"{name}.{what}", info.base + offset, access=access) for offset, what, access in storage]
    declared.append(Register(f"{name}.RING_PWRCTX_MAXCNT", info.base + 0x54, reset=PWRCTX_MAXCNT, access=RO))
    declared.append(Register(f"{name}.ENGINE_ID", info.base + 0x8C, reset=info.engine_id, access=RO))
    return [register for register in declared if register.offset not in taken]
