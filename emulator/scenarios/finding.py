"""What a suite says of a defect that it knows: its fix, and which scenarios see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A defect that a suite knows by name.

    `fix` is the commit, or what has been posted; empty: there is none. `needs` is a reporter of the kernel without which
    a pass says nothing. `page` is its report below docs/findings, without the ending.
    """

    defect: str
    title: str
    scenarios: tuple[str, ...]
    fix: str = ""
    needs: str = ""
    page: str = ""
