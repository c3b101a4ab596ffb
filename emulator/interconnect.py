"""Interconnects: the ways by which an access of one function reaches memory, and the ledger of every such access.

An engine never touches memory by address. It asks its card's `Fabric` for a `Window` on
`(initiator, space, address, length)`; the fabric asks the interconnects in the configured order, and the first that
answers decides the path: whose memory it is, where its bytes are, and when that stops being true (`revoke`).

The window is kept and used many times (it is what a translation cache stores), so the counting is two integer
additions on the `LedgerEntry` that the window carries, not a call. Only the card's executor opens and uses windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol


class Space:
    """The address spaces that an access can leave a device in; plain strings, so that a ledger reads well."""

    DEVICE = "device"
    """Device memory as the initiator addresses it: DPA for a PF, GDPA (before LMTT) for a VF."""
    SYSTEM = "system"
    """A DMA address of the initiator (an IOVA): guest RAM, or a BAR that another device decodes."""


class Initiator(Protocol):
    """What a function must tell to take part in accesses; `emulator.pci.Function` does."""

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


class LedgerEntry:
    """Accesses of one kind: the counters are incremented in place by whoever uses a window."""

    __slots__ = (
        "bytes_read",
        "bytes_written",
        "initiator",
        "interconnect",
        "kind",
        "owner",
        "reads",
        "writes",
    )

    def __init__(self, initiator: str, owner: str, interconnect: str, kind: str) -> None:
        self.initiator = initiator
        self.owner = owner
        self.interconnect = interconnect
        self.kind = kind
        self.reads = 0
        self.writes = 0
        self.bytes_read = 0
        self.bytes_written = 0

    def as_dict(self) -> dict[str, Any]:
        """The entry as plain data, for the control socket."""
        return {name: getattr(self, name) for name in sorted(self.__slots__)}


class Ledger:
    """Every access of a card by (initiator, owner, interconnect, kind): what scenarios assert on."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str, str], LedgerEntry] = {}

    def entry(self, initiator: str, owner: str, interconnect: str, kind: str) -> LedgerEntry:
        """The one entry of that kind, made when it is first asked for."""
        key = (initiator, owner, interconnect, kind)
        found = self._entries.get(key)
        if found is None:
            found = self._entries.setdefault(key, LedgerEntry(*key))
        return found

    def __iter__(self) -> Iterator[LedgerEntry]:
        """Entries that have counted something."""
        return (entry for entry in list(self._entries.values()) if entry.reads or entry.writes)

    def clear(self) -> None:
        """Set all counters to zero; windows that are open go on counting in the same entries."""
        for entry in list(self._entries.values()):
            entry.reads = entry.writes = entry.bytes_read = entry.bytes_written = 0


class Window:
    """A contiguous piece of an initiator's address space that one path reaches.

    `address` is where the window starts in the initiator's space, `length` how many bytes it spans (maybe fewer
    than were asked for, never none). `view` gives the bytes without a copy, or is None where the memory can only be
    reached by messages: then `read` and `write` work all the same. Before using a window that was kept, look at
    `valid`: a revoked window must be opened anew, or its access given up with an `AccessFault`.
    """

    __slots__ = ("address", "entry", "length", "owner", "valid", "view")

    def __init__(self, address: int, length: int, view: memoryview | None, owner: str, entry: LedgerEntry) -> None:
        self.address = address
        self.length = length
        self.view = view
        self.owner = owner
        self.entry = entry
        self.valid = True

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset` of the window, counted."""
        if self.view is None:
            raise TypeError("a window without a view must override read()")
        self.entry.reads += 1
        self.entry.bytes_read += length
        return bytes(self.view[offset : offset + length])

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store `data` at `offset` of the window, counted."""
        if self.view is None:
            raise TypeError("a window without a view must override write()")
        self.entry.writes += 1
        self.entry.bytes_written += len(data)
        self.view[offset : offset + len(data)] = data


class Interconnect(Protocol):
    """One back end, found through the entry-point group `vfio_user_xe.interconnects`.

    The entry point names a callable `(card, options) -> Interconnect`; `options` are the strings of the card file, and
    unknown ones are refused with `emulator.card.CardError`.
    """

    name: str

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        """A window that starts at `address`, or None when this path does not reach it (the next one is asked).

        Raises `AccessFault` when the address is this path's to answer but is refused.
        """
        ...


class Fabric:
    """A card's interconnects in order, its ledger, and the windows that are open."""

    def __init__(self, interconnects: Iterable[Interconnect] = (), ledger: Ledger | None = None) -> None:
        self.interconnects: Sequence[Interconnect] = list(interconnects)
        self.ledger = ledger or Ledger()
        self._open: list[Window] = []
        self._sweep_at = 1024
        self.on_revoke: list[Callable[[], None]] = []
        """Called after any window was revoked: translation caches drop what they keep."""

    def window(
        self,
        initiator: Initiator,
        space: str,
        address: int,
        length: int,
        *,
        write: bool,
        kind: str = "access",
    ) -> Window:
        """A window on the first bytes of `[address, address + length)` in `space` of `initiator`.

        `kind` says what led here (a PTE kind such as "vram" or "system"); it is a column of the ledger.
        Raises `AccessFault` when no interconnect reaches the address.
        """
        for interconnect in self.interconnects:
            window = interconnect.open(initiator, space, address, length, write, kind)
            if window is not None:
                self._remember(window)
                return window
        raise AccessFault(initiator, space, address, f"no interconnect of {self.names() or 'none'} reaches it")

    def names(self) -> str:
        """The interconnects in order, comma separated."""
        return ", ".join(interconnect.name for interconnect in self.interconnects)

    def read(self, initiator: Initiator, space: str, address: int, length: int, kind: str = "access") -> bytes:
        """Gather `length` bytes, over as many windows as it takes. Raises `AccessFault`."""
        parts = []
        while length:
            window = self.window(initiator, space, address, length, write=False, kind=kind)
            count = min(length, window.length)
            parts.append(window.read(0, count))
            address += count
            length -= count
        return b"".join(parts)

    def write(
        self, initiator: Initiator, space: str, address: int, data: bytes | memoryview, kind: str = "access"
    ) -> None:
        """Scatter `data`, over as many windows as it takes. Raises `AccessFault`."""
        rest = memoryview(data)
        while rest:
            window = self.window(initiator, space, address, len(rest), write=True, kind=kind)
            count = min(len(rest), window.length)
            window.write(0, rest[:count])
            address += count
            rest = rest[count:]

    def revoke(self, match: Callable[[Window], bool] | None = None) -> int:
        """Take back the open windows that `match` picks (all without it); returns how many.

        Called when memory changes its owner, a mapping goes, or a function is reset.
        """
        keep: list[Window] = []
        revoked = 0
        for window in self._open:
            if not window.valid:
                continue
            if match is None or match(window):
                window.valid = False
                revoked += 1
            else:
                keep.append(window)
        self._open = keep
        for callback in self.on_revoke:
            callback()
        return revoked

    def _remember(self, window: Window) -> None:
        # Windows that nobody else holds need no revoking; a weak reference each would cost more than a sweep.
        self._open.append(window)
        if len(self._open) >= self._sweep_at:
            from sys import getrefcount

            self._open = [w for w in self._open if w.valid and getrefcount(w) > _REFERENCES_OF_LIST_ONLY]
            self._sweep_at = max(1024, 2 * len(self._open))


# The list, the loop variable and getrefcount's own argument.
_REFERENCES_OF_LIST_ONLY = 3
