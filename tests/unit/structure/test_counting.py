"""Memory is touched and counted in one place: `emulator/fabric`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]

# Counters of a ledger entry, and what changes them.
_COUNTING = re.compile(
    r"\.(loads32|stores32|reads|writes|bytes_read|bytes_written)\s*\+=|\.(count_read|count_write|words)\b(?!\.pop)"
)
_OTHER_COUNTERS = {
    # Accesses of registers, which have counters of their own.
    Path("emulator/model/register_file.py"),
    Path("emulator/model/register_use.py"),
    # What the device of the conformance suite counts of its own.
    Path("device_models/conformance.py"),
}


def test_nothing_outside_of_the_fabric_counts_accesses() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for top in ("emulator", "device_models", "plugins")
        for path in sorted((ROOT / top).rglob("*.py"))
        if ROOT / "emulator/fabric" not in path.parents and path.relative_to(ROOT) not in _OTHER_COUNTERS
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if ((match := _COUNTING.search(line)) and match[2] != "words")
        or re.search(r"window\.words|\.entry\.count", line)
    ]
    assert found == []
