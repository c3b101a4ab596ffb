"""Cards in other server processes, as interconnects see them: memory by lease, told when it is taken back.

What carries this is `vfio_user_xe.emulator.vfio_user`'s business; a served card has the way to it in `Card.dial`.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class PeerError(Exception):
    """Another card refuses the request, or has ended; the text says why.

    `code` is that of `vfio_user_xe.emulator.fabric.leases.LeaseRefused`.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class PeerBar(NamedTuple):
    """BAR `bar` of the peer's function answers at bus addresses `[base, base + size)`."""

    base: int
    size: int
    function: str
    bar: int


@dataclass(slots=True, eq=False)
class Grant:
    """A piece of another card's memory: `[offset, offset + length)` of the file `fd`, until `valid` is false.

    `address` is where it begins among `function`'s device addresses, or in its BAR; `owner` is whose memory it is.
    """

    number: int
    function: str
    bar: int | None
    address: int
    length: int
    owner: str
    fd: int
    offset: int
    valid: bool = True
    view: memoryview | None = None

    def map(self) -> memoryview:
        """Its bytes, mapped at the first use; the descriptor is closed then.

        Raises:
            OSError: the descriptor cannot be mapped.
        """
        if self.view is None:
            self.view = memoryview(mmap.mmap(self.fd, self.length, offset=self.offset))
            self.close()
        return self.view

    def close(self) -> None:
        """Give the descriptor back. What is mapped stays until the last view on it is gone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        # Not when it is revoked: another thread may be about to map it.
        self.close()


class PeerListener(Protocol):
    """Who has a peer is told, on a thread of the peer's."""

    def revoked(self, grant: Grant, reason: str) -> None:
        """`grant` was revoked. When this returns nothing may use it any more: the other card may be waiting."""
        ...

    def noted(self, event: dict[str, Any]) -> None:
        """Something happened on the peer: an event of `vfio_user_xe.emulator.fabric.ledger.Ownership.on_event`, or {"event": "changed"}: where it
        had no memory to give before, it may have some now."""
        ...

    def gone(self) -> None:
        """The peer is gone, after its grants were revoked."""
        ...


class Peer(Protocol):
    """Another card. Its calls wait for an answer of its server, for two seconds at most; they raise `PeerError`."""

    @property
    def card(self) -> str:
        """Its name."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        ...

    @property
    def asked(self) -> bool:
        """Whether a request waits for its answer now."""
        ...

    def bars(self) -> list[PeerBar]:
        """What it decodes, as it was told last."""
        ...

    def open(self, function: str, address: int, length: int, bar: int | None = None) -> Grant:
        """Memory of a function of it: the first contiguous bytes of `[address, +length)`, in whole pages."""
        ...

    def release(self, grant: Grant) -> None:
        """Give `grant` back: it is not needed any more."""
        ...

    def read(self, function: str, bar: int, offset: int, length: int) -> bytes:
        """Trapped registers behind a BAR."""
        ...

    def write(self, function: str, bar: int, offset: int, data: bytes) -> None:
        """Trapped registers behind a BAR."""
        ...

    def close(self) -> None:
        """Drop the connection and every grant."""
        ...


class Dial(Protocol):
    """How a card reaches the one that is served in `folder`.

    Raises:
        PeerError: nobody serves there, or what answers is no card of this protocol.
    """

    def __call__(self, folder: str, listener: PeerListener, /) -> Peer: ...
