"""Interconnects: the ways by which an access of one function reaches memory, and the ledger of every such access.

An engine never touches memory by address. It asks its card's `Fabric` for a `Window` on
`(initiator, space, address, length)`; the fabric asks the interconnects in the configured order, and the first that
answers decides the path: whose memory it is, where its bytes are, and when that stops being true (`revoke`).

The window is kept and used many times (it is what a translation cache stores), so the counting is two integer
additions on the `LedgerEntry` that the window carries, not a call. Only the card's executor opens and uses windows;
they are revoked from any thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from vfio_user_xe.emulator.fabric.ledger import Ledger, LedgerEntry

__all__ = ["AccessFault", "Fabric", "Initiator", "Interconnect", "Ledger", "LedgerEntry", "Space", "Window"]


class Space:
    """The address spaces that an access can leave a device in; plain strings, so that a ledger reads well."""

    DEVICE = "device"
    """Device memory as the initiator addresses it: DPA for a PF, GDPA (before LMTT) for a VF."""
    SYSTEM = "system"
    """A DMA address of the initiator (an IOVA): guest RAM, or a BAR that another device decodes."""


class Initiator(Protocol):
    """What a function must tell to take part in accesses; `vfio_user_xe.emulator.pci.Function` does."""

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


class Window:
    """A contiguous piece of an initiator's address space that one path reaches.

    `address` is where the window starts in the initiator's space, `length` how many bytes it spans (maybe fewer
    than were asked for, never none). `view` gives the bytes without a copy, or is None where the memory can only be
    reached by messages: then `read` and `write` work all the same. Before using the view of a window that was kept,
    look at `valid`: a revoked window must be opened anew, or its access given up with an `AccessFault`.
    `initiator` and `space` are filled in by the fabric.
    """

    __slots__ = ("__weakref__", "address", "entry", "initiator", "length", "owner", "space", "valid", "view")

    initiator: Initiator
    space: str

    def __init__(self, address: int, length: int, view: memoryview | None, owner: str, entry: LedgerEntry) -> None:
        self.address = address
        self.length = length
        self.view = view
        self.owner = owner
        self.entry = entry
        self.valid = True

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset` of the window, counted. Raises `AccessFault` when it was revoked."""
        self._check(offset, length)
        data = self._read(offset, length)
        self.entry.reads += 1
        self.entry.bytes_read += length
        return data

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store `data` at `offset` of the window, counted. Raises `AccessFault` when it was revoked."""
        self._check(offset, len(data))
        self._write(offset, data)
        self.entry.writes += 1
        self.entry.bytes_written += len(data)

    def _read(self, offset: int, length: int) -> bytes:
        """For windows without a view to override."""
        if self.view is None:
            raise TypeError("a window without a view must override _read()")
        return bytes(self.view[offset : offset + length])

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        """For windows without a view to override."""
        if self.view is None:
            raise TypeError("a window without a view must override _write()")
        self.view[offset : offset + len(data)] = data

    def _check(self, offset: int, length: int) -> None:
        if not self.valid:
            raise AccessFault(
                self.initiator, self.space, self.address + offset, f"the path to {self.owner} was revoked"
            )
        if offset < 0 or length < 0 or offset + length > self.length:
            raise ValueError(f"[{offset:#x}, +{length:#x}) is outside of a window of {self.length:#x} bytes")


class Interconnect(Protocol):
    """One back end, found through the entry-point group `vfio_user_xe.interconnects`.

    The entry point names a class whose constructor takes `(card, options)`. It states `API_VERSION`, and declares the
    options it takes as `OPTIONS`, a tuple of `vfio_user_xe.emulator.model.card.Option`; what it gets is checked and complete.
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
    """A card's interconnects in order, its ledger, and the windows that are open.

    Windows are opened and used on the card's executor; `revoke` and `revoke_range` may be called from any thread.
    """

    def __init__(self, interconnects: Iterable[Interconnect] = (), ledger: Ledger | None = None) -> None:
        self.interconnects: Sequence[Interconnect] = list(interconnects)
        self.ledger = ledger or Ledger()
        self.on_revoke: list[Callable[[], None]] = []
        """Called after any window was revoked, on the thread that revoked it: translation caches drop what they keep."""
        self.on_open: Callable[[Window, str, bool], None] | None = None
        """Told of every window: the interconnect's name, whether it is for writing. For traces."""
        self.on_taken: Callable[[Window], None] | None = None
        """Told of every window that is revoked, on the thread that does so. For traces."""
        self._open: dict[tuple[str, str], _OpenWindows] = {}
        self._revocations = 0

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
        if length <= 0:
            raise ValueError(f"a window of {length} bytes")
        while True:
            revocations = self._revocations
            for interconnect in self.interconnects:
                window = interconnect.open(initiator, space, address, length, write, kind)
                if window is not None:
                    break
            else:
                way = "write to" if write else "read"
                asked = f"no interconnect reaches it (asked to {way} {length:#x} bytes: {self.names() or 'none'})"
                raise AccessFault(initiator, space, address, asked)
            if window.length <= 0:
                raise ValueError(f"interconnect {interconnect.name} opened an empty window at {address:#x}")
            window.initiator = initiator
            window.space = space
            self._windows_of(initiator.name, space).add(window)
            if revocations == self._revocations:
                window.entry.opened(self.ledger.now())
                if self.on_open is not None:
                    self.on_open(window, interconnect.name, write)
                return window
            # Something was revoked meanwhile, and this window may have been resolved before and registered after.
            window.valid = False

    def names(self) -> str:
        """The interconnects in order, comma separated."""
        return ", ".join(interconnect.name for interconnect in self.interconnects)

    def read(self, initiator: Initiator, space: str, address: int, length: int, kind: str = "access") -> bytes:
        """Gather `length` bytes, over as many windows as it takes. Raises `AccessFault`."""
        parts = []
        while length > 0:
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
        rest = memoryview(data).cast("B")
        while rest:
            window = self.window(initiator, space, address, len(rest), write=True, kind=kind)
            count = min(len(rest), window.length)
            window.write(0, rest[:count])
            address += count
            rest = rest[count:]

    def revoke(self, match: Callable[[Window], bool] | None = None) -> int:
        """Take back the open windows that `match` picks (all without it); returns how many.

        Called when memory changes its owner, or a function is reset; after the change, so that a window that is being
        opened at the same time sees it. `match` must not open windows.
        """
        return self._revoke(list(self._open), match)

    def revoke_range(self, initiator: Initiator, space: str, address: int, length: int) -> int:
        """Take back the windows of `initiator` that touch `[address, address + length)` of `space`; returns how many.

        Called when a mapping goes (a DMA_UNMAP, say), after it went.
        """
        end = address + length
        return self._revoke(
            [(initiator.name, space)], lambda window: window.address < end and address < window.address + window.length
        )

    def open_windows(self) -> list[Window]:
        """The windows that are valid and that somebody holds."""
        return [window for group in list(self._open.values()) for window in group.snapshot() if window.valid]

    def _revoke(self, groups: list[tuple[str, str]], match: Callable[[Window], bool] | None) -> int:
        # Before the windows are looked at: see window().
        self._revocations += 1
        revoked = 0
        for group in groups:
            if group not in self._open:
                continue
            for window in self._open[group].snapshot():
                if window.valid and (match is None or match(window)):
                    window.valid = False
                    revoked += 1
                    if self.on_taken is not None:
                        self.on_taken(window)
        if revoked:
            for callback in self.on_revoke:
                callback()
        return revoked

    def _windows_of(self, initiator: str, space: str) -> _OpenWindows:
        found = self._open.get((initiator, space))
        return found if found is not None else self._open.setdefault((initiator, space), _OpenWindows())


class _OpenWindows:
    """The windows of one initiator into one space, held weakly: those that nobody else holds need no revoking."""

    __slots__ = ("_lock", "_references", "_sweep_at")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._references: list[weakref.ref[Window]] = []
        self._sweep_at = 256

    def add(self, window: Window) -> None:
        with self._lock:
            self._references.append(weakref.ref(window))
            if len(self._references) >= self._sweep_at:
                self._references = [r for r in self._references if (w := r()) is not None and w.valid]
                self._sweep_at = max(256, 2 * len(self._references))

    def snapshot(self) -> list[Window]:
        with self._lock:
            references = list(self._references)
        return [window for reference in references if (window := reference()) is not None]
