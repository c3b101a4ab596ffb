"""MOCS: the table of cache policies that surfaces index (`xe_mocs.c`). Kept, without effect on coherent memory."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.function import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile

ENTRIES = 64
GLOBAL_MOCS = 0x4000


class Mocs:
    """The MOCS table of one GT."""

    def __init__(self, gt: Gt, registers: RegisterFile) -> None:
        registers.add([gt.register(f"XEHP_GLOBAL_MOCS({n})", GLOBAL_MOCS + 4 * n) for n in range(ENTRIES)])
