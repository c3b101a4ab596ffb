"""Stretches of page-table entries that map contiguous memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import lru_cache


def contiguous(entries: memoryview, step: int) -> int:
    """How many of `entries` from the first on map memory that is contiguous, with the same attributes.

    `step` is how far apart the addresses of contiguous entries are; attributes are the bits that no step touches.
    """
    return next(runs(entries, step))[1]


def runs(entries: memoryview, step: int) -> Iterator[tuple[int, int]]:
    """(index of the first, how many) of the stretches of `entries` that are contiguous, one after the other."""
    count = len(entries)
    first = entries[0]
    ones, ramp = _progression(count)
    if int.from_bytes(entries, "little") == first * ones + step * ramp:
        yield 0, count
        return
    start, expected = 0, first + step
    for index, entry in enumerate(entries.tolist()):
        if index and entry != expected:
            yield start, index - start
            start = index
        expected = entry + step
    yield start, count - start


@lru_cache(maxsize=64)
def _progression(count: int) -> tuple[int, int]:
    """Entries 1, 1, 1 ... and 0, 1, 2 ... as one big number each: to look at a whole page table in one comparison."""
    ones = int.from_bytes(array("Q", [1] * count).tobytes(), "little")
    return ones, int.from_bytes(array("Q", range(count)).tobytes(), "little")
