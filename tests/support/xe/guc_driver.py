"""The host's side of a GuC: mailbox and CT buffers, as a driver uses them."""

from __future__ import annotations

from struct import pack
from typing import Generic, Protocol, TypeVar

SCRATCH = (0x190240, 0x190310)
DOORBELL = (0x1901F0, 0x190304)
CSS = pack("<16I2I11I3I", 6, 0xE1, 0x10000, 0, 0x8086, 0x20260724, 0x17931, *[0] * 9, 0x464801, 0x12601, *[0] * 14)
"""A firmware header as the driver's file has it: version 70.72.1, interface 1.38.1."""

Message = tuple[int, tuple[int, ...]]
"""Fence and HXG message."""


class GgttMemory(Protocol):
    """Memory that a function's GGTT leads to, by GGTT address."""

    def read(self, address: int, length: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...


class Host(Protocol):
    """What a driver plays on: registers of the card's functions, their memory, and the end of what is queued."""

    def read(self, offset: int, vfid: int = 0) -> int: ...

    def write(self, offset: int, value: int, vfid: int = 0) -> None: ...

    def ggtt(self, vfid: int) -> GgttMemory: ...

    def settle(self) -> None:
        """Until the card's executor has done everything that is queued now."""


H = TypeVar("H", bound=Host)


class CtBuffers:
    """The host's ends of a pair of CT buffers: a tail in H2G, a head in G2H (`xe_guc_ct.c`).

    Descriptors and rings are GGTT addresses, sizes are in dwords.
    """

    def __init__(
        self, memory: GgttMemory, h2g: tuple[int, int, int], g2h: tuple[int, int, int], *, tail: int = 0, head: int = 0
    ) -> None:
        """`h2g` and `g2h` are a descriptor, a ring and its size."""
        self.memory = memory
        self._h2g, self._g2h = h2g, g2h
        self.tail, self.head = tail, head

    def put(self, header: int, words: tuple[int, ...]) -> None:
        """Append a message to H2G; what does not fit before the end is padding."""
        descriptor, ring, size = self._h2g
        if self.tail + 1 + len(words) > size:
            self._store(ring + 4 * self.tail, *[0] * (size - self.tail))
            self.tail = 0
        self._store(ring + 4 * self.tail, header, *words)
        self.tail = (self.tail + 1 + len(words)) % size
        self._store(descriptor + 4, self.tail)

    def collect(self) -> list[tuple[int, tuple[int, ...]]]:
        """Headers and messages that came into G2H since the last call."""
        descriptor, at, size = self._g2h
        (tail,) = self._load(descriptor + 4, 1)
        if tail == self.head:
            return []
        messages, ring = [], self._load(at, size)
        while self.head != tail:
            header = ring[self.head]
            words = tuple(ring[(self.head + 1 + n) % size] for n in range(header & 0xFF))
            messages.append((header, words))
            self.head = (self.head + 1 + len(words)) % size
        self._store(descriptor, self.head)
        return messages

    def _store(self, address: int, *words: int) -> None:
        self.memory.write(address, pack(f"<{len(words)}I", *words))

    def _load(self, address: int, count: int) -> tuple[int, ...]:
        return tuple(memoryview(self.memory.read(address, 4 * count)).cast("I"))


class GucDriver(Generic[H]):
    """One function's driver towards the GuC of one GT. The function's GGTT must lead somewhere at `base`.

    `base` is a GGTT address: 4 KiB of descriptors, 4 KiB of H2G, 4 KiB of G2H, and room for buffers at +0x10000.
    """

    RING_SIZE = 0x1000
    """Bytes of each ring."""

    def __init__(self, bench: H, vfid: int = 0, gt: int = 0, base: int = 0x1000000) -> None:
        self.bench = bench
        self.vfid = vfid
        self.gt = gt
        self.base = base
        self.buffer = base + 0x10000
        self.space = bench.ggtt(vfid)
        self.fence = 1
        self._forget()

    def _forget(self) -> None:
        count = self.RING_SIZE // 4
        h2g, g2h = (self.base, self.base + 0x1000, count), (self.base + 0x800, self.base + 0x2000, count)
        self.ct = CtBuffers(self.space, h2g, g2h)

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
        self.space.write(address, data)

    def poke_dwords(self, address: int, *words: int) -> None:
        self.poke(address, pack(f"<{len(words)}I", *words))

    def peek(self, address: int, count: int = 1) -> tuple[int, ...]:
        return tuple(memoryview(self.space.read(address, 4 * count)).cast("I"))

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
            *((0x0903, 2, self.base), (0x0902, 2, h2g), (0x0904, 1, self.RING_SIZE)),
            *((0x0906, 2, self.base + 0x800), (0x0905, 2, g2h), (0x0907, 1, self.RING_SIZE)),
        ):
            assert self.mmio(0x0508, key << 16 | length, value)[0] == 0xF0000001
        assert self.mmio(0x4509, 1)[0] == 0xF0000000
        self._forget()

    def send(self, *words: int, kind: int = 2) -> int:
        """Put a message into H2G and ring; returns its fence. `kind` is the HXG type (2: fast request)."""
        self.fence = self.fence + 1 & 0x7FFF
        self.ct.put(self.fence << 16 | len(words), (words[0] | kind << 28, *words[1:]))
        self.bench.write(DOORBELL[self.gt], 0, self.vfid)
        self.bench.settle()
        return self.fence

    def received(self) -> list[Message]:
        """What the GuC put into G2H since the last call."""
        return [(header >> 16, words) for header, words in self.ct.collect()]

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
