"""The line between functions and transports. What is below it (sockets, or a library) is hidden from all other packages.

A transport serves one function: it turns requests into calls of `Served`, and gives the function a `Transport` with
which to reach its guest. Two transports exist: `vfio_user_xe.emulator.vfio_user` and, optionally, libvfio-user.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.memory import Memory

CONFIG_REGION = 7
INTX, MSI, MSIX = 0, 1, 2


class AccessHandler(Protocol):
    """Answers trapped accesses: aligned, 1, 2, 4 or 8 bytes, inside the region."""

    def read(self, offset: int, size: int) -> int:
        """The value, little endian as an integer."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Take the value. Must not wait for anything."""
        ...


class BlockReader(AccessHandler, Protocol):
    """A handler that also answers reads of any other size and alignment inside the region, as one.

    Without it a transport splits such a read. Configuration space needs it: what QEMU is shown in its one read of all
    4096 bytes decides which capabilities it passes on (`vfio_user_xe.emulator.pci.config_space`).
    """

    def read_block(self, offset: int, length: int) -> bytes:
        """`length` bytes, for lengths other than 1, 2, 4 and 8."""
        ...


@runtime_checkable
class NamedHandler(AccessHandler, Protocol):
    """A handler that can say what is at an offset, for messages about accesses that failed (`RegisterFile`)."""

    def name_of(self, offset: int) -> str:
        """What is there, in a word."""
        ...


def name_at(handler: AccessHandler | None, offset: int) -> str:
    """What the handler calls `offset`; empty where it does not say, or fails. From any thread."""
    with contextlib.suppress(*MISTAKES):
        if isinstance(handler, NamedHandler):
            return str(handler.name_of(offset))
    return ""


@dataclass(slots=True)
class Region:
    """One region of a function (a BAR, or configuration space) as a client sees it.

    `areas` are `(offset, length)` in bytes, page aligned, sorted, disjoint: the parts that a client may map; region
    offset x of them is byte `memory_offset + x` of `memory`. Accesses elsewhere (and by clients that do not map)
    come to `handler`, or, inside an area, to the memory itself.
    """

    size: int
    handler: AccessHandler | None = None
    memory: Memory | None = None
    memory_offset: int = 0
    areas: list[tuple[int, int]] = field(default_factory=list)
    readable: bool = True
    writable: bool = True


class Served(Protocol):
    """What a transport needs of a function: the interface of `vfio_user_xe.emulator.pci.Function` that transports use."""

    name: str

    @property
    def regions(self) -> Sequence[Region | None]:
        """By region index 0..8; None or size 0 is absent."""
        ...

    @property
    def interrupts(self) -> Sequence[int]:
        """Vectors by interrupt index 0..4 (INTx, MSI, MSI-X, ERR, REQ)."""
        ...

    def attached(self, transport: Transport) -> None:
        """A client has connected and negotiated."""
        ...

    def detached(self) -> None:
        """The client has disconnected. All its mappings and interrupts are removed."""
        ...

    def reset(self) -> None:
        """The client reset the device (a machine reset)."""
        ...

    def wired(self, index: int, start: int, count: int) -> None:
        """The client changed the eventfds of vectors `[start, start + count)` of interrupt index `index`."""
        ...

    def drop_windows(self, address: int, length: int) -> None:
        """Drop every window on guest memory `[address, address + length)`.

        It goes away after this returns, or writes to it are to be logged from now on: a window that is open would write
        unseen.
        """
        ...


class Transport(Protocol):
    """What a function can do with its client. Usable from any thread but, where said, never inside an access."""

    def view(self, address: int, length: int, write: bool) -> memoryview | None:
        """Guest memory at DMA address `address` without a copy: the first contiguous bytes of it, at most `length`.

        None when the client gave no descriptor for it (use `read` and `write`), or nothing is mapped there.
        """
        ...

    def mapped(self, address: int, length: int, write: bool) -> bool:
        """Whether the client announced all of `[address, address + length)` for such accesses, by whatever means."""
        ...

    def read(self, address: int, length: int) -> bytes:
        """Read by messages. Blocks: from the executor or a thread of one's own, never in an access.

        Raises:
            DmaError: the client refused, or is gone.
        """
        ...

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Write by messages. Blocks as `read` does.

        Raises:
            DmaError: the client refused, or is gone.
        """
        ...

    def trigger(self, index: int, vector: int) -> bool:
        """Signal an interrupt vector; False when the client has not wired it."""
        ...


class DmaError(Exception):
    """A DMA access that the client refused or that nothing answers; `errno` is the client's."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno
