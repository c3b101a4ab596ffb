"""Drivers of the PF and the VFs, played over the wire: each has a vfio-user client, as QEMU would have, and no more.

The PF's driver boots the GuC, provisions VFs (VF configuration, LMTT), builds page tables in VRAM through its BAR2, and has
the copy engine run batches. A VF's driver has its BAR2.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping

from tests.support.wait import eventually
from tests.support.xe.commands import END, NOOP, mem_copy, sdi
from tests.support.xe.contexts import CAT_ERROR, COPY_CLASS, SCHEDULE, SET_MODE, lrc_image, registration
from tests.support.xe.guc_driver import GucDriver, Message
from tests.support.xe.layout import BLOCK, GSM, MIB, SRIOV
from tests.support.xe.page_tables import DEVICE_MEMORY, LARGE, PRESENT, PageTableWriter
from tests.support.xe.provisioning import LMEM_CFG, lmem_cfg, write_lmtt
from vfio_user_xe.emulator.testing.lab import CONFIG, LiveCard

BAR0, BAR2 = 0, 2
GGTT_BASE, GGTT_SIZE = 0x100_0000, 0x80_0000
GGTT_DPA = 0x100_0000
"""The GGTT range that is used leads to VRAM linearly, from here on."""
POOL = 0x200_0000
"""VRAM that the PF allocates from."""
LMTT_ROOT = 0x80_0000
VF_BAR0, VF_BAR2 = 0x70_0000_0000, 0x80_0000_0000
VF_BAR0_SIZE = 16 * MIB

VA_BATCH, VA_RESULT = 0x10_0000, 0x8000_0000
PPHWSP_PAGES, RING_SIZE = 8, 0x1000
FLR_FINISH = 5
MOCS = 3 << 28 | 3 << 3
"""Index 3 for both sides of a copy: not cached."""


class LinearGgtt:
    """The range of the GGTT that the driver uses, through its BAR2."""

    def __init__(self, driver: WireDriver) -> None:
        self._driver = driver

    def read(self, address: int, length: int) -> bytes:
        return self._driver.peek(address - GGTT_BASE + GGTT_DPA, length)

    def write(self, address: int, data: bytes) -> None:
        self._driver.poke(address - GGTT_BASE + GGTT_DPA, data)


class WireDriver:
    """The PF's driver on a card with `vfs` VFs."""

    def __init__(self, card: LiveCard, vfs: int = 2) -> None:
        self.card = card
        self.client = card.client("pf")
        self.client.serve_in_background()
        self.vram = self.client.map_region(BAR2)
        registers = self.client.map_region(BAR0)
        self.ram = self.client.map_memory(0, 16 * MIB)
        self._pool = itertools.count(POOL, MIB)
        self._ids = itertools.count(1)
        self.client.write(CONFIG, 4, 2, 6)
        entries = registers.at(GSM, 8 * MIB).cast("Q")
        for page in range(GGTT_SIZE >> 12):
            entries[(GGTT_BASE >> 12) + page] = GGTT_DPA + (page << 12) | PRESENT
        self.guc = GucDriver(self, base=GGTT_BASE)
        self.guc.boot()
        self.guc.start_ct()
        self._enable_vfs(vfs)

    def gt_reset(self) -> None:
        """Reset the GT and start its GuC again, as `xe_gt.c:gt_reset` does: LMTT is where it was, LMEM_CFG is written anew."""
        self.write(0x941C, 1)
        self.settle()
        self.guc.boot()
        self.guc.start_ct()
        self.write(LMEM_CFG, lmem_cfg(LMTT_ROOT))
        self.guc.request(0x7002, 1, 0x300)
        self.settle()

    def disable_vfs(self) -> None:
        """No VFs, and LMTT is empty."""
        self.client.write(CONFIG, SRIOV + 0x08, 2, 0)
        self.poke(LMTT_ROOT, bytes(0x1000))
        self.guc.request(0x7002, 1, 0x300)
        self.settle()

    def finish_flr(self, vfid: int) -> None:
        """The PF's driver has cleaned up after a VF's FLR."""
        self.guc.request(0x5506, vfid, FLR_FINISH)
        self.settle()

    def close(self) -> None:
        """Give the client up."""
        self.client.close()

    # What GucDriver plays on.

    def ggtt(self, vfid: int) -> LinearGgtt:
        assert not vfid, "this driver is the PF's"
        return LinearGgtt(self)

    def write(self, offset: int, value: int, vfid: int = 0) -> None:
        assert not vfid, "this driver is the PF's"
        self.client.write(BAR0, offset, 4, value)

    def read(self, offset: int, vfid: int = 0) -> int:
        return self.client.read(BAR0, offset, 4)

    def settle(self) -> None:
        """Until the card has done what is queued now."""
        for _ in range(3):
            self.card.call("guc")

    # Memory.

    def poke(self, dpa: int, data: bytes) -> None:
        """Write VRAM that is the PF's, through BAR2."""
        self.vram.at(dpa, len(data))[:] = data

    def peek(self, dpa: int, length: int) -> bytes:
        return bytes(self.vram.at(dpa, length))

    def alloc(self) -> int:
        """A megabyte of the PF's VRAM."""
        dpa = next(self._pool)
        self.poke(dpa, bytes(MIB))
        return dpa

    # SR-IOV.

    def _enable_vfs(self, count: int) -> None:
        config = self.client
        for index, address in ((0, VF_BAR0), (2, VF_BAR2)):
            config.write(CONFIG, SRIOV + 0x24 + 4 * index, 4, address & 0xFFFFFFFF)
            config.write(CONFIG, SRIOV + 0x28 + 4 * index, 4, address >> 32)
        config.write(CONFIG, SRIOV + 0x10, 2, count)
        config.write(CONFIG, SRIOV + 0x08, 2, 0x09)
        self.settle()

    def bar_address(self, vfid: int) -> int:
        """Bus address of a VF's BAR2."""
        return VF_BAR2 + (vfid - 1) * self.vf_bar2_size

    def bar0_address(self, vfid: int) -> int:
        """Bus address of a VF's BAR0."""
        return VF_BAR0 + (vfid - 1) * VF_BAR0_SIZE

    @property
    def vf_bar2_size(self) -> int:
        return int(self.card.call("status")["options"]["vf_bar2"])

    def provision(self, vfid: int, blocks: Mapping[int, int], *, tell: bool = True) -> None:
        """Write LMTT for a VF: GDPA block -> DPA block, as `xe_lmtt.c` does, and say so."""
        write_lmtt(self.poke, LMTT_ROOT, vfid, blocks)
        self.write(LMEM_CFG, lmem_cfg(LMTT_ROOT))
        if tell:
            self.guc.request(0x7002, 1, 0x300)
        self.settle()

    # The copy engine.

    def context(self) -> Context:
        """A registered context of BCS0 with a PPGTT of its own."""
        return Context(self, next(self._ids))


