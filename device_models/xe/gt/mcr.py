"""Steering of multicast registers (`xe_gt_mcr.c`).

The driver takes a hardware semaphore (STEER_SEMAPHORE reads 1 when it is free and is now the reader's), steers by
MCR_SELECTOR when it reads one instance, and gives the semaphore back by writing 1. One copy of most multicast
registers stands for all their instances, so every steering target reads the same; who has several asks `selected`. The
semaphore is a real one: while it is held a second reader gets 0.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, field, flag

STEER_SEMAPHORE = 0xFD0
MCR_SELECTOR = 0xFD4


# regs/xe_gt_regs.h: MTL_MCR_GROUPID, MTL_MCR_INSTANCEID.
_SELECTOR = (flag(31, "MCR_MULTICAST"), field(8, 11, "GROUPID"), field(0, 3, "INSTANCEID"))
_MULTICAST = 1 << 31


class Steering:
    """The steering registers of one GT."""

    def __init__(self, gt: Gt, registers: RegisterFile) -> None:
        self._free = True
        self._registers = registers
        self._selector = gt.offset(MCR_SELECTOR)
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

    @property
    def selected(self) -> tuple[int, int] | None:
        """Group and instance that accesses go to; None: to all."""
        selector = self._registers.peek(self._selector)
        return None if selector & _MULTICAST else (selector >> 8 & 0xF, selector & 0xF)

    def reset(self) -> None:
        """The semaphore is free."""
        self._free = True

    def _take(self) -> int:
        free, self._free = self._free, False
        return int(free)

    def _give(self, value: int) -> None:
        if value & 1:
            self._free = True
