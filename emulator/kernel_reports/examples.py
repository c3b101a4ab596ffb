"""An example of every form of report, written for this project (`examples.txt`): for the unit tests and the judge's own suite."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from vfio_user_xe.emulator.kernel_reports.forms import Kind


@dataclass(frozen=True, slots=True)
class Example:
    """Lines that a kernel could print, the kind of report that they are, and the function it names ("": none)."""

    name: str
    kind: Kind
    function: str
    lines: tuple[str, ...]


def examples() -> list[Example]:
    """All of them, in the file's order."""
    text = (files(__package__) / "examples.txt").read_text(encoding="utf-8")
    found = []
    for section in text.split("\n== ")[1:]:
        heading, *lines = section.rstrip("\n").split("\n")
        kind, function, name = (word.strip() for word in heading.split("|"))
        found.append(Example(name, Kind(kind), "" if function == "-" else function, tuple(lines)))
    return found
