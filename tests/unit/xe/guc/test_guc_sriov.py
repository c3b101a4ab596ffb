"""What the PF tells the GuC about VFs, what a VF is told about itself, and the messages between them."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from typing import Any

import pytest

from tests.support.wait import eventually
from tests.support.xe.bench import mock_engine
from tests.support.xe.guc_driver import GucDriver
from tests.support.xe.provisioning import (
    PROVISIONED,
    SUCCESS,
    VF_START,
    configure,
    disable_vfs,
    enable_vfs,
    failure,
    klvs,
)
from vfio_user_xe.device_models.xe.guc import klv


def test_configuration_answers_with_the_number_of_klvs_it_took(driver: GucDriver) -> None:
    assert configure(driver, 1, {klv.EXEC_QUANTUM: 16}) == SUCCESS | 1
    assert configure(driver, 1, PROVISIONED) == SUCCESS | 6
    assert driver.request(0x5503, 1, 0, 0, 0)[0] == (SUCCESS,), "reset of the configuration"


@pytest.mark.parametrize(
    ("vfid", "words", "code"),
    [
        (9, klvs({klv.EXEC_QUANTUM: 1}), 0x0C),
        (1, klvs({klv.GGTT_START: 0x1234}), 0x50),
        (1, klvs({klv.LMEM_SIZE: 0x100000}), 0x50),
        (1, klvs({klv.GGTT_START: 0xFE000000, klv.GGTT_SIZE: 0x1000000}), 0x50),
        (1, klvs({klv.SCHED_PRIORITY: 3}), 0x50),
        (1, klvs({klv.SCHED_IF_IDLE: 1}), 0x105),
        (1, (0x8A010002, 1), 0x103),
        (1, (klv.ENGINE_GROUP_EXEC_QUANTUM << 16 | 9, *range(1, 10)), 0x103),
    ],
)
def test_wrong_configurations_are_refused(driver: GucDriver, vfid: int, words: tuple[int, ...], code: int) -> None:
    driver.poke_dwords(driver.buffer, *words)
    assert driver.request(0x5503, vfid, driver.buffer, 0, len(words))[0] == (failure(code),)


def test_a_configuration_that_is_refused_changes_nothing(driver: GucDriver, vf: GucDriver) -> None:
    assert configure(driver, 1, {klv.NUM_CONTEXTS: 7, klv.GGTT_SIZE: 0xF0000000}) == failure(0x50)
    for key in (klv.NUM_CONTEXTS, klv.GGTT_SIZE):
        assert vf.mmio(0x5509, key)[1] == PROVISIONED[key]


def test_policies_are_counted_and_reach_every_function(driver: GucDriver) -> None:
    driver.poke_dwords(driver.buffer, *klvs({klv.SCHED_IF_IDLE: 1, klv.ADVERSE_SAMPLE_PERIOD: 100}))
    assert driver.request(0x5502, driver.buffer, 0, 4)[0] == (SUCCESS | 2,)
    engines = driver.bench.gpu.gts[0].engines
    assert [call[1] for call in engines.calls if call[0] == "function_policy"] == [0, 1, 2]


def test_scheduling_of_a_function_reaches_the_engines(driver: GucDriver) -> None:
    configure(driver, 1, {klv.EXEC_QUANTUM: 16, klv.PREEMPT_TIMEOUT: 16000, klv.SCHED_PRIORITY: 1})
    engines = driver.bench.gpu.gts[0].engines
    assert [call for call in engines.calls if call[0] == "function_policy"][-1] == (
        "function_policy",
        1,
        (16_000,) * 8,
        (16_000,) * 8,
        1,
    )


@pytest.mark.parametrize(
    ("quantum", "timeout", "in_force"),
    [(100_000, 100_000_000, (100_000_000, 100_000_000)), (100_001, 100_000_001, (100_000_000, 100_000_000)),
     (99_999, 99_999_999, (99_999_000, 99_999_999)), (0, 0, (0, 0))],
)  # fmt: skip
def test_quanta_and_timeouts_are_cut_to_100_seconds(
    driver: GucDriver, quantum: int, timeout: int, in_force: tuple[int, int]
) -> None:
    """abi/guc_klvs_abi.h: GUC_KLV_VF_CFG_EXEC_QUANTUM_MAX_VALUE, GUC_KLV_VF_CFG_PREEMPT_TIMEOUT_MAX_VALUE."""
    configure(driver, 1, {klv.EXEC_QUANTUM: quantum, klv.PREEMPT_TIMEOUT: timeout})
    policies = [call for call in driver.bench.gpu.gts[0].engines.calls if call[0] == "function_policy"]
    assert policies[-1][2:4] == ((in_force[0],) * 8, (in_force[1],) * 8)


def test_engine_groups_have_quanta_of_their_own(driver: GucDriver) -> None:
    def policy() -> Any:
        return [call[2:] for call in driver.bench.gpu.gts[0].engines.calls if call[0] == "function_policy"][-1]

    words = (klv.ENGINE_GROUP_EXEC_QUANTUM << 16 | 2, 16, 64, klv.ENGINE_GROUP_PREEMPT_TIMEOUT << 16 | 1, 500)
    driver.poke_dwords(driver.buffer, *words)
    assert driver.request(0x5503, 1, driver.buffer, 0, len(words))[0] == (SUCCESS | 2,)
    assert policy() == ((16_000, 64_000, *[0] * 6), (500, *[0] * 7), 0)
    configure(driver, 1, {klv.EXEC_QUANTUM: 8})
    assert policy() == ((8_000,) * 8, (500, *[0] * 7), 0), "the last one counts"


def test_the_quantum_on_an_engine_is_that_of_its_group_and_the_first_without_groups(driver: GucDriver) -> None:
    words = (klv.ENGINE_GROUP_EXEC_QUANTUM << 16 | 2, 16, 64)
    driver.poke_dwords(driver.buffer, *words)
    driver.request(0x5503, 1, driver.buffer, 0, len(words))
    gt = driver.bench.gpu.gts[0]

    def quanta() -> dict[str, int]:
        return {info.name: gt.sriov.quantum(1, info) for info in gt.infos}

    assert set(quanta().values()) == {16}
    assert groups(driver, {0: 1}, {3: 1}) == SUCCESS | 1
    assert {name: quantum for name, quantum in quanta().items() if quantum != 16} == {"bcs0": 64}


def groups(driver: GucDriver, *masks: dict[int, int]) -> int:
    words = [group.get(engine_class, 0) for group in masks for engine_class in range(16)]
    driver.poke_dwords(driver.buffer, klv.ENGINE_GROUP_CONFIG << 16 | len(words), *words)
    return driver.request(0x5502, driver.buffer, 0, 1 + len(words))[0][0]


def test_engine_groups_are_told_to_engines_and_vfs_and_end_with_a_parallel_context(
    driver: GucDriver, vf: GucDriver
) -> None:
    calls = driver.bench.gpu.gts[0].engines.calls
    assert vf.mmio(0x5509, 0x3001)[:2] == (SUCCESS | 1, 0)
    assert groups(driver, {0: 1}, {3: 3}) == SUCCESS | 1
    assert calls[-1] == ("scheduling_groups", {"rcs0": 0, "bcs0": 1, "bcs8": 1}), "compute is in none"
    assert vf.mmio(0x5509, 0x3001)[:2] == (SUCCESS | 1, 1)
    assert groups(driver) == SUCCESS | 1
    assert calls[-1] == ("scheduling_groups", None)
    groups(driver, {0: 1, 3: 3, 4: 1})
    vf.start_ct()
    vf.send(0x4601, 1, 4, 0, 1, VF_START, 0, VF_START, 0, 0x1000, 1, 0x1000119, 0)
    assert calls[-1] == ("scheduling_groups", None)


@pytest.mark.parametrize("length", [1, 5, 8, 17, 40])
def test_a_group_configuration_that_is_no_whole_groups_is_refused(driver: GucDriver, length: int) -> None:
    driver.poke_dwords(driver.buffer, klv.ENGINE_GROUP_CONFIG << 16 | length, *[1] * length)
    assert driver.request(0x5502, driver.buffer, 0, 1 + length)[0] == (failure(0x50),)


def test_a_functions_quantum_is_its_part_of_all_ticks(driver: GucDriver) -> None:
    metadata, data = driver.base + 0x20000, driver.base + 0x30000
    assert driver.request(0x550D, 3, metadata, 0, data, 0)[0] == (SUCCESS,)

    def ratios() -> list[int]:
        driver.bench.run(lambda: None)
        records = [driver.peek(data + vfid * 16 * 32 * 16 + (3 * 32 + 1) * 16)[0] for vfid in range(3)]
        return [record >> 16 for record in records]

    assert ratios() == [0x8000] * 3, "nobody is limited"
    for vfid, quantum in enumerate((64, 32, 32)):
        configure(driver, vfid, {klv.EXEC_QUANTUM: quantum})
    eventually(lambda: ratios() == [0x4000, 0x2000, 0x2000], lambda: str(ratios()))


def test_a_vf_learns_version_and_configuration(vf: GucDriver) -> None:
    assert vf.mmio(0x5507)[0] == SUCCESS
    assert vf.mmio(0x5500, 0x00010200)[:2] == (SUCCESS, 0x00012601)
    assert vf.mmio(0x5509, 0x3000)[:2] == (SUCCESS | 1, 0x05008004)
    for key, value in PROVISIONED.items():
        if key == klv.BEGIN_CONTEXT_ID:
            continue
        words = klv.pack(key, value)[1:]
        assert vf.mmio(0x5509, key)[: 1 + len(words)] == (SUCCESS | len(words), *words)
    assert vf.mmio(0x5509, 0x3001)[:2] == (SUCCESS | 1, 0)
    assert vf.mmio(0x5509, 0x3003)[:2] == (SUCCESS | 1, 0)
    assert vf.mmio(0x5509, klv.EXEC_QUANTUM)[0] == failure(0x105)


def test_a_vf_cannot_have_another_version_or_an_unprovisioned_vf_a_configuration(vf: GucDriver) -> None:
    assert vf.mmio(0x5500, 0x00020000)[0] == failure(0x0B)
    assert vf.mmio(0x5500, 0x0001FF00)[0] == failure(0x0B)
    other = GucDriver(vf.bench, vfid=2, base=VF_START)
    assert other.mmio(0x5509, klv.GGTT_SIZE)[0] == failure(0x0D)


@pytest.mark.parametrize("action", [0x5502, 0x5503, 0x5506, 0x550B, 0x5101, 0x3003, 0x3004, 0x550C, 0x550D, 0x4000])
def test_a_vf_may_not_do_what_is_the_pfs(vf: GucDriver, action: int) -> None:
    vf.start_ct()
    assert vf.request(action, 1, 1, 1, 1, 1, 1)[0] == (failure(0x40),)


def test_a_vf_that_is_not_enabled_is_not_answered(driver: GucDriver) -> None:
    other = GucDriver(driver.bench, vfid=2)
    assert other.mmio(0x5507)[0] == 0x5507


def test_a_vf_has_guc_ids_of_its_own_and_no_more_than_it_was_given(driver: GucDriver, vf: GucDriver) -> None:
    vf.start_ct()
    for side in (driver, vf):
        side.send(0x4502, 1, 5, 0, 1, 0, 0, 0, 0, 0, 0x1000119, 0)
        assert side.received() == []
    vf.send(0x4502, 1, 100, 0, 1, 0, 0, 0, 0, 0, 0x1000119, 0)
    assert [message for _, message in vf.received()] == [(failure(0x61),)]
    contexts = [call[1] for call in vf.bench.gpu.gts[0].engines.calls if call[0] == "register"]
    assert [(context.function.vfid, context.guc_id) for context in contexts] == [(0, 5), (1, 5)]


def test_a_vfs_registration_may_come_as_an_event(vf: GucDriver) -> None:
    vf.start_ct()
    vf.send(0x4502, 1, 5, 0, 1, 0, 0, 0, 0, 0, 0x1000119, 0, kind=1)
    vf.send(0x1001, 5, 1)
    assert vf.events() == [(0x90001002, 5, 1)]


def test_relay_carries_messages_both_ways_within_the_gt(driver: GucDriver, vf: GucDriver) -> None:
    vf.start_ct()
    assert vf.request(0x5103, 77, 0x00000001, 0x00010000)[0] == (SUCCESS,)
    assert driver.events() == [(0x90005100, 1, 77, 0x00000001, 0x00010000)]
    assert driver.request(0x5101, 1, 77, 0x70000000, 0x00010000)[0] == (SUCCESS,)
    assert vf.events() == [(0x90005102, 77, 0x70000000, 0x00010000)]
    assert driver.request(0x5101, 2, 77, 0x70000000)[0] == (failure(0x304),), "VF 2 has no CT buffer"
    assert driver.request(0x5101, 0, 77, 0x70000000)[0] == (failure(0x0C),)
    assert vf.request(0x5103, 77)[0] == (failure(0x60),)


def test_a_vf_that_does_not_read_is_relayed_no_more_and_keeps_room_for_the_guc_s_answers(
    driver: GucDriver, vf: GucDriver
) -> None:
    vf.start_ct()
    sent = 0
    while (answer := driver.request(0x5101, 1, sent, *range(100))[0])[0] == SUCCESS:
        sent += 1
        assert sent < 1000, "it is never refused"
    assert answer == (failure(0x301),)
    vf.send(0x5103, 77, 0x00000001, 0x00010000, kind=0)
    received = [words for _, words in vf.received()]
    assert [words[1] for words in received[:-1]] == list(range(sent)), "what was taken came, in order"
    assert received[-1] == (SUCCESS,), "and the GuC's own answer had room"
    assert driver.request(0x5101, 1, 99, 0x70000000)[0] == (SUCCESS,), "what it has read makes room"


def test_pf_sees_and_clears_a_vfs_mailbox(driver: GucDriver, vf: GucDriver) -> None:
    vf.mmio(0x5500, 0x00010200)
    view = [0x190240 + 0x400 + 4 * n for n in range(4)]
    assert [driver.bench.read(offset) for offset in view] == [SUCCESS, 0x12601, 0, 0]
    for offset in view:
        driver.bench.write(offset, 0)
    assert [driver.bench.read(0x190240 + 4 * n, 1) for n in range(4)] == [0, 0, 0, 0]
    assert driver.bench.read(0x190240 + 0x800) == 0


@pytest.fixture
def watched(driver: GucDriver, vf: GucDriver) -> GucDriver:
    """VF 1's driver, in a sampling period that does not end."""
    driver.poke_dwords(driver.buffer, *klvs({klv.ADVERSE_SAMPLE_PERIOD: 60_000}))
    assert driver.request(0x5502, driver.buffer, 0, 2)[0] == (SUCCESS | 1,)
    vf.start_ct()
    return vf


