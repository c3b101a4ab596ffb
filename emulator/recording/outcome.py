"""What comes of a replay: the figures, the first difference."""

from __future__ import annotations

from dataclasses import dataclass, field

from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.pci.transport import CONFIG_REGION
from vfio_user_xe.emulator.recording import format as rec
from vfio_user_xe.emulator.recording.format import Event


@dataclass(frozen=True, slots=True)
class Difference:
    """What was not as recorded: at which event, where, what the recording has and what came instead."""

    event: int
    where: str
    expected: str
    got: str
    before: list[str] = field(default_factory=list)
    """The accesses before it, the latest last."""

    def __str__(self) -> str:
        lines = [f"event {self.event}: {self.where}: {self.got}, recorded was {self.expected}"]
        if self.before:
            lines += ["  before it:", *(f"    {line}" for line in self.before)]
        return "\n".join(lines)


@dataclass(slots=True)
class Outcome:
    """What came of a replay. Without a difference the card did all that was recorded."""

    events: int = 0
    accesses: int = 0
    jobs: int = 0
    interrupts: int = 0
    seconds: float = 0.0
    failures: int = 0
    """Jobs of the device that raised an exception."""
    unknown_reads: int = 0
    """Reads of guest memory that the recorded device did not make."""
    other_times: int = 0
    """Values that were computed from the clock as they were read, and differ: the device looks at it more or less often."""
    cut_off: str = ""
    """Why the recording has no end, if it has none: it was replayed as far as it goes."""
    difference: Difference | None = None


class Different(Exception):
    """Ends a replay."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


def place(card: Card, event: Event) -> str:
    """Where an access was: function, region, register."""
    function = card.served[event.function]
    if event.a == CONFIG_REGION:
        return f"{function.name}: configuration space at {event.x:#x}"
    region = function.regions[event.a]
    handler = region.handler if region is not None else None
    register = f" ({handler.name_of(event.x)})" if isinstance(handler, RegisterFile) else ""
    return f"{function.name}: BAR{event.a} at {event.x:#x}{register}"


def line(card: Card, event: Event) -> str:
    """An access as one line."""
    value = f" = {event.y:#x}" if event.kind in (rec.READ, rec.WRITE) else ""
    return f"{event.number}: {rec.NAMES[event.kind]} {place(card, event)}{value}"
