"""Versions and relations of Debian's packages, see deb-version(7) and deb-control(5)."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vfio_user_xe.emulator.guest.errors import FetchFailed

_RELATION = re.compile(r"(?P<name>[^\s:(]+)(?::\w+)?\s*(?:\((?P<operator><<|<=|=|>=|>>)\s*(?P<version>[^\s)]+)\))?")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">>": operator.gt,
}

_Part = tuple[tuple[int, ...], int]
Order = tuple[int, tuple[_Part, ...], tuple[_Part, ...]]


def order(version: str) -> Order:
    """What compares as the versions do: epoch, upstream version, revision."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    if not epoch.isdecimal():
        raise FetchFailed(f"{version!r} is no version of a Debian package")
    return int(epoch), _parts(upstream), _parts(revision)


def _parts(text: str) -> tuple[_Part, ...]:
    """Text and number by turns. The end of a text is a 0: `~` sorts before it, letters after it, other characters after those."""
    parts = [(_text(letters), int(digits or 0)) for letters, digits in re.findall(r"(\D*)(\d*)", text)]
    while len(parts) > 1 and parts[-1] == ((0,), 0):
        parts.pop()
    return (*parts, ((0,), 0))


def _text(letters: str) -> tuple[int, ...]:
    return (*(-1 if one == "~" else ord(one) + (0 if one.isalpha() else 256) for one in letters), 0)


@dataclass(frozen=True, slots=True)
class Relation:
    """A package's name, and the versions of it that are meant: all without an operator."""

    name: str
    operator: str = ""
    version: str = ""

    def admits(self, version: str) -> bool:
        """Whether this version is among them. "", which a virtual package without a version has, is in none."""
        if not self.operator:
            return True
        return bool(version) and _OPERATORS[self.operator](order(version), order(self.version))

    def __str__(self) -> str:
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name


def relations(field: str) -> list[tuple[Relation, ...]]:
    """The relations of a field, each with its alternatives.

    Raises:
        FetchFailed: it is none.
    """
    return [
        tuple(_relation(one.strip()) for one in alternatives.split("|"))
        for alternatives in field.split(",")
        if alternatives.strip()
    ]


def _relation(text: str) -> Relation:
    match = _RELATION.fullmatch(text)
    if match is None:
        raise FetchFailed(f"{text!r} is no relation to a Debian package")
    return Relation(match["name"], match["operator"] or "", match["version"] or "")