def test_adverse_events_are_told_once_when_the_threshold_is_reached(driver: GucDriver, watched: GucDriver) -> None:
    configure(driver, 1, {klv.THRESHOLD_CAT_ERR: 3})
    sriov = driver.bench.gpu.gts[0].engines.listener._sriov

    def happen(times: int) -> list[tuple[int, ...]]:
        driver.bench.run(lambda: [sriov.adverse_event(1, klv.THRESHOLD_CAT_ERR) for _ in range(times)])
        return driver.events()

    assert happen(2) == []
    assert happen(5) == [(0x90005104, 1, klv.THRESHOLD_CAT_ERR)]


def test_nothing_adverse_is_told_while_nobody_samples(driver: GucDriver, vf: GucDriver) -> None:
    configure(driver, 1, {klv.THRESHOLD_H2G_STORM: 1})
    vf.start_ct()
    vf.send(0x7002, 1, 0)
    assert driver.events() == []


def test_time_that_a_vfs_requests_take_is_told_as_a_storm(driver: GucDriver, watched: GucDriver) -> None:
    configure(driver, 1, {klv.THRESHOLD_H2G_STORM: 1})
    for _ in range(20):
        watched.send(0x7002, 1, 0)
    assert driver.events() == [(0x90005104, 1, klv.THRESHOLD_H2G_STORM)]


