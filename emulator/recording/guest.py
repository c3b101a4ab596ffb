"""The guest of a replay, who is only recorded: its memory, and the transport that a function gets for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.pci.transport import Transport
from vfio_user_xe.emulator.recording import format as rec


class GuestMemory:
    """What is known of a function's guest memory: what the device read and wrote."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def write(self, address: int, data: bytes | memoryview) -> None:
        for page, start, count, at in pieces(address, len(data)):
            self._pages.setdefault(page, bytearray(PAGE_SIZE))[start : start + count] = data[at : at + count]

    def read(self, address: int, length: int) -> bytes:
        parts = []
        for page, start, count, _ in pieces(address, length):
            known = self._pages.get(page)
            parts.append(bytes(known[start : start + count]) if known is not None else bytes(count))
        return b"".join(parts)

    def known(self, address: int, length: int) -> bool:
        """Whether anything is known of every page of it."""
        return all(page in self._pages for page, _, _, _ in pieces(address, length))


def pieces(address: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    """The pages of a range: number, offset in it, bytes, and where they are in the range."""
    at = 0
    while at < length:
        page, start = divmod(address + at, PAGE_SIZE)
        count = min(length - at, PAGE_SIZE - start)
        yield page, start, count, at
        at += count


class Recorded(Protocol):
    """Who knows what the client did. Addresses are as events have them: signed."""

    def mapped(self, function: int, address: int, length: int, write: bool) -> bool:
        """Whether the range was mapped."""
        ...

    def dma_read(self, function: int, address: int, length: int) -> bytes:
        """Guest memory.

        Raises:
            DmaError: it failed when it was recorded.
        """
        ...

    def dma_write(self, function: int, address: int, data: bytes) -> None:
        """To guest memory.

        Raises:
            DmaError: it failed when it was recorded.
        """
        ...

    def trigger(self, function: int, index: int, vector: int) -> bool:
        """An interrupt: whether it was delivered."""
        ...


class ReplayTransport(Transport):
    """A client that is only recorded."""

    def __init__(self, recorded: Recorded, function: int) -> None:
        self._recorded = recorded
        self._function = function

    def view(self, address: int, length: int, write: bool) -> memoryview | None:
        return None

    def mapped(self, address: int, length: int, write: bool) -> bool:
        return self._recorded.mapped(self._function, rec.signed(address), length, write)

    def read(self, address: int, length: int) -> bytes:
        return self._recorded.dma_read(self._function, rec.signed(address), length)

    def write(self, address: int, data: bytes | memoryview) -> None:
        self._recorded.dma_write(self._function, rec.signed(address), bytes(data))

    def trigger(self, index: int, vector: int) -> bool:
        return self._recorded.trigger(self._function, index, vector)
