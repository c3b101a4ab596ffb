"""The host's side of a GuC: mailbox and CT buffers, as a driver uses them."""

from __future__ import annotations

from struct import pack
from typing import Any

SCRATCH = (0x190240, 0x190310)
DOORBELL = (0x1901F0, 0x190304)
CSS = pack("<16I2I11I3I", 6, 0xE1, 0x10000, 0, 0x8086, 0x20260724, 0x17931, *[0] * 9, 0x464801, 0x12601, *[0] * 14)
"""A firmware header as the driver's file has it: version 70.72.1, interface 1.38.1."""

Message = tuple[int, tuple[int, ...]]
"""Fence and HXG message."""


class GucDriver:
    """One function's driver towards the GuC of one GT. The function's GGTT must lead somewhere at `base`.

    `base` is a GGTT address: 4 KiB of descriptors, 4 KiB of H2G, 4 KiB of G2H, and room for buffers at +0x10000.
    """

    G2H_SIZE = 0x1000

    def __init__(self, bench: Any, vfid: int = 0, gt: int = 0, base: int = 0x1000000) -> None:
        self.bench = bench
        self.vfid = vfid
        self.gt = gt
        self.base = base
        self.buffer = base + 0x10000
        self.space = bench.gpu.functions[vfid].ggtt_space
        self.tail = 0
        self.head = 0
        self.fence = 1

    # Firmware, for the PF.

    def boot(self) -> None:
        """Load firmware as the PF's driver does."""
        offset = 0x380000 if self.gt else 0
        write = self.bench.write
        write(0xC050 + offset, 0x7F3000)
        write(0xC340 + offset, 0x4000)
        self.poke(self.buffer, CSS)
        write(0xC300 + offset, self.buffer)
        write(0xC304 + offset, 8 << 16)
        write(0xC310 + offset, 0x1000)
        write(0xC314 + offset, 0x110011)
        self.bench.settle()

    # Memory.

    def poke(self, address: int, data: bytes) -> None:
        self.bench.run(lambda: self.space.write(address, data))

    def poke_dwords(self, address: int, *words: int) -> None:
        self.poke(address, pack(f"<{len(words)}I", *words))

    def peek(self, address: int, count: int = 1) -> tuple[int, ...]:
        data = self.bench.run(lambda: self.space.read(address, 4 * count))
        return tuple(memoryview(data).cast("I"))

    # Mailbox.

    def mmio(self, *words: int) -> tuple[int, ...]:
        """Send a request through the mailbox; the answer's four dwords."""
        for index in range(4):
            self.bench.write(SCRATCH[self.gt] + 4 * index, words[index] if index < len(words) else 0, self.vfid)
        self.bench.write(DOORBELL[self.gt], 0, self.vfid)
        self.bench.settle()
        return tuple(self.bench.read(SCRATCH[self.gt] + 4 * index, self.vfid) for index in range(4))

    # CT buffers.

    def start_ct(self) -> None:
        """Tell the GuC about the CT buffers and enable them."""
        self.poke(self.base, bytes(0x1000))
        h2g, g2h = self.base + 0x1000, self.base + 0x2000
        for key, length, value in (
            *((0x0903, 2, self.base), (0x0902, 2, h2g), (0x0904, 1, 0x1000)),
            *((0x0906, 2, self.base + 0x800), (0x0905, 2, g2h), (0x0907, 1, self.G2H_SIZE)),
        ):
            assert self.mmio(0x0508, key << 16 | length, value)[0] == 0xF0000001
        assert self.mmio(0x4509, 1)[0] == 0xF0000000
        self.tail = self.head = 0

    def send(self, *words: int, kind: int = 2) -> int:
        """Put a message into H2G and ring; returns its fence. `kind` is the HXG type (2: fast request)."""
        self.fence = self.fence + 1 & 0x7FFF
        message = (self.fence << 16 | len(words), words[0] | kind << 28, *words[1:])
        if self.tail + len(message) > 0x400:
            self.poke_dwords(self.base + 0x1000 + 4 * self.tail, *[0] * (0x400 - self.tail))
            self.tail = 0
        self.poke_dwords(self.base + 0x1000 + 4 * self.tail, *message)
        self.tail = (self.tail + len(message)) % 0x400
        self.poke_dwords(self.base + 4, self.tail)
        self.bench.write(DOORBELL[self.gt], 0, self.vfid)
        self.bench.settle()
        return self.fence

    def received(self) -> list[Message]:
        """What the GuC put into G2H since the last call."""
        size, messages = self.G2H_SIZE // 4, []
        ring = self.peek(self.base + 0x2000, size)
        tail = self.peek(self.base + 0x804)[0]
        while self.head != tail:
            header = ring[self.head]
            words = tuple(ring[(self.head + 1 + n) % size] for n in range(header & 0xFF))
            messages.append((header >> 16, words))
            self.head = (self.head + 1 + len(words)) % size
        self.poke_dwords(self.base + 0x800, self.head)
        return messages

    def request(self, *words: int) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
        """A request that is answered: the answer, and the events that came along."""
        fence = self.send(*words, kind=0)
        answer, events = None, []
        for got, message in self.received():
            if got == fence and message[0] >> 28 & 7 in (6, 7):
                answer = message
            else:
                events.append(message)
        assert answer is not None, "the request was not answered"
        return answer, events

    def events(self) -> list[tuple[int, ...]]:
        """Events that came, without their fences (which are 0)."""
        found = self.received()
        assert all(fence == 0 for fence, _ in found)
        return [message for _, message in found]
