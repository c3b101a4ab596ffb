"""The GuC's mailbox, CT buffers, KLVs, and how messages are named in traces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.xe.guc_driver import GucDriver
from vfio_user_xe.device_models.xe.guc import actions, decode

STATUS = 0xC000
SUCCESS = 0xF0000000


def failure(code: int) -> int:
    return 0xE0000000 | code


@pytest.fixture
def unbooted(bench: Any) -> GucDriver:
    bench.map_ggtt(0x1000000, 1 << 20, 0x10000000)
    return GucDriver(bench)


def test_guc_is_in_reset_until_it_is_loaded(unbooted: GucDriver) -> None:
    assert unbooted.bench.read(STATUS) == 1
    assert unbooted.mmio(0x4100)[0] == 0x4100, "nobody answers"
    unbooted.boot()
    assert unbooted.bench.read(STATUS) >> 8 & 0xFF == 0xF0
    assert unbooted.bench.read(STATUS) & 1 == 0
    assert unbooted.mmio(0x4100)[0] & SUCCESS == SUCCESS


def test_load_fails_without_wopcm(unbooted: GucDriver) -> None:
    unbooted.poke(unbooted.buffer, bytes(128))
    unbooted.bench.write(0xC300, unbooted.buffer)
    unbooted.bench.write(0xC304, 8 << 16)
    unbooted.bench.write(0xC310, 0x1000)
    unbooted.bench.write(0xC314, 0x110011)
    unbooted.bench.settle()
    assert unbooted.bench.read(0xC314) & 1 == 0
    assert unbooted.bench.read(STATUS) >> 1 & 0x7F == 0x74


def test_load_fails_for_a_blob_without_header_or_outside_of_the_ggtt(unbooted: GucDriver) -> None:
    for offset, value in ((0xC050, 0x7F3000), (0xC340, 0x4000), (0xC304, 8 << 16), (0xC310, 0x1000)):
        unbooted.bench.write(offset, value)
    for source in (unbooted.base, 0x9000000):
        unbooted.bench.write(0xC300, source)
        unbooted.bench.write(0xC314, 0x110011)
        unbooted.bench.settle()
        assert unbooted.bench.read(STATUS) >> 1 & 0x7F == 0x50
        assert unbooted.bench.read(STATUS) >> 8 & 0xFF == 0


def test_guc_reset_forgets_the_ct_buffers_and_full_reset_too(driver: GucDriver) -> None:
    for domain in (8, 1):
        driver.bench.write(0x941C, domain)
        assert driver.bench.read(STATUS) == 1
        driver.send(0x7002, 1, 0)
        assert driver.received() == []
        driver.boot()
        driver.start_ct()
        driver.send(0x7002, 1, 0)
        assert driver.events() == [(0x90007001, 1)]


def test_hwconfig_is_copied_and_its_size_told(driver: GucDriver) -> None:
    size = driver.mmio(0x4100, 0, 0, 0)[0] & 0xFFFFFFF
    assert size
    assert size % 4 == 0
    assert driver.mmio(0x4100, driver.buffer, 0, size)[0] == SUCCESS | size
    words = driver.peek(driver.buffer, size // 4)
    table = {words[n]: words[n + 2] for n in range(0, len(words), 3)}
    assert all(words[n + 1] == 1 for n in range(0, len(words), 3))
    assert table[1] == 4
    assert table[70] == 16
    assert driver.mmio(0x4100, driver.buffer, 0, size - 4)[0] == failure(0x102)
    assert driver.mmio(0x4100, 0x9000000, 0, size)[0] == failure(0x80)


def test_unknown_and_foreign_requests_are_refused_by_name(driver: GucDriver) -> None:
    assert driver.mmio(0x1234)[0] == failure(0x30)
    assert driver.mmio(0x5500)[0] == failure(0x40), "only a VF matches versions"
    assert driver.mmio(0x7000)[0] == failure(0x20), "not by MMIO"
    assert driver.request(0x0508, 1, 2, 3)[0] == (failure(0x20),), "not by CTB"
    assert driver.request(0x5503, 0)[0] == (failure(0x04),), "too short"


def test_self_config_checks_key_and_length(driver: GucDriver) -> None:
    assert driver.mmio(0x0508, 0x09080001, 0)[0] == failure(0x105)
    assert driver.mmio(0x0508, 0x09030001, 0)[0] == failure(0x103)
    assert driver.mmio(0x0508, 0x09040001, 100)[0] == failure(0x102)


def test_ct_buffers_must_be_complete_to_be_enabled(unbooted: GucDriver) -> None:
    unbooted.boot()
    assert unbooted.mmio(0x4509, 1)[0] == failure(0x70)


def test_answers_carry_the_fence_and_events_do_not(driver: GucDriver) -> None:
    fence = driver.send(0x7002, 5, 0, kind=0)
    assert driver.received() == [(0, (0x90007001, 5)), (fence, (SUCCESS,))]


def test_a_fast_request_is_answered_only_when_it_fails(driver: GucDriver) -> None:
    driver.send(0x1000, 77)
    assert [message for _, message in driver.received()] == [(failure(0x100),)]
    driver.send(0x1000, 77, kind=1)
    assert driver.received() == [], "an event never is"


def test_messages_wrap_in_both_rings(driver: GucDriver) -> None:
    for seqno in range(700):
        driver.send(0x7000, seqno, 3, *[0] * (seqno % 4))
        assert driver.events() == [(0x90007001, seqno)]


def test_g2h_waits_for_room_and_loses_nothing(driver: GucDriver) -> None:
    count = driver.RING_SIZE // 4 // 3 + 500
    for seqno in range(count):
        driver.send(0x7002, seqno, 0)
    got = []
    for _ in range(100):
        got += driver.events()
        if len(got) == count:
            break
        driver.bench.write(0x1901F0, 0)
        driver.bench.settle()
    assert got == [(0x90007001, seqno) for seqno in range(count)]


@pytest.mark.parametrize(("tail", "header", "status"), [(0x400, 1, 1), (2, 0x0000_0009, 2)])
def test_a_broken_h2g_is_flagged_and_no_longer_read(driver: GucDriver, tail: int, header: int, status: int) -> None:
    driver.poke_dwords(driver.base + 0x1000 + 4 * driver.ct.tail, header)
    driver.poke_dwords(driver.base + 4, tail)
    driver.bench.write(0x1901F0, 0)
    driver.bench.settle()
    assert driver.peek(driver.base + 8)[0] == status
    driver.send(0x7002, 1, 0)
    assert driver.received() == []
    driver.start_ct()
    driver.send(0x7002, 1, 0)
    assert driver.events() == [(0x90007001, 1)]


def test_a_ct_buffer_that_leads_nowhere_is_switched_off(driver: GucDriver) -> None:
    driver.mmio(0x0508, 0x09020002, 0x9000000, 0)
    driver.send(0x7002, 1, 0)
    assert driver.bench.gpu.gts[0].guc.pf.ctb.enabled is False
    assert driver.bench.card.executor.failures == 0


def test_injected_faults_lose_messages_and_fail_requests(driver: GucDriver) -> None:
    faults = driver.bench.card.faults
    faults["guc.lose_g2h"].arm()
    driver.send(0x7002, 1, 0)
    assert driver.received() == []
    faults["guc.fail_request"].arm(arguments={"action": "TLB_INVALIDATION_ALL", "error": "PENDING_ACTION"})
    assert driver.request(0x7000, 1, 0)[0] == (SUCCESS,)
    assert driver.request(0x7002, 2, 0)[0] == (failure(0x90),)


def test_the_card_tells_which_invalidations_were_answered_and_which_were_not(driver: GucDriver) -> None:
    guc = driver.bench.gpu.gts[0].guc

    def told() -> dict[str, list[int]]:
        return {key: list(value) for key, value in guc.inspect()["clients"][0]["tlb_invalidations"].items()}

    driver.send(0x7002, 41, 0)
    driver.bench.card.faults["guc.lose_g2h"].arm()
    driver.send(0x7002, 42, 0)
    driver.send(0x7000, 43, 0)
    assert told() == {"answered": [41, 43], "open": [42]}
    guc.reset_host(guc.pf)
    assert told() == {"answered": [], "open": []}


def test_every_handled_action_is_declared_and_every_declared_request_handled(driver: GucDriver) -> None:
    assert set(driver.bench.gpu.gts[0].guc.handlers) == set(actions.H2G)


def test_messages_are_decoded_with_names() -> None:
    assert decode.message((0x20001001, 7, 1)) == {
        "type": "FAST_REQUEST",
        "action": "SCHED_CONTEXT_MODE_SET",
        "guc_id": 7,
        "mode": 1,
    }
    assert decode.message((0x00005506, 2, 4))["command"] == "FLR_START"
    assert decode.message((0x90005106, 2, 2))["event"] == "FLR_DONE"
    assert decode.message((0x2000100B, 1, 0x20030001, 2))["CONTEXT_SCHEDULING_PRIORITY"] == 2
    assert decode.message((0xE0000105,))["error"] == "INVALID_KLV_KEY"
    assert decode.message((0x00005103, 9, 0x00000101, 0))["relayed"] == "VF2PF_QUERY_RUNTIME 0x0"
    assert decode.message((0x0000FFFF, 9)) == {"type": "REQUEST", "action": "0xffff", "dw1": 9}


def test_no_message_breaks_the_decoder() -> None:
    for code in (*actions.H2G, *actions.G2H, 0xABCD):
        for origin in (0, 1 << 31):
            for words in ((), (1,), (1, 2, 3)):
                assert decode.message((origin | code, *words))["type"] == "REQUEST"


def test_trace_names_every_message(driver: GucDriver, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    driver.bench.card.tracer.start(["guc"], path)
    driver.send(0x7002, 5, 0)
    driver.mmio(0x4100)
    driver.bench.card.tracer.stop()
    text = re.sub(r"^ *[0-9.]+ ", "", path.read_text(), flags=re.MULTILINE).splitlines()
    assert [line.split()[:2] for line in text] == [["pf", "guc"]] * 4
    assert "action=TLB_INVALIDATION_ALL seqno=5" in text[0]
    assert "action=TLB_INVALIDATION_DONE seqno=5" in text[1]
    assert "action=GET_HWCONFIG" in text[2]
