"""SR-IOV as the PF's driver sets it up: VFs in configuration space, LMTT in VRAM, KLVs and commands to the GuC."""

from __future__ import annotations

from typing import Any

from device_models.xe.guc import klv
from tests.support.xe.guc_driver import GucDriver

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


def failure(code: int) -> int:
    return 0xE0000000 | code


def klvs(values: dict[int, int]) -> tuple[int, ...]:
    return tuple(word for key, value in values.items() for word in klv.pack(key, value))


def configure(driver: GucDriver, vfid: int, values: dict[int, int]) -> int:
    words = klvs(values)
    driver.poke_dwords(driver.buffer, *words)
    return driver.request(0x5503, vfid, driver.buffer, 0, len(words))[0][0]


def control(driver: GucDriver, vfid: int, command: int) -> tuple[int, list[tuple[int, ...]]]:
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
