"""Reports of an OA unit: by time, for a register write, at context switches; the buffer's pointers; and its end."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from tests.support.xe.engine_lab import Lab
from tests.support.xe.oa_lab import BUFFER, HERTZ, SIZE, OaLab
from vfio_user_xe.device_models.xe.engines.perf_events import Event
from vfio_user_xe.device_models.xe.gt.clock import ticks
from vfio_user_xe.device_models.xe.oa import layouts
from vfio_user_xe.device_models.xe.oa.formats import Reason

MILLISECOND = 1_000_000
REPORT = 576
NO_SWITCHES, NO_TRIGGER = 1 << 1, 1 << 14
OVERFLOW = 1 << 1
PES = layouts.OAG.selects


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture
def oa(lab: Lab) -> OaLab:
    return OaLab(lab)


def reasons(oa: OaLab) -> list[Reason]:
    return [Reason(int(first) >> 19 & 0x3F) for first in oa.reports(REPORT)[:, 0]]


def test_reports_are_made_at_multiples_of_the_period_whenever_the_executor_comes(oa: OaLab) -> None:
    oa.open(exponent=9)
    began = ticks(oa.now)
    oa.passes(10 * MILLISECOND)
    found = oa.reports(REPORT)
    period = 2 << 9
    expected = range(-(-(began + 1) // period) * period, ticks(oa.now) + 1, period)
    assert found[:, 1].tolist() == list(expected)[: len(found)]
    # The last two milliseconds may be missing: the executor comes every two.
    assert len(expected) - len(found) <= 2 * 19200 // period + 1
    assert set(reasons(oa)) == {Reason.TIMER}


def test_clocks_and_test_events_grow_evenly_between_reports(oa: OaLab) -> None:
    oa.write(PES[2], Event.TEST_EVENT1)
    oa.write(PES[3], Event.TEST_EVENT1 | 1 << 16 | 5 << 20)
    oa.write(PES[40], Event.TEST_EVENT2)
    oa.open(exponent=9)
    oa.passes(10 * MILLISECOND)
    found = oa.reports(REPORT).astype(int)
    clocks = HERTZ * (2 << 9) // 19_200_000
    for column, each in ((3, clocks), (4 + 2, 16 * clocks), (4 + 3, clocks), (4 + 40, 4 * clocks)):
        steps = found[1:, column] - found[:-1, column]
        assert abs(steps - each).max() <= 16, column


def test_a_core_that_is_fused_off_has_no_clocks(oa: OaLab) -> None:
    oa.write(PES[0], Event.TEST_EVENT1 | 1 << 16 | 16 << 20)
    oa.open(exponent=9)
    oa.passes(4 * MILLISECOND)
    assert not oa.reports(REPORT)[:, 4].any()


def test_what_engines_count_is_in_the_counter_whose_select_says_so(oa: OaLab) -> None:
    oa.write(PES[33], Event.IA_VERTEX)
    oa.open(exponent=9)
    oa.engines[0].counted[Event.IA_VERTEX] = 1000
    oa.passes(4 * MILLISECOND)
    assert oa.reports(REPORT)[-1, 4 + 33] == 1000
    assert not oa.reports(REPORT)[:, 4].any()


def test_a_write_of_the_trigger_makes_a_report_with_its_value_at_once(oa: OaLab) -> None:
    oa.open()
    oa.write(layouts.OAG.trigger, 0xC0FFEE)
    assert reasons(oa) == [Reason.NONE]
    assert oa.reports(REPORT)[0, 1:3].tolist() == [ticks(oa.now), 0xC0FFEE]


def test_a_write_of_the_trigger_by_the_driver_waits_for_the_executor(oa: OaLab) -> None:
    oa.open()
    oa.on_executor = False
    oa.write(layouts.OAG.trigger, 7)
    assert oa.tail == 0
    oa.queued.pop()()
    assert oa.tail == REPORT


def test_a_trigger_that_is_disabled_makes_nothing(oa: OaLab) -> None:
    oa.open(debug=NO_TRIGGER)
    oa.write(layouts.OAG.trigger, 7)
    assert oa.tail == 0


def test_a_context_switch_is_reported_with_the_contexts_number_behind_what_was_due(oa: OaLab) -> None:
    oa.open(exponent=9)
    oa.now += MILLISECOND
    oa.unit.context_switch(42)
    assert reasons(oa)[-1] is Reason.CONTEXT_SWITCH
    assert len(reasons(oa)) > 1
    last = oa.reports(REPORT)[-1]
    assert (last[0] >> 16 & 1, last[2]) == (1, 42)
    times = oa.reports(REPORT)[:, 1].tolist()
    assert times == sorted(times)


def test_context_switches_are_not_reported_where_the_driver_says_so(oa: OaLab) -> None:
    oa.open(debug=NO_SWITCHES)
    oa.unit.context_switch(42)
    assert oa.tail == 0


def test_whole_reports_leave_the_buffers_end_alone(oa: OaLab) -> None:
    oa.open(exponent=5)
    rest = SIZE % REPORT
    assert rest
    oa.passes(60 * MILLISECOND)
    assert oa.memory(SIZE - rest, rest) == bytes(rest)
    assert oa.tail % REPORT == 0
    assert oa.memory(SIZE - rest - REPORT, 8) != bytes(8)


def test_an_overflow_is_said_when_the_tail_passes_the_head_and_not_again_until_it_does(oa: OaLab) -> None:
    oa.open(exponent=9)
    oa.passes(4 * MILLISECOND)
    assert not oa.read(layouts.OAG.status) & OVERFLOW
    oa.passes(20 * MILLISECOND)
    assert oa.read(layouts.OAG.status) & OVERFLOW
    oa.write(layouts.OAG.status, 0)
    oa.write(layouts.OAG.head, BUFFER + oa.tail)
    oa.passes(4 * MILLISECOND)
    assert not oa.read(layouts.OAG.status) & OVERFLOW


def test_reports_that_the_buffer_cannot_hold_are_lost_the_oldest_first(oa: OaLab) -> None:
    oa.open(exponent=5)
    # The executor was away for long.
    oa.now += 100 * MILLISECOND
    oa.unit.context_switch(1)
    assert oa.read(layouts.OAG.status) & OVERFLOW
    most = SIZE // REPORT
    after = (oa.tail - REPORT) % (most * REPORT)
    newest = int.from_bytes(oa.memory((after - REPORT) % (most * REPORT), 16)[8:], "little")
    assert ticks(oa.now) - newest < 2 << 5


def test_a_report_of_a_media_unit_goes_on_at_the_buffers_start(lab: Lab) -> None:
    oa = OaLab(lab, layouts.MEDIA_UNITS[1])
    oa.open(exponent=9, wide=False)
    size = 192
    assert SIZE % size
    oa.passes(40 * MILLISECOND)
    rest = SIZE % size
    # What is at the end is the beginning of a report: its identity, time, tag and clocks.
    identity, time = (int.from_bytes(oa.memory(SIZE - rest + 8 * n, 8), "little") for n in range(2))
    assert (identity, time % (2 << 9)) == (1 << 19, 0)
    assert time
    assert oa.tail % size == size - rest


def test_no_report_is_written_once_control_reads_as_disabled(oa: OaLab) -> None:
    oa.open(exponent=9)
    oa.on_executor = False
    oa.close()
    assert not oa.read(layouts.OAG.control) & 1
    oa.passes(10 * MILLISECOND)  # the executor has not seen it yet
    assert oa.tail == 0
    oa.queued.pop()()
    assert not oa.unit.enabled


def test_control_reads_as_enabled_while_reports_are_written(oa: OaLab, lab: Lab) -> None:
    oa.open(exponent=9)
    seen: list[int] = []

    def write(address: int, data: bytes) -> None:
        oa.close()
        seen.append(oa.read(layouts.OAG.control) & 1)

    with mock.patch.object(lab.pf.ggtt_space, "write", side_effect=write):
        oa.passes(2 * MILLISECOND)
    assert seen == [1]
    assert not oa.read(layouts.OAG.control) & 1


def test_reports_of_the_old_buffer_are_not_written_once_a_new_one_is_enabled(oa: OaLab) -> None:
    oa.open(exponent=9)
    oa.on_executor = False
    oa.close()
    oa.open(exponent=9)
    oa.passes(10 * MILLISECOND)
    assert oa.memory(0, REPORT) == bytes(REPORT)


def test_disabled_and_enabled_between_two_looks_begins_anew(oa: OaLab) -> None:
    oa.open(exponent=9)
    oa.passes(10 * MILLISECOND)
    assert oa.tail
    oa.on_executor = False
    oa.close()
    oa.open(exponent=9)
    for job in oa.queued:
        job()
    assert oa.tail == 0
    oa.passes(4 * MILLISECOND)
    assert oa.reports(REPORT)[0, 1] > 0


def test_a_short_period_does_not_wait_for_the_timer_of_a_long_one(oa: OaLab) -> None:
    oa.open(exponent=30)
    oa.close()
    oa.open(exponent=9)
    oa.passes(4 * MILLISECOND)
    assert oa.tail


def test_a_buffer_that_is_not_mapped_ends_the_reports(oa: OaLab, lab: Lab) -> None:
    oa.open(exponent=9)
    lab.pf.ggtt.entries[BUFFER >> 12] = 0
    oa.passes(4 * MILLISECOND)
    assert not oa.unit.enabled
    assert oa.tail == 0


def test_a_reserved_format_makes_no_reports(oa: OaLab) -> None:
    oa.open(exponent=9, sel=7)
    assert not oa.unit.enabled


def test_a_reset_of_the_gt_ends_the_reports(oa: OaLab) -> None:
    oa.open(exponent=9)
    oa.unit.reset()
    assert not oa.read(layouts.OAG.control)
    oa.passes(4 * MILLISECOND)
    assert oa.tail == 0


def test_a_reset_of_the_gt_clears_what_the_driver_has_selected(oa: OaLab) -> None:
    oa.write(PES[0], Event.TEST_EVENT1)
    oa.unit.reset()
    assert oa.read(PES[0]) == 0


def test_the_longest_period_waits_no_longer_than_a_thread_can(oa: OaLab) -> None:
    oa.open(exponent=63)
    assert oa.timers[0][0] - oa.now <= 60e9
    oa.passes(150_000 * MILLISECOND)
    assert oa.tail == 0
    assert oa.unit.enabled
    assert len(oa.timers) == 1


def test_events_that_are_selected_anew_do_not_become_less_within_a_report(oa: OaLab) -> None:
    oa.write(PES[0], Event.TEST_EVENT1)
    oa.open(exponent=9)
    oa.passes(4 * MILLISECOND)
    oa.write(PES[0], Event.IA_VERTEX)
    oa.engines[0].counted[Event.IA_VERTEX] = 3
    before = oa.tail // REPORT
    oa.passes(4 * MILLISECOND)
    assert oa.reports(REPORT)[before:, 4].tolist() == [3] * (oa.tail // REPORT - before)


def test_a_stream_with_another_format_begins_anew_without_being_disabled(oa: OaLab) -> None:
    oa.open(exponent=9)
    oa.passes(4 * MILLISECOND)
    assert oa.tail
    oa.write(oa.layout.tail, BUFFER)
    oa.write(oa.layout.control, 1 << oa.layout.format_shift | 1)  # not wide
    form = oa.unit.format()
    assert form is not None
    assert form.size < REPORT
    oa.passes(4 * MILLISECOND)
    assert oa.tail
    assert oa.tail % form.size == 0
