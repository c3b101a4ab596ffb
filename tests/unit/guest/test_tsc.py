"""The rate of the host's time-stamp counter."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from vfio_user_xe.emulator.guest.tsc import rate


class Clocks:
    """A counter of 2.3 GHz and a clock in nanoseconds; reading one takes `reading` nanoseconds."""

    def __init__(self, reading: Iterator[int], ticks_per_us: int = 2300) -> None:
        self.now, self.reading, self.ticks_per_us = 0, reading, ticks_per_us

    def clock(self) -> int:
        self.now += next(self.reading)
        return self.now

    def counter(self) -> int:
        self.now += next(self.reading)
        return self.now * self.ticks_per_us // 1000

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


def test_the_rate_is_ticks_by_time() -> None:
    clocks = Clocks(itertools.repeat(100))
    assert rate(clocks.counter, clocks.clock, clocks.sleep) == pytest.approx(2_300_000, rel=1e-4)


def test_readings_between_which_the_process_did_not_run_do_not_count() -> None:
    clocks = Clocks(itertools.cycle([100, 100, 100, 30_000_000, 100]))
    assert rate(clocks.counter, clocks.clock, clocks.sleep) == pytest.approx(2_300_000, rel=1e-4)


@pytest.mark.parametrize(
    "make",
    [lambda: Clocks(itertools.repeat(30_000_000)), lambda: Clocks(itertools.repeat(100), 31)],
    ids=["never sharp", "no processor's"],
)
def test_there_is_no_rate_that_cannot_be_believed(make: Callable[[], Clocks]) -> None:
    clocks = make()
    assert rate(clocks.counter, clocks.clock, clocks.sleep) is None
