"""Where LMTT is, and what the log says of VFs' memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import logs
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
