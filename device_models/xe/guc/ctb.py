"""Command transport buffers: a ring of messages in each direction, in memory of the host's (`xe_guc_ct.c`).

Each ring has a descriptor (`formats/ct.py`). A message is a header (fence in 31:16, format in 15:12, payload dwords in 7:0) and an HXG
message. The host zero-fills what a message that does not fit leaves at the end of H2G; messages to the host wrap.

The host counts the room in G2H by the lengths of the answers that it expects, so the GuC sends exactly those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from struct import Struct

from vfio_user_xe.device_models.xe.guc.formats.ct import HEAD, STATUS, STATUS_OFFSET, TAIL
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace

STATUS_OVERFLOW, STATUS_UNDERFLOW = STATUS["overflow"], STATUS["underflow"]

_FORMAT_HXG = 0
_MAX_PAYLOAD = 255
_PADDING = 1024
"""Dwords of padding that are passed at once."""
_BACKLOG_LIMIT = 4096
"""Messages kept while a host does not empty its ring; a host that never does loses the oldest."""


class CtbBroken(Exception):
    """A descriptor or a message in H2G that makes no sense; the status in the descriptor says so to the host."""


class Ring:
    """One direction. Addresses are GGTT addresses of the function; `size` in dwords."""

    __slots__ = ("address", "descriptor", "position", "size", "space")

    def __init__(self, space: AddressSpace) -> None:
        self.space = space
        self.descriptor = 0
        self.address = 0
        self.size = 0
        self.position = 0
        """The GuC's own head (H2G) or tail (G2H)."""

    @property
    def complete(self) -> bool:
        """Whether the host has told all there is to know."""
        return bool(self.descriptor and self.address and self.size)

    def forget(self) -> None:
        """As before the host told anything."""
        self.descriptor = self.address = self.size = self.position = 0

    def read(self, position: int, count: int) -> tuple[int, ...]:
        """`count` dwords from `position` on, wrapping."""
        first = min(count, self.size - position)
        words = _unpack(self.space.read(self.address + 4 * position, 4 * first))
        if first < count:
            words += _unpack(self.space.read(self.address, 4 * (count - first)))
        return words

    def write(self, position: int, words: tuple[int, ...]) -> None:
        """Store dwords from `position` on, wrapping."""
        first = min(len(words), self.size - position)
        self.space.write(self.address + 4 * position, _pack(words[:first]))
        if first < len(words):
            self.space.write(self.address, _pack(words[first:]))

    def flag(self, status: int) -> None:
        """Set bits of the descriptor's status."""
        self.space.write32(self.descriptor + STATUS_OFFSET, self.space.read32(self.descriptor + STATUS_OFFSET) | status)


class Ctb:
    """Both rings of one function towards the GuC of one GT. Everything may raise `TranslationFault`, `AccessFault`."""

    def __init__(self, space: AddressSpace) -> None:
        self.h2g = Ring(space)
        self.g2h = Ring(space)
        self.enabled = False
        self.broken = ""
        """Why H2G is no longer read, if it is not."""
        self._backlog: deque[tuple[int, ...]] = deque()

    def enable(self) -> None:
        """CONTROL_CTB(enable): start where the descriptors say."""
        space = self.h2g.space
        self.h2g.position = space.read32(self.h2g.descriptor + HEAD)
        self.g2h.position = space.read32(self.g2h.descriptor + TAIL)
        self.broken = ""
        self._backlog.clear()
        self.enabled = True

    def disable(self) -> None:
        """CONTROL_CTB(disable)."""
        self.enabled = False
        self._backlog.clear()

    def reset(self) -> None:
        """As after power-up."""
        self.disable()
        self.h2g.forget()
        self.g2h.forget()
        self.broken = ""

    def receive(self) -> Iterator[Message | None]:
        """The messages in H2G, each consumed (head moved on) before it is handed out; None for padding.

        Raises:
            CtbBroken: H2G holds what no host may write there; its descriptor's status says so from now on.
        """
        ring = self.h2g
        space, descriptor = ring.space, ring.descriptor
        while self.enabled and not self.broken:
            head, tail = ring.position, space.read32(descriptor + TAIL)
            if head == tail:
                return
            if tail >= ring.size or head >= ring.size:
                self._break(STATUS_OVERFLOW, f"head {head:#x} or tail {tail:#x} is beyond {ring.size:#x} dwords")
            available = (tail - head) % ring.size
            header = ring.read(head, 1)[0]
            length = header & 0xFF
            if header == 0:  # what a host leaves at the end of the ring
                words = ring.read(head, min(available, ring.size - head, _PADDING))
                used = next((n for n, word in enumerate(words) if word), len(words))
                ring.position = (head + used) % ring.size
                space.write32(descriptor + HEAD, ring.position)
                yield None
                continue
            if length + 1 > available or not length:
                self._break(STATUS_UNDERFLOW, f"message {header:#010x} of {length} dwords, only {available} are there")
            words = ring.read((head + 1) % ring.size, length)
            ring.position = (head + 1 + length) % ring.size
            space.write32(descriptor + HEAD, ring.position)
            yield Message(words, header >> 16) if header >> 12 & 0xF == _FORMAT_HXG else None

    def send(self, words: tuple[int, ...], fence: int = 0) -> bool:
        """Put an HXG message into G2H; False when it is kept until the host has made room."""
        if len(words) > _MAX_PAYLOAD:
            raise ValueError(f"a G2H message of {len(words)} dwords, at most {_MAX_PAYLOAD} are possible")
        self._backlog.append((fence << 16 | len(words), *words))
        if len(self._backlog) > _BACKLOG_LIMIT:
            self._backlog.popleft()
        return self.flush()

    def can_queue_g2h(self, dwords: int) -> bool:
        """Whether a message that the host did not ask for may be sent: half of G2H stays free for answers."""
        if self._backlog:
            return False
        ring = self.g2h
        head = ring.space.read32(ring.descriptor + HEAD)
        return (head - ring.position - 1) % ring.size - dwords > ring.size // 2

    def flush(self) -> bool:
        """Move what was kept into G2H as far as there is room; whether nothing is left."""
        ring = self.g2h
        while self._backlog:
            head = ring.space.read32(ring.descriptor + HEAD)
            message = self._backlog[0]
            room = (head - ring.position - 1) % ring.size
            if len(message) > room:
                return False
            ring.write(ring.position, message)
            ring.position = (ring.position + len(message)) % ring.size
            ring.space.write32(ring.descriptor + TAIL, ring.position)
            self._backlog.popleft()
        return True

    def _break(self, status: int, reason: str) -> None:
        self.broken = reason
        self.h2g.flag(status)
        raise CtbBroken(reason)


def _unpack(data: bytes) -> tuple[int, ...]:
    return Struct(f"<{len(data) // 4}I").unpack(data)


def _pack(words: tuple[int, ...]) -> bytes:
    return Struct(f"<{len(words)}I").pack(*words)
