"""VF BAR2 and GGTT windows in trapped mode: what is there, what is not, and how that follows provisioning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

MIB = 1 << 20
BLOCK = 2 * MIB


@pytest.fixture
def bench(make_bench: Callable[..., Any]) -> Any:
    return make_bench(vfs=2, vf_vram="trapped", vf_ggtt="trapped", vf_bar2=64 * MIB)


def bar(bench: Any, vfid: int, index: int) -> Any:
    region = bench.gpu.functions[vfid].pci.regions[index]
    assert region.areas == [], "nothing of it may be mapped"
    return region.handler


def test_nothing_is_there_before_it_is_provisioned(bench: Any) -> None:
    vram = bar(bench, 1, 2)
    vram.write(0, 4, 0x12345678)
    assert vram.read(0, 4) == 0xFFFFFFFF
    assert vram.read(64 * MIB - 8, 8) == (1 << 64) - 1


def test_writes_beyond_the_quota_are_dropped_also_when_the_quota_grows(bench: Any) -> None:
    vram = bar(bench, 1, 2)
    bench.run(lambda: bench.gpu.vram.assign(1, {0: 100, 1: 7}))
    vram.write(BLOCK - 4, 4, 0x11)
    vram.write(BLOCK, 4, 0x22)
    vram.write(2 * BLOCK, 4, 0x33)
    assert [vram.read(at, 4) for at in (BLOCK - 4, BLOCK, 2 * BLOCK)] == [0x11, 0x22, 0xFFFFFFFF]
    bench.run(lambda: bench.gpu.vram.assign(1, {0: 100, 1: 7, 2: 8}))
    assert vram.read(2 * BLOCK, 4) == 0


def test_blocks_that_go_are_gone_at_once_and_keep_their_content_for_the_pf(bench: Any) -> None:
    vram = bar(bench, 1, 2)
    bench.run(lambda: bench.gpu.vram.assign(1, {0: 100, 1: 7}))
    vram.write(BLOCK + 16, 8, 0x1122334455667788)
    bench.run(lambda: bench.gpu.vram.assign(1, {0: 100}))
    assert vram.read(BLOCK + 16, 8) == (1 << 64) - 1
    assert bench.gpu.vram.memory.view[7 * BLOCK + 16 : 7 * BLOCK + 24].hex() == "8877665544332211"


def test_a_block_read_joins_what_is_there_and_what_is_not(bench: Any) -> None:
    vram = bar(bench, 1, 2)
    bench.run(lambda: bench.gpu.vram.assign(1, {0: 100}))
    vram.write(BLOCK - 2, 2, 0xBBAA)
    assert vram.read_block(BLOCK - 3, 6) == b"\0\xaa\xbb\xff\xff\xff"


def test_each_vf_sees_its_own(bench: Any) -> None:
    bench.run(lambda: bench.gpu.vram.assign(1, {0: 100}))
    bench.run(lambda: bench.gpu.vram.assign(2, {0: 101}))
    bar(bench, 1, 2).write(0, 4, 1)
    assert bar(bench, 2, 2).read(0, 4) == 0


def test_registers_and_entries_share_bar0(bench: Any) -> None:
    bar0 = bar(bench, 1, 0)
    assert bar0.read(0x1901F8, 4) == 1, "VF_CAP_REG"
    bench.run(lambda: bench.gpu.sharing.provision(1, 64 * MIB, MIB))
    bar0.write((8 << 20) + 8 * (64 * MIB >> 12), 8, 0x5003)
    assert bench.gpu.functions[1].ggtt.entries[64 * MIB >> 12] == 0x5003
    assert any(file.name == "vf1" for file in bench.card.register_files)
