"""Answers of a served card, for a person at a terminal or for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from vfio_user_xe.emulator.observe.top import size_in_words, state_in_words

_HEXADECIMAL = frozenset({"address", "entry", "first_value", "offset", "root", "va", "value"})
"""Members of answers that people write in hexadecimal; so are physical addresses of any kind."""
_PHYSICAL_ADDRESS = "pa"
"""How the names of these end: "dpa", "hpa"."""
PLAIN_WIDTH = 160
"""Characters of a line without a terminal: as wide as needed, because a wrapped table cannot be searched."""


def for_a_person(as_json: bool) -> bool:
    """Whether an answer that programs read, too, is to be put in words: at a terminal, unless JSON is asked for."""
    return not as_json and sys.stdout.isatty()


def as_json_text(value: Any) -> str:
    """The answer as it came."""
    return json.dumps(value, indent=2)


def print_table(table: Table) -> None:
    """As wide as the terminal, or as `PLAIN_WIDTH` without one."""
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)


def show_records(records: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, title: str = "") -> None:
    """Print records as a table, a column for each name; `title` says what they are."""
    if not records:
        print(f"no {title}" if title else "nothing")
        return
    names = columns or list({name: None for record in records for name in record})
    table = Table(*names, title=title or None)
    for record in records:
        table.add_row(*(_cell(record.get(name), name) for name in names))
    print_table(table)


def show_any(value: Any, indent: str = "") -> None:
    """Print an answer of any shape: records as a table, other lists and objects line by line."""
    if value is None:
        print(f"{indent}done" if not indent else f"{indent}-")
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        show_records(value)
    elif isinstance(value, list):
        for item in value or ["none"]:
            print(f"{indent}{_cell(item)}")
    elif isinstance(value, dict):
        for name, item in value.items() or {"nothing": ""}.items():
            if isinstance(item, dict | list) and item:
                print(f"{indent}{name}:")
                show_any(item, indent + "  ")
            else:
                print(f"{indent}{name}: {_cell(item, name)}")
    else:
        print(f"{indent}{_cell(value)}")


def show_status(status: Mapping[str, Any]) -> None:
    """Print the answer of the command `status`."""
    print(f"card {status['card']}, device model {status['model']}")
    print(f"interconnects: {', '.join(status['interconnects']) or 'none'}")
    print(f"options: {' '.join(f'{name}={value}' for name, value in status['options'].items()) or 'none'}")
    table = Table("function", "guest", "state", "VFs", "BARs")
    for function in status["functions"]:
        sriov = function.get("sriov")
        table.add_row(
            function["name"],
            "attached" if function["attached"] else "-",
            state_in_words(function),
            f"{sriov['num_vfs'] if sriov['enabled'] else 0} of {sriov['total_vfs']}" if sriov else "",
            ", ".join(f"{index}: {size_in_words(size)}" for index, size in function["bars"].items()),
        )
    print_table(table)
    for function in status["functions"]:
        if "sriov" in function:
            programming = function["sriov"]["bar_programming"]
            trouble = f": {programming['error']}" if programming["error"] else ""
            print(f"programming of VF BARs by {function['name']}: {programming['state']}{trouble}")
    print(f"traced: {', '.join(status['trace']) or 'nothing'}")
    print(f"registers that a guest polled without end: {status['stalls']}")
    print(f"jobs that failed: {status['executor']['failures']}")


def _cell(value: Any, name: str = "") -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{key}={_cell(item, key)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "-"
    if isinstance(value, int):
        return f"{value:#x}" if name in _HEXADECIMAL or name.endswith(_PHYSICAL_ADDRESS) else f"{value:,}"
    return str(value)
