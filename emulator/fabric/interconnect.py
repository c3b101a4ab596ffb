"""Interconnects: routes from an initiator to memory, and the fabric that asks them in order.

An engine never touches memory by address. It asks its card's `Fabric` for a `Window` on
`(initiator, space, address, length)`; the fabric asks the interconnects in the configured order, and the first that
answers decides the path: whose memory it is, where its bytes are, and when that stops being true (`revoke`).

The window is kept and used many times (it is what a translation cache stores). Only the card's executor opens and uses
windows; they are revoked from any thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from vfio_user_xe.emulator.fabric.ledger import Ledger, LedgerEntry, Way
from vfio_user_xe.emulator.fabric.span import AccessFault, Initiator, Space, Window
from vfio_user_xe.emulator.observe.tap import Tap

__all__ = ["AccessFault", "Fabric", "Initiator", "Interconnect", "Ledger", "LedgerEntry", "Space", "Way", "Window"]

FABRIC_HELP = "paths to memory, opened and revoked: who, where, whose, by which interconnect"
"""Of the trace category "fabric"."""


class Interconnect(Protocol):
    """One back end, found through the entry-point group `vfio_user_xe.interconnects`.

    The entry point names a class whose constructor takes `(card, options)`. It states `API_VERSION`, and declares the
    options it takes as `OPTIONS`, a tuple of `vfio_user_xe.emulator.model.card.Option`; what it gets is checked and complete.
    """

    name: str
    way: Way
    """The meaning of its use for the ledger's verdicts; an interconnect that declares none is "other"."""

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        """A window that starts at `address`, or None when this path does not reach it (the next one is asked).

        Raises:
            AccessFault: the address is this path's to answer but is refused.

        On the executor.
        """
        ...


