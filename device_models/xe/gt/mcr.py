"""Steering of multicast registers (`xe_gt_mcr.c`).

The driver takes a hardware semaphore (STEER_SEMAPHORE reads 1 when it is free and is now the reader's), steers by
MCR_SELECTOR when it reads one instance, and gives the semaphore back by writing 1. One copy of each multicast
register stands for all its instances, so every steering target reads the same. The semaphore is a real one: while it
is held a second reader gets 0.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, flag, not_modelled

STEER_SEMAPHORE = 0xFD0
MCR_SELECTOR = 0xFD4


# regs/xe_gt_regs.h: MTL_MCR_GROUPID, MTL_MCR_INSTANCEID. All instances read the same.
_SELECTOR = (flag(31, "MCR_MULTICAST"), not_modelled(8, "GROUPID", 11), not_modelled(0, "INSTANCEID", 3))


class Steering:
    """The steering registers of one GT."""

    def __init__(self, gt: Gt, registers: RegisterFile) -> None:
        self._free = True
        registers.add(
            [
                gt.register(
                    "STEER_SEMAPHORE",
                    STEER_SEMAPHORE,
                    access=RO,
                    read=self._take,
                    write=self._give,
                    fields=[flag(0, "FREE")],
                ),
                gt.register("MTL_MCR_SELECTOR", MCR_SELECTOR, fields=_SELECTOR),
            ]
        )

    def reset(self) -> None:
        """The semaphore is free."""
        self._free = True

    def _take(self) -> int:
        free, self._free = self._free, False
        return int(free)

    def _give(self, value: int) -> None:
        if value & 1:
            self._free = True
