"""What interconnects that reach cards in other server processes share: the connection, the grants, and their end.

A grant is a piece of the other card's memory, mapped here; windows are views on it. When the other card takes it back
(its owner changed, is reset, the server ends), the windows are revoked, and every initiator that had one gets a fault
at its next access there: a job that was in the middle of it ends. The access after that asks the other card anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Initiator, LedgerEntry, Window
from vfio_user_xe.emulator.fabric.leases import PATIENCE
from vfio_user_xe.emulator.fabric.peers import Grant, Peer, PeerBar, PeerError
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.memory import PAGE_SIZE

log = logging.getLogger(__name__)

NOBODY = "none"
"""Owner, in the ledger, of the part of a VF's BAR2 that its VF has no memory for."""

_GRAIN = 2 << 20
"""Bytes: requests for memory begin at multiples of it, so that neighbours share a grant."""
_RETRY = 0.5
"""Seconds between attempts to reach a card that does not answer, if no access needs it in particular."""


@dataclass(slots=True)
class Reach:
    """How an interconnect presents memory of a peer: `function`'s device address (or offset in its BAR `bar`) `begin`
    is at `address` of `space`, and so on for `length` bytes."""

    space: str
    address: int
    length: int
    function: str
    bar: int | None
    begin: int = 0

    def covers(self, space: str, address: int) -> bool:
        """Whether an access there is one to this memory."""
        return space == self.space and 0 <= address - self.address < self.length


@dataclass(slots=True, eq=False)
class _Mapped:
    """A grant in use."""

    reach: Reach
    grant: Grant
    view: memoryview
    start: int
    """Where it begins in the initiator's space."""

    @property
    def end(self) -> int:
        """Where it ends there."""
        return self.start + self.grant.length


@dataclass(slots=True)
class _Broken:
    """A path that was revoked while a function had a window on it."""

    initiator: str
    space: str
    start: int
    end: int
    reason: str = field(compare=False)


class PeerRefused(AccessFault):
    """The other card does not give it; `code` is that of `vfio_user_xe.emulator.fabric.leases.LeaseRefused`."""

    def __init__(self, initiator: Initiator, space: str, address: int, reason: str, code: str) -> None:
        super().__init__(initiator, space, address, reason)
        self.code = code


