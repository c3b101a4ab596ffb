"""Memory is touched and counted here, and nowhere else.

An interconnect opens a `Window`; the fabric keeps track of it and revokes it. Blocks of a device work with spans: a `Span`
is a window at an address of an address space. Loads, stores and copies of both count in the ledger's entry that the window
carries. Revocation empties a window: the next access through it raises `Revoked`, which costs the accesses before nothing.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from vfio_user_xe.emulator.fabric.ledger import LedgerEntry

__all__ = ["AccessFault", "Initiator", "Revoked", "Space", "Span", "Window", "move"]


class Space:
    """The address spaces that an access can leave a device in; plain strings, so that a ledger reads well."""

    DEVICE = "device"
    """Device memory as the initiator addresses it: the model decides what the numbers of a PF and of a VF mean."""
    SYSTEM = "system"
    """A DMA address of the initiator (an IOVA): guest RAM, or a BAR that another device decodes."""


class Initiator(Protocol):
    """The interface that a function needs to make accesses; `vfio_user_xe.emulator.pci.Function` has it."""

    @property
    def name(self) -> str:
        """ "pf", "vf1", ...: unique on its card."""
        ...

    @property
    def index(self) -> int:
        """0 for a PF or a plain device, n for VF n."""
        ...


class AccessFault(Exception):
    """No interconnect reaches an address, or the path that did was taken away.

    `initiator`, `space` and `address` say which access; `reason` says why, in words a report can print.
    """

    def __init__(self, initiator: Initiator, space: str, address: int, reason: str) -> None:
        super().__init__(f"{initiator.name}: {space} address {address:#x}: {reason}")
        self.initiator = initiator
        self.space = space
        self.address = address
        self.reason = reason


class Revoked(AccessFault):
    """The window was revoked: open the address anew."""


_NO_WORDS: Final = memoryview(bytearray()).cast("I")
_PAGE = 0x1000
_WITHOUT_LOCK = 16 << 10
"""From this size on releasing the interpreter's lock is worth its price."""
_LOCKED_STEP = 256 << 10
"""Bytes copied at a time where the lock is kept (memory that is mapped read-only has no address to give)."""