class Context(PageTableWriter):
    """A context: ring, batch, PPGTT."""

    table_flags = PRESENT | DEVICE_MEMORY

    def __init__(self, driver: WireDriver, guc_id: int) -> None:
        self.driver = driver
        self.guc_id = guc_id
        self.asid = guc_id
        memory = driver.alloc()
        super().__init__(memory + 0x2_0000)
        self.batch_dpa = memory
        self.seqno = 0
        self._tail = 0
        # In the GGTT's linear range: PPHWSP, image, ring.
        self.ggtt = GGTT_BASE + 0x10_0000 + guc_id * 0x2_0000
        self.dpa = self.ggtt - GGTT_BASE + GGTT_DPA
        driver.poke(self.dpa, bytes(0x2_0000))
        self.map(VA_BATCH, self.batch_dpa, 0x1_0000)
        image = lrc_image(self.ggtt + 0x1_0000, RING_SIZE, asid=self.asid, root=self.root)
        for index, value in image.items():
            self._image(index, value)
        self.driver.guc.send(*registration(guc_id, COPY_CLASS, 1, self.ggtt | 0x119))

    def _image(self, index: int, value: int) -> None:
        self.driver.poke(self.dpa + 0x1000 + 4 * index, struct.pack("<I", value))

    def map(self, va: int, target: int, length: int, *, system: bool = False) -> None:
        """Map with 2 MiB pages where alignment allows it, else 4 KiB; device-memory entries unless `system`."""
        bits = PRESENT if system else PRESENT | DEVICE_MEMORY
        while length > 0:
            if not (va | target) % BLOCK and length >= BLOCK:
                self.entry(va, 1, target | bits | LARGE)
                step = BLOCK
            else:
                self.entry(va, 0, target | bits)
                step = 0x1000
            va, target, length = va + step, target + step, length - step

    def map_ranges(self, va: int, blocks: Mapping[int, int], ranges: list[tuple[int, int]]) -> int:
        """Map (GDPA, bytes) after (GDPA, bytes) of a VF whose blocks are `blocks`, each piece by its own DPA; the whole size."""
        size = 0
        for start, length in ranges:
            at, end = start, start + length
            while at < end:
                piece = min(end - at, BLOCK - at % BLOCK)
                self.map(va + size, blocks[at // BLOCK] * BLOCK + at % BLOCK, piece)
                at, size = at + piece, size + piece
        return size

    def unmap(self, va: int, length: int) -> None:
        """Clear 2 MiB entries and take the translations back, as a driver does."""
        for offset in range(0, length, BLOCK):
            self.entry(va + offset, 1, 0)
        self.driver.guc.request(0x7000, 1, 0x301, self.asid, 0, 0, 0)

    def load(self, address: int) -> int:
        return int.from_bytes(self.driver.peek(address, 8), "little")

    def store(self, address: int, value: int) -> None:
        self.driver.poke(address, value.to_bytes(8, "little"))

    def start_copy(self, to: int, source: int, length: int, times: int = 1) -> None:
        """MEM_COPY in units of 256 bytes, `times` over, then a store of the next sequence number at the batch's end."""
        commands: list[int] = []
        for _ in range(times):
            for at in range(0, length, 2 * MIB):
                count = min(2 * MIB, length - at)
                commands += mem_copy(count // 256, flags=1 << 19, source=source + at, target=to + at, mocs=MOCS)
        self.seqno += 1
        commands += (*sdi(VA_BATCH + 0xFF00, self.seqno), END)
        assert 4 * len(commands) < 0xFF00, "the batch is too long"
        self.driver.poke(self.batch_dpa, struct.pack(f"<{len(commands)}I", *commands))
        ring = (0x1880_0101, VA_BATCH, 0, NOOP)
        self.driver.poke(self.dpa + 0x1_0000 + self._tail, struct.pack("<4I", *ring))
        self._tail += 16
        self._image(0x07, self._tail)
        first = self.seqno == 1
        self.driver.guc.send(*((SET_MODE, self.guc_id, 1) if first else (SCHEDULE, self.guc_id)))

    @property
    def done(self) -> bool:
        return int.from_bytes(self.driver.peek(self.batch_dpa + 0xFF00, 4), "little") == self.seqno

    def wait(self) -> list[Message]:
        """Until the copy is done, or the context is lost; what the GuC said meanwhile."""
        said: list[Message] = []

        def over() -> bool:
            if self.done:
                return True
            said.extend(self.driver.guc.received())
            return any(words[0] & 0xFFFF == CAT_ERROR for _, words in said)

        eventually(over, "the copy is not done", interval=0.002)
        return said

    def copy(self, to: int, source: int, length: int) -> list[Message]:
        self.start_copy(to, source, length)
        return self.wait()
