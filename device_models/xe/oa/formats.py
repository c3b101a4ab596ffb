"""Formats of reports, by the fields of OACONTROL that choose them (`xe_oa.c:oa_formats`).

A report begins with four qwords: identity, timestamp, context or tag, clocks. Performance event counters (PECs) of 32 or 64 bits
follow, then B and C counters where the format has them; a report fills whole cache lines. The bits of the identity are those that
IGT's `xe_oa.c` reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

COUNTERS = 64
"""PECs of a main GT's unit; a media GT's has the first 8."""
_HEADER = 32
_LINE = 64


class Reason(IntFlag):
    """Why a report was made: bits 24:19 of its identity. A report that a register write triggered has none."""

    NONE = 0
    TIMER = 1 << 0
    CONTEXT_SWITCH = 1 << 3


_REASON_SHIFT = 19
_CONTEXT_VALID = 1 << 16


@dataclass(frozen=True, slots=True)
class Format:
    """What a report has: which PECs, how wide each is, and whether B and C counters follow."""

    name: str
    pecs: tuple[int, ...]
    wide: bool
    b_and_c: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        used = _HEADER + len(self.pecs) * (8 if self.wide else 4) + (64 if self.b_and_c else 0)
        return -(-used // _LINE) * _LINE


_ALL, _G1, _G2 = tuple(range(64)), tuple(range(32)), tuple(range(32, 64))

MAIN: dict[tuple[int, bool, bool], Format] = {
    (1, True, False): Format("PEC64u64", _ALL, wide=True),
    (1, True, True): Format("PEC64u64_B8_C8", _ALL, wide=True, b_and_c=True),
    (1, False, False): Format("PEC64u32", _ALL, wide=False),
    (5, True, False): Format("PEC32u64_G1", _G1, wide=True),
    (5, False, False): Format("PEC32u32_G1", _G1, wide=False),
    (6, True, False): Format("PEC32u64_G2", _G2, wide=True),
    (6, False, False): Format("PEC32u32_G2", _G2, wide=False),
    (3, True, False): Format("PEC36u64_G1_32_G2_4", (*_G1, *_G2[:4]), wide=True),
    (4, True, False): Format("PEC36u64_G1_4_G2_32", (*_G1[:4], *_G2), wide=True),
}
"""By COUNTER_SEL, COUNTER_SIZE and REPORT_BC."""

MEDIA: dict[tuple[int, bool, bool], Format] = {
    (1, False, False): Format("MPEC8u64_B8_C8", tuple(range(8)), wide=True, b_and_c=True),
    (2, False, False): Format("MPEC8u32_B8_C8", tuple(range(8)), wide=False, b_and_c=True),
}


@dataclass(frozen=True, slots=True)
class Samples:
    """What reports say: a row each. `tags` is the context's number, or what triggered it; `values` are [reports, COUNTERS]."""

    timestamps: NDArray[np.uint64]
    tags: NDArray[np.uint64]
    clocks: NDArray[np.uint64]
    values: NDArray[np.uint64]


def identity(reason: Reason, *, context: bool = False) -> int:
    """The first qword of a report; `context`: the third has a context's number."""
    return reason << _REASON_SHIFT | (_CONTEXT_VALID if context else 0)


def pack(form: Format, first: int, samples: Samples) -> NDArray[np.uint8]:
    """[reports, bytes] in `form`; `first` is the first qword of each. B and C counters are zero."""
    count = len(samples.timestamps)
    reports = np.zeros((count, form.size), dtype=np.uint8)
    header = reports[:, :_HEADER].view(np.uint64)
    header[:, 0], header[:, 1], header[:, 2], header[:, 3] = first, samples.timestamps, samples.tags, samples.clocks
    kind = np.uint64 if form.wide else np.uint32
    end = _HEADER + len(form.pecs) * np.dtype(kind).itemsize
    reports[:, _HEADER:end].view(kind)[:] = samples.values[:, form.pecs].astype(kind)
    return reports
