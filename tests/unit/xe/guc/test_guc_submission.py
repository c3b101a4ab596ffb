"""Contexts: registration, scheduling, policies, faults, and what the driver hears of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.xe.bench import mock_engine
from tests.support.xe.guc_driver import GucDriver
from vfio_user_xe.device_models.xe.memory.ggtt import TranslationFault

LRC = 0x1311119


def failure(code: int) -> int:
    return 0xE0000000 | code


def register(driver: GucDriver, guc_id: int, guc_class: int = 0, mask: int = 1) -> None:
    driver.send(0x4502, 1, guc_id, guc_class, mask, 0, 0, 0, 0, 0, LRC, 0)


def calls(driver: GucDriver, name: str) -> list[Any]:
    engines = driver.bench.gpu.gts[driver.gt].engines
    return [call[1:] for call in engines.calls if call[0] == name]


def engine(driver: GucDriver, name: str) -> Any:
    return mock_engine(driver.bench.gpu.gts[driver.gt], name, interrupt_status_pointer=0, interrupt_source_pointer=0)


def fault(asid: int | None = 7, address: int = 0x12345678000, write: bool = True) -> TranslationFault:
    return TranslationFault(
        "pf", "PPGTT", address, level=2, entry=0, write=write, reason="not present", **({"asid": asid} if asid else {})
    )


def submission(driver: GucDriver) -> Any:
    return driver.bench.gpu.gts[driver.gt].engines.listener


def test_context_goes_through_its_life_with_the_events_the_driver_counts_on(driver: GucDriver) -> None:
    register(driver, 5, guc_class=3, mask=2)
    driver.send(0x100B, 5, 0x20030001, 2, 0x20010001, 1000, 0x20020001, 640000, 0x20050001, 0)
    driver.send(0x1001, 5, 1)
    assert driver.events() == [(0x90001002, 5, 1)]
    driver.send(0x1000, 5)
    driver.send(0x1001, 5, 0)
    assert driver.events() == [(0x90001002, 5, 0)]
    driver.send(0x4503, 5)
    assert driver.events() == [(0x90004600, 5)]
    context = calls(driver, "register")[0][0]
    assert (context.guc_id, context.engine_class, context.logical_mask) == (5, 3, 2)
    assert list(context.lrcs) == [LRC]
    assert (context.priority, context.quantum_us, context.preempt_us) == (2, 1000, 640000)
    assert [name for name, *_ in driver.bench.gpu.gts[0].engines.calls if name in ("enable", "kick", "remove")] == [
        "enable",
        "kick",
        "remove",
    ]


def test_enabling_a_context_drops_translations_first(driver: GucDriver) -> None:
    register(driver, 5)
    driver.send(0x1001, 5, 1)
    names = [name for name, *_ in driver.bench.gpu.gts[0].engines.calls if name in ("invalidate", "enable")]
    assert names[-2:] == ["invalidate", "enable"]


def test_compute_class_of_the_guc_is_the_drivers(driver: GucDriver) -> None:
    register(driver, 1, guc_class=4)
    assert calls(driver, "register")[0][0].engine_class == 5


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((0x4502, 1, 70000, 0, 1, 0, 0, 0, 0, 0, LRC, 0), 0x61),
        ((0x4502, 1, 1, 0, 2, 0, 0, 0, 0, 0, LRC, 0), 0x64),
        ((0x4502, 1, 1, 9, 1, 0, 0, 0, 0, 0, LRC, 0), 0x64),
        ((0x4502, 1, 1, 1, 1, 0, 0, 0, 0, 0, LRC, 0), 0x64),
        ((0x4502, 1, 4, 0, 1, 0, 0, 0, 0, 0, LRC, 0), 0x101),
        ((0x4503, 9), 0x100),
        ((0x1001, 9, 1), 0x100),
        ((0x1001, 4, 2), 0x60),
        ((0x100B, 4, 0x20060001, 0), 0x105),
        ((0x4601, 0, 2, 0, 1, 0, 0, 0, 0, 0, 3, LRC, 0), 0x60),
    ],
)
def test_wrong_requests_are_refused(driver: GucDriver, words: tuple[int, ...], code: int) -> None:
    register(driver, 4)
    driver.send(*words)
    assert [message for _, message in driver.received()] == [(failure(code),)]


def test_parallel_context_has_all_its_lrcs_and_its_work_queue(make_bench: Any) -> None:
    bench = make_bench(vfs=0, ccs=2)
    bench.map_ggtt(0x1000000, 1 << 20, 0x10000000)
    driver = GucDriver(bench)
    driver.boot()
    driver.start_ct()
    driver.send(0x4601, 0, 3, 4, 1, 0xA000, 0, 0xB000, 0, 0x800, 2, LRC, 0, LRC + 0x10000, 0)
    context = calls(driver, "register")[0][0]
    assert list(context.lrcs) == [LRC, LRC + 0x10000]
    assert context.work_queue == (0xA000, 0xB000, 0x800)


def test_reset_of_the_guc_drops_contexts(driver: GucDriver) -> None:
    register(driver, 5)
    driver.bench.write(0x941C, 8)
    driver.bench.settle()
    assert (0,) in calls(driver, "reset_function")
    driver.boot()
    driver.start_ct()
    register(driver, 5)
    assert driver.received() == [], "the guc_id is free again"


def test_page_fault_is_reported_and_its_answer_resumes_the_context(driver: GucDriver) -> None:
    register(driver, 5)
    context = calls(driver, "register")[0][0]
    waits = driver.bench.run(lambda: submission(driver).page_fault(context, engine(driver, "bcs8"), fault()))
    assert waits is True
    [(header, *words)] = driver.events()
    assert header == 0x90006002
    assert words[0] & 7 == 2
    assert words[0] >> 19 & 0x3F == 8
    assert words[0] >> 25 & 7 == 3
    assert words[1] >> 12 == 7
    assert words[2] & 3 == 1
    assert words[2] & 0xFFFFF000 | words[3] << 32 == 0x12345678000
    pdata = words[0] >> 28 | (words[1] & 0xFFF) << 4
    for failed in (0, 2):
        driver.send(0x6003, 1 | failed | 1 << 10 | 7 << 12, 3 << 13 | 8 << 7 | pdata << 16, 0)
    assert calls(driver, "resume") == [(context, True)], "answered once"


def test_page_fault_that_the_host_refuses_fails_the_context(driver: GucDriver) -> None:
    register(driver, 5)
    context = calls(driver, "register")[0][0]
    driver.bench.run(lambda: submission(driver).page_fault(context, engine(driver, "rcs0"), fault()))
    [(_, *words)] = driver.events()
    pdata = words[0] >> 28 | (words[1] & 0xFFF) << 4
    driver.send(0x6003, 3 | 1 << 10 | 7 << 12, pdata << 16, 0)
    assert calls(driver, "resume") == [(context, False)]


def test_a_fault_that_nobody_can_serve_is_fatal(driver: GucDriver) -> None:
    register(driver, 5)
    context = calls(driver, "register")[0][0]
    serve = submission(driver).page_fault
    assert driver.bench.run(lambda: serve(context, engine(driver, "rcs0"), fault(asid=None))) is False


def test_cat_error_has_a_type_only_for_those_who_opted_in(driver: GucDriver) -> None:
    register(driver, 5)
    context = calls(driver, "register")[0][0]

    def fail() -> list[tuple[int, ...]]:
        driver.bench.run(lambda: submission(driver).memory_fault(context, engine(driver, "rcs0"), fault()))
        return driver.events()

    assert fail() == [(0x90006000, 5), (0x90001008, 5)]
    driver.poke_dwords(driver.buffer, 0x40010000, 0x40030000)
    assert driver.request(0x550E, driver.buffer, 0, 2)[0] == (0xF0000000,)
    assert fail() == [(0x90006000, 5, 0xDEADBEEF), (0x90001008, 5)]


def test_engine_reset_is_captured_into_the_log_before_it_is_told(driver: GucDriver) -> None:
    log, ads, lists = driver.base + 0x20000, driver.base + 0x40000, driver.base + 0x50000
    driver.bench.write(0xC184, log | 1)  # one page each for crash dump, events and captures
    driver.bench.write(0xC194, ads >> 12 << 1)
    driver.poke(log, bytes(0x1000))
    driver.poke_dwords(ads + 0x119C, lists)
    driver.poke_dwords(ads + 0x111C, lists + 0x100)
    driver.poke_dwords(ads + 0x109C, lists + 0x200)
    driver.poke_dwords(lists, 1, 0xA188, 0, 0, 0)
    driver.poke_dwords(lists + 0x100, 0)
    driver.poke_dwords(lists + 0x200, 2, 0x80, 0, 0, 0, 0x98, 0, 0, 0)
    driver.bench.write(0x2080, 0x151D000)
    register(driver, 5)
    context = calls(driver, "register")[0][0]
    driver.bench.run(lambda: submission(driver).context_reset(context, engine(driver, "rcs0"), "would not stop"))
    assert driver.events() == [(0x90008002, 0), (0x90001008, 5)]
    state = driver.peek(log + 72, 9)
    read, written, sampled = state[2], state[3], state[5]
    assert read == 0
    assert written == sampled
    words = driver.peek(log + 0x3000, written // 4)
    assert words[:2] == (0, 3)
    assert words[2:7] == (0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 1)
    assert words[7] == 0xA188
    instance = words[11 + 5 :]
    assert instance[:5] == (0, 2, LRC & 0xFFFFF000, 5, 2)
    assert instance[5:7] == (0x80, 0x151D000)
    assert len(instance) == 5 + 2 * 4


def test_scheduling_policy_klvs_are_inline(driver: GucDriver) -> None:
    assert driver.request(0x0509, 0x10010002, 80, 20)[0] == (0xF0000001,)
    assert driver.request(0x0509, 0x10010003, 80, 20)[0][0] >> 28 == 0xE, "a length that is not there"


def test_engine_activity_tells_the_time_and_nothing_else_does(
    driver: GucDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, clock = driver.bench.gpu.gts[0].guc.pf.space, driver.bench.card.clock
    metadata, data = driver.base + 0x20000, driver.base + 0x30000
    told: dict[bool, set[int]] = {True: set(), False: set()}
    write = space.write

    def seen(address: int, content: bytes | memoryview) -> None:
        told[clock.tells].add(address)
        write(address, content)

    monkeypatch.setattr(space, "write", seen)
    assert driver.request(0x550C, metadata, 0, data, 0)[0] == (0xF0000000,)
    assert metadata in told[True]
    assert all(metadata <= address < data + 0x2000 for address in told[True])
    assert not any(metadata <= address < data + 0x2000 for address in told[False])


def test_engine_activity_is_written_where_the_driver_reads_it(driver: GucDriver) -> None:
    metadata, data = driver.base + 0x20000, driver.base + 0x30000
    engines = driver.bench.gpu.gts[0].engines
    engines.busy = {("BCS8", 0): 2_000_000_000, ("BCS8", 1): 1_000_000_000}
    assert driver.request(0x550C, metadata, 0, data, 0)[0] == (0xF0000000,)
    record = driver.peek(data + (3 * 32 + 1) * 16, 4)
    assert driver.peek(metadata, 3)[0] == 19_200_000
    assert driver.peek(metadata, 3)[2] > 0
    assert record[0] & 0xFFFF > 0
    assert record[0] >> 16 == 0x8000
    assert record[2] | record[3] << 32 == 3 * 19_200_000
    assert driver.request(0x550D, 2, metadata + 0x1000, 0, data + 0x4000, 0)[0] == (0xF0000000,)
    for vfid, seconds in ((0, 2), (1, 1)):
        record = driver.peek(data + 0x4000 + vfid * 16 * 32 * 16 + (3 * 32 + 1) * 16, 4)
        assert record[2] == seconds * 19_200_000
