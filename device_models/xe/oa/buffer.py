"""The OA buffer: a ring in the GGTT that a unit writes reports into, and the driver reads behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class OaBuffer:
    """`base` is a GGTT address; `tail` an offset from it.

    Reports of the main GT's unit are whole: the ring ends with the last one that fits. A media GT's unit divides the report at the
    ring's end (`xe_oa.c:xe_oa_stream_init`, `circ_size`).
    """

    base: int
    size: int
    report: int
    whole: bool
    tail: int = 0

    @property
    def ring(self) -> int:
        """Bytes that are used."""
        return self.size - self.size % self.report if self.whole else self.size

    @property
    def most(self) -> int:
        """Reports that fit."""
        return self.ring // self.report

    def add(self, reports: NDArray[np.uint8], skipped: int) -> Iterator[tuple[int, bytes]]:
        """Where to write what of `reports` ([reports, bytes], at most `most`); `skipped` others came before them and are lost."""
        self.tail = (self.tail + skipped * self.report) % self.ring
        data = reports.tobytes()
        while data:
            here = data[: self.ring - self.tail]
            yield self.base + self.tail, here
            self.tail = (self.tail + len(here)) % self.ring
            data = data[len(here) :]

    def passes(self, head: int, count: int) -> bool:
        """Whether `count` reports more come to `head`, an offset: where the driver reads next."""
        used = (self.tail - head) % self.ring
        return used + count * self.report >= self.ring
