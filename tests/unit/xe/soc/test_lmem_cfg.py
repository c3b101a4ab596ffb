"""Where LMTT is, and what the log says of VFs' memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import logs
from tests.support.xe.bench import Bench
from tests.support.xe.guc_driver import GucDriver
from tests.support.xe.provisioning import LMEM_CFG, lmem_cfg, write_lmtt
from vfio_user_xe.device_models.xe.soc.lmem_cfg import log as lmem_cfg_log

MIB = 1 << 20
ROOT = 64 * MIB


def test_a_vf_whose_bar_does_not_show_all_of_its_memory_is_logged_once(
    make_bench: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(vfs=2, vf_bar2=4 * MIB)

    def poke(at: int, data: bytes) -> None:
        bench.gpu.vram.memory.view[at : at + len(data)] = data

    write_lmtt(poke, ROOT, 1, {0: 100, 1: 101})
    write_lmtt(poke, ROOT, 2, {0: 200, 1: 201, 2: 202})
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            bench.write(LMEM_CFG, lmem_cfg(ROOT))
            bench.settle()
    hidden = [line for line in logs.messages(caplog, lmem_cfg_log) if "its BAR2 shows" in line]
    assert len(hidden) == 1
    assert hidden[0].startswith("VF2 has 0x600000 bytes of VRAM, and its BAR2 shows 0x400000")
    assert hidden[0].endswith("--set vf_bar2=8MiB or more")


class ResumingDriver(GucDriver[Bench]):
    """A driver of the PF that writes its VRAM through BAR2, which is not trapped."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.dpa = bench.gpu.vram.size - MIB
        bench.map_ggtt(self.base, MIB, self.dpa)

    def poke(self, address: int, data: bytes) -> None:
        at = self.dpa + address - self.base
        self.bench.gpu.vram.memory.view[at : at + len(data)] = data


def test_firmware_that_a_driver_restores_where_the_card_gave_memory_to_vfs_is_loaded(
    make_bench: Callable[..., Any],
) -> None:
    """Linux wakes up: it enables the VFs of a card that has forgotten everything, and its PF's driver restores VRAM after that."""
    bench = make_bench(vfs=2, vf_bar2=256 * MIB)
    driver = ResumingDriver(bench)
    bench.run(lambda: bench.gpu.vfs_enabled([1, 2]))
    assert bench.gpu.vram.owner(driver.dpa) > 0
    driver.boot()
    assert bench.gpu.gts[0].guc.boot.running
    assert [bench.gpu.vram.blocks(vfid) for vfid in (1, 2)] == [{}, {}]


def test_lmtt_that_a_driver_wrote_where_the_card_gave_memory_to_vfs_is_followed(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(vfs=2, vf_bar2=256 * MIB)
    root = bench.gpu.vram.size - MIB
    bench.run(lambda: bench.gpu.vfs_enabled([1, 2]))

    def poke(at: int, data: bytes) -> None:
        bench.gpu.vram.memory.view[at : at + len(data)] = data

    write_lmtt(poke, root, 1, {0: 100})
    bench.write(LMEM_CFG, lmem_cfg(root))
    bench.settle()
    assert [bench.gpu.vram.blocks(vfid) for vfid in (1, 2)] == [{0: 100}, {}]


def test_vfs_that_the_card_gives_memory_to_keep_it_while_there_is_no_driver(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(vfs=2, vf_bar2=4 * MIB)
    bench.run(lambda: bench.gpu.vfs_enabled([1, 2]))
    bench.run(bench.gpu.lmem.update)
    assert [len(bench.gpu.vram.blocks(vfid)) for vfid in (1, 2)] == [2, 2]
    bench.run(lambda: bench.gpu.vfs_disabled([1, 2]))
    assert [bench.gpu.vram.blocks(vfid) for vfid in (1, 2)] == [{}, {}]
