"""Kernels across, cases down: n of m runs, and the control beside each defect."""

from __future__ import annotations

from vfio_user_xe.emulator.results import Case, Report, Result, Verdict
from vfio_user_xe.emulator.results.html import html
from vfio_user_xe.emulator.results.matrix import matrix, matrix_text


def result(name: str, kernel: str, verdict: Verdict, repetition: int = 1, defect: str = "") -> Result:
    case = Case("tried", "group", name, title=f"title of {name}", number=name.rpartition("-")[2])
    return Result(case, verdict, defect=defect, repetition=repetition, properties={"kernel": kernel} if kernel else {})


REPORT = Report(
    "tried",
    [
        result("case-10", "7.3.4", Verdict.PASS),
        result("case-2", "7.3.4", Verdict.EXPECTED_FAIL, 1, "creaks"),
        result("case-2", "7.3.4", Verdict.PASS, 2),
        result("case-2", "7.3.4", Verdict.EXPECTED_FAIL, 3, "creaks"),
        result("case-2", "7.10.1", Verdict.PASS, 1),
        result("case-2", "7.10.1", Verdict.PASS, 2),
        result("case-2", "6.18.15", Verdict.EXPECTED_FAIL, 1, "creaks"),
    ],
    {"creaks": "it <creaks>"},
)


def test_a_cell_says_n_of_m_runs_the_worst_verdict_first() -> None:
    table = matrix(REPORT)
    assert table.kernels == ("6.18.15", "7.3.4", "7.10.1")
    assert [row.case.name for row in table.rows] == ["case-2", "case-10"]
    assert [[str(cell) for cell in cells] for cells in table.rows[0].cells] == [
        ["creaks 1 of 1"],
        ["creaks 2 of 3", "pass 1 of 3"],
        ["pass 2 of 2"],
    ]
    assert table.rows[1].cells == ((), table.rows[1].cells[1], ())


def test_beside_a_defect_stands_on_which_kernels_the_same_case_passes() -> None:
    (control,) = matrix(REPORT).controls
    assert (control.defect, control.text) == ("creaks", "it <creaks>")
    assert control.red == ("6.18.15: 1 of 1", "7.3.4: 2 of 3")
    assert control.green == ("7.3.4: 1 of 3", "7.10.1: 2 of 2")


def test_the_text_is_a_table_and_one_of_defects() -> None:
    text = matrix_text(matrix(REPORT))
    assert "| 2 case-2 | creaks 1 of 1 | creaks 2 of 3, pass 1 of 3 | pass 2 of 2 |" in text
    assert "| creaks | 2 case-2 | 6.18.15: 1 of 1, 7.3.4: 2 of 3 | 7.3.4: 1 of 3, 7.10.1: 2 of 2 |" in text


def test_a_page_has_the_table_where_kernels_or_repetitions_are_several() -> None:
    assert "it &lt;creaks&gt;" in html(REPORT)
    assert html(REPORT).count("<th>7.10.1") == 1
    assert 'class="grid"' not in html(Report("tried", REPORT.results[:2], REPORT.defects))


def test_what_reached_no_kernel_has_a_column_of_its_own() -> None:
    table = matrix(Report("tried", [result("case-1", "", Verdict.FAIL)]))
    assert table.kernels == ("no kernel",)
