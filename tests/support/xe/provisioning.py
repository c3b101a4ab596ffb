"""SR-IOV as the PF's driver sets it up: VFs in configuration space, LMTT in VRAM, KLVs and commands to the GuC."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import pack
from typing import Any

from tests.support.xe.guc_driver import GucDriver
from vfio_user_xe.device_models.xe.guc import klv

SUCCESS = 0xF0000000
VF_START, VF_SIZE = 0x40000000, 0x10000000
PROVISIONED = {
    klv.GGTT_START: VF_START,
    klv.GGTT_SIZE: VF_SIZE,
    klv.LMEM_SIZE: 64 << 20,
    klv.BEGIN_CONTEXT_ID: 0x7FFF,
    klv.NUM_CONTEXTS: 100,
    klv.NUM_DOORBELLS: 8,
}


LMEM_CFG = 0x48B0


def write_lmtt(poke: Callable[[int, bytes], None], root: int, vfid: int, blocks: Mapping[int, int]) -> None:
    """Write LMTT of a VF with its root at a DPA: GDPA block to DPA block, of 2 MiB each (`xe_lmtt.c:lmtt_write_pte`).

    `poke` writes VRAM by DPA. A VF's directory and leaf take 64 KiB each, from `root + vfid * 128 KiB` on.
    """
    table = root + vfid * 0x2_0000
    leaf = lmtt_leaf(root, vfid)
    entries = [0] * 0x4000
    for gdpa, dpa in blocks.items():
        entries[gdpa] = dpa << 5 | 1
    poke(leaf, pack(f"<{len(entries)}I", *entries))
    poke(table, pack("<Q", leaf >> 12 | 1))
    poke(root + 8 * vfid, pack("<Q", table >> 12 | 1))


def lmtt_leaf(root: int, vfid: int) -> int:
    """DPA of the entries of a VF's first blocks, a dword each."""
    return root + vfid * 0x2_0000 + 0x1_0000


def lmem_cfg(root: int) -> int:
    """LMEM_CFG with LMTT at a DPA (`xe_lmtt.c:lmtt_setup_dir_ptr`)."""
    return 1 << 31 | root >> 16


def failure(code: int) -> int:
    return 0xE0000000 | code


def klvs(values: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(word for key, value in values.items() for word in klv.pack(key, value))


def configure(driver: GucDriver[Any], vfid: int, values: Mapping[int, int]) -> int:
    words = klvs(values)
    driver.poke_dwords(driver.buffer, *words)
    return driver.request(0x5503, vfid, driver.buffer, 0, len(words))[0][0]


def control(driver: GucDriver[Any], vfid: int, command: int) -> tuple[int, list[tuple[int, ...]]]:
    answer, events = driver.request(0x5506, vfid, command)
    return answer[0], events


def enable_vfs(bench: Any, count: int) -> None:
    sriov = bench.pf.pci.sriov
    bench.pf.pci.config.write(sriov.offset + 0x10, 2, count)
    bench.pf.pci.config.write(sriov.offset + 0x08, 2, 0x09)
    bench.settle()


def disable_vfs(bench: Any) -> None:
    bench.pf.pci.config.write(bench.pf.pci.sriov.offset + 0x08, 2, 0)
    bench.settle()
