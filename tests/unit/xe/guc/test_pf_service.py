"""Topology vf-only: what the card does for VFs where no driver has the PF."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.xe.bench import Bench
from tests.support.xe.guc_driver import GucDriver
from vfio_user_xe.device_models.xe.guc import klv
from vfio_user_xe.device_models.xe.guc.pf_provision import (
    ALL_CONTEXTS,
    ALL_DOORBELLS,
    GGTT_BOTTOM,
    GGTT_TOP,
    Plan,
    Wanted,
)
from vfio_user_xe.device_models.xe.guc.pf_service import RUNTIME_REGISTERS
from vfio_user_xe.emulator.model.card import CardConfig, CardError
from vfio_user_xe.emulator.pci.function import FLR, RESET

SUCCESS = 0xF0000000
HOST_SUCCESS = 0x70000000
HANDSHAKE, QUERY_RUNTIME, TESTLOOP = 0x0001, 0x0101, 0xDEB1
MIB = 1 << 20


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(topology="vf-only", vfs=2, media=True)
    made.settle()
    yield made
    made.close()


def driver_of(bench: Bench, vfid: int, gt: int = 0) -> GucDriver:
    """A VF's driver with CT buffers in its VRAM, behind its own GGTT."""
    start, _ = ggtt_of(bench, vfid)
    base = start + gt * 8 * MIB
    bench.map_ggtt(base, MIB, gt * 8 * MIB, vfid=vfid)
    driver = GucDriver(bench, vfid=vfid, gt=gt, base=base)
    driver.start_ct()
    return driver


def ggtt_of(bench: Bench, vfid: int) -> tuple[int, int]:
    driver = GucDriver(bench, vfid=vfid)
    start, size = driver.mmio(0x5509, klv.GGTT_START), driver.mmio(0x5509, klv.GGTT_SIZE)
    assert start[0] == size[0] == SUCCESS | 2
    return start[1] | start[2] << 32, size[1] | size[2] << 32


def relay(driver: GucDriver, *words: int) -> tuple[int, ...]:
    """Relay a message to the PF; its reply."""
    answer, events = driver.request(0x5103, 0x77, *words)
    assert answer == (SUCCESS,)
    [(header, relay_id, *reply)] = events or driver.events()
    assert (header & 0xFFFF, relay_id) == (0x5102, 0x77)
    return tuple(reply)


@pytest.mark.parametrize("gt", [0, 1])
def test_a_vf_finds_a_running_guc_and_its_own_share_of_everything(bench: Bench, gt: int) -> None:
    first, second = GucDriver(bench, vfid=1, gt=gt), GucDriver(bench, vfid=2, gt=gt)
    assert first.mmio(0x5507)[0] == SUCCESS
    assert first.mmio(0x5500, 0x00010200)[:2] == (SUCCESS, 0x00012601)
    ranges = [ggtt_of(bench, vfid) for vfid in (1, 2)]
    assert all(size for _, size in ranges)
    assert ranges[1][0] + ranges[1][1] <= ranges[0][0], "the VFs' GGTTs overlap"
    for driver in (first, second):
        assert driver.mmio(0x5509, klv.NUM_CONTEXTS)[1] > 0
        assert driver.mmio(0x5509, klv.NUM_DOORBELLS)[1] > 0
    assert (first.mmio(0x5509, klv.LMEM_SIZE)[1] > 0) == (gt == 0), "only the main GT's GuC hears of VRAM"


def test_the_vfs_vram_is_found_through_lmtt_and_is_not_shared(bench: Bench) -> None:
    found = bench.run(bench.card.commands["vram_map"])
    assert found["source"] == "lmtt"
    runs = [run for vf in ("vf1", "vf2") for run in found["vfs"][vf]]
    assert len(runs) == 2
    assert runs[0]["dpa"] + runs[0]["size"] <= runs[1]["dpa"]
    directory = found["lmtt_directory"]
    assert all(not run["dpa"] <= directory < run["dpa"] + run["size"] for run in runs)


