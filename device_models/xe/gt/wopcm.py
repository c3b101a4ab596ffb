"""WOPCM partitioning (`xe_wopcm.c`): two registers that lock when they are written.

The driver writes them without the lock bit and requires it on read back (`__wopcm_init_regs`); once locked they keep
their value until a full GT reset.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, Field, Register, field, flag, reserved

GUC_WOPCM_SIZE = 0xC050
DMA_GUC_WOPCM_OFFSET = 0xC340
LOCKED = 1


class Wopcm:
    """The WOPCM registers of one GT."""

    def __init__(self, gt: Gt, registers: RegisterFile) -> None:
        self._registers = registers
        self._offsets = (gt.offset(GUC_WOPCM_SIZE), gt.offset(DMA_GUC_WOPCM_OFFSET))
        registers.add(
            [
                self._locking(
                    gt, "GUC_WOPCM_SIZE", GUC_WOPCM_SIZE, flag(0, "LOCKED"), reserved(1, 11), field(12, 31, "SIZE")
                ),
                self._locking(
                    gt,
                    "DMA_GUC_WOPCM_OFFSET",
                    DMA_GUC_WOPCM_OFFSET,
                    flag(0, "VALID"),
                    flag(1, "HUC_LOADING_AGENT_GUC"),
                    reserved(2, 13),
                    field(14, 31, "OFFSET"),
                ),
            ]
        )

    def gt_reset(self) -> None:
        """GRDOM_FULL: the registers unlock and clear."""
        for offset in self._offsets:
            self._registers.poke(offset, 0)

    def _locking(self, gt: Gt, name: str, offset: int, *fields: Field) -> Register:
        registers, where = self._registers, gt.offset(offset)

        def written(value: int) -> None:
            if not registers.peek(where) & LOCKED:
                registers.poke(where, value | LOCKED)

        return gt.register(name, offset, access=RO, write=written, fields=fields)
