"""PAT: the table of memory attributes that page-table entries index (`xe_pat.c`).

The emulated caches are always coherent, so the entries are only kept: for reads back (debugfs), and for whether they
let memory be compressed.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import field, flag

ENTRIES = 32
PAT_ATS = 0x47FC
PAT_PTA = 0x4820
_COMPRESSION = 1 << 9
"""XE2_COMP_EN."""
# xe_pat.c: XE2_COH_MODE and its neighbours.
_ENTRY = (
    field(0, 1, "COH_MODE", {0: "NONE", 2: "1WAY", 3: "2WAY"}),
    field(2, 3, "L4_POLICY", {0: "WB", 1: "WT", 3: "UC"}),
    field(4, 5, "L3_POLICY", {0: "WB", 1: "XD", 3: "UC"}),
    field(6, 7, "L3_CLOS"),
    flag(9, "COMP_EN"),
    flag(10, "NO_PROMOTE"),
)


def entry_offset(index: int) -> int:
    """Offset of entry `index` (0..31): `xe_pat.c:_PAT_INDEX`, with a hole between 7 and 8."""
    return 0x4800 + 4 * index if index < 8 else 0x4848 + 4 * (index - 8)


class Pat:
    """The PAT of one GT."""

    def __init__(self, gt: Gt, registers: RegisterFile) -> None:
        self._gt = gt
        self._registers = registers
        registers.add(
            [
                *(gt.register(f"PAT_INDEX({index})", entry_offset(index), fields=_ENTRY) for index in range(ENTRIES)),
                gt.register("PAT_ATS", PAT_ATS, fields=_ENTRY),
                gt.register("PAT_PTA", PAT_PTA, fields=_ENTRY),
            ]
        )

    def entry(self, index: int) -> int:
        """The entry that the driver programmed at `index`."""
        return self._registers.peek(self._gt.offset(entry_offset(index)))

    def compresses(self, index: int) -> bool:
        """Whether memory mapped with entry `index` may be compressed."""
        return bool(self.entry(index) & _COMPRESSION)