def test_the_pf_s_ggtt_entries_name_the_owner(bench: Bench) -> None:
    for vfid in (1, 2):
        start, size = ggtt_of(bench, vfid)
        entries = bench.gpu.pf.ggtt.entries
        assert {entries[start >> 12], entries[(start + size >> 12) - 1]} == {vfid << 2 | 1}


@pytest.mark.parametrize(
    ("wanted", "agreed"), [(0x10000, 0x10000), (0, 0x10000), (0x10005, 0x10000), (0x20000, 0x10000)]
)
def test_a_handshake_agrees_on_the_only_version(bench: Bench, wanted: int, agreed: int) -> None:
    assert relay(driver_of(bench, 1), HANDSHAKE, wanted) == (HOST_SUCCESS, agreed)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param((HANDSHAKE, 0x00005), id="a version before the first"),
        pytest.param((HANDSHAKE,), id="no version"),
        pytest.param((HANDSHAKE | 1 << 16, 0x10000), id="bits that must be zero"),
        pytest.param((QUERY_RUNTIME | 16 << 16, 0), id="a query before the handshake"),
        pytest.param((TESTLOOP,), id="a debug service"),
    ],
)
def test_what_the_pf_does_not_serve_fails_without_a_reason(bench: Bench, message: tuple[int, ...]) -> None:
    assert relay(driver_of(bench, 1), *message) == (0x60000000,)


@pytest.mark.parametrize("gt", [0, 1])
def test_runtime_registers_come_in_pieces_and_with_the_gt_s_offsets(bench: Bench, gt: int) -> None:
    driver = driver_of(bench, 1, gt)
    relay(driver, HANDSHAKE, 0x10000)
    first = relay(driver, QUERY_RUNTIME | 10 << 16, 0)
    rest = relay(driver, QUERY_RUNTIME | 10 << 16, 10)
    assert first[:2] == (HOST_SUCCESS | 10, len(RUNTIME_REGISTERS) - 10)
    assert rest[:2] == (HOST_SUCCESS | len(RUNTIME_REGISTERS) - 10, 0)
    pairs = [*first[2:], *rest[2:]]
    offsets = pairs[::2]
    assert offsets == [offset + gt * 0x380000 for offset in RUNTIME_REGISTERS]
    assert offsets == sorted(offsets), "the driver looks for them by bisection"
    assert pairs[1::2] == [bench.read(offset) for offset in offsets]


def test_a_query_from_beyond_the_last_register_fails(bench: Bench) -> None:
    driver = driver_of(bench, 1)
    relay(driver, HANDSHAKE, 0x10000)
    assert relay(driver, QUERY_RUNTIME, len(RUNTIME_REGISTERS)) == (HOST_SUCCESS, 0)
    assert relay(driver, QUERY_RUNTIME, len(RUNTIME_REGISTERS) + 1) == (0x60000000,)


def test_agreements_are_each_vf_s_own(bench: Bench) -> None:
    one, two = driver_of(bench, 1), driver_of(bench, 2)
    relay(one, HANDSHAKE, 0x10000)
    assert relay(two, QUERY_RUNTIME, 0) == (0x60000000,)
    assert relay(one, QUERY_RUNTIME, 0)[0] == HOST_SUCCESS | len(RUNTIME_REGISTERS)


@pytest.mark.parametrize("reason", [FLR, RESET])
def test_a_reset_vf_is_clean_and_works_again_and_the_other_keeps_what_it_has(bench: Bench, reason: str) -> None:
    one, two = driver_of(bench, 1), driver_of(bench, 2)
    for driver in (one, two):
        relay(driver, HANDSHAKE, 0x10000)
        driver.poke(driver.buffer, b"secret")
    pci = bench.gpu.functions[1].pci
    pci.function_level_reset() if reason == FLR else pci.reset()
    bench.settle()
    bench.settle()
    states = {c["function"]: c for c in bench.gpu.gts[0].guc.inspect()["clients"]}
    assert (states["vf1"]["state"], states["vf1"]["ctb"]) == ("running", False)
    assert states["vf2"]["ctb"]
    start, _ = ggtt_of(bench, 1)
    assert bench.gpu.functions[1].ggtt.entries[start >> 12] >> 2 == 0, "an entry was left"
    view = bench.gpu.vram.resolve(pci, 0x10000, 6, False)
    assert bytes(view[1][:6]) == bytes(6)
    assert relay(driver_of(bench, 1), QUERY_RUNTIME, 0) == (0x60000000,), "the agreement outlived the reset"
    assert two.peek(two.buffer)[0].to_bytes(4, "little") == b"secr"
    assert relay(two, QUERY_RUNTIME, 0)[0] == HOST_SUCCESS | len(RUNTIME_REGISTERS)


