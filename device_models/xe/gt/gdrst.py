"""GDRST: resets of a GT's parts (`xe_gt.c:do_gt_reset`, `xe_guc.c:xe_guc_reset`).

A domain's bit is written 1 and reads 0 once its reset is done; the driver polls for 5 ms. Registers change inside
the write, so that the next read sees them; engines and GuC are told on the executor.
"""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, flag, not_modelled

GDRST = 0x941C
GRDOM_FULL = 1 << 0
GRDOM_GUC = 1 << 3

# The driver has GRDOM_FULL and GRDOM_GUC (regs/xe_gt_regs.h), i915 the others: media engines and their SFCs from bit 5 on.
_DOMAINS = (
    flag(0, "GRDOM_FULL"),
    not_modelled(1, "GRDOM_RENDER"),
    not_modelled(2, "GRDOM_BLT"),
    flag(3, "GRDOM_GUC"),
    not_modelled(5, "GRDOM_MEDIA", 31),
)


class Gdrst:
    """The reset register of one GT. `now` runs inside the access, `later` on the executor; both get the domains."""

    def __init__(
        self, gt: Gt, registers: RegisterFile, now: Callable[[int], None], later: Callable[[int], None]
    ) -> None:
        self._submit = gt.gpu.executor.submit
        self._now = now
        self._later = later
        registers.add([gt.register("GDRST", GDRST, access=RO, write=self._written, fields=_DOMAINS)])

    def _written(self, value: int) -> None:
        if not value:
            return
        self._now(value)
        later = self._later
        self._submit(lambda: later(value))
