"""What a client holds: eventfds, regions and their mappings, the memory it offers for DMA. All are closed explicitly."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire

_COUNTER = struct.Struct("=Q")


class Owner(ABC):
    """Something to be closed; also a context manager."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class EventFd(Owner):
    """An eventfd that a server signals."""

    def __init__(self, initial: int = 0) -> None:
        self.fd = os.eventfd(initial, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def pending(self) -> int:
        """How often it was signalled since the last look; 0 when it was not. Does not wait."""
        try:
            return int(_COUNTER.unpack(os.read(self.fd, 8))[0])
        except BlockingIOError:
            return 0

    def wait(self, timeout: float) -> int:
        """How often it was signalled, at least once.

        Raises:
            TimeoutError: No signal came within `timeout` seconds.

        From any thread.
        """
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise TimeoutError(f"no interrupt within {timeout} s")
        return self.pending()

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(slots=True)
class RegionMap(Owner):
    """The mappable areas of a region, mapped. `areas` are (offset in the region, bytes)."""

    areas: list[tuple[int, memoryview]]
    _maps: list[mmap.mmap]

    def at(self, offset: int, length: int) -> memoryview:
        """`length` bytes at `offset` of the region, without a copy.

        Raises:
            ValueError: That is not mappable.

        From any thread.
        """
        for start, view in self.areas:
            if start <= offset and offset + length <= start + len(view):
                return view[offset - start : offset - start + length]
        known = ", ".join(f"[{start:#x}, {start + len(view):#x})" for start, view in self.areas)
        raise ValueError(f"[{offset:#x}, {offset + length:#x}) is in none of the mappable areas: {known or 'none'}")

    def close(self) -> None:
        """Unmap; slices of the views that are still held keep their area mapped until they are gone."""
        for _, view in self.areas:
            view.release()
        self.areas.clear()
        for area in self._maps:
            with contextlib.suppress(BufferError):
                area.close()
        self._maps.clear()


@dataclass(slots=True)
class RegionInfo(Owner):
    """One region as the server describes it. `areas` are (offset, length) that may be mapped; `fd` is owned here."""

    index: int
    flags: int
    size: int
    offset: int
    argsz: int
    areas: list[tuple[int, int]] = field(default_factory=list)
    fd: int = -1

    @property
    def readable(self) -> bool:
        """Whether REGION_READ is allowed."""
        return bool(self.flags & wire.REGION_FLAG_READ)

    @property
    def writable(self) -> bool:
        """Whether REGION_WRITE is allowed."""
        return bool(self.flags & wire.REGION_FLAG_WRITE)

    @property
    def mappable(self) -> bool:
        """Whether at least a part can be mapped."""
        return bool(self.flags & wire.REGION_FLAG_MMAP)

    def map(self) -> RegionMap:
        """Map every mappable area.

        Raises:
            ValueError: There is none.
            OSError: The host refuses.

        From any thread.
        """
        if self.fd < 0:
            raise ValueError(f"region {self.index} came without a descriptor: it cannot be mapped")
        access = (mmap.PROT_READ if self.readable else 0) | (mmap.PROT_WRITE if self.writable else 0)
        mapped = RegionMap([], [])
        try:
            for offset, length in self.areas:
                area = mmap.mmap(self.fd, length, mmap.MAP_SHARED, access, offset=self.offset + offset)
                mapped._maps.append(area)
                mapped.areas.append((offset, memoryview(area)))
        except BaseException:
            mapped.close()
            raise
        return mapped

    def close(self) -> None:
        """Close the descriptor; maps stay."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(frozen=True, slots=True)
class IrqInfo:
    """One interrupt type: its flags (`wire.IRQ_FLAG_*`) and how many vectors it has."""

    index: int
    flags: int
    count: int
    argsz: int


@dataclass(frozen=True, slots=True)
class IoFd:
    """One sub-region that is written or read through a descriptor (an ioeventfd or an ioregionfd).

    `fd` belongs to the `IoFds` it came in. `match` is the datamatch of an ioeventfd, or an ioregionfd's user data.
    """

    offset: int
    size: int
    fd: int
    kind: int
    flags: int
    match: int


@dataclass(slots=True)
class IoFds(Owner):
    """The answer to DEVICE_GET_REGION_IO_FDS: sub-regions, and the descriptors they share."""

    argsz: int
    count: int
    entries: list[IoFd]
    fds: list[int]

    def close(self) -> None:
        """Close the descriptors."""
        while self.fds:
            os.close(self.fds.pop())


@dataclass(slots=True)
class DmaMapping(Owner):
    """Memory that the client offers for DMA at `[address, address + size)`.

    `view` is its content, or None where only a range was announced: then DMA requests for it fail with EFAULT.
    `shared` says that the server got the descriptor and needs no messages. Closing it does not unmap it.
    """

    address: int
    size: int
    flags: int
    view: memoryview | None
    shared: bool
    memory: Memory | None = None

    def contains(self, address: int, length: int) -> bool:
        """Whether the whole range lies in this mapping."""
        return self.address <= address and address + length <= self.address + self.size

    def at(self, address: int, length: int) -> memoryview:
        """The bytes at DMA address `address`.

        Raises:
            ValueError: It is outside of the mapping, or the mapping has no content.

        From any thread.
        """
        if self.view is None or not self.contains(address, length):
            raise ValueError(f"[{address:#x}, {address + length:#x}) has no content in this mapping")
        start = address - self.address
        return self.view[start : start + length]

    def close(self) -> None:
        """Give the memory back, if this mapping made it."""
        if self.memory is not None:
            self.view = None
            self.memory.close()
            self.memory = None
