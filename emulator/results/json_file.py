"""Reports as JSON: written, read back with every field checked."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from vfio_user_xe.emulator.results.evidence import KINDS, PLAIN, Evidence
from vfio_user_xe.emulator.results.model import Report

FORMAT = "vfio-user-xe results"
VERSION = 1

_T = TypeVar("_T")
_KIND_OF = {kind: name for name, kind in KINDS.items()}


class NotAReport(ValueError):
    """A file is no report of this version; the text says where and what is allowed."""


def dumps(report: Report) -> str:
    """The report as one JSON object. It is plain ASCII: lone surrogates and control characters are escapes in it."""
    data = asdict(report)
    for result, plain in zip(report.results, data["results"], strict=True):
        plain["evidence"] = [
            {"kind": _KIND_OF[type(item)], **made}
            for item, made in zip(result.evidence, plain["evidence"], strict=True)
        ]
    return json.dumps({"format": FORMAT, "version": VERSION, **data}, indent=1) + "\n"


def loads(text: str) -> Report:
    """The report that `dumps` wrote.

    Raises:
        NotAReport: `text` is something else; it says where, and what is allowed there.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise NotAReport(f"not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise NotAReport(f'not a report: "format" must be "{FORMAT}"')
    if data.get("version") != VERSION:
        raise NotAReport(f"version {data.get('version')!r} of the format is not known (allowed: {VERSION})")
    return _record(Report, {key: data[key] for key in data if key not in ("format", "version")}, "report")


def write(report: Report, path: Path) -> None:
    """Write the report to a file.

    Raises:
        OSError: it cannot be written.
    """
    path.write_text(dumps(report), "utf-8")


def read(path: Path) -> Report:
    """The report in a file.

    Raises:
        NotAReport: it holds something else; the text begins with the path.
        OSError: it cannot be read.
    """
    try:
        return loads(path.read_text("utf-8"))
    except ValueError as error:  # NotAReport is one, and so is a file that is not UTF-8
        raise NotAReport(f"{path}: {error}") from error


def _record(kind: type[_T], data: object, where: str) -> _T:
    """An instance of a dataclass from a JSON object, whose keys must be its fields."""
    assert is_dataclass(kind)
    if not isinstance(data, dict):
        raise NotAReport(f"{where}: {_short(data)} is not an object")
    names = [item.name for item in fields(kind)]
    if set(data) != set(names):
        odd = sorted(set(names) ^ set(data))[0]
        problem = "is missing" if odd in names else f"is no field (allowed: {', '.join(names)})"
        raise NotAReport(f"{where}.{odd}: {problem}")
    hints = typing.get_type_hints(kind)
    made = kind(
        **{
            item.name: data[item.name]
            if item.metadata.get(PLAIN)
            else _value(hints[item.name], data[item.name], f"{where}.{item.name}")
            for item in fields(kind)
        }
    )
    return typing.cast(_T, made)


def _value(kind: Any, data: object, where: str) -> object:
    """`data` as a field of the type `kind`, a type that the fields of the model have."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind == Evidence:
        return _evidence(data, where)
    if origin in (list, tuple):
        if not isinstance(data, list):
            raise NotAReport(f"{where}: {_short(data)} is not a list")
        items = [_value(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(data)]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        if not isinstance(data, dict):
            raise NotAReport(f"{where}: {_short(data)} is not an object")
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    if origin in (types.UnionType, typing.Union):
        return None if data is None else _value(arguments[0], data, where)
    if is_dataclass(kind):
        return _record(typing.cast("type[object]", kind), data, where)
    if issubclass(kind, Enum):
        if data not in [member.value for member in kind]:
            raise NotAReport(f"{where}: {_short(data)} is not one of {', '.join(member.value for member in kind)}")
        return kind(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise NotAReport(f"{where}: {_short(data)} is not of type {kind.__name__}")
    return data


def _evidence(data: object, where: str) -> object:
    if not isinstance(data, Mapping) or data.get("kind") not in KINDS:
        raise NotAReport(f"{where}.kind: must be one of {', '.join(KINDS)}")
    kind = typing.cast("type[object]", KINDS[data["kind"]])
    return _record(kind, {key: value for key, value in data.items() if key != "kind"}, where)


def _short(data: object) -> str:
    text = repr(data)
    return text if len(text) <= 60 else f"{text[:57]}..."
