"""The options that a kernel needs for guests with the card: the tables in docs/your-own-kernel.md, made from `kernel/*.config`.

python -m vfio_user_xe.device_models.xe.kernel_config

The files are fragments for the kernel's scripts/kconfig/merge_config.sh. "## X" begins a row of the table, "## X: REMARK" has more to say.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent / "kernel"
BASE, DEBUG = FOLDER / "battlemage.config", FOLDER / "debug.config"

_OPTION = re.compile(r"CONFIG_(\w+)=(.+)|# CONFIG_(\w+) is not set")


def rows(file: Path) -> list[tuple[str, str, list[str]]]:
    """What options are for, what is to be known of them, and their names, with "=m" behind a module's.

    Raises:
        ValueError: a line is neither an option nor a comment, or comes before the first row.
    """
    found: list[tuple[str, str, list[str]]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            purpose, _, remark = line.removeprefix("## ").partition(": ")
            found.append((purpose, remark, []))
        elif match := _OPTION.fullmatch(line):
            if not found:
                raise ValueError(f"{file.name}: {line} belongs to no row")
            found[-1][2].append(_spelt(*match.groups()))
        elif line and not line.startswith("#"):
            raise ValueError(f"{file.name}: {line!r} is no option")
    return found


def _spelt(name: str | None, value: str | None, off: str | None) -> str:
    if off:
        return off
    return f"{name}" if value == "y" else f"{name}={value}"


def table(file: Path) -> str:
    """The rows in Markdown."""
    lines = ["| for | options |", "|---|---|"]
    for purpose, remark, options in rows(file):
        told = f"; {remark}" if remark else ""
        lines.append(f"| {purpose} | `{' '.join(options)}`{told} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for fragment in (BASE, DEBUG):
        print(f"{table(fragment)}\n")
