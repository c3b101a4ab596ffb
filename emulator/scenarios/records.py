"""What the card is asked when a scenario has ended: data of the control socket, by their names there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from vfio_user_xe.emulator.results.evidence import Json


class LedgerRow(TypedDict):
    """Accesses of one kind (`fabric.ledger.LedgerEntry`)."""

    initiator: str
    owner: str
    interconnect: str
    way: str
    """`zero-copy`, `legacy` or `other`: how the interconnect reaches memory."""
    kind: str
    reads: int
    bytes_read: int
    writes: int
    bytes_written: int
    spans: int


class StaleAccess(LedgerRow, total=False):
    """Accesses that came after the memory's owner had changed or while it was reset, with `reason`."""

    reason: str
    after: float | None
    """Seconds from the reset's beginning until the path was opened; None: it was open before."""


class Verdicts(TypedDict, total=False):
    """What the ledger's accesses say."""

    stale: list[StaleAccess]


class Change(TypedDict):
    """Memory that changed its owner."""

    time: float
    address: int
    length: int
    old: str
    new: str


class Reset(TypedDict):
    """A function's reset; `ended` None: it lasts."""

    owner: str
    began: float
    ended: float | None


class Ownership(TypedDict, total=False):
    """What changed hands and was reset."""

    changes: list[Change]
    resets: list[Reset]


@dataclass
class Records:
    """The card's answers after a scenario; `of_suite` are those that only the suite knows."""

    ledger: list[LedgerRow] = field(default_factory=list)
    verdicts: Verdicts = field(default_factory=Verdicts)
    ownership: Ownership = field(default_factory=Ownership)
    of_suite: dict[str, Json] = field(default_factory=dict)
    accounts: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """The suite's accounts before and after; None: the guest was given up."""