def test_time_that_a_vfs_interrupts_take_is_told_as_a_storm(driver: GucDriver, watched: GucDriver) -> None:
    configure(driver, 1, {klv.THRESHOLD_IRQ_STORM: 1})
    gt, function = driver.bench.gpu.gts[0], driver.bench.gpu.functions[1]
    engine = mock_engine(gt, interrupt_status_pointer=VF_START, interrupt_source_pointer=VF_START, interrupt_mask=1)
    for _ in range(20):
        driver.bench.run(lambda: gt.engines.listener.user_interrupt(function, engine))
    assert driver.events() == [(0x90005104, 1, klv.THRESHOLD_IRQ_STORM)]


def test_an_interrupt_that_the_vf_has_not_enabled_is_not_reported(driver: GucDriver, vf: GucDriver) -> None:
    gt, function = driver.bench.gpu.gts[0], driver.bench.gpu.functions[1]
    status, source = VF_START + 0x20000, VF_START + 0x20400
    reports = []
    for mask in (0xFFFE, 0xFFFF):
        engine = mock_engine(gt, interrupt_status_pointer=status, interrupt_source_pointer=source, interrupt_mask=mask)
        driver.bench.run(lambda engine=engine: gt.engines.listener.user_interrupt(function, engine))
        reports.append((vf.peek(status)[0] & 0xFF, vf.peek(source)[0] & 0xFF))
    assert reports == [(0, 0), (0xFF, 0xFF)]


