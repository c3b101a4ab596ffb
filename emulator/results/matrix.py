"""Kernels across, cases down: what each case came to on each kernel, in how many of its runs, and known defects beside their controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vfio_user_xe.emulator.results.characters import clean
from vfio_user_xe.emulator.results.model import Case, Report, Result, Status, Verdict
from vfio_user_xe.emulator.results.text import order

_WORST_FIRST = (Verdict.FAIL, Verdict.EXPECTED_FAIL, Verdict.PASS, Verdict.SKIP, Verdict.NOT_APPLICABLE)
NO_KERNEL = "no kernel"
"""Heads the results of which nobody knows the kernel."""


@dataclass(frozen=True, slots=True)
class Cell:
    """How often a case ended with a verdict, and with which defect, of so many runs on a kernel."""

    verdict: Verdict
    defect: str
    count: int
    runs: int

    def __str__(self) -> str:
        word = self.defect or str(self.verdict)
        return f"{word} {self.count} of {self.runs}"


@dataclass(frozen=True, slots=True)
class Row:
    """A case with a list of cells for each kernel, the worst verdict first; the list is empty where it did not run."""

    case: Case
    cells: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Control:
    """A defect that a case met, and what says that the case can tell: kernels on which the same case passed.

    `red` are the kernels that have the defect, `green` those on which the case passes, each with n of m runs.
    """

    defect: str
    text: str
    case: Case
    red: tuple[str, ...]
    green: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """The table of a report."""

    kernels: tuple[str, ...]
    rows: tuple[Row, ...]
    controls: tuple[Control, ...]


def matrix(report: Report) -> Matrix:
    """The table: a row for each case, a column for each kernel. Reports of one kernel have one column."""
    kernels = tuple(sorted({kernel_of(result) for result in report.results}, key=_release))
    cases: dict[tuple[str, ...], dict[str, list[Result]]] = {}
    for result in report.results:
        on = cases.setdefault((result.case.suite, result.case.group, result.case.name), {})
        on.setdefault(kernel_of(result), []).append(result)
    rows = [
        Row(next(iter(on.values()))[0].case, tuple(_cells(on.get(kernel, ())) for kernel in kernels))
        for on in cases.values()
    ]
    suites = list(report.suites)
    rows.sort(key=lambda row: (suites.index(row.case.suite), order(row.case.number)))
    return Matrix(kernels, tuple(rows), tuple(_controls(report, kernels, rows)))


def kernel_of(result: Result) -> str:
    """The kernel that a result is of."""
    return result.properties.get("kernel") or NO_KERNEL


def matrix_text(table: Matrix) -> str:
    """The table in Markdown, and below it a table of the defects that were met, with their controls."""
    often = Counter(_name(row.case) for row in table.rows)
    lines = _markdown(
        ["case", *table.kernels],
        [[_told(row.case, often), *(", ".join(map(str, cells)) for cells in row.cells)] for row in table.rows],
    )
    if table.controls:
        lines += [
            "",
            *_markdown(["defect", "seen by", "red", "control (the same case, green)"], _controls_told(table.controls)),
        ]
    return clean("\n".join(lines))


def _controls_told(controls: Iterable[Control]) -> list[list[str]]:
    return [[each.defect, _name(each.case), ", ".join(each.red), ", ".join(each.green) or "none"] for each in controls]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _told(case: Case, often: Mapping[str, int]) -> str:
    """Its name, and where several cases have it, of what."""
    name = _name(case)
    return f"{name} [{case.suite}]" if often[name] > 1 else name


def _name(case: Case) -> str:
    return f"{case.number} {case.label or case.name}".strip()


def _cells(results: Sequence[Result]) -> tuple[Cell, ...]:
    counts = Counter((result.verdict, result.defect) for result in results)
    ordered = sorted(counts.items(), key=lambda item: (_WORST_FIRST.index(item[0][0]), item[0][1]))
    return tuple(Cell(verdict, defect, count, len(results)) for (verdict, defect), count in ordered)


def _controls(report: Report, kernels: Sequence[str], rows: Iterable[Row]) -> Iterable[Control]:
    for row in rows:
        met = dict.fromkeys(cell.defect for cells in row.cells for cell in cells if cell.defect)
        for defect in met:
            red, green = [], []
            for kernel, cells in zip(kernels, row.cells, strict=True):
                for cell in cells:
                    said = f"{kernel}: {cell.count} of {cell.runs}"
                    if cell.defect == defect:
                        red.append(said)
                    elif cell.verdict.status is Status.PASSED:
                        green.append(said)
            yield Control(defect, report.defects.get(defect, ""), row.case, tuple(red), tuple(green))


def _release(kernel: str) -> tuple[list[int], str]:
    """To sort releases by number."""
    number = kernel.partition("-")[0].partition("+")[0]
    return [int(part) for part in number.split(".") if part.isdigit()], kernel
