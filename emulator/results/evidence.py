"""What explains a result: logs, facts, a timeline, tables, accesses, a map of memory. Plain data that JSON can carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
"""What `json.dumps` writes and `json.loads` gives back."""

PLAIN = "plain"
"""In the metadata of a field: it holds `Json`, of whatever shape."""


class Role(StrEnum):
    """Where a piece of evidence is presented."""

    SHOWN = "shown"
    """It explains the verdict: a terminal and the open part of a page have it."""
    FOLDED = "folded"
    """It is there for who looks closer."""
    RAW = "raw"
    """Data for programs; what a person is to see of it is other evidence."""


@dataclass(frozen=True, slots=True)
class Log:
    """Text that something wrote: a kernel's log, a console, a test. `output`: the test itself wrote it."""

    name: str
    text: str
    output: bool = False
    role: Role = Role.FOLDED


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure or a dump."""

    name: str
    value: Json = field(metadata={PLAIN: True})
    role: Role = Role.FOLDED


@dataclass(slots=True)
class Event:
    """Something that happened: `start` in seconds after the case began, `seconds` long; `good` None: no judgement."""

    start: float
    seconds: float
    text: str
    good: bool | None = None
    depth: int = 0
    """How many steps it is part of."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The steps of a case."""

    events: list[Event]
    name: str = "Timeline"
    role: Role = Role.SHOWN

    @property
    def seconds(self) -> float:
        """From the beginning to the end of the last event; never 0."""
        return max((event.start + event.seconds for event in self.events), default=0.0) or 1.0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; `numeric` names the columns that hold numbers."""

    name: str
    columns: list[str]
    rows: list[list[str]]
    numeric: list[str]
    role: Role = Role.FOLDED
    omitted: int = 0
    """How many more rows there were."""


@dataclass(frozen=True, slots=True)
class Access:
    """Accesses of one device to another's memory; `way` is `zero-copy`, `legacy` or `stale`."""

    initiator: str
    owner: str
    way: str
    text: str
    count: str


@dataclass(frozen=True, slots=True)
class Accesses:
    """The ways that accesses took, and in `stale` a sentence for each that should not have been made."""

    name: str
    accesses: list[Access]
    stale: list[str]
    role: Role = Role.SHOWN


@dataclass(frozen=True, slots=True)
class Range:
    """`size` bytes from `start` on belong to `owner`; `text` says so to a person."""

    owner: str
    start: int
    size: int
    text: str


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """A memory of `size` bytes and whose its ranges are: what no range covers is `rest`'s. `legend` has a text for each owner."""

    name: str
    size: int
    ranges: list[Range]
    legend: dict[str, str]
    rest: str
    table: Table
    role: Role = Role.SHOWN


Evidence: TypeAlias = Log | Fact | Timeline | Table | Accesses | MemoryMap

KINDS: dict[str, type[Log | Fact | Timeline | Table | Accesses | MemoryMap]] = {
    "log": Log,
    "fact": Fact,
    "timeline": Timeline,
    "table": Table,
    "accesses": Accesses,
    "memory-map": MemoryMap,
}
"""Evidence by its name in JSON."""
