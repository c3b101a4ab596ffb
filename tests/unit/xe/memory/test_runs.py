"""Stretches of page-table entries that map contiguous memory."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfio_user_xe.device_models.xe.memory.contiguity import contiguous, runs

STEP = 0x1000


def view(entries: list[int]) -> memoryview:
    return memoryview(array("Q", entries))


def one_by_one(entries: list[int]) -> list[tuple[int, int]]:
    """The same in the plainest way."""
    starts = [n for n in range(len(entries)) if n == 0 or entries[n] != entries[n - 1] + STEP]
    return [(start, end - start) for start, end in zip(starts, [*starts[1:], len(entries)], strict=True)]


@given(
    first=st.integers(0, 1 << 40),
    gaps=st.lists(st.sampled_from([STEP, STEP, STEP, 0, 1, -STEP, 2 * STEP, STEP + 1, STEP - 1]), max_size=40),
)
def test_stretches_end_where_an_entry_is_not_the_one_before_and_a_step(first: int, gaps: list[int]) -> None:
    entries = [first + 41 * STEP]
    for gap in gaps:
        entries.append(entries[-1] + gap)
    found = list(runs(view(entries), STEP))
    assert found == one_by_one(entries)
    assert contiguous(view(entries), STEP) == found[0][1]


@pytest.mark.parametrize("count", [1, 2, 32, 512])
@pytest.mark.parametrize("step", [0x1000, 0x10000, 1 << 21])
def test_a_whole_table_that_is_contiguous_is_one_stretch(count: int, step: int) -> None:
    entries = [0x8000_0803 + n * step for n in range(count)]
    assert list(runs(view(entries), step)) == [(0, count)]


@pytest.mark.parametrize("broken", [1, 100, 511])
def test_one_entry_that_is_elsewhere_ends_the_stretch(broken: int) -> None:
    for elsewhere in (0, 0x8000_0803 + broken * STEP - 1, 0x9000_0803):
        entries = [0x8000_0803 + n * STEP for n in range(512)]
        entries[broken] = elsewhere
        assert contiguous(view(entries), STEP) == broken
