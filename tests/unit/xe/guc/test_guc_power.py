"""SLPC and render C-states: limits come back, frequencies follow, residency counts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.xe.bench import mock_engine
from tests.support.xe.guc_driver import GucDriver

CURRENT, ACTUAL, RESIDENCY = 0xA008, 0xC60, 0x138108


@pytest.fixture
def slpc(driver: GucDriver) -> GucDriver:
    driver.poke(driver.buffer, bytes(8192))
    driver.send(0x3003, 0 << 8 | 2, driver.buffer, 0)
    return driver


def limits(driver: GucDriver) -> tuple[int, int]:
    assert driver.request(0x3003, 5 << 8 | 2, driver.buffer, 0)[0] == (0xF0000000,)
    word = driver.peek(driver.buffer + 132)[0]
    return (word >> 8 & 0xFF) * 50 // 3, (word & 0xFF) * 50 // 3


def mhz(units: int) -> int:
    return (units * 50 + 1) // 3


def set_parameter(driver: GucDriver, parameter: int, value: int) -> None:
    driver.send(0x3003, 6 << 8 | 2, parameter, value)


def working(driver: GucDriver, busy: bool) -> None:
    context: Any = object() if busy else None
    gt = driver.bench.gpu.gts[0]
    gt.engines.engines = [mock_engine(gt, context=context)]


def test_slpc_runs_after_its_reset_and_reports_the_fused_range(slpc: GucDriver) -> None:
    assert slpc.peek(slpc.buffer + 4)[0] == 3
    capability = slpc.bench.read(0x138000)
    minimum, maximum = limits(slpc)
    assert maximum == mhz(capability & 0x1FF)
    assert mhz(capability >> 16 & 0x1FF) <= minimum <= maximum


def test_fused_frequencies_satisfy_the_driver(slpc: GucDriver) -> None:
    capability, efficient = slpc.bench.read(0x138000), slpc.bench.read(0x13800C)
    rp0, rpn = capability & 0x1FF, capability >> 16 & 0x1FF
    assert rpn <= efficient & 0x1FF <= rp0
    assert mhz(rpn) <= 1200 <= mhz(rp0), "the driver raises the minimum to 1200 MHz (xe_guc_pc.c: BMG_MIN_FREQ)"


def test_limits_that_were_set_come_back_and_the_frequency_follows(slpc: GucDriver) -> None:
    set_parameter(slpc, 6, 1200)
    set_parameter(slpc, 7, 2000)
    assert limits(slpc) == (1200, 2000)
    working(slpc, True)
    assert mhz(slpc.bench.read(CURRENT) >> 23) == 2000
    assert mhz(slpc.bench.read(ACTUAL) & 0x1FF) == 2000
    working(slpc, False)
    assert mhz(slpc.bench.read(CURRENT) >> 23) == 1200
    set_parameter(slpc, 7, 400)
    assert mhz(slpc.bench.read(CURRENT) >> 23) == 1200, "a maximum below the minimum is ignored"


def test_unset_parameter_gives_the_default_back(slpc: GucDriver) -> None:
    before = limits(slpc)
    set_parameter(slpc, 7, 800)
    slpc.send(0x3003, 7 << 8 | 1, 7)
    assert limits(slpc) == before


def test_limits_outside_of_the_range_are_clamped(slpc: GucDriver) -> None:
    set_parameter(slpc, 6, 10)
    set_parameter(slpc, 7, 4000)
    capability = slpc.bench.read(0x138000)
    assert limits(slpc) == (mhz(capability >> 16 & 0x1FF), mhz(capability & 0x1FF))


def test_query_before_reset_is_refused(driver: GucDriver) -> None:
    assert driver.request(0x3003, 5 << 8 | 2, driver.buffer, 0)[0] == (0xE000000A,)


def test_rc6_is_entered_when_nothing_keeps_the_gt_awake(slpc: GucDriver) -> None:
    assert slpc.bench.read(ACTUAL) >> 9 & 0xF == 0
    slpc.send(0x3004, 1)
    assert slpc.bench.read(ACTUAL) == 3 << 9
    slpc.bench.write(0xA188, 0x10001)
    assert slpc.bench.read(ACTUAL) >> 9 & 0xF == 0
    slpc.bench.write(0xA188, 0x10000)
    working(slpc, True)
    assert slpc.bench.read(ACTUAL) >> 9 & 0xF == 0
    working(slpc, False)
    slpc.send(0x3004, 0)
    assert slpc.bench.read(ACTUAL) >> 9 & 0xF == 0


def test_residency_counts_only_in_rc6(slpc: GucDriver) -> None:
    slpc.bench.write(0xA188, 0x10001)
    slpc.send(0x3004, 1)
    awake = slpc.bench.read(RESIDENCY)
    time.sleep(0.01)
    assert slpc.bench.read(RESIDENCY) == awake
    slpc.bench.write(0xA188, 0x10000)
    time.sleep(0.01)
    slept = slpc.bench.read(RESIDENCY) - awake
    assert slept * 1280 >= 10_000_000
    slpc.bench.write(0xA188, 0x10001)
    woken = slpc.bench.read(RESIDENCY)
    time.sleep(0.01)
    assert slpc.bench.read(RESIDENCY) == woken
