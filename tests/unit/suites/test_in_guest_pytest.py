"""The program that runs pytest tests inside a guest, run on the host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vfio_user_xe.emulator.suites.userland import in_guest_pytest

TESTS = """
import os, signal, time, pytest

def test_passes(): pass
def test_fails(): assert 1 == 2, "one is not two"
def test_skips(): pytest.skip("not here")
@pytest.mark.parametrize("word", ["a b", "c::d"])
def test_words(word): pass
def test_crashes(): os.kill(os.getpid(), signal.SIGSEGV)
def test_hangs(): time.sleep(100)
def test_last(): pass
@pytest.mark.xfail(reason="an expected failure, which is no failure")
def test_that_is_known_to_fail(): assert False
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "test_broken.py").write_text("import no_such_module\ndef test_one(): pass\n")
    return tmp_path


def driver(*words: str, given: str = "") -> list[dict[str, object]]:
    command = [sys.executable, in_guest_pytest.__file__, *words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_tests_of_a_file_are_listed_and_one_that_cannot_be_collected_is_said(folder: Path) -> None:
    found = driver("list", str(folder), "test_it.py", "test_broken.py")
    names = [event["id"] for event in found if event["event"] == "found"]
    assert "test_it.py::test_words[c::d]" in names
    (broken,) = [event for event in found if event["event"] == "end"]
    assert broken["id"] == "test_broken.py"
    assert "no_such_module" in str(broken["text"])


def test_a_test_that_hangs_or_crashes_costs_only_itself(folder: Path) -> None:
    names = [str(event["id"]) for event in driver("list", str(folder), "test_it.py")]
    results = driver("run", str(folder), "2", "1000", given="".join(json.dumps(name) + "\n" for name in names))
    assert {str(result["id"]).partition("::")[2]: result["outcome"] for result in results} == {
        "test_passes": "pass",
        "test_fails": "fail",
        "test_skips": "skip",
        "test_words[a b]": "pass",
        "test_words[c::d]": "pass",
        "test_crashes": "crash",
        "test_hangs": "timeout",
        "test_last": "pass",
        "test_that_is_known_to_fail": "skip",
    }
    texts = {str(result["id"]).partition("::")[2]: str(result.get("text")) for result in results}
    assert "one is not two" in texts["test_fails"]
    assert "not here" in texts["test_skips"]
    assert "signal 11" in texts["test_crashes"]


def test_no_test_begins_after_the_budget_and_the_rest_is_left(folder: Path) -> None:
    wanted = ["test_it.py::test_passes", "test_it.py::test_last"]
    results = driver("run", str(folder), "60", "0.001", given="".join(json.dumps(name) + "\n" for name in wanted))
    assert [result["id"] for result in results] == wanted[:1]


def test_a_file_that_cannot_be_collected_fails_each_of_its_tests(folder: Path) -> None:
    wanted = ["test_broken.py::test_one", "test_it.py::test_passes"]
    results = driver("run", str(folder), "60", "1000", given="".join(json.dumps(name) + "\n" for name in wanted))
    outcomes = {result["id"]: result["outcome"] for result in results}
    assert outcomes == {"test_broken.py::test_one": "fail", "test_it.py::test_passes": "pass"}


def test_a_log_says_which_test_begins(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("IN_GUEST_LOG", str(log))
    names = ["test_it.py::test_passes", "test_it.py::test_last"]
    driver("run", str(folder), "60", "1000", given="".join(json.dumps(name) + "\n" for name in names))
    assert log.read_text().splitlines() == [f"{in_guest_pytest.MARK}{name}" for name in names]
