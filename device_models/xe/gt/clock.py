"""The GT's reference clock (`xe_gt_clock.c`) and the time that timestamps count."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, field, flag

RPM_CONFIG0 = 0xD00
CTC_MODE = 0xA26C
"""Drivers of 6.x ask it where the clock comes from: bit 0 clear is the crystal of RPM_CONFIG0."""

REFERENCE_CLOCK = 19_200_000
"""Hz: crystal code 1 (19.2 MHz) at shift 3, which is what RPM_CONFIG0 says."""

_CRYSTAL_19_2_MHZ = 1 << 3
_CTC_SHIFT_3 = 3 << 1
# regs/xe_gt_regs.h
_CONFIG = (
    field(1, 2, "CTC_SHIFT_PARAMETER"),
    field(3, 5, "CRYSTAL_CLOCK_FREQ", {0: "24_MHZ", 1: "19_2_MHZ", 2: "38_4_MHZ", 3: "25_MHZ"}),
)
_MODE = (flag(0, "CTC_SOURCE_DIVIDE_LOGIC"), field(1, 2, "CTC_SHIFT_PARAMETER"))


def ticks(nanoseconds: int) -> int:
    """Reference clock ticks at `nanoseconds` of the card's clock: what RING_TIMESTAMP and GuC time stamps count."""
    return nanoseconds * 192 // 10_000


class Clock:
    """The clock configuration of one GT."""

    def __init__(self, gt: Gt, registers: RegisterFile) -> None:
        registers.add(
            [
                gt.register(
                    "RPM_CONFIG0", RPM_CONFIG0, reset=_CRYSTAL_19_2_MHZ | _CTC_SHIFT_3, access=RO, fields=_CONFIG
                ),
                gt.register("CTC_MODE", CTC_MODE, access=RO, fields=_MODE),
            ]
        )
