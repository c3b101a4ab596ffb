"""The ledger: who reached whose memory, by which interconnect and kind of page-table entry, and when.

Counting costs an integer addition or two an access, on the entry that a window carries (`fabric/span.py` does it). Everything else is noted when windows
are opened, when memory changes its owner, and when functions are reset: the `Ownership` of device memory. From both come
the verdicts that scenarios are about (`Ledger.verdicts`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Way = Literal["zero-copy", "legacy", "other"]
"""The meaning of an access by an interconnect: "zero-copy" is by device address; "legacy" as a PCI device reaches any
BAR, by a bus or DMA address; "other" is neither. An interconnect declares it (`Interconnect.way`)."""

UNSHARED = "unshared"
"""Owner of what a client maps for DMA without a descriptor: a BAR of some device, or memory that is not shared."""

ELSEWHERE = ":"
"""In the name of an owner on another card: "card:function"."""

KERNEL = "kernel "
"""Prefix of the kind of accesses that a driver makes for itself (it clears a VF's memory, say)."""
STALE = "stale "
"""Prefix of the kind of accesses through a translation that is older than the memory's present owner."""
CONTROL = "control"
"""Kind of accesses that the control socket was asked to make."""

HISTORY = 4096
"""Changes and resets that are remembered."""


class LedgerEntry:
    """Accesses of one kind. Only windows and spans count in it (`fabric/span.py`), on the card's executor."""

    __slots__ = (
        "_bytes_read",
        "_bytes_written",
        "_reads",
        "_writes",
        "first",
        "initiator",
        "interconnect",
        "kind",
        "last",
        "loads32",
        "owner",
        "since",
        "spans",
        "stores32",
        "way",
    )

    def __init__(self, initiator: str, owner: str, interconnect: str, kind: str, way: Way = "other") -> None:
        self.initiator = initiator
        self.owner = owner
        self.interconnect = interconnect
        self.kind = kind
        self.way = way
        self.loads32 = 0
        self.stores32 = 0
        """Accesses of 4 bytes, apart from the others: most are, and one addition counts both them and their bytes."""
        self._reads = 0
        self._writes = 0
        self._bytes_read = 0
        self._bytes_written = 0
        self.spans = 0
        """Windows that were opened."""
        self.first = 0.0
        self.last = 0.0
        """When the first and the last of them were, in seconds since the ledger was made; 0 when there were none, but for
        windows that were open before the counters were cleared."""
        self.since: float | None = None
        """When the first was that was opened since the owner's latest reset began."""

    @property
    def reads(self) -> int:
        """How many reads."""
        return self._reads + self.loads32

    @property
    def writes(self) -> int:
        """How many writes."""
        return self._writes + self.stores32

    @property
    def bytes_read(self) -> int:
        """Bytes that they read."""
        return self._bytes_read + 4 * self.loads32

    @property
    def bytes_written(self) -> int:
        """Bytes that they wrote."""
        return self._bytes_written + 4 * self.stores32

    def count_read(self, length: int) -> None:
        """A read of `length` bytes."""
        self._reads += 1
        self._bytes_read += length

    def count_write(self, length: int) -> None:
        """A write of `length` bytes."""
        self._writes += 1
        self._bytes_written += length

    def count_bulk(self, reads: int, bytes_read: int, writes: int, bytes_written: int) -> None:
        """Many accesses at once."""
        self._reads += reads
        self._bytes_read += bytes_read
        self._writes += writes
        self._bytes_written += bytes_written

    def opened(self, now: float) -> None:
        """A window was opened."""
        if not self.spans:
            self.first = now
        if self.since is None:
            self.since = now
        self.last = now
        self.spans += 1

    def clear(self) -> None:
        """Set the counters to zero."""
        self.loads32 = self.stores32 = self._reads = self._writes = self._bytes_read = self._bytes_written = (
            self.spans
        ) = 0
        self.first = self.last = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The entry as plain data, for the control socket."""
        return {name: getattr(self, name) for name in _COLUMNS}


_COLUMNS = (
    "bytes_read",
    "bytes_written",
    "first",
    "initiator",
    "interconnect",
    "kind",
    "last",
    "owner",
    "reads",
    "spans",
    "way",
    "writes",
)


@dataclass(frozen=True, slots=True)
class Change:
    """Device memory `[address, address + length)` went from one function to another."""

    time: float
    address: int
    length: int
    old: str
    new: str


@dataclass(slots=True)
class Reset:
    """A function's reset, and the accesses of others to its memory while it lasted; `ended` None: it lasts.

    "after" of an access: how long after the beginning its path was opened; None: it went on over one that was open before.
    """

    owner: str
    began: float
    ended: float | None = None
    accesses: list[dict[str, Any]] = field(default_factory=list)


class Ownership:
    """The history of ownership of device memory. The device model reports changes, from the card's executor."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.changes: deque[Change] = deque(maxlen=HISTORY)
        self.resets: deque[Reset] = deque(maxlen=HISTORY)
        self._before: dict[str, dict[LedgerEntry, tuple[int, int]]] = {}
        self.on_event: list[Callable[[dict[str, Any]], None]] = []
        """Called when a reset begins and when it ends, with {"event": "reset_began" or "reset_ended", "owner": name}."""

    def changed(self, address: int, length: int, old: str, new: str) -> None:
        """`[address, address + length)` in device addresses now belongs to `new`."""
        if old != new:
            self.changes.append(Change(self._ledger.now(), address, length, old, new))

    def reset_began(self, owner: str) -> None:
        """Function `owner` is being reset; until `reset_ended` no other function should use its memory. May be called twice."""
        if owner not in self._before:
            self.resets.append(Reset(owner, self._ledger.now()))
            self._before[owner] = {}
            for entry in self._ledger.entries():
                if entry.owner == owner:
                    self._before[owner][entry] = entry.reads, entry.writes
                    entry.since = None
            self._tell("reset_began", owner)

    def reset_ended(self, owner: str) -> None:
        """The reset is finished."""
        if owner in self._before:
            reset = self._current(owner)
            if reset is not None:
                reset.accesses = self._since(owner)
                reset.ended = self._ledger.now()
            del self._before[owner]
            self._tell("reset_ended", owner)

    def _tell(self, event: str, owner: str) -> None:
        for callback in self.on_event:
            callback({"event": event, "owner": owner})

    def history(self, address: int | None = None) -> list[dict[str, Any]]:
        """The changes in their order; with `address` only those of the page that it is in."""
        return [
            asdict(change)
            for change in list(self.changes)
            if address is None or change.address <= address < change.address + change.length
        ]

    def resets_as_list(self) -> list[dict[str, Any]]:
        """The resets in their order; those that last with what happened so far."""
        return [
            asdict(r) | ({} if r.ended is not None else {"accesses": self._since(r.owner)}) for r in list(self.resets)
        ]

    def clear(self) -> None:
        """Forget what is over."""
        self.changes.clear()
        lasting = [reset for reset in self.resets if reset.ended is None]
        self.resets.clear()
        self.resets.extend(lasting)
        for owner, before in self._before.items():
            before.clear()
            before.update({e: (0, 0) for e in self._ledger.entries() if e.owner == owner})

    def _current(self, owner: str) -> Reset | None:
        return next((reset for reset in reversed(self.resets) if reset.owner == owner and reset.ended is None), None)

    def _since(self, owner: str) -> list[dict[str, Any]]:
        before, reset = self._before.get(owner, {}), self._current(owner)
        began = reset.began if reset is not None else 0.0
        accesses = []
        for entry in self._ledger.entries():
            if entry.owner != owner or entry.initiator == owner or _of_driver(entry):
                continue
            reads, writes = before.get(entry, (0, 0))
            if entry.reads > reads or entry.writes > writes:
                accesses.append(
                    {
                        "initiator": entry.initiator,
                        "interconnect": entry.interconnect,
                        "kind": entry.kind,
                        "reads": entry.reads - reads,
                        "writes": entry.writes - writes,
                        "after": None if entry.since is None else round(entry.since - began, 6),
                    }
                )
        return accesses


class Ledger:
    """Every access of a card by (initiator, owner, interconnect, kind): what scenarios assert on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str, str, str], LedgerEntry] = {}
        self.ways: dict[str, Way] = {}
        """The ways of the card's interconnects, by name; filled as the card makes them."""
        self.ownership = Ownership(self)

    def now(self) -> float:
        """Seconds since the ledger was made."""
        return self._clock() - self._start

    def entry(self, initiator: str, owner: str, interconnect: str, kind: str) -> LedgerEntry:
        """The one entry of that kind, made at its first use."""
        key = (initiator, owner, interconnect, kind)
        found = self._entries.get(key)
        if found is None:
            with self._lock:
                found = self._entries.setdefault(key, LedgerEntry(*key, self.ways.get(interconnect, "other")))
        return found

    def entries(self) -> list[LedgerEntry]:
        """All entries, also those that have counted nothing."""
        with self._lock:
            return list(self._entries.values())

    def __iter__(self) -> Iterator[LedgerEntry]:
        """Entries that have counted something."""
        return (entry for entry in self.entries() if entry.reads or entry.writes)

    def clear(self) -> None:
        """Set all counters to zero and forget the history; windows that are open go on counting in the same entries."""
        for entry in self.entries():
            entry.clear()
        self.ownership.clear()

    def verdicts(self, functions: list[str]) -> dict[str, Any]:
        """The verdicts on the accesses, for a card with these functions.

        `paths`: for each pair of functions how the one reached the other's memory ("zero-copy", "legacy", or "both"; else
        the interconnect's name), with the counts; owner "unshared" is memory that the client did not say whose it is,
        "b580:vf1" that of a function of another card. `stale`: accesses through
        translations older than the memory's owner, and accesses to a function's memory during its reset. `foreign`:
        pairs in which a VF reached memory that is another function's. What drivers do for themselves is left out.
        """
        counts: dict[tuple[str, str], dict[str, int]] = {}
        stale = []
        for entry in self:
            if entry.kind.startswith(STALE):
                stale.append({"reason": "the memory's owner changed", **entry.as_dict()})
            known = entry.owner in (*functions, UNSHARED) or ELSEWHERE in entry.owner
            if entry.owner == entry.initiator or _of_driver(entry) or not known:
                continue
            found = counts.setdefault((entry.initiator, entry.owner), {"zero-copy": 0, "legacy": 0})
            way = entry.interconnect if entry.way == "other" else entry.way
            found[way] = found.get(way, 0) + entry.reads + entry.writes
        for reset in self.ownership.resets_as_list():
            stale += [{"reason": "during the owner's reset", "owner": reset["owner"], **a} for a in reset["accesses"]]
        paths = [
            {"initiator": initiator, "owner": owner, "path": _path(found), **found}
            for (initiator, owner), found in sorted(counts.items())
        ]
        foreign = [p for p in paths if p["initiator"] != functions[0] and p["owner"] != UNSHARED]
        return {"paths": paths, "stale": stale, "foreign": foreign}


def _of_driver(entry: LedgerEntry) -> bool:
    return entry.kind == CONTROL or entry.kind.startswith(KERNEL)


def _path(counts: dict[str, int]) -> str:
    used = [way for way, count in counts.items() if count]
    return used[0] if len(used) == 1 else "both" if set(used) == {"zero-copy", "legacy"} else "+".join(used)