def test_registrations_of_parallel_contexts_are_counted(driver: GucDriver, watched: GucDriver) -> None:
    configure(driver, 1, {klv.THRESHOLD_MULTI_LRC_COUNT: 2})
    told = []
    for guc_id in range(3):
        watched.send(0x4601, 1, guc_id, 0, 1, VF_START, 0, VF_START, 0, 0x1000, 1, 0x1000119, 0)
        told.append(driver.events())
    assert told == [[], [(0x90005104, 1, klv.THRESHOLD_MULTI_LRC_COUNT)], []]


def test_disabling_vfs_drops_what_the_guc_knows_of_them(driver: GucDriver, vf: GucDriver) -> None:
    vf.start_ct()
    vf.send(0x4502, 1, 5, 0, 1, 0, 0, 0, 0, 0, 0x1000119, 0)
    disable_vfs(driver.bench)
    assert ("reset_function", 1) in driver.bench.gpu.gts[0].engines.calls
    assert vf.mmio(0x5507)[0] == 0x5507
    enable_vfs(driver.bench, 1)
    assert vf.mmio(0x5507)[0] == SUCCESS


def test_media_mailbox_answers_a_vf_even_without_a_media_gt(vf: GucDriver) -> None:
    media = GucDriver(vf.bench, vfid=1, gt=1)
    assert media.mmio(0x5507)[0] == SUCCESS
    assert media.mmio(0x5500, 0x00010200)[:2] == (SUCCESS, 0x00012601)
    assert media.mmio(0x5509, 0x3000)[:2] == (SUCCESS | 1, 0)


