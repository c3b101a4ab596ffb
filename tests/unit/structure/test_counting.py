"""Memory is touched and counted in one place: `emulator/fabric`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# Counters of a ledger entry, and what changes them.
_COUNTING = re.compile(
    r"\._?(loads32|stores32|reads|writes|bytes_read|bytes_written)\s*\+="
    r"|\.(count_read|count_write|count_bulk)\b"
    r"|\bwindow\.words\b"
)
_OTHER_COUNTERS = {
    # Accesses of registers, which have counters of their own.
    Path("emulator/model/register_file.py"),
    Path("emulator/model/register_use.py"),
    # What the device of the conformance suite counts of its own.
    Path("device_models/conformance.py"),
}


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("entry.loads32 += 1", True),
        ("self._entry._bytes_read += length", True),
        ("entry.count_bulk(reads, read, writes, written)", True),
        ("window.words[index] = value", True),
        ("total = entry.reads + entry.writes", False),
        ("span.store32(offset, value)", False),
    ],
)
def test_counting_is_recognised(line: str, counts: bool) -> None:
    assert bool(_COUNTING.search(line)) is counts


def test_nothing_outside_of_the_fabric_counts_accesses() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for top in ("emulator", "device_models", "plugins")
        for path in sorted((ROOT / top).rglob("*.py"))
        if ROOT / "emulator/fabric" not in path.parents and path.relative_to(ROOT) not in _OTHER_COUNTERS
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if _COUNTING.search(line)
    ]
    assert found == []
