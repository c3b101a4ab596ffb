"""The card as a whole: what resets do, who has which VRAM, and what options make of it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.xe.bench import Bench
from tests.support.xe.guc_driver import GucDriver
from tests.support.xe.provisioning import PROVISIONED, configure, disable_vfs, enable_vfs
from vfio_user_xe.emulator.model.card import Card, CardConfig, CardError

MIB = 1 << 20


def config(bench: Any, offset: int, size: int, vfid: int = 0) -> int:
    return int(bench.gpu.functions[vfid].pci.config.read(offset, size))


def test_pf_is_a_battlemage_with_its_capabilities_where_the_hardware_has_them(bench: Any) -> None:
    assert config(bench, 0, 4) == 0xE2128086
    assert config(bench, 9, 3) == 0x030000
    assert config(bench, 0xD0, 1) == 0x01, "power management, whose PMCSR tests read at 0xd4"
    assert config(bench, 0xAC, 1) == 0x05
    assert config(bench, 0x70, 1) == 0x10
    assert config(bench, 0x100, 2) == 0x0003
    found, offset = set(), config(bench, 0x34, 1)
    while offset:
        found.add(config(bench, offset, 1))
        offset = config(bench, offset + 1, 1)
    assert found == {0x01, 0x05, 0x09, 0x10}, "no MSI-X: with it the driver would use memory-based interrupts"


def test_pf_says_of_its_link_and_its_bars_what_real_cards_say(bench: Any) -> None:
    assert config(bench, 0x42, 1) == 0x0C, "the length of Intel's vendor-specific capability"
    device, link, device_2 = (config(bench, 0x70 + at, 4) for at in (4, 12, 36))
    assert device & 7 == 1, "payloads of 256 bytes"
    assert device >> 6 & 0x3F == 0x3F, "every exit latency of L0s and L1 is accepted"
    assert link & 0x3FF == 0x11, "2.5 GT/s, one lane"
    assert link >> 10 & 3 == 3, "L0s and L1"
    assert link >> 22 & 1
    assert device_2 == 0x30810, "timeouts cannot be set but be disabled, LTR, 10-bit tags"
    assert config(bench, 0xD2, 2) >> 11 == 0b01001, "PME from D0 and D3hot"
    assert (config(bench, 0x400, 2), config(bench, 0x420, 2)) == (0x18, 0x15)
    assert config(bench, 0x424, 4) >> 12 == 0x1F, "256 MiB to 4 GiB"
    assert config(bench, 0x428, 4) >> 8 & 0x3F == 12, "4 GiB"


@pytest.mark.parametrize(("device_id", "prefetchable"), [(0xE20B, 0), (0xE212, 8), (0xE223, 8)])
def test_registers_of_a_b580_are_not_prefetchable(device_id: int, prefetchable: int) -> None:
    bench = Bench(device_id=device_id, vfs=1)
    try:
        assert config(bench, 0x10, 4) & 8 == prefetchable
        assert config(bench, 0x320 + 0x24, 4) & 8 == 8, "VFs' have to be"
    finally:
        bench.close()


@pytest.mark.parametrize(
    ("bar2", "listed", "current"), [(256 * MIB, 0x7F000, 8), (128 * MIB, 0x7F800, 7), (0, 0x7F000, 14)]
)
def test_the_resizable_bar_lists_what_all_of_vram_needs(bar2: int, listed: int, current: int) -> None:
    bench = Bench(vram=12 << 30, bar2=bar2, vfs=0)
    try:
        assert config(bench, 0x424, 4) == listed
        assert config(bench, 0x428, 4) >> 8 & 0x3F == current
    finally:
        bench.close()


def test_vfs_have_msi_and_flr_and_no_power_management(bench: Any) -> None:
    found, offset = set(), config(bench, 0x34, 1, 1)
    while offset:
        found.add(config(bench, offset, 1, 1))
        offset = config(bench, offset + 1, 1, 1)
    assert found == {0x05, 0x10}
    assert config(bench, 0x70 + 4, 4, 1) >> 28 & 1


def test_machine_reset_takes_everything_back_to_power_up(driver: GucDriver) -> None:
    bench = driver.bench
    bench.write(0x4800, 0x12345678)
    bench.write(0xA188, 0x10001)
    bench.gpu.vram.memory.view[0:4] = b"data"
    bench.gpu.pf.ggtt.entries[5] = 3
    bench.pf.pci.reset()
    bench.settle()
    assert bench.read(0xC000) == 1
    assert bench.read(0x4800) == 0
    assert bench.read(0xDFC) == 0
    assert bytes(bench.gpu.vram.memory.view[0:4]) == bytes(4)
    assert bench.gpu.pf.ggtt.entries[5] == 0
    assert bench.gpu.gts[0].guc.pf.ctb.enabled is False


def test_vf_has_no_ggtt_left_after_the_pf_was_reset_or_the_vf_disabled(driver: GucDriver) -> None:
    bench = driver.bench
    for take_away in (bench.pf.pci.reset, lambda: disable_vfs(bench)):
        enable_vfs(bench, 1)
        bench.gpu.functions[1].ggtt.entries[0x40000] = 3
        take_away()
        bench.settle()
        assert bench.gpu.functions[1].ggtt.entries[0x40000] == 0


def test_gt_reset_leaves_the_vfs_their_entries_and_a_pf_reset_does_not(driver: GucDriver) -> None:
    bench = driver.bench
    configure(driver, 1, PROVISIONED)
    vf = bench.gpu.functions[1].ggtt
    vf.entries[vf.first] = 0x5003
    before = vf.first, vf.end
    bench.write(0x941C, 8)
    bench.settle()
    assert (vf.first, vf.end) == before
    driver.boot()
    driver.start_ct()
    configure(driver, 1, PROVISIONED)
    assert vf.entries[vf.first] == 0x5003
    bench.pf.pci.reset()
    bench.settle()
    assert (vf.first, vf.end, vf.entries[before[0]]) == (0, 0, 0)


def test_d3hot_keeps_everything(driver: GucDriver) -> None:
    bench = driver.bench
    bench.pf.pci.config.write(0xD4, 2, 3)
    bench.settle()
    bench.pf.pci.config.write(0xD4, 2, 0)
    bench.settle()
    driver.send(0x7002, 9, 0)
    assert driver.events() == [(0x90007001, 9)], "the driver goes on with the old CT buffers"


def test_vfs_get_memory_from_the_card_while_no_driver_provisions(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(vfs=3, vf_bar2=64 * MIB)
    enable_vfs(bench, 3)
    described = bench.run(bench.card.commands["vram_map"])
    assert described["source"] == "card"
    assert set(described["vfs"]) == {"vf1", "vf2", "vf3"}
    for vfid in (1, 2, 3):
        [part] = described["vfs"][f"vf{vfid}"]
        assert (part["gdpa"], part["size"]) == (0, 64 * MIB)
        bench.gpu.vram.vf_memory(vfid).view[0:4] = b"vf%d!" % vfid
        owner, view = bench.run(lambda p=part: bench.gpu.vram.resolve(bench.pf.pci, p["dpa"], 4, False))
        assert (owner, bytes(view)) == (f"vf{vfid}", b"vf%d!" % vfid)
    disable_vfs(bench)
    assert bench.run(bench.card.commands["vram_map"])["vfs"] == {}


def test_memory_is_shared_fairly_when_the_vfs_want_more_than_there_is(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(vfs=8, vram=1 << 30, vf_bar2=256 * MIB)
    enable_vfs(bench, 8)
    sizes = {part["size"] for parts in bench.run(bench.card.commands["vram_map"])["vfs"].values() for part in parts}
    assert len(sizes) == 1
    assert 32 * MIB <= sizes.pop() < 128 * MIB


def write_lmtt(bench: Any, root: int, vfid: int, blocks: dict[int, int]) -> None:
    """A directory at `root` that gives VF `vfid` these 2 MiB blocks (xe_lmtt_ml.c)."""
    view = bench.gpu.vram.memory.view
    second, leaf = root + 0x10000, root + 0x20000
    struct.pack_into("<Q", view, root + 8 * vfid, second >> 12 | 1)
    struct.pack_into("<Q", view, second, leaf >> 12 | 1)
    for gdpa, dpa in blocks.items():
        struct.pack_into("<I", view, leaf + 4 * gdpa, dpa << 5 | 1)


def test_lmtt_of_the_driver_takes_over_and_is_followed(driver: GucDriver) -> None:
    bench = driver.bench
    enable_vfs(bench, 1)
    root = 0x8000000
    write_lmtt(bench, root, 1, {0: 512, 1: 700})
    bench.write(0x48B0, 1 << 31 | root >> 16)
    bench.settle()
    described = bench.run(bench.card.commands["vram_map"])
    assert described["source"] == "lmtt"
    assert described["vfs"] == {
        "vf1": [
            {"gdpa": 0, "dpa": 512 * 2 * MIB, "size": 2 * MIB},
            {"gdpa": 2 * MIB, "dpa": 700 * 2 * MIB, "size": 2 * MIB},
        ]
    }
    write_lmtt(bench, root, 1, {1: 701})
    assert len(bench.gpu.vram.blocks(1)) == 2
    driver.send(0x7002, 1, 0x80000000)
    assert driver.events() == [(0x90007001, 1)]
    assert bench.gpu.vram.blocks(1)[1] == 701
    bench.pf.pci.reset()
    bench.settle()
    assert bench.gpu.vram.blocks(1) == {}


@pytest.mark.parametrize(
    "setting",
    ["vram=3MiB", "vram=0", "vfs=64", "vf_bar2=3MiB", "device_id=0x1234", "graphics=30.00", "ccs=5"],
)
def test_impossible_options_are_refused_by_name(setting: str) -> None:
    with pytest.raises(CardError, match=setting.partition("=")[0]):
        CardConfig.default("xe").override(settings=[setting])


def test_bar2_must_be_a_power_of_two() -> None:
    config = CardConfig.default("xe").override(settings=["bar2=3MiB"])
    with pytest.raises(CardError, match="bar2"):
        Card(config)


def test_a_card_with_63_vfs_can_be_made_and_costs_little(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(vfs=63, vram=8 << 30)
    assert len(bench.card.functions) == 64
    assert sum(memory.resident() for memory in bench.card.memories.values()) < 16 * MIB
