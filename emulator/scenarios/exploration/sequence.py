"""Steps of a sequence, and the files in which sequences are kept: a step a line, "ACTOR OPERATION ARGUMENT..."."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

SUFFIX = ".steps"
"""By this `scenario run` knows a file from a scenario's name."""

_FIELD = re.compile(r"# ([a-z]+): (.*)")


class BadSequence(ValueError):
    """A file has no sequence in it, or one that the model does not allow; the text says where."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: who does it, what, and with what."""

    actor: str
    operation: str
    arguments: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> Self:
        """The step that a line says.

        Raises:
            BadSequence: it has less than two words.
        """
        words = text.split()
        if len(words) < 2:
            raise BadSequence(f'"{text.strip()}" is no step: "ACTOR OPERATION ARGUMENT..." is wanted')
        return cls(words[0], words[1], tuple(words[2:]))

    def __str__(self) -> str:
        return " ".join((self.actor, self.operation, *self.arguments))


@dataclass(frozen=True, slots=True)
class Kept:
    """A sequence in a file: its steps, and what is written above them (title, failure, kernel, seed ...)."""

    steps: tuple[Step, ...]
    fields: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a file's text.

        Raises:
            BadSequence: a line is no step, or there is none.
        """
        fields: dict[str, str] = {}
        steps = []
        for number, line in enumerate(text.splitlines(), 1):
            if match := _FIELD.fullmatch(line.rstrip()):
                fields[match[1]] = match[2]
            elif line.strip() and not line.lstrip().startswith("#"):
                try:
                    steps.append(Step.of(line))
                except BadSequence as error:
                    raise BadSequence(f"line {number}: {error}") from None
        if not steps:
            raise BadSequence("there is no step in it")
        return cls(tuple(steps), fields)

    def __str__(self) -> str:
        head = [f"# {name}: {' '.join(value.split())}" for name, value in self.fields.items()]
        return "\n".join([*head, *map(str, self.steps), ""])


def listed(steps: Sequence[Step]) -> str:
    """Steps, one a line."""
    return "\n".join(map(str, steps))