def test_media_guc_is_a_guc_of_its_own(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(vfs=1, media=True)
    bench.map_ggtt(0x1000000, 1 << 21, 0x10000000)
    main, media = GucDriver(bench), GucDriver(bench, gt=1, base=0x1100000)
    media.boot()
    assert bench.read(0xC000) == 1
    assert bench.read(0x38C000) >> 8 & 0xFF == 0xF0
    media.start_ct()
    media.send(0x7002, 3, 0)
    assert media.events() == [(0x90007001, 3)]
    main.boot()
    main.start_ct()
    bench.write(0x38941C, 8)
    bench.settle()
    main.send(0x7002, 4, 0)
    assert main.events() == [(0x90007001, 4)]


def test_huc_is_authenticated_only_when_it_was_loaded(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(vfs=0, media=True)
    bench.map_ggtt(0x1000000, 1 << 21, 0x10000000)
    media = GucDriver(bench, gt=1)
    media.boot()
    media.start_ct()
    assert media.request(0x4000, 0)[0] == (failure(0x0A),)
    media.poke(media.buffer, pack("<7I", 6, 0xE1, 0, 0, 0, 0, 0x1000) + bytes(0x100))
    bench.write(0x38C314, 0x02010201)
    bench.settle()
    assert bench.read(0x38C1DC) & 1 == 0
    assert media.request(0x4000, 0)[0] == (SUCCESS,)
    assert bench.read(0x38C1DC) & 1 == 1
