"""What performance events come to."""

from __future__ import annotations

import pytest

from tests.support.xe.oa_lab import HERTZ, PART, Rate, engine
from vfio_user_xe.device_models.xe.engines.perf_events import Event
from vfio_user_xe.device_models.xe.oa.sources import Sources
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, COPY, RENDER
from vfio_user_xe.emulator.fabric.ledger import CONTROL, Ledger

SECOND = 1_000_000_000


def test_clocks_count_from_the_first_look_on() -> None:
    sources = Sources([], Rate(), Ledger(), PART)
    assert sources.clocks(5 * SECOND) == 0
    assert sources.clocks(6 * SECOND) == HERTZ


def test_a_gt_that_sleeps_has_no_clocks() -> None:
    rate = Rate()
    sources = Sources([], rate, Ledger(), PART)
    sources.clocks(0)
    rate.hertz = 0
    assert sources.clocks(SECOND) == 0


@pytest.mark.parametrize(
    ("engine_class", "event"),
    [
        (RENDER, Event.RENDER_ENGINE_BUSY),
        (COMPUTE, Event.COMPUTE_ENGINE_BUSY),
        (COPY, Event.COPY_ENGINE_BUSY),
    ],
)
def test_an_engine_is_busy_for_as_long_as_functions_had_it(engine_class: int, event: Event) -> None:
    one = engine(engine_class)
    sources = Sources([one], Rate(), Ledger(), PART)
    sources.values([], 0)
    one.busy.return_value = {0: SECOND // 4, 3: SECOND // 4}
    others = {Event.RENDER_ENGINE_BUSY, Event.COMPUTE_ENGINE_BUSY, Event.COPY_ENGINE_BUSY} - {event}
    found = sources.values([event, Event.GPU_BUSY, *others], SECOND).tolist()
    assert found == [HERTZ // 2, HERTZ // 2, 0, 0]


def test_events_of_all_engines_are_added_and_unknown_ones_are_zero() -> None:
    engines = [engine(RENDER), engine(COMPUTE, "ccs0")]
    for number, one in enumerate(engines):
        one.counted[Event.ASYNC_GPGPU_THREADGROUP_COUNT] = 10 + number
    sources = Sources(engines, Rate(), Ledger(), PART)
    assert sources.values([Event.ASYNC_GPGPU_THREADGROUP_COUNT, 0x61A], 0).tolist() == [21, 0]


def test_of_one_engine_are_only_its_own_events() -> None:
    engines = [engine(RENDER), engine(COMPUTE, "ccs0")]
    for number, one in enumerate(engines):
        one.counted[Event.IA_VERTEX] = 10 + number
    sources = Sources(engines, Rate(), Ledger(), PART)
    assert sources.of_engine(engines[1], [Event.IA_VERTEX], 0).tolist() == [11]


def test_of_one_engine_is_its_own_time_and_not_that_of_others() -> None:
    engines = [engine(RENDER), engine(COMPUTE, "ccs0")]
    sources = Sources(engines, Rate(), Ledger(), PART)
    sources.values([], 0)
    engines[0].busy.return_value = {0: SECOND // 4}
    engines[1].busy.return_value = {0: SECOND // 2}
    wanted = [Event.RENDER_ENGINE_BUSY, Event.COMPUTE_ENGINE_BUSY, Event.GPU_BUSY]
    assert sources.of_engine(engines[0], wanted, SECOND).tolist() == [HERTZ // 4, 0, HERTZ // 4]
    assert sources.of_engine(engines[1], wanted, SECOND).tolist() == [0, HERTZ // 2, HERTZ // 2]


def test_counters_wrap_at_64_bits() -> None:
    one = engine(COMPUTE, "ccs0")
    one.counted[Event.ASYNC_GPGPU_THREADGROUP_COUNT] = (1 << 96) + 5
    sources = Sources([one], Rate(), Ledger(), PART)
    assert sources.values([Event.ASYNC_GPGPU_THREADGROUP_COUNT], 0).tolist() == [5]
    assert sources.of_engine(one, [Event.ASYNC_GPGPU_THREADGROUP_COUNT], 0).tolist() == [5]


def test_memory_accesses_are_those_of_the_ledger_by_where_the_memory_is() -> None:
    ledger = Ledger()
    ledger.entry("pf", "pf", "iov", "eu vram").count_read(640)
    ledger.entry("vf1", "vf1", "iov", "vram").count_write(128)
    ledger.entry("vf1", "guest", "host_dma", "system").count_write(64)
    ledger.entry("pf", "pf", "iov", CONTROL).count_read(1 << 20)
    sources = Sources([], Rate(), ledger, PART)
    wanted = [
        Event.GPU_MEMORY_64B_TRANSACTION_READ, Event.GPU_MEMORY_64B_TRANSACTION_WRITE, Event.GPU_MEMORY_BYTE_READ,
        Event.GPU_MEMORY_BYTE_WRITE, Event.SYSMEM_TRANSACTION_READ, Event.SYSMEM_TRANSACTION_WRITE,
    ]  # fmt: skip
    assert sources.values(wanted, 0).tolist() == [10, 2, 320, 64, 0, 1]
