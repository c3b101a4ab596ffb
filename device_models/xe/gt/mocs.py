"""MOCS: the table of cache policies that surfaces index (`xe_mocs.c`). Kept, without effect on coherent memory."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import field, flag

ENTRIES = 64
GLOBAL_MOCS = 0x4000

# xe_mocs.c: L4_CACHE_POLICY_MASK, L3_CACHE_POLICY_MASK, IG_PAT.
_ENTRY = (
    field(2, 3, "L4_CACHE_POLICY", {0: "WB", 1: "WT", 3: "UC"}),
    field(4, 5, "L3_CACHE_POLICY", {0: "WB", 3: "UC"}),
    flag(8, "IG_PAT"),
)


class Mocs:
    """The MOCS table of one GT."""

    def __init__(self, gt: Gt, registers: RegisterFile) -> None:
        registers.add(
            [gt.register(f"XEHP_GLOBAL_MOCS({n})", GLOBAL_MOCS + 4 * n, fields=_ENTRY) for n in range(ENTRIES)]
        )