class Epoch:
    """How often memory of one owner was moved or taken away: who keeps views of it compares `value`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Fabric:
    """A card's interconnects in order, its ledger, and the windows that are open.

    Windows are opened and used on the card's executor; `revoke` and `revoke_range` may be called from any thread.
    """

    def __init__(self, interconnects: Iterable[Interconnect] = (), ledger: Ledger | None = None) -> None:
        self.interconnects: Sequence[Interconnect] = list(interconnects)
        self.ledger = ledger or Ledger()
        self.on_revoke: list[Callable[[], None]] = []
        """Called after memory was taken away, on the thread that did so."""
        self.tap = Tap("fabric", FABRIC_HELP)
        """Told of every window that is opened or revoked."""
        self._open: dict[tuple[str, str], _OpenWindows] = {}
        self._revocations = 0
        self._epochs: dict[str, Epoch] = {}

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

        Raises:
            AccessFault: No interconnect reaches the address, or the one that does refuses.
            ValueError: `length` is not positive, or an interconnect opened another window than it was asked for.

        On the executor.
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
            if wrong := _mistake(window, address, length, write):
                raise ValueError(
                    f"interconnect {interconnect.name} was asked for {length:#x} bytes at {address:#x}, and {wrong}"
                )
            window.initiator = initiator
            window.space = space
            self._windows_of(initiator.name, space).add(window)
            if revocations == self._revocations:
                window.entry.opened(self.ledger.now())
                if self.tap.on:
                    self.tap(initiator.name, "window", _described(window, interconnect.name, write))
                return window
            # Something was revoked meanwhile, and this window may have been resolved before and registered after.
            window.revoke()

    def names(self) -> str:
        """The interconnects in order, comma separated."""
        return ", ".join(interconnect.name for interconnect in self.interconnects)

    def read(self, initiator: Initiator, space: str, address: int, length: int, kind: str = "access") -> bytes:
        """Gather `length` bytes, over as many windows as it takes.

        Raises:
            AccessFault: no interconnect reaches an address, or the one that does refuses.

        On the executor.
        """
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
        """Scatter `data`, over as many windows as it takes.

        Raises:
            AccessFault: no interconnect reaches an address, or the one that does refuses; what lies before it is
                written.

        On the executor.
        """
        rest = memoryview(data).cast("B")
        while rest:
            window = self.window(initiator, space, address, len(rest), write=True, kind=kind)
            count = min(len(rest), window.length)
            window.write(0, rest[:count])
            address += count
            rest = rest[count:]

    def epoch(self, owner: str) -> Epoch:
        """The epoch of `owner`'s memory: for what is kept of it without a window. From any thread."""
        found = self._epochs.get(owner)
        return found if found is not None else self._epochs.setdefault(owner, Epoch())

    def revoke(self, match: Callable[[Window], bool] | None = None) -> int:
        """Take back the open windows that `match` picks (all without it); returns how many.

        Called when a function is reset or stops to answer; after the change, so that a window that is being opened at
        the same time sees it. `match` must not open windows.
        """
        return self._revoke(None, match)

    def revoke_owners(self, owners: Iterable[str]) -> int:
        """Take back all windows on memory of `owners`, and begin a new epoch of it; returns how many windows.

        Called when device memory changes its owner or moves; after the change.
        """
        names = frozenset(owners)
        for name in names:
            self.epoch(name).value += 1
        return self._revoke(None, lambda window: window.owner in names, always=True)

    def revoke_range(self, initiator: Initiator, space: str, address: int, length: int) -> int:
        """Take back the windows of `initiator` that touch `[address, address + length)` of `space`; returns how many.

        Called when a mapping goes (a DMA_UNMAP, say), after it went.
        """
        end = address + length
        return self._revoke(
            [(initiator.name, space)], lambda window: window.address < end and address < window.address + window.length
        )

    def open_windows(self) -> list[Window]:
        """The windows that are valid and in use."""
        return [window for group in list(self._open.values()) for window in group.snapshot() if window.valid]

    def _revoke(
        self, groups: list[tuple[str, str]] | None, match: Callable[[Window], bool] | None, *, always: bool = False
    ) -> int:
        # Before the windows, and which groups there are, are looked at: see window().
        self._revocations += 1
        revoked = 0
        for group in list(self._open) if groups is None else groups:
            if group not in self._open:
                continue
            for window in self._open[group].snapshot():
                if window.valid and (match is None or match(window)):
                    window.revoke()
                    revoked += 1
                    if self.tap.on:
                        described = _described(window, window.entry.interconnect)
                        self.tap(window.initiator.name, "revoked", described)
        if revoked or always:
            for callback in self.on_revoke:
                callback()
        return revoked

    def _windows_of(self, initiator: str, space: str) -> _OpenWindows:
        found = self._open.get((initiator, space))
        return found if found is not None else self._open.setdefault((initiator, space), _OpenWindows())


def _mistake(window: Window, address: int, length: int, write: bool) -> str:
    """What is wrong with a window for `length` bytes at `address`, in words; empty when nothing is."""
    if window.address != address:
        return f"opened one at {window.address:#x}"
    if not 0 < window.length <= length:
        return f"opened one of {window.length:#x} bytes"
    view = window.view
    if view is not None and view.nbytes < window.length:
        return f"opened one of {window.length:#x} bytes with a view of {view.nbytes:#x}"
    if write and view is not None and view.readonly:
        return "opened one to be written with a view that is read-only"
    return ""


def _described(window: Window, interconnect: str, write: bool | None = None) -> dict[str, str | int]:
    """A window in a trace; `write` is what it was opened for."""
    way = {} if write is None else {"for": "write" if write else "read"}
    return {
        "space": window.space,
        "address": window.address,
        "length": window.length,
        **way,
        "kind": window.entry.kind,
        "interconnect": interconnect,
        "owner": window.owner,
    }


class _OpenWindows:
    """The windows of one initiator into one space, held weakly: a window that is not in use needs no revoking."""

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
