"""Results as TAP, version 14: a line for each, and why it is no plain pass."""

from __future__ import annotations

from vfio_user_xe.emulator.results.characters import clean
from vfio_user_xe.emulator.results.model import Report, Status


def tap(report: Report) -> str:
    """The document. What is not applicable or failed as expected is skipped, with its reason."""
    lines = ["TAP version 14", f"1..{len(report.results)}"]
    for number, result in enumerate(report.results, 1):
        again = f" #{result.repetition}" if result.repetition > 1 else ""
        name = _one_line(f"{result.case.group}.{result.case.name}{again}").replace("#", "\\#")
        line = f"{'not ' if result.status is Status.FAILED else ''}ok {number} - {name}"
        if result.status is Status.SKIPPED:
            line += f" # SKIP {_one_line(result.message)}"
        lines.append(line)
        if result.status is Status.FAILED:
            lines += [
                "  ---",
                f"  message: {_quoted(_one_line(result.message))}",
                f"  duration_ms: {result.seconds * 1000:.0f}",
                "  ...",
            ]
    return "\n".join([*lines, ""])


def _one_line(text: str) -> str:
    return " ".join(clean(text).split())


def _quoted(text: str) -> str:
    """A string of YAML."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
