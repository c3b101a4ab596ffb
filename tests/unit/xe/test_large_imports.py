"""What the scenarios of large imports look at, and what a kernel without dma-bufs of VFIO makes of a scenario."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios.guest_program import Step, StepFailed
from vfio_user_xe.device_models.xe.scenarios.large import ENTRY, GIB, PAGE, looked_at, text_of
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.device_models.xe.scenarios.steps import where_exported
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import NotApplicable


def around(ranges: list[tuple[int, int]], place: int) -> list[int]:
    """Where in BAR2 the pages on either side of a place of the dma-buf are, of those that are looked at."""
    return [
        offset + byte - at
        for byte in (place - PAGE, place)
        for at, offset, length in looked_at(ranges)
        if at <= byte < at + length
    ]


def test_a_range_of_one_entry_is_looked_at_at_both_ends() -> None:
    (first, _, _), (last, _, length) = looked_at([(0, ENTRY)])
    assert (first, last + length) == (0, ENTRY)


@pytest.mark.parametrize("start", [0, PAGE, 5 * PAGE])
@pytest.mark.parametrize("length", [ENTRY + PAGE, ENTRY + 2 * PAGE, 6 * GIB, 9 * GIB])
def test_one_piece_reaches_across_each_place_where_an_entry_ends(start: int, length: int) -> None:
    for place in range(ENTRY, length, ENTRY):
        assert around([(start, length)], place) == [start + place - PAGE, start + place]


def test_of_several_ranges_each_is_looked_at_where_it_lies() -> None:
    ranges = [(4 * GIB, 2 * GIB), (0, 2 * GIB), (2 * GIB, 2 * GIB)]
    assert around(ranges, 2 * GIB) == [6 * GIB - PAGE, 0]
    assert around(ranges, 4 * GIB) == [2 * GIB - PAGE, 2 * GIB]
    assert sum(length for _, length in ranges) == max(at + length for at, _, length in looked_at(ranges))


def test_pieces_do_not_overlap_and_are_whole_pages() -> None:
    pieces = list(looked_at([(0, PAGE), (2 * PAGE, ENTRY + 3 * PAGE)]))
    ends = [at + length for at, _, length in pieces]
    assert all(at >= end for (at, _, _), end in zip(pieces[1:], ends, strict=False))
    assert not any(number % PAGE for piece in pieces for number in piece)


def test_ranges_are_written_as_the_guest_program_reads_them() -> None:
    assert text_of([(GIB, PAGE), (0, 2 * PAGE)]) == "0x40000000+0x1000,0x0+0x2000"


def refused(command: str, errno: str, *, has: bool) -> None:
    """Run a scenario of which this command fails so, on a kernel that `has` the exporter or has not."""
    machine = create_autospec(XeMachine, instance=True)
    machine.exports_dma_bufs = has

    def fails(run: Run, machine: XeMachine) -> None:
        raise StepFailed(Step(False, command, errno))

    where_exported(fails)(Run(create_autospec(KernelLog, instance=True)), machine)


def test_without_an_exporter_in_the_kernel_a_scenario_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="exports no dma-bufs"):
        refused("export v 2 0+0x1000 d", "ENOTTY", has=False)


@pytest.mark.parametrize(
    ("command", "errno", "has"),
    [
        ("export v 2 0+0x1000 d", "ENOTTY", True),
        ("export v 2 0+0x1000 d", "EINVAL", False),
        ("reset v", "ENOTTY", False),
    ],
)
def test_every_other_failure_stays_one(command: str, errno: str, has: bool) -> None:
    with pytest.raises(StepFailed):
        refused(command, errno, has=has)
