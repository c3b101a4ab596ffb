"""The burn-down of a device under construction: which registers a driver used that nobody declared, and which bits it set of
declared ones that are reserved or not modelled."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Any

from vfio_user_xe.emulator.model.register_file import RegisterFile


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


def unmodelled_bits(files: Iterable[RegisterFile]) -> list[dict[str, Any]]:
    """Bits that were set in declared registers though they are reserved or not modelled, the most written first, as plain data.

    `names` are the fields that the bits belong to, as declared; reserved ones are called "reserved(high:low)".
    """
    found = []
    for file in files:
        for record in list(file.unmodelled_bits.values()):
            register = file.registers[record.offset]
            bits = record.bits << 8 * (record.offset - register.offset)
            found.append(
                {
                    "function": file.name,
                    "register": file.name_of(record.offset),
                    "offset": record.offset,
                    "writes": record.writes,
                    "first_value": record.first_value,
                    "bits": record.bits,
                    "names": register.unmodelled_fields(bits),
                }
            )
    return sorted(found, key=lambda entry: (-entry["writes"], entry["function"], entry["offset"]))


def unmodelled_report(files: Iterable[RegisterFile]) -> str:
    """Both as tables."""
    files = list(files)
    return _registers_table(unmodelled_registers(files)) + _bits_table(unmodelled_bits(files))


def _registers_table(entries: list[dict[str, Any]]) -> str:
    if not entries:
        return "no undeclared register was accessed\n"
    lines = [f"{'function':<8} {'offset':>10} {'reads':>8} {'writes':>8} {'first':>10} {'now':>10}  after"]
    lines += [
        f"{e['function']:<8} {e['offset']:>#10x} {e['reads']:>8} {e['writes']:>8} {e['first_value']:>#10x} "
        f"{e['value']:>#10x}  {e['after']}"
        for e in entries
    ]
    return "\n".join(lines) + "\n"


def _bits_table(entries: list[dict[str, Any]]) -> str:
    if not entries:
        return "no bit that is reserved or not modelled was set\n"
    width = max(len("register"), *(len(e["register"]) for e in entries))
    lines = [
        f"{'function':<8} {'register':<{width}} {'writes':>8} {'first':>10} {'bits':>10}  reserved or not modelled"
    ]
    lines += [
        f"{e['function']:<8} {e['register']:<{width}} {e['writes']:>8} {e['first_value']:>#10x} {e['bits']:>#10x}"
        f"  {' '.join(e['names'])}"
        for e in entries
    ]
    return "\n".join(lines) + "\n"
