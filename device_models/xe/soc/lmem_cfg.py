"""LMEM_CFG: where LMTT is (`xe_lmtt.c:lmtt_setup_dir_ptr`), and VFs' memory on cards whose PF has no driver for it.

The PF's driver writes the directory's address with bit 31 set, on every GT. While it has not, VFs that are enabled get
memory from the card itself, as much as their BAR2 shows: then any PF driver (such as pci-pf-stub) will do. It is taken back when a
driver loads firmware or writes LMEM_CFG: Linux enables VFs again before their PF's driver resumes (`iov.c:sriov_restore_state`).
"""

from __future__ import annotations

import logging
from typing import Any

from vfio_user_xe.device_models.xe.memory.formats.lmtt import BLOCK_SHIFT
from vfio_user_xe.device_models.xe.memory.function import Device
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE
from vfio_user_xe.device_models.xe.profiles.profile import MEDIA_GSI_OFFSET
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import Register, field, flag

log = logging.getLogger(__name__)

LMEM_CFG = 0x48B0
LMEM_EN = 1 << 31
_UNIT_SHIFT = 16
_RESERVED_TOP = 128 << 20


class LmemConfig:
    """Follows LMTT for all VFs. Everything but the register write runs on the executor."""

    def __init__(self, gpu: Device, registers: RegisterFile) -> None:
        self._gpu = gpu
        self._registers = registers
        self._static: dict[int, int] = {}
        self._told: dict[int, int] = {}
        registers.add([self._register(index) for index in range(len(gpu.profile.engines))])

    @property
    def root(self) -> int | None:
        """DPA of the LMTT directory, None while LMTT is off. The main GT's register is the one that counts."""
        value = self._registers.peek(LMEM_CFG)
        return (value & ~LMEM_EN) << _UNIT_SHIFT if value & LMEM_EN else None

    def enable(self, root: int) -> None:
        """The driver's write to LMEM_CFG, on every GT: LMTT's directory is at DPA `root` (a multiple of 64 KiB)."""
        for index in range(len(self._gpu.profile.engines)):
            self._registers.poke(_offset(index), LMEM_EN | root >> _UNIT_SHIFT)
        self.update()

    def update(self) -> None:
        """LMTT may have changed: look whose memory is whose."""
        root = self.root
        if root is None and self._static:
            return
        self.take_back()
        self._gpu.vram.update(root, self._vfids())
        self._tell_hidden()

    def take_back(self) -> None:
        """The PF has a driver of its own: VFs have no memory but what it gives them."""
        for vfid in self._static:
            self._gpu.vram.provision(vfid, 0)
        self._static.clear()

    def reset(self) -> None:
        """The PF was reset: LMTT is off, all memory is the PF's."""
        self._static.clear()
        self._gpu.vram.update(None, self._vfids())

    def vfs_enabled(self, vfids: list[int]) -> None:
        """VFs came: give them memory if no LMTT does."""
        if self.root is not None or not vfids:
            return
        profile = self._gpu.profile
        available = (profile.vram - _RESERVED_TOP) // 2 // len(vfids) & -BLOCK_SIZE
        size = min(profile.vf_bar2, available)
        if not size:
            log.warning("VRAM of %#x bytes is too small to give %d VFs any", profile.vram, len(vfids))
            return
        for vfid in vfids:
            self._gpu.vram.provision(vfid, size)
            self._static[vfid] = size
        log.info("no LMTT: VF1..VF%d have %#x bytes of VRAM each", len(vfids), size)

    def vfs_disabled(self, vfids: list[int]) -> None:
        """VFs went: take back what the card gave."""
        for vfid in vfids:
            if self._static.pop(vfid, 0):
                self._gpu.vram.provision(vfid, 0)

    def describe(self) -> dict[str, Any]:
        """The owners of VRAM, for the control socket."""
        vfs = {}
        for vfid in self._vfids():
            blocks = self._gpu.vram.blocks(vfid)
            if blocks:
                vfs[f"vf{vfid}"] = _ranges(blocks)
        return {
            "size": self._gpu.profile.vram,
            "source": "lmtt" if self.root is not None else "card" if self._static else "none",
            "lmtt_directory": self.root,
            "vfs": vfs,
        }

    def _vfids(self) -> range:
        return range(1, self._gpu.profile.total_vfs + 1)

    def _tell_hidden(self) -> None:
        """Log each VF that has more memory than its BAR2 shows, once for each size."""
        shown = self._gpu.profile.vf_bar2
        for vfid in self._vfids():
            size = len(self._gpu.vram.blocks(vfid)) * BLOCK_SIZE
            if size > shown and self._told.get(vfid) != size:
                log.info(
                    "VF%d has %#x bytes of VRAM, and its BAR2 shows %#x of them; drivers that want all in the BAR (NEO) "
                    "need --set vf_bar2=%dMiB or more",
                    vfid, size, shown, (1 << (size - 1).bit_length()) >> 20,
                )  # fmt: skip
                self._told[vfid] = size

    def _register(self, index: int) -> Register:
        def written(value: int) -> None:
            self._gpu.executor.submit(self.update)

        name = f"GT{index}.XE2_LMEM_CFG" if index else "XE2_LMEM_CFG"
        return Register(name, _offset(index), write=written, fields=[field(0, 30, "LMTT_DIR_PTR"), flag(31, "LMEM_EN")])


def _offset(gt: int) -> int:
    return LMEM_CFG + (MEDIA_GSI_OFFSET if gt else 0)


def _ranges(blocks: dict[int, int]) -> list[dict[str, int]]:
    """Runs of blocks that are contiguous on both sides, in bytes."""
    ranges: list[dict[str, int]] = []
    for gdpa, dpa in sorted(blocks.items()):
        last = ranges[-1] if ranges else None
        if (
            last is not None
            and last["gdpa"] + last["size"] == gdpa << BLOCK_SHIFT
            and last["dpa"] + last["size"] == dpa << BLOCK_SHIFT
        ):
            last["size"] += BLOCK_SIZE
        else:
            ranges.append({"gdpa": gdpa << BLOCK_SHIFT, "dpa": dpa << BLOCK_SHIFT, "size": BLOCK_SIZE})
    return ranges
