"""TOML files of suites: read key by key, with errors that name the file, the key and what is allowed."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vfio_user_xe.emulator.guest.errors import NotUsable


class SuiteError(NotUsable):
    """A suite or expectation file is wrong; the text names the file, the key and what is allowed."""


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern means the subtest `name`; one without `@` means every subtest of a test."""
    return fnmatchcase(name if "@" in pattern else name.split("@", maxsplit=1)[0], pattern)


@dataclass
class Table:
    """A TOML table that is read key by key, and complains about keys that were not read."""

    place: str
    values: dict[str, Any]
    asked: set[str] = field(default_factory=set)

    @staticmethod
    def read(path: Path) -> Table:
        try:
            return Table(str(path), tomllib.loads(path.read_text("utf-8")))
        except OSError as error:
            raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SuiteError(f"{path}: is not a TOML file: {error}") from error

    def get(self, key: str, kind: type | tuple[type, ...], words: str, default: Any = None) -> Any:
        self.asked.add(key)
        value = self.values.get(key, default)
        if value is None:
            raise SuiteError(f"{self.place}.{key}: is missing; it must be {words}")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise SuiteError(f"{self.place}.{key}: {value!r} is not {words}")
        return value

    def text(self, key: str, default: str | None = None, choices: Sequence[str] = ()) -> str:
        value: str = self.get(key, str, "a string", default)
        if choices and value not in choices:
            raise SuiteError(f'{self.place}.{key}: "{value}" is not allowed (allowed: {", ".join(choices)})')
        return value

    def texts(self, key: str, choices: Sequence[str] = ()) -> tuple[str, ...]:
        value = self.get(key, (list, str), "a string or a list of strings", None if choices else [])
        items = [value] if isinstance(value, str) else value
        for item in items:
            if not isinstance(item, str):
                raise SuiteError(f"{self.place}.{key}: {item!r} is not a string")
            if choices and item not in choices:
                raise SuiteError(f'{self.place}.{key}: "{item}" is not allowed (allowed: {", ".join(choices)})')
        return tuple(items)

    def number(self, key: str, default: int) -> int:
        value: int = self.get(key, int, "an integer", default)
        return value

    def flag(self, key: str) -> bool:
        value: bool = self.get(key, bool, "true or false", False)
        return value

    def seconds(self) -> tuple[tuple[str, float], ...]:
        """All keys with their values, which must be times."""
        for key, value in self.values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise SuiteError(f'{self.place}."{key}" must be a number of seconds above 0')
        return tuple((key, float(value)) for key, value in self.values.items())

    def words(self) -> dict[str, str]:
        """All keys with their values, which must be strings."""
        return {key: self.text(key) for key in self.values}

    def table(self, key: str) -> Table:
        return Table(f"{self.place}: {key}", self.get(key, dict, "a table", {}))

    def tables(self, key: str) -> list[Table]:
        found = []
        for index, item in enumerate(self.get(key, list, f"a list of tables, [[{key}]]", [])):
            if not isinstance(item, dict):
                raise SuiteError(f"{self.place}: {key}[{index}] is not a table")
            found.append(Table(f"{self.place}: {key}[{index}]", item))
        return found

    def finish(self) -> None:
        for key in self.values:
            if key not in self.asked:
                raise SuiteError(f'{self.place}: there is no key "{key}" (allowed: {", ".join(sorted(self.asked))})')