class Window:
    """A contiguous piece of an initiator's address space that one path reaches.

    `address` is where the window starts in the initiator's space, `length` how many bytes it spans (maybe fewer
    than were asked for, never none). `view` gives the bytes without a copy, or is None where the memory can only be
    reached by messages: then `read` and `write` work all the same. A revoked window must be opened anew, or its access
    given up with an `AccessFault`. `initiator` and `space` are filled in by the fabric.
    """

    __slots__ = ("__weakref__", "address", "entry", "initiator", "length", "owner", "space", "valid", "view", "words")

    initiator: Initiator
    space: str

    def __init__(self, address: int, length: int, view: memoryview | None, owner: str, entry: LedgerEntry) -> None:
        self.address = address
        self.length = length
        self.view = view
        self.owner = owner
        self.entry = entry
        self.valid = True
        self.words = _NO_WORDS
        """Dwords of the whole pages of `view`, for spans; empty until a span was made, and after a revocation."""

    def revoke(self) -> None:
        """Take the memory away: every access from now on raises `Revoked`. From any thread; the fabric calls it."""
        self.valid = False
        self.words = _NO_WORDS
        self.view = None

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset` of the window, counted.

        Raises:
            Revoked: the window was revoked.
            AccessFault: the memory cannot be reached.

        On the executor.
        """
        self._check(offset, length)
        data = self._read(offset, length)
        self.entry.count_read(length)
        return data

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store `data` at `offset` of the window, counted.

        Raises:
            Revoked: the window was revoked.
            AccessFault: the memory cannot be reached.

        On the executor.
        """
        self._check(offset, len(data))
        self._write(offset, data)
        self.entry.count_write(len(data))

    def lend(self, offset: int, length: int, *, write: bool, count: int | None = None) -> memoryview | None:
        """`length` bytes in place, counted as one access of `count` bytes (all without it); None where there is no view.

        To be used at once: it outlives a revocation.

        Raises:
            Revoked: The window was taken back.

        On the executor.
        """
        view = self.view
        if view is None:
            if not self.valid:
                raise self._revoked(offset)
            return None
        if count is None:
            count = length
        if write:
            self.entry.count_write(count)
        else:
            self.entry.count_read(count)
        return view[offset : offset + length]

    def fill(self, offset: int, length: int, pattern: bytes, phase: int = 0) -> None:
        """Fill `length` bytes at `offset` with `pattern` again and again, from its byte `phase` on.

        Raises:
            Revoked: the window was revoked.
            AccessFault: the memory cannot be reached.

        On the executor.
        """
        view = self.view
        if len(pattern) == 1 and view is not None and not view.readonly:
            self.entry.count_write(length)
            ctypes.memset(_address_of(view[offset : offset + length]), pattern[0], length)
            return
        repeated = pattern * (-(-(length + phase) // len(pattern)))
        self.write(offset, memoryview(repeated)[phase : phase + length])

    def zero(self, offset: int, length: int, by: Callable[[memoryview], bool]) -> bool:
        """Have `by` zero bytes in a way of its own (punch holes, say), counted as a write; False: it did nothing."""
        view = self.view
        if view is None or not by(view[offset : offset + length]):
            return False
        self.entry.count_write(length)
        return True

    def _read(self, offset: int, length: int) -> bytes:
        """For windows without a view to override."""
        view = self.view
        if view is None:
            raise self._no_view(offset)
        return bytes(view[offset : offset + length])

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        """For windows without a view to override."""
        view = self.view
        if view is None:
            raise self._no_view(offset)
        view[offset : offset + len(data)] = data

    def _check(self, offset: int, length: int) -> None:
        if not self.valid:
            raise self._revoked(offset)
        if offset < 0 or length < 0 or offset + length > self.length:
            raise ValueError(f"[{offset:#x}, +{length:#x}) is outside of a window of {self.length:#x} bytes")

    def _revoked(self, offset: int) -> Revoked:
        return Revoked(self.initiator, self.space, self.address + offset, f"the path to {self.owner} was revoked")

    def _no_view(self, offset: int) -> Exception:
        if not self.valid:
            return self._revoked(offset)
        return TypeError("a window without a view must override _read() and _write()")


class Span:
    """The whole pages of a window, as memory from `base` of an address space on.

    Addresses are the space's, naturally aligned, and inside of the span: `[base, end)`. On the card's executor.
    Every access raises `Revoked` once the window was revoked.
    """

    __slots__ = ("base", "end", "entry", "mark", "window")

    def __init__(self, window: Window, base: int, mark: int = 0) -> None:
        """`mark` is the space's own: what it opened the span for. A window without a view gives an empty span."""
        view = window.view
        whole = len(view) & -_PAGE if view is not None else 0
        if view is not None and not window.words:
            window.words = view[:whole].cast("I")
            if not window.valid:
                # Revoked between: what another thread emptied must stay empty.
                window.words = _NO_WORDS
        self.window = window
        self.entry = window.entry
        self.base = base
        self.end = base + whole
        self.mark = mark

    @property
    def valid(self) -> bool:
        """Whether the window is not revoked."""
        return self.window.valid

    def load32(self, address: int) -> int:
        """The dword at `address`."""
        try:
            value = self.window.words[(address - self.base) >> 2]
        except IndexError:
            raise self._gone(address) from None
        self.entry.loads32 += 1
        return value

    def store32(self, address: int, value: int) -> None:
        """Store a dword at `address`; `value` is below 2^32."""
        try:
            self.window.words[(address - self.base) >> 2] = value
        except IndexError:
            raise self._gone(address) from None
        self.entry.stores32 += 1

    def load64(self, address: int) -> int:
        """The qword at `address`."""
        words, index = self.window.words, (address - self.base) >> 2
        try:
            value = words[index] | words[index + 1] << 32
        except IndexError:
            raise self._gone(address) from None
        self.entry.count_read(8)
        return value

    def store64(self, address: int, value: int) -> None:
        """Store a qword at `address`; `value` is below 2^64."""
        words, index = self.window.words, (address - self.base) >> 2
        try:
            words[index] = value & 0xFFFFFFFF
            words[index + 1] = value >> 32
        except IndexError:
            raise self._gone(address) from None
        self.entry.count_write(8)

    def load(self, address: int, length: int) -> bytes:
        """`length` bytes at `address`, of any alignment."""
        view, offset = self.window.view, address - self.base
        if view is None:
            raise self._gone(address)
        self.entry.count_read(length)
        return bytes(view[offset : offset + length])

    def store(self, address: int, data: bytes | memoryview) -> None:
        """Store bytes at `address`, of any alignment."""
        view, offset = self.window.view, address - self.base
        if view is None:
            raise self._gone(address)
        self.entry.count_write(len(data))
        view[offset : offset + len(data)] = data

    def load_words(self, address: int, count: int) -> list[int]:
        """`count` dwords from `address` on, in one access."""
        index = (address - self.base) >> 2
        values = self.window.words[index : index + count].tolist()
        if len(values) != count:
            raise self._gone(address)
        self.entry.count_read(count << 2)
        return values

    def store_words(self, address: int, values: array[int] | memoryview) -> None:
        """Store dwords from `address` on, in one access."""
        index = (address - self.base) >> 2
        try:
            self.window.words[index : index + len(values)] = values
        except ValueError:
            raise self._gone(address) from None
        self.entry.count_write(len(values) << 2)

    def fetch(self) -> memoryview:
        """All dwords, `[0]` is that at `base`: for a command streamer, which counts by `fetched` how many it took.

        To be used for one slice of execution at most: it outlives a revocation.

        Raises:
            Revoked: the window was revoked.
        """
        words = self.window.words
        if not words:
            raise self._gone(self.base)
        return words

    def fetched(self, dwords: int) -> None:
        """Count `dwords` of what `fetch` gave as one access; none is no access."""
        if dwords:
            self.entry.count_read(dwords << 2)

    def account(self, reads: int, bytes_read: int, writes: int, bytes_written: int) -> None:
        """Count accesses that compiled code made to what `fetch` gave, in bulk."""
        self.entry.count_bulk(reads, bytes_read, writes, bytes_written)

    def _gone(self, address: int) -> Exception:
        if self.window.valid:
            return ValueError(f"{address:#x} is outside of the span [{self.base:#x}, {self.end:#x})")
        return self.window._revoked(address - self.base)


def move(source: Window, source_offset: int, target: Window, target_offset: int, count: int) -> None:
    """Copy `count` bytes between two windows, counted in both entries; large copies release the interpreter's lock.

    Raises:
        Revoked: one of the windows was revoked.
        AccessFault: memory that is reached by messages cannot be reached.
    """
    from_view, to_view = source.view, target.view
    if from_view is None or to_view is None:
        target.write(target_offset, source.read(source_offset, count))
        return
    source.entry.count_read(count)
    target.entry.count_write(count)
    from_view = from_view[source_offset : source_offset + count]
    to_view = to_view[target_offset : target_offset + count]
    if count < _WITHOUT_LOCK:
        to_view[:] = from_view
    elif from_view.readonly or to_view.readonly:
        for start in range(0, count, _LOCKED_STEP):
            to_view[start : start + _LOCKED_STEP] = from_view[start : start + _LOCKED_STEP]
    else:
        ctypes.memmove(_address_of(to_view), _address_of(from_view), count)


def _address_of(view: memoryview) -> int:
    """Where the bytes of a writable view are in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
