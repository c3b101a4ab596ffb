"""Results in a file as they come: nothing of a killed run is lost, and nothing half-written is taken for a result."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vfio_user_xe.emulator.results import Case, Fact, Report, Result, Verdict
from vfio_user_xe.emulator.results.journal import Journal, append_line, read_journal
from vfio_user_xe.emulator.results.json_file import NotAReport

ABOUT = Report("scenarios: tried", [], {"creaks": "it creaks"}, "a title")


def result(name: str, repetition: int = 1) -> Result:
    made = Result(Case("tried", "group", name), Verdict.PASS, repetition=repetition, properties={"kernel": "7.3.4"})
    made.evidence = [Fact("said", {"by": ["\x1b[1m", "\ud800"]})]
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def test_results_come_back_with_what_their_report_says(file: Path) -> None:
    log = Journal(file, ABOUT)
    assert log.read() == []
    log.append(result("one"))
    log.append(result("two"))
    assert log.read() == [result("one"), result("two")]
    found = read_journal(file)
    assert (found.name, found.title, found.defects) == (ABOUT.name, ABOUT.title, ABOUT.defects)


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_line_that_was_cut_short_is_no_result_and_is_replaced_by_the_next(file: Path, cut: int) -> None:
    log = Journal(file, ABOUT)
    log.append(result("one"))
    log.append(result("two"))
    file.write_bytes(file.read_bytes()[:-cut])
    assert log.read() == [result("one")]
    log.append(result("three"))
    assert log.read() == [result("one"), result("three")]


def test_a_journal_of_which_only_a_part_of_the_first_line_was_written_has_no_results(file: Path) -> None:
    file.write_text('{"format": "vf')
    log = Journal(file, ABOUT)
    assert log.read() == []
    with pytest.raises(NotAReport, match="is empty"):
        read_journal(file)
    log.append(result("one"))
    assert (read_journal(file).title, read_journal(file).defects) == (ABOUT.title, ABOUT.defects)


def test_several_writers_lose_nothing(file: Path) -> None:
    def write(writer: int) -> None:
        log = Journal(file, ABOUT)
        for number in range(20):
            log.append(result(f"{writer}-{number}"))

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    names = {each.case.name for each in Journal(file, ABOUT).read()}
    assert names == {f"{writer}-{number}" for writer in range(4) for number in range(20)}
    assert len(file.read_text().splitlines()) == 81, "one line says what they are of"


def test_a_result_that_comes_twice_is_a_repetition(file: Path) -> None:
    log = Journal(file, ABOUT)
    log.append(result("one"))
    log.append(result("one"))
    assert [each.repetition for each in log.read()] == [1, 2]


def test_a_journal_keeps_what_it_is_told_to(file: Path) -> None:
    log = Journal(file, ABOUT)
    log.append(result("one"))
    log.append(result("two"))
    log.rewrite([result("two")])
    assert log.read() == [result("two")]
    assert [path.name for path in file.parent.iterdir()] == ["results.jsonl"]


def test_results_of_another_suite_are_refused(file: Path) -> None:
    Journal(file, ABOUT).append(result("one"))
    with pytest.raises(NotAReport, match='this is "scenarios: other"'):
        Journal(file, Report("scenarios: other", [])).read()


def test_another_kind_of_file_is_refused_with_the_line(file: Path) -> None:
    append_line(file, '{"test": "xe_query"}')
    with pytest.raises(NotAReport, match=r"results\.jsonl:1: not a report"):
        Journal(file, ABOUT).read()
