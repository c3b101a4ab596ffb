"""How a scenario that did not pass ends: what its body raises."""

from __future__ import annotations


class Failed(Exception):
    """The scenario saw something that should not be."""


class KnownDefect(Exception):
    """The scenario saw exactly what a defect that is known by name causes."""

    def __init__(self, defect: str, evidence: str) -> None:
        super().__init__(f"{defect}: {evidence}")
        self.defect = defect
        self.evidence = evidence


class NotApplicable(Exception):
    """The kernel, or this machine, has not what the scenario is about; the text says what, and how that was found."""
