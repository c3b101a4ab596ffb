"""One model of a test result, and what is made of results: text, JUnit XML, an HTML page, JSON that can be read back and merged.

A suite turns what it saw into `Result`s and puts them in a `Report`; everything else here works on those alone.
"""

from __future__ import annotations

from vfio_user_xe.emulator.results.evidence import (
    Access,
    Accesses,
    Event,
    Evidence,
    Fact,
    Log,
    MemoryMap,
    Range,
    Role,
    Table,
    Timeline,
)
from vfio_user_xe.emulator.results.model import Case, Outcome, Report, Result, Status, Verdict

__all__ = [
    "Access",
    "Accesses",
    "Case",
    "Event",
    "Evidence",
    "Fact",
    "Log",
    "MemoryMap",
    "Outcome",
    "Range",
    "Report",
    "Result",
    "Role",
    "Status",
    "Table",
    "Timeline",
    "Verdict",
]
