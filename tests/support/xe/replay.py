"""Plays a recorded driver against the model: register accesses and messages in their order.

A recording has a line for each access or message: `R offset value`, `W offset value` (hexadecimal), `H header words`
for a message that the driver put into H2G, `G header words` for one that it got; `mH`, `mG` for the media GT's GuC.
Messages stand where the recorded device handled them: after the doorbell that announced them.
"""

from __future__ import annotations

import gzip
from collections import deque
from functools import partial
from pathlib import Path
from struct import pack
from typing import Any

from tests.support.xe.bench import Bench
from tests.support.xe.guc_driver import CSS, DOORBELL, SCRATCH, CtBuffers

DOORBELLS = {register: gt for gt, register in enumerate(DOORBELL)}
_DMA_ADDR_0 = 0xC300
_DMA_CTRL = 0xC314


class Driver:
    """The driver's side of one GuC's CT buffers, where the recorded driver put them. On the card's executor."""

    def __init__(self, bench: Bench, gt: int) -> None:
        self.client = bench.gpu.gts[gt].guc.hosts[0]
        self.received: deque[tuple[int, tuple[int, ...]]] = deque()
        self._ends: CtBuffers | None = None

    def enabled(self) -> None:
        self._ends = None

    @property
    def ct(self) -> CtBuffers:
        if self._ends is None:
            h2g, g2h = self.client.ctb.h2g, self.client.ctb.g2h
            self._ends = CtBuffers(
                self.client.space, (h2g.descriptor, h2g.address, h2g.size), (g2h.descriptor, g2h.address, g2h.size)
            )
        return self._ends

    def collect(self) -> None:
        if self.client.ctb.enabled:
            self.received += self.ct.collect()


class Replay:
    """One run. `different` lists reads and messages that were not as recorded: (line, what, expected, got)."""

    def __init__(self, bench: Bench, recording: Path, ignored_reads: set[int]) -> None:
        self.bench = bench
        self.lines = gzip.decompress(recording.read_bytes()).decode().split("\n")
        self.ignored = ignored_reads
        self.drivers = [Driver(bench, gt) for gt in range(len(bench.gpu.gts))]
        self.different: list[tuple[int, str, Any, Any]] = []
        self.reads = 0
        self.expected: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in self.drivers]

    def run(self) -> None:
        index = 0
        while index < len(self.lines):
            kind, _, rest = self.lines[index].partition(" ")
            if kind == "R":
                self._read(index, *(int(word, 16) for word in rest.split()))
            elif kind == "W":
                self._write(index, *(int(word, 16) for word in rest.split()))
            elif kind.endswith("G"):
                gt = int(kind[0] == "m")
                self.expected[gt].append(_message(rest))
            index += 1
        self.bench.settle()
        for driver in self.drivers:
            self.bench.run(driver.collect)

    def _read(self, index: int, offset: int, expected: int) -> None:
        self.bench.settle()
        for driver in self.drivers:
            self.bench.run(driver.collect)
        got = self.bench.read(offset)
        self.reads += 1
        if offset not in self.ignored and got != expected:
            self.different.append((index + 1, f"{offset:#x}", expected, got))

    def _write(self, index: int, offset: int, value: int) -> None:
        if offset in DOORBELLS:
            gt = DOORBELLS[offset]
            driver = self.drivers[gt]
            if self.bench.read(SCRATCH[gt]) == 0x4509:
                driver.enabled()
            for header, words in self._messages_after(index, gt):
                self.bench.run(partial(self._put, driver, header, words))
        if offset & 0xFFFF == _DMA_CTRL and value & 0x10001 == 0x10001:
            base = offset - _DMA_CTRL
            source = self.bench.read(base + _DMA_ADDR_0)
            self.bench.run(lambda: self.bench.pf.ggtt_space.write(source, CSS))
        self.bench.write(offset, value)

    def _put(self, driver: Driver, header: int, words: tuple[int, ...]) -> None:
        if words[0] & 0xFFFF in (0x5502, 0x5503):
            # The KLVs were in memory that the recording does not have: these stand for them, as many as there were.
            self.bench.pf.ggtt_space.write(words[2] if words[0] & 0xFFFF == 0x5503 else words[1], SELF_CONFIG)
            words = (*words[:-1], len(SELF_CONFIG) // 4)
        if words[0] & 0xFFFF == 0x550E:
            self.bench.pf.ggtt_space.write(words[1], pack("<2I", 0x40010000, 0x40030000))
        driver.ct.put(header, words)

    def _messages_after(self, index: int, gt: int) -> list[tuple[int, tuple[int, ...]]]:
        """The driver's messages that were handled before the next access."""
        found = []
        for line in self.lines[index + 1 :]:
            kind, _, rest = line.partition(" ")
            if kind in ("R", "W"):
                break
            if kind == ("mH" if gt else "H"):
                found.append(_message(rest))
        return found


# The 15 KLVs of the PF's own configuration in the driver's order (xe_gt_sriov_pf_config.c:pf_push_self_config).
SELF_CONFIG = pack(
    "<32I",
    *(0x8A0B0001, 0, 0x00040001, 65535, 0x8A0A0001, 0, 0x00060001, 256, 0x8A010001, 0, 0x8A020001, 0),
    *(0x8A030001, 0, 0x8A040001, 0, 0x8A050001, 0, 0x8A060001, 0, 0x8A070001, 0, 0x8A080001, 0, 0x8A0D0001, 0),
    *(0x00010002, 0x800000, 0, 0x00020002, 0xFE600000, 0),
)


def _message(text: str) -> tuple[int, tuple[int, ...]]:
    header, *words = (int(word, 16) for word in text.split())
    return header, tuple(words)
