"""A report as one HTML page that needs nothing else. The templates escape whatever they are given."""

from __future__ import annotations

from collections import Counter
from functools import cache

import jinja2

from vfio_user_xe.emulator.results.characters import clean
from vfio_user_xe.emulator.results.evidence import Accesses, Evidence, Fact, Json, Log, MemoryMap, Role, Table, Timeline
from vfio_user_xe.emulator.results.matrix import Matrix, matrix
from vfio_user_xe.emulator.results.model import Report, Verdict
from vfio_user_xe.emulator.results.text import order, plain

_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")
_TEMPLATES = {
    Timeline: "timeline",
    Fact: "fact",
    Table: "table",
    Accesses: "accesses",
    MemoryMap: "memory_map",
    Log: "log",
}


def html(report: Report) -> str:
    """The page. Write it as UTF-8."""
    results = sorted(report.results, key=lambda result: order(result.case.number))
    used = Counter(result.defect for result in results if result.defect)
    page = (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            results=results,
            counts=[(verdict, report.counts[verdict]) for verdict in _listed(report)],
            met=[(name, report.defects.get(name, ""), count) for name, count in sorted(used.items())],
            failed=Verdict.FAIL,
            grid=_grid(report),
            shown=Role.SHOWN,
            folded=Role.FOLDED,
        )
    )
    return clean(page)


def _grid(report: Report) -> Matrix | None:
    """Kernels and cases, where there is more to see than in a list of results."""
    grid = matrix(report)
    repeated = any(cell.runs > 1 for row in grid.rows for cells in row.cells for cell in cells)
    return grid if len(grid.kernels) > 1 or repeated else None


def _listed(report: Report) -> list[Verdict]:
    """The verdicts to count: those that any suite has, and of the others those that are there."""
    always = (Verdict.PASS, Verdict.FAIL)
    return [verdict for verdict in Verdict if verdict in always or report.counts[verdict]]


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(__name__.rpartition(".")[0]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"plain": plain, "table": _table, "template": _template, "sentence": _sentence}
    made.globals["colour"] = _colour
    return made


def _template(item: Evidence) -> str:
    return f"{_TEMPLATES[type(item)]}.html"


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _sentence(name: str) -> str:
    return name[:1].upper() + name[1:]


def _table(value: Json) -> Table | None:
    """A fact that is a list of like rows, as a table."""
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    if not rows or not isinstance(value, list) or len(rows) != len(value):
        return None
    columns = list(rows[0])
    return Table("", columns, [[_cell(row.get(column)) for column in columns] for row in rows], [])


def _cell(value: Json) -> str:
    return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) and value > 4096 else str(value)
