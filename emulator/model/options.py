"""Options that plug-ins declare, the notations in which people write them, and the error that explains a wrong one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["int", "bool", "str", "float", "size"]

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_UNITS |= {f"{letter}ib": factor for letter, factor in _UNITS.items() if letter not in ("", "b")}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_NOTATIONS = {
    "int": "an integer",
    "bool": "true or false",
    "str": "a string",
    "float": "a number",
    "size": 'a size ("4 GiB", 0x1000)',
}


class CardError(Exception):
    """An error in a card's description: its place (`source`, `key`), and what is allowed there.

    A plug-in raises it as `CardError("must be at least ...", key="vram")`, with the option's name as key.
    """

    def __init__(self, message: str, key: str = "", source: str = "") -> None:
        super().__init__(": ".join(part for part in (source, key, message) if part))
        self.message = message
        self.key = key
        self.source = source

    def within(self, table: str, source: str) -> CardError:
        """The same error, told where `key` stands."""
        key = ".".join(part for part in (table, self.key) if part)
        return CardError(self.message, key, self.source or source)


@dataclass(frozen=True, slots=True)
class Option:
    """One option that a device model or an interconnect takes.

    `kind` is "int", "bool", "str", "float" or "size" (bytes; written as an integer or as "4 GiB", "256MiB").
    `minimum` and `maximum` are inclusive; `choices` lists all that is allowed. `hexadecimal` says that people write
    the number so.
    """

    name: str
    kind: Kind
    default: Any
    help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: Sequence[Any] | None = None
    multiple_of: int | None = None
    power_of_two: bool = False
    hexadecimal: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _NOTATIONS:
            raise ValueError(f"option {self.name}: kind {self.kind!r} is none of {', '.join(_NOTATIONS)}")
        try:
            object.__setattr__(self, "default", self.check(self.default))
        except CardError as error:
            raise ValueError(f"option {self.name}: its default {error.message}") from None

    def check(self, value: Any) -> Any:
        """`value` (as TOML gives it) as the model gets it: sizes in bytes.

        Raises:
            CardError: `value` is of another type, or none that the option allows.

        From any thread.
        """
        typed = self._typed(value)
        if not self._allowed(typed):
            raise CardError(f"{_show(value)} is not allowed; allowed is {self.allowed()}", self.name)
        return typed

    def parse(self, text: str) -> Any:
        """`text` (from a command line) as the model gets it.

        Raises:
            CardError: the text is not a value of this option; it names the option.

        From any thread.
        """
        value: Any = text
        try:
            if self.kind == "int":
                value = int(text, 0)
            elif self.kind == "float":
                value = float(text)
            elif self.kind == "bool":
                value = _BOOLEANS.get(text.lower(), text)
        except ValueError:
            pass  # check() names it
        return self.check(value)

    def allowed(self) -> str:
        """The allowed values in words: "an integer from 0 to 63"."""
        if self.choices is not None:
            return "one of " + ", ".join(self.show(self._typed(choice)) for choice in self.choices)
        words = _NOTATIONS[self.kind]

        def show(value: float) -> str:
            return self.show(value).strip('"')

        if self.minimum is not None and self.maximum is not None:
            words += f" from {show(self.minimum)} to {show(self.maximum)}"
        elif self.minimum is not None:
            words += f" of {show(self.minimum)} or more"
        elif self.maximum is not None:
            words += f" of {show(self.maximum)} or less"
        if self.power_of_two:
            words += ", a power of two"
        if self.multiple_of:
            words += f", a multiple of {show(self.multiple_of)}"
        return words

    def show(self, value: Any) -> str:
        """`value` as it is written in a card file."""
        if self.kind == "size" and value:
            return _show(format_size(value))
        return f"{value:#x}" if self.hexadecimal else _show(value)

    def _typed(self, value: Any) -> Any:
        if self.kind == "size" and isinstance(value, str):
            try:
                return parse_size(value)
            except ValueError as error:
                raise CardError(f"{error}; allowed is {self.allowed()}", self.name) from None
        if self.kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        wanted = {"int": int, "size": int, "bool": bool, "str": str, "float": float}[self.kind]
        if type(value) is not wanted:
            raise CardError(f"{_show(value)} is not {_NOTATIONS[self.kind]}; allowed is {self.allowed()}", self.name)
        return value

    def _allowed(self, value: Any) -> bool:
        if self.choices is not None:
            return value in [self._typed(choice) for choice in self.choices]
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and not (self.power_of_two and (value <= 0 or value & (value - 1)))
            and not (self.multiple_of and value % self.multiple_of)
            and not (self.kind == "size" and value < 0)
        )


def parse_size(text: str) -> int:
    """Bytes of "4 GiB", "256MiB", "64k", "0x1000", "1.5 GiB".

    Raises:
        ValueError: the text is no size, has an unknown unit, or is no whole number of bytes.
    """
    match = re.fullmatch(r"\s*(0[xX][0-9a-fA-F_]+|[0-9][0-9_]*(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None:
        raise ValueError(f'"{text}" is not a size')
    number, unit = match[1], match[2].lower()
    if unit not in _UNITS:
        hint = f"; write {unit[0].upper()}iB" if unit in ("kb", "mb", "gb", "tb") else ""
        raise ValueError(f'"{text}" has the unknown unit "{match[2]}"{hint}')
    factor = _UNITS[unit]
    if "." not in number:
        return int(number, 0 if number[:2].lower() == "0x" else 10) * factor
    whole, _, fraction = number.partition(".")
    numerator, denominator = int(whole + fraction) * factor, int("1" + "0" * len(fraction))
    if numerator % denominator:
        raise ValueError(f'"{text}" is not a whole number of bytes')
    return numerator // denominator


def format_size(size: int) -> str:
    """`size` bytes as `parse_size` reads it, in the largest unit that divides it: "4 GiB"."""
    size = int(size)
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def similar(word: str, words: Iterable[str]) -> str:
    """`; did you mean "..."?`, or nothing when no word is near."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def unknown(word: str, what: str, words: Iterable[str]) -> str:
    """The message for a `word` that is none of `words`, which it lists."""
    words = list(words)
    return f'there is no {what} "{word}"{similar(word, words)} (allowed: {", ".join(words) or "none"})'


class UnknownName(KeyError):
    """A name that somebody gave for something of which there are others: the text lists those, and names the nearest."""

    def __init__(self, word: str, what: str, allowed: Iterable[str]) -> None:
        self.allowed = list(allowed)
        super().__init__(unknown(word, what, self.allowed))

    def __str__(self) -> str:
        # KeyError's own shows the message in quotes.
        return str(self.args[0])


def check_options(declared: Sequence[Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """All `declared` options: those `given` checked, the others at their defaults.

    Raises:
        CardError: an option is not declared, or has a value that is not allowed.
    """
    by_name = {option.name: option for option in declared}
    for name in given:
        if name not in by_name:
            raise CardError(unknown(name, "option", by_name), name)
    return {
        option.name: option.check(given[option.name]) if option.name in given else option.default for option in declared
    }


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
