"""What `vfio-user-xe scenario run --json` wrote, as plain data by the words that tests ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vfio_user_xe.emulator.results import Result
from vfio_user_xe.emulator.results.evidence import Fact, Log, Role
from vfio_user_xe.emulator.results.json_file import read

_KERNEL_LOG = "Kernel log"


def results_of(path: Path) -> list[dict[str, Any]]:
    """The results of a report, in its order."""
    return [_plain(result) for result in read(path).results]


def _plain(result: Result) -> dict[str, Any]:
    facts = [item for item in result.evidence if isinstance(item, Fact) and item.role is not Role.RAW]
    logs = [item.text for item in result.evidence if isinstance(item, Log) and item.name == _KERNEL_LOG]
    return {
        "number": result.case.number,
        "name": result.case.name,
        "verdict": result.verdict.value,
        "defect": result.defect,
        "reason": result.reason,
        "kernel": result.properties.get("kernel", ""),
        "setup": result.properties.get("setup", ""),
        "repetition": result.repetition,
        "facts": {fact.name: fact.value for fact in facts},
        "shown": [fact.name for fact in facts if fact.role is Role.SHOWN],
        "kernel_log": "\n".join(logs).splitlines(),
    }
