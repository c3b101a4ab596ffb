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


def why_failed(error: BaseException) -> str:
    """What a scenario failed by, whose body raised something else than a verdict.

    A guest that is lost after a verdict lets the body's cleaning up fail, too: what was seen before that explains it.
    """
    text = f"{type(error).__name__}: {first_line(error)}"
    before: BaseException | None = error
    while before is not None and not isinstance(before, Failed | KnownDefect | NotApplicable):
        before = None if before.__suppress_context__ else before.__context__
    return text if before is None else f"{first_line(before)}; then {text}"


def first_line(error: BaseException) -> str:
    """Of what an error says, or its name."""
    return (str(error) or type(error).__name__).splitlines()[0]
