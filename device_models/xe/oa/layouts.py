"""Where the registers of each OA unit are (`regs/xe_oa_regs.h`; PES: `xe_oa.c:xe2_oa_mux_regs`, `xe2_oa_b_counters`)."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.oa.formats import MAIN, MEDIA
from vfio_user_xe.device_models.xe.oa.unit import Layout
from vfio_user_xe.emulator.model.registers import field, flag

PES, PES_BYTES = 0x13000, 0x800
"""Four copies of 64 selects: PESL0 selects PECs 0 to 31; PESL1 to PESL3, which metric sets program alike, the others."""
_COPY = 0x200
_FIRST_GROUP = 32

_SIZES = (flag(8, "COUNTER_SIZE"), flag(9, "REPORT_BC"))

OAG = Layout(
    name="OAG",
    head=0xDB00,
    tail=0xDB04,
    buffer=0xDB08,
    context_control=0x2B28,
    control=0xDAF4,
    debug=0xDAF8,
    status=0xDAFC,
    trigger=0xDB1C,
    format_shift=2,
    control_fields=(
        flag(0, "OA_COUNTER_ENABLE"),
        field(2, 4, "OA_COUNTER_SEL"),
        *_SIZES,
        field(16, 18, "OA_CCS_SELECT"),
        field(22, 27, "OA_PES_DISAG_EN"),
    ),
    formats=MAIN,
    selects=tuple(PES + (0 if n < _FIRST_GROUP else _COPY) + 8 * n for n in range(64)),
    whole=True,
)


def _media(name: str, base: int) -> Layout:
    return Layout(
        name=name,
        head=base + 0x1A0,
        tail=base + 0x1A4,
        buffer=base + 0x1A8,
        context_control=base + 0x1BC,
        control=base + 0x194,
        debug=base + 0x198,
        status=base + 0x19C,
        trigger=base + 0x1D0,
        format_shift=1,
        control_fields=(flag(0, "OA_COUNTER_ENABLE"), field(1, 3, "COUNTER_SEL"), *_SIZES),
        formats=MEDIA,
        selects=tuple(base + MPES_OFFSET + 8 * n for n in range(8)),
        whole=False,
    )


MPES_OFFSET, MPES_BYTES = 0x200, 0x40
MEDIA_BASES = {"OAM_SAG": 0x13000, "OAM_SCMI0": 0x14000, "OAM_SCMI1": 0x14800}
MEDIA_UNITS = tuple(_media(name, base) for name, base in MEDIA_BASES.items())
