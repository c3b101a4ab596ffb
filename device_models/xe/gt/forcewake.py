"""Forcewake: keeping a power domain awake while its registers are used (`xe_force_wake.c`).

The driver writes bit 0 of a domain's control register (masked: bit 16 says that bit 0 counts) and polls bit 0 of the
acknowledge register, for 50 ms at most. Here a domain wakes at once.
"""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import MASKED, RO, Register, field, flag

# (name, control, acknowledge): regs/xe_gt_regs.h
_GT_DOMAIN = ("GT", 0xA188, 0xDFC)
_MAIN_DOMAINS = (("RENDER", 0xA278, 0xD84),)
_MEDIA_DOMAINS = (
    *((f"MEDIA_VDBOX{n}", 0xA540 + 4 * n, 0xD50 + 4 * n) for n in range(8)),
    *((f"MEDIA_VEBOX{n}", 0xA560 + 4 * n, 0xD70 + 4 * n) for n in range(4)),
    ("GSC", 0xA618, 0xDF8),
)


# Bit 0 is the kernel's; others are for other agents (FORCEWAKE_KERNEL, FORCEWAKE_MT: regs/xe_gt_regs.h).
_WHO = (flag(0, "KERNEL"), field(1, 15, "OTHERS"))


class Forcewake:
    """The domains of one GT. `awake` is true while the host holds any of them: then the GT may not enter RC6."""

    def __init__(self, gt: Gt, registers: RegisterFile) -> None:
        self._registers = registers
        self._held: set[int] = set()
        self.on_change: Callable[[], None] | None = None
        """Called inside the access when `awake` changes."""
        for name, control, acknowledge in (_GT_DOMAIN, *(_MEDIA_DOMAINS if gt.index else _MAIN_DOMAINS)):
            registers.add(self._domain(gt, name, control, acknowledge))

    @property
    def awake(self) -> bool:
        """Whether the host keeps a domain awake."""
        return bool(self._held)

    def reset(self) -> None:
        """Nothing is held."""
        self._held.clear()

    def _domain(self, gt: Gt, name: str, control: int, acknowledge: int) -> list[Register]:
        registers, held = self._registers, self._held
        control_offset, acknowledge_offset = gt.offset(control), gt.offset(acknowledge)

        def written(value: int) -> None:
            # The kernel's own domain has bit 0; other bits (for other agents) are kept and acknowledged alike.
            wanted = registers.peek(control_offset)
            registers.poke(acknowledge_offset, wanted)
            before = bool(held)
            if wanted:
                held.add(control_offset)
            else:
                held.discard(control_offset)
            if bool(held) != before and self.on_change is not None:
                self.on_change()

        return [
            gt.register(f"FORCEWAKE_{name}", control, access=MASKED, write=written, fields=_WHO),
            gt.register(f"FORCEWAKE_ACK_{name}", acknowledge, access=RO, fields=_WHO),
        ]