def test_the_card_file_says_what_each_vf_gets(make_bench: Callable[..., Bench]) -> None:
    sizes = {"vf_ggtt_size": 256 * MIB, "vf_vram_size": 64 * MIB, "vf_contexts": 100, "vf_doorbells": 3}
    schedule = {"vf_guc": "1.20.3", "vf_quantum_ms": 5, "vf_preempt_us": 7000}
    bench = make_bench(topology="vf-only", vfs=2, **sizes, **schedule)
    bench.settle()
    driver = GucDriver(bench, vfid=2)
    assert ggtt_of(bench, 2)[1] == 256 * MIB
    assert driver.mmio(0x5509, klv.LMEM_SIZE)[1] == 64 * MIB
    assert driver.mmio(0x5509, klv.NUM_CONTEXTS)[1] == 100
    assert driver.mmio(0x5509, klv.NUM_DOORBELLS)[1] == 3
    assert driver.mmio(0x5500, 0x00010200)[:2] == (SUCCESS, 0x00011403)
    policies = [call for call in bench.gpu.gts[0].engines.calls if call[0] == "function_policy"]
    # Of every engine group the same.
    assert ("function_policy", 2, {5000}, {7000}, 0) in [
        (name, vfid, set(quanta), set(timeouts), rest) for name, vfid, quanta, timeouts, rest in policies
    ]


def profile(**options: Any) -> Any:
    bench = Bench(topology="vf-only", **options)
    bench.close()
    return bench.gpu.profile


@pytest.mark.parametrize("vfs", [1, 2, 7, 24, 63])
@pytest.mark.parametrize("vram", [1 << 30, 24 << 30])
def test_fair_shares_fit_and_none_is_empty(vfs: int, vram: int) -> None:
    plan = Plan.of(profile(vfs=vfs, vram=vram), Wanted())
    assert len(plan.quotas) == vfs
    ends = [(quota.ggtt_start, quota.ggtt_start + quota.ggtt_size) for quota in plan.quotas]
    assert min(start for start, _ in ends) >= GGTT_BOTTOM
    assert max(end for _, end in ends) <= GGTT_TOP
    for quota in plan.quotas:
        assert min(quota.vram, quota.contexts, quota.doorbells, quota.ggtt_size) > 0
        assert quota.vram % (2 * MIB) == 0
    last = plan.quotas[-1]
    assert last.dpa + last.vram <= plan.lmtt
    assert last.first_context + last.contexts <= ALL_CONTEXTS
    assert last.first_doorbell + last.doorbells <= ALL_DOORBELLS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vf_vram_size": 2 << 30}, "vf_vram_size: 2 VFs with 0x80000000 each do not fit into"),
        ({"vf_ggtt_size": 2 << 30}, "vf_ggtt_size: 2 VFs with 0x80000000 each do not fit into"),
        ({"vf_contexts": 40000}, "vf_contexts: 2 VFs"),
        ({"vf_guc": "2.0.0"}, 'vf_guc: "2.0.0" is not a version'),
        ({"topology": "split", "vf_contexts": 5}, "vf_contexts: is for topology vf-only; with split"),
        ({"vfs": 0}, "topology: topology vf-only needs VFs"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CardError, match=message):
        Bench(**{"topology": "vf-only", "vfs": 2, **options})


def test_an_unknown_topology_is_answered_with_those_there_are() -> None:
    with pytest.raises(CardError, match=r'--topology ring: topology: "ring" is not allowed; .*"split".*"vf-only"'):
        CardConfig.default("xe").override(topology="ring")
