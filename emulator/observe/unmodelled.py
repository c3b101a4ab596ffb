"""Registers that a driver used and that no block declares: the to-do list of a device under construction."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any

from vfio_user_xe.emulator.model.registers import RegisterFile


def unmodelled_registers(files: Iterable[RegisterFile]) -> list[dict[str, Any]]:
    """Undeclared offsets that were accessed, the most used first, as plain data.

    `after` names the declared register before it and the distance: it tells which block an offset belongs to.
    """
    found = []
    for file in files:
        declared = sorted(file.registers)
        for record in list(file.unmodelled.values()):
            place = bisect.bisect(declared, record.offset)
            before = declared[place - 1] if place else None
            after = f"{file.name_of(before)}+{record.offset - before:#x}" if before is not None else ""
            found.append(
                {
                    "function": file.name,
                    "offset": record.offset,
                    "reads": record.reads,
                    "writes": record.writes,
                    "first_value": record.first_value,
                    "value": file.peek(record.offset),
                    "after": after,
                }
            )
    return sorted(found, key=lambda entry: (-(entry["reads"] + entry["writes"]), entry["function"], entry["offset"]))


def unmodelled_report(files: Iterable[RegisterFile]) -> str:
    """The same as a table."""
    entries = unmodelled_registers(files)
    if not entries:
        return "no undeclared register was accessed\n"
    lines = [f"{'function':<8} {'offset':>10} {'reads':>8} {'writes':>8} {'first':>10} {'now':>10}  after"]
    lines += [
        f"{e['function']:<8} {e['offset']:>#10x} {e['reads']:>8} {e['writes']:>8} {e['first_value']:>#10x} "
        f"{e['value']:>#10x}  {e['after']}"
        for e in entries
    ]
    return "\n".join(lines) + "\n"