class PeerMemory:
    """Memory of the card that is served in `folder`, for the interconnect called `name` of `card`."""

    def __init__(self, card: Card, folder: str, name: str) -> None:
        self.folder = folder
        self.name = name
        self._card = card
        self._peer: Peer | None = None
        self._mapped: list[_Mapped] = []
        self._broken: list[_Broken] = []
        self._not_before = 0.0
        card.on_stop.append(self.close)

    def bars(self) -> list[PeerBar]:
        """What the peer decodes, as far as it is there."""
        peer = self._peer
        if peer is None or not peer.alive:
            clock = self._card.clock
            if clock.seconds() < self._not_before:
                return []
            started = clock.seconds()
            try:
                peer = self._connected()
            except PeerError:
                # One that hangs costs the executor a long wait: it is asked the more rarely.
                ended = clock.seconds()
                self._not_before = ended + max(_RETRY, 10 * (ended - started))
                return []
        return peer.bars()

    def window(
        self, reach: Reach, initiator: Initiator, address: int, length: int, kind: str, *, write: bool = True
    ) -> Window:
        """A window on `[address, +length)`, which `reach` covers. On the executor.

        Raises:
            AccessFault: a window on it was revoked meanwhile; once for each.
            PeerRefused: the other card does not give it, or cannot be reached.

        On the executor.
        """
        self._fault_once(initiator, reach.space, address)
        length = min(length, reach.address + reach.length - address)
        try:
            mapped = self._find(reach, address) or self._ask(reach, address)
        except (PeerError, OSError) as error:
            raise PeerRefused(initiator, reach.space, address, str(error), getattr(error, "code", "")) from None
        at = address - mapped.start
        view = mapped.view[at : at + length]
        owner = f"{self._name_of_peer()}:{mapped.grant.owner}"
        entry = self._card.fabric.ledger.entry(initiator.name, owner, self.name, kind)
        return Window(address, len(view), view if write else view.toreadonly(), owner, entry)

    def registers(self, reach: Reach, initiator: Initiator, address: int, length: int, kind: str) -> Window:
        """A window on trapped registers, every access of which is a message to the peer."""
        assert reach.bar is not None
        owner = f"{self._name_of_peer()}:{reach.function}"
        entry = self._card.fabric.ledger.entry(initiator.name, owner, self.name, kind)
        return _PeerRegisters(address, length, owner, entry, self._connected, reach)

    def close(self) -> None:
        """Drop the connection."""
        if self._peer is not None:
            self._peer.close()

    def _name_of_peer(self) -> str:
        return self._peer.card if self._peer is not None else self.folder

    def _connected(self) -> Peer:
        if self._peer is None or not self._peer.alive:
            if self._card.dial is None:
                raise PeerError(f"the card {self._card.name} is not served, it cannot reach others")
            self._peer = self._card.dial(self.folder, self)
        return self._peer

    def _find(self, reach: Reach, address: int) -> _Mapped | None:
        for mapped in self._mapped:
            if mapped.reach == reach and mapped.start <= address < mapped.end and mapped.grant.valid:
                return mapped
        return None

    def _ask(self, reach: Reach, address: int) -> _Mapped:
        """As much as there is in one piece: from a round place on, up to what is mapped already."""
        self._mapped = [mapped for mapped in self._mapped if mapped.grant.valid]
        ends = [mapped.start for mapped in self._mapped if mapped.reach == reach and mapped.start > address]
        end = min([reach.address + reach.length, *ends])
        start, page = max(reach.address, address & -_GRAIN), address & -PAGE_SIZE
        try:
            grant = self._open(reach, start, end)
            if start + grant.length <= address:
                self._connected().release(grant)
                start = page  # another piece begins in between
                grant = self._open(reach, start, end)
        except PeerError as error:
            if not error.code or start == page:
                raise
            start = page  # the round place is none of it
            grant = self._open(reach, start, end)
        mapped = _Mapped(reach, grant, grant.map(), start)
        self._mapped.append(mapped)
        # From here on a revocation finds it; what came before is seen in the grant.
        if not grant.valid:
            raise PeerError("the memory was revoked while the lease was given")
        return mapped

    def _open(self, reach: Reach, start: int, end: int) -> Grant:
        return self._connected().open(reach.function, reach.begin + start - reach.address, end - start, reach.bar)

    def _fault_once(self, initiator: Initiator, space: str, address: int) -> None:
        for broken in self._broken:
            if broken.initiator == initiator.name and broken.space == space and broken.start <= address < broken.end:
                self._broken.remove(broken)
                raise AccessFault(initiator, space, address, f"the path was revoked: {broken.reason}")

    # What the peer tells, on its thread.

    def revoked(self, grant: Grant, reason: str) -> None:
        for mapped in self._mapped:
            if mapped.grant is grant:
                self._revoke(mapped, reason)

    def _revoke(self, mapped: _Mapped, reason: str) -> None:
        space, start, end = mapped.reach.space, mapped.start, mapped.end
        log.info("%s: [%#x, %#x) was revoked: %s", self.name, start, end, reason)

        def touched(window: Window) -> bool:
            if window.space != space or window.address >= end or window.address + window.length <= start:
                return False
            if window.entry.interconnect != self.name:
                return False
            # Before the window turns invalid: who finds that looks here next.
            broken = _Broken(window.initiator.name, space, start, end, reason)
            if broken not in self._broken:
                self._broken.append(broken)
            return True

        self._card.fabric.revoke(touched)
        peer = self._peer
        if peer is not None and not peer.asked:
            # The other card waits: the copy in flight is aborted now. Not where the executor itself waits for an answer.
            self._card.executor.settle(PATIENCE / 2)

    def noted(self, event: dict[str, Any]) -> None:
        ownership = self._card.fabric.ledger.ownership
        if event["event"] == "changed":
            self._card.fabric.revoke(lambda w: w.entry.interconnect == self.name and w.owner == NOBODY)
            return
        owner = f"{self._name_of_peer()}:{event['owner']}"
        note: dict[str, Callable[[str], None]] = {
            "reset_began": ownership.reset_began,
            "reset_ended": ownership.reset_ended,
        }
        self._card.executor.submit(lambda: note[event["event"]](owner))

    def gone(self) -> None:
        ownership = self._card.fabric.ledger.ownership
        name = self._name_of_peer()

        def end_resets() -> None:
            for reset in ownership.resets_as_list():
                if reset["ended"] is None and reset["owner"].startswith(f"{name}:"):
                    ownership.reset_ended(reset["owner"])

        self._card.executor.submit(end_resets)


class _PeerRegisters(Window):
    """Registers of another card: every access is a message, and waits for its answer."""

    __slots__ = ("_connected", "_reach")

    def __init__(
        self,
        address: int,
        length: int,
        owner: str,
        entry: LedgerEntry,
        connected: Callable[[], Peer],
        reach: Reach,
    ) -> None:
        super().__init__(address, length, None, owner, entry)
        self._connected = connected
        self._reach = reach

    def _read(self, offset: int, length: int) -> bytes:
        assert self._reach.bar is not None
        at = self.address + offset - self._reach.address
        try:
            return self._connected().read(self._reach.function, self._reach.bar, at, length)
        except PeerError as error:
            raise AccessFault(self.initiator, self.space, self.address + offset, str(error)) from None

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        assert self._reach.bar is not None
        at = self.address + offset - self._reach.address
        try:
            self._connected().write(self._reach.function, self._reach.bar, at, bytes(data))
        except PeerError as error:
            raise AccessFault(self.initiator, self.space, self.address + offset, str(error)) from None
