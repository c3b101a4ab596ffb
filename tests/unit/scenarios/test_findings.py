"""The red and green table: what was seen is kept with its counts, and says red, green, or that nobody could have seen it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.device_models.xe.scenarios.sriov import SRIOV
from vfio_user_xe.emulator.results import Case, Fact, Result, Verdict
from vfio_user_xe.emulator.scenarios.evidence import KNOWN
from vfio_user_xe.emulator.scenarios.finding import Finding
from vfio_user_xe.emulator.scenarios.findings import Seen, cell, kernels, load, record, save, table
from vfio_user_xe.emulator.scenarios.scenario import SETUP

PAGE = Path(__file__).parents[3] / "docs" / "findings" / "README.md"
OLD, NEW = "6.9.1-amd64", "6.18.15+deb13-amd64"
LOCKS = Finding(
    "locks", "a lock is taken twice", ("removed", "unbound"), fix="0123456789ab", needs="lockdep", page="locks"
)


def result(
    name: str, verdict: Verdict, kernel: str, defect: str = "", *, lockdep: str = "absent", number: str = "1"
) -> Result:
    case = Case("scenarios: made", "scenarios.made", name, number=number)
    made = Result(case, verdict, f"{name} says so", defect=defect, properties={"kernel": kernel})
    made.evidence = [Fact("kernel's reporters", {"lockdep": lockdep})]
    return made


def seen(*results: Result) -> list[Seen]:
    found: list[Seen] = []
    record(found, "made", results, {"removed": LOCKS.needs, "unbound": LOCKS.needs})
    return found


def test_runs_of_one_scenario_on_one_kernel_are_counted_together() -> None:
    found = seen(
        result("removed", Verdict.EXPECTED_FAIL, OLD, "locks"),
        result("removed", Verdict.EXPECTED_FAIL, OLD, "locks"),
        result("removed", Verdict.PASS, OLD, lockdep="on"),
        result("removed", Verdict.PASS, NEW, lockdep="on"),
    )
    assert [(entry.kernel, entry.runs) for entry in found] == [(OLD, 3), (NEW, 1)]
    assert found[0].outcomes == {"expected-fail locks": 2, "pass": 1}


def test_a_kernel_is_red_where_the_defect_was_seen_even_once() -> None:
    found = seen(
        result("removed", Verdict.PASS, OLD, lockdep="on"),
        result("unbound", Verdict.EXPECTED_FAIL, OLD, "locks", lockdep="on"),
    )
    assert cell(LOCKS, "made", OLD, found) == "**red** 1 of 2"


def test_another_defect_makes_it_neither_red_nor_green() -> None:
    found = seen(result("removed", Verdict.EXPECTED_FAIL, OLD, "another"))
    assert cell(LOCKS, "made", OLD, found) == "expected-fail another 1 of 1"


def test_a_defect_that_a_run_shows_besides_another_is_red() -> None:
    both = result("removed", Verdict.EXPECTED_FAIL, OLD, "another")
    both.evidence.append(Fact(KNOWN, ["another", "locks"]))
    found = seen(both, result("removed", Verdict.EXPECTED_FAIL, OLD, "another"))
    assert cell(LOCKS, "made", OLD, found) == "**red** 1 of 2"
    assert found[0].also == {"locks": 1}


def test_a_failure_is_shown_as_one() -> None:
    assert cell(LOCKS, "made", OLD, seen(result("removed", Verdict.FAIL, OLD))) == "fail 1 of 1"


def test_what_does_not_apply_says_so_and_what_did_not_run_is_empty() -> None:
    found = seen(result("removed", Verdict.NOT_APPLICABLE, OLD))
    assert cell(LOCKS, "made", OLD, found) == "n/a"
    assert cell(LOCKS, "made", NEW, found) == ""


def test_a_pass_without_the_reporter_that_would_have_seen_it_is_not_green() -> None:
    assert cell(LOCKS, "made", NEW, seen(result("removed", Verdict.PASS, NEW))) == "without lockdep 1 of 1"
    assert cell(LOCKS, "made", NEW, seen(result("removed", Verdict.PASS, NEW, lockdep="on"))) == "green 1 of 1"


def test_set_ups_and_what_ran_on_no_kernel_are_left_out() -> None:
    assert seen(result("setup", Verdict.PASS, NEW, number=SETUP), result("removed", Verdict.FAIL, "")) == []


def test_kernels_are_columns_in_the_order_of_their_versions() -> None:
    found = seen(result("removed", Verdict.PASS, NEW), result("removed", Verdict.EXPECTED_FAIL, OLD, "locks"))
    assert kernels(found) == [OLD, NEW]
    header, _, row = table({"made": [LOCKS]}, found).splitlines()
    assert header == "| defect | fix | seen by | 6.9.1 | 6.18.15 |"
    assert row.startswith(
        "| [a lock is taken twice](locks.md) | 0123456789ab | made: `removed`, `unbound` | **red** 1 of 1 |"
    )


def test_what_was_seen_survives_a_file(tmp_path: Path) -> None:
    file = tmp_path / "seen.json"
    assert load(file) == []
    found = seen(result("removed", Verdict.PASS, NEW), result("removed", Verdict.EXPECTED_FAIL, OLD, "locks"))
    save(file, found)
    assert [entry.kernel for entry in load(file)] == [OLD, NEW]
    assert load(file)[0].said == {"expected-fail locks": "removed says so"}


@pytest.mark.parametrize("text", ["{", '[{"suite": "made"}]'])
def test_a_file_of_another_form_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "seen.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"seen\.json"):
        load(file)


def test_two_kernels_of_one_version_have_their_whole_names() -> None:
    found = seen(result("removed", Verdict.PASS, NEW), result("removed", Verdict.PASS, "6.18.15"))
    assert table({"made": [LOCKS]}, found).splitlines()[0].endswith("| 6.18.15 | 6.18.15+deb13-amd64 |")


def test_the_page_has_the_table_of_the_data() -> None:
    findings = {suite.name: suite.findings for suite in (DMABUF, SRIOV)}
    data = PAGE.with_name("results.json")
    assert table(findings, load(data)) in PAGE.read_text(), f"run: vfio-user-xe scenario findings --data {data.name}"
