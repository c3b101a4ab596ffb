"""What a run of a scenario leaves in its result: evidence for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from vfio_user_xe.emulator.fabric.ledger import CONTROL, KERNEL, STALE
from vfio_user_xe.emulator.kernel_reports import Line
from vfio_user_xe.emulator.kernel_reports.reporters import State
from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.options import format_size
from vfio_user_xe.emulator.results import (
    Access,
    Accesses,
    Evidence,
    Fact,
    Log,
    Report,
    Result,
    Role,
    Table,
    Timeline,
    Verdict,
)
from vfio_user_xe.emulator.results.evidence import Json
from vfio_user_xe.emulator.results.text import summary
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.judgement import Findings, Judgement
from vfio_user_xe.emulator.scenarios.machine import MachineT
from vfio_user_xe.emulator.scenarios.records import LedgerRow, Records, StaleAccess
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import SETUP, Suite

KNOWN = "known defects that the kernel reported"
EXCUSED_LATE = "late answers that were excused"
_REPORTS, _UNEXCUSED = "kernel_reports", "unexcused_reports"
_KERNEL_LOG = "Kernel log"
_LEDGER_TEXT = ["initiator", "owner", "interconnect", "kind"]
_LEDGER_COUNTS = ["reads", "bytes read", "writes", "bytes written", "spans"]
_WAYS = {"zero-copy": "device address", "legacy": "as a PCI device", "stale": "stale translation"}


def evidence_of(suite: Suite[MachineT], run: Run) -> list[Evidence]:
    """Everything that a run wrote down, in the order in which a report shows it. Exhibits that fail are noted in the run."""
    records = run.records
    exhibits: Sequence[Evidence] = ()
    try:
        exhibits = suite.exhibits(records)
    except MISTAKES as error:  # a suite's mistake may not cost the results of the other scenarios
        run.note(f"the suite's exhibits failed: {type(error).__name__}: {error}", good=False)
    found: list[Evidence] = [Timeline(run.events)]
    found += [Fact(name, run.facts[name], Role.SHOWN) for name in run.shown]
    found.append(_accesses(records))
    found += exhibits
    found += [Fact(name, value) for name, value in run.facts.items() if name not in run.shown]
    if records.ledger:
        found.append(_ledger(records.ledger))
    if run.kernel_log:
        found.append(log_evidence(run.kernel_log))
    raw = {"ledger": records.ledger, "verdicts": records.verdicts, "ownership": records.ownership}
    found += [Fact(name, cast("Json", value), Role.RAW) for name, value in raw.items()]
    found += [Fact(name, value, Role.RAW) for name, value in records.of_suite.items()]
    found.append(Fact("accounts", {name: list(counts) for name, counts in records.accounts.items()}, Role.RAW))
    return found


def log_evidence(lines: Iterable[Line]) -> Log:
    """A kernel's log."""
    return Log(_KERNEL_LOG, "\n".join(str(line) for line in lines))


def kernel_evidence(
    findings: Findings, judgement: Judgement, states: Mapping[str, State], late: Sequence[Excuse] = ()
) -> list[Evidence]:
    """What was found of the kernel itself: its reports, excuses that were not needed, which reporters were at work.

    Of `late`, the excuses that were found by measuring how busy the machine is, those that were used are shown.
    """
    found: list[Evidence] = [Fact("kernel's reporters", {name: str(state) for name, state in states.items()})]
    if findings.silenced:
        found.append(Fact("reporters that were silenced", dict(findings.silenced), Role.SHOWN))
    if used := [str(excuse) for excuse in late if excuse not in judgement.unneeded]:
        found.append(Fact(EXCUSED_LATE, cast("Json", used), Role.SHOWN))
    if judgement.unneeded:
        found.append(Fact("excuses that were not needed", [str(excuse) for excuse in judgement.unneeded]))
    if judgement.known:
        found.append(Fact(KNOWN, list(judgement.known)))
    all_reports = [{"kind": str(r.kind), "place": r.place, "text": r.text} for r in findings.reports]
    found.append(Fact(_REPORTS, cast("Json", all_reports), Role.RAW))
    found.append(Fact(_UNEXCUSED, [str(report) for report in judgement.guilty], Role.RAW))
    return found


def figures_of(run: Run) -> dict[str, str]:
    """The suite's accounts before and after, in words."""
    said = {}
    for name, (before, after) in run.records.accounts.items():
        left = "the guest was given up" if after is None else "the same" if after == before else format_size(after)
        said[name] = f"{format_size(before)} before, afterwards {left}"
    return said


def report_of(suite: Suite[MachineT], results: Sequence[Result]) -> Report:
    """Results of a suite as a report."""
    made = Report(f"scenarios: {suite.name}", list(results), dict(suite.defects))
    made.title = f"Scenarios “{suite.name}” on {', '.join(made.kernels) or 'no kernel ran'}"
    return made


def summary_of(results: Sequence[Result], seconds: float) -> str:
    """How many of what, on which kernels; `seconds` is what the whole run took. Set-ups are counted apart."""
    scenarios = [result for result in results if result.case.number != SETUP]
    setups = [result for result in results if result.case.number == SETUP]
    kernels = ", ".join(Report("", list(results)).kernels) or "no kernel ran"
    verdicts = (Verdict.PASS, Verdict.FAIL, Verdict.EXPECTED_FAIL, Verdict.NOT_APPLICABLE)
    passed = sum(result.verdict is Verdict.PASS for result in setups)
    counted = summary(scenarios, "scenarios", verdicts, kernels)
    return f"{counted}; {passed} of {len(setups)} set-ups passed; {seconds:.0f} s"


def _accesses(records: Records) -> Accesses:
    """The ways by which functions reached each other's memory."""
    made = []
    for entry in records.ledger:
        kind, owner = entry["kind"], entry["owner"]
        if owner in (entry["initiator"], "guest") or kind.startswith(KERNEL) or kind == CONTROL:
            continue
        way = "stale" if kind.startswith(STALE) else "zero-copy" if entry["way"] == "zero-copy" else "legacy"
        counts = (("reads", entry["reads"], entry["bytes_read"]), ("writes", entry["writes"], entry["bytes_written"]))
        count = ", ".join(f"{number:,} {name} ({format_size(size)})" for name, number, size in counts if number)
        text = f"{_WAYS[way]}: {entry['interconnect']}, {kind} page-table entries"
        made.append(Access(entry["initiator"], owner, way, text, count))
    stale = [
        f"{s['reason']}: {s['initiator']} to {s['owner']} over {s['interconnect']}, {s['reads']} reads, {s['writes']} writes"
        f"{_after(s)}"
        for s in records.verdicts.get("stale", [])
    ]
    return Accesses("Paths that accesses between functions took", made, stale)


def _after(stale: StaleAccess) -> str:
    after = stale.get("after")
    return f"; over a path that was opened {after:.3f} s after the reset began" if after is not None else ""


def _ledger(entries: Iterable[LedgerRow]) -> Table:
    rows = [
        [
            *(e["initiator"], e["owner"], e["interconnect"], e["kind"]),
            *(f"{n:,}" for n in (e["reads"], e["bytes_read"], e["writes"], e["bytes_written"], e["spans"])),
        ]
        for e in entries
    ]
    return Table("Ledger", [*_LEDGER_TEXT, *_LEDGER_COUNTS], rows, _LEDGER_COUNTS)
