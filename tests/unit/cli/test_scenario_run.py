"""`scenario run`: matrices of kernels, shards, jobs, resuming, repeating until something fails. Guests are played."""

from __future__ import annotations

import errno
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from click.testing import Result as Done
from typer.testing import CliRunner

from tests.support.scenario_plays import SECOND, Labs, Tried, fails, passes, scenario
from vfio_user_xe.emulator.cli import kernels, parts, scenario_run
from vfio_user_xe.emulator.cli import scenario as cli
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import KernelError
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.results import Result
from vfio_user_xe.emulator.results.journal import Journal, NotKept, read_journal
from vfio_user_xe.emulator.results.json_file import read
from vfio_user_xe.emulator.scenarios import runner
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import SETUP, Scenario, Suite

Play = Callable[..., Done]


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch) -> Labs:
    labs = Labs()
    monkeypatch.setattr(runner, "open_lab", labs.open)
    monkeypatch.setattr(runner, "command_line", lambda kernel: "")
    environment = create_autospec(Environment, instance=True)

    def named(name: str, modules: Path | None, _: Environment | None = None) -> Kernel:
        kernel = Kernel(Path(name), modules)
        kernel.__dict__["release"] = Path(name).name.removeprefix("bzImage-")
        return kernel

    for module in (cli, kernels):
        monkeypatch.setattr(module, "locate", lambda: environment)
        monkeypatch.setattr(module, "named_kernel", named)
    monkeypatch.setattr(Kernel, "packaged", lambda environment: named("7.3.4", None))
    return labs


@pytest.fixture
def play(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> Play:
    def run(*words: Any, scenarios: list[Scenario[Tried]]) -> Done:
        suite = Suite("tried", scenarios, {"creaks": "it creaks"})
        monkeypatch.setattr(cli, "load_suite", lambda name: suite)
        return CliRunner().invoke(scenario_run.app, ["run", *map(str, words)])

    return run


def numbers(results: list[Result]) -> list[str]:
    return [result.case.number for result in results if result.case.number != SETUP]


FOUR = [scenario("1", passes), scenario("2", passes, SECOND), scenario("3", passes), scenario("4", passes, SECOND)]


def test_shards_have_together_what_the_whole_has(play: Play, tmp_path: Path) -> None:
    found = []
    for number in (1, 2):
        file = tmp_path / f"{number}.json"
        assert play("--shard", f"{number}/2", "--json", file, scenarios=FOUR).exit_code == 0
        found.append(numbers(read(file).results))
    assert sorted(itertools.chain(*found)) == ["1", "2", "3", "4"]
    assert all(found)


def test_repetitions_of_one_scenario_are_divided_too(play: Play, tmp_path: Path) -> None:
    file = tmp_path / "2.json"
    play("--shard", "2/2", "--repeat", 4, "--json", file, scenarios=FOUR[:1])
    assert [result.repetition for result in read(file).results if result.case.number == "1"] == [2, 4]


def test_each_kernel_has_its_column_and_two_of_one_release_are_told_apart(play: Play, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    images = [tmp_path / "old" / "bzImage-7.3.4", tmp_path / "new" / "bzImage-7.3.4"]
    asked = [word for image in images for word in ("--kernel", image, "--modules", image.parent)]
    done = play(*asked, "--kernel", "6.18", "--json", file, scenarios=[scenario("1", passes)])
    assert done.exit_code == 0, done.output
    assert read(file).kernels == ["6.18", *(f"7.3.4 ({image})" for image in sorted(images))]
    assert "| case | 6.18 | 7.3.4 (" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--modules", "m"], "--modules is for --kernel"),
        (["--kernel", "a/b", "--kernel", "c/d", "--modules", "m"], "want one for each"),
        (["--shard", "3/2"], "there is no shard 3 of 2"),
        (["--shard", "second"], "want I/N"),
        (["--jobs", "0"], "want a number from 1"),
        (["--jobs", "many"], "or auto"),
        (["--resume"], "--resume is for --output"),
        (["--until-fail", "--jobs", "2"], "one guest at a time"),
        (["--until-fail", "--shard", "1/2"], "one guest at a time"),
        (["--times", "nowhere.json"], "nowhere.json"),
    ],
)
def test_wrong_use_is_told_before_a_guest_boots(play: Play, labs: Labs, words: list[str], said: str) -> None:
    done = play(*words, scenarios=FOUR)
    assert (done.exit_code, labs.booted) == (2, [])
    assert said in done.output


def test_what_was_killed_is_taken_up_where_it_ended(play: Play, labs: Labs, tmp_path: Path) -> None:
    ran: list[str] = []

    def ends(run: Run, machine: Tried) -> None:
        ran.append("2")
        if len(ran) == 1:
            raise KeyboardInterrupt

    scenarios = [scenario("1", lambda run, machine: ran.append("1") or passes(run, machine)), scenario("2", ends)]
    ran.clear()
    scenarios[0] = scenario("1", passes)
    assert play("--output", tmp_path, scenarios=scenarios).exit_code == 130
    assert numbers(read_journal(tmp_path / "results.jsonl").results) == ["1"]
    done = play("--output", tmp_path, "--resume", "--json", tmp_path / "all.json", scenarios=scenarios)
    assert done.exit_code == 0, done.output
    assert ran == ["2", "2"]
    assert numbers(read(tmp_path / "all.json").results) == ["1", "2"]


def test_what_reached_no_kernel_is_run_again(play: Play, labs: Labs, tmp_path: Path) -> None:
    labs.fail = True
    assert play("--output", tmp_path, scenarios=FOUR[:1]).exit_code == 1
    labs.fail = False
    assert play("--output", tmp_path, "--resume", scenarios=FOUR[:1]).exit_code == 0
    assert [result.verdict for result in read_journal(tmp_path / "results.jsonl").results] == ["pass", "pass"]


def test_without_resume_a_folder_has_the_new_results_alone(play: Play, tmp_path: Path) -> None:
    play("--output", tmp_path, scenarios=FOUR)
    play("--output", tmp_path, scenarios=FOUR[:1])
    assert numbers(read_journal(tmp_path / "results.jsonl").results) == ["1"]


def test_a_folder_with_another_suite_s_results_is_refused(play: Play, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"test": "xe_query"}\n')
    done = play("--output", tmp_path, "--resume", scenarios=FOUR)
    assert done.exit_code == 2
    assert "results.jsonl:1: not a report" in done.output


def test_until_fail_goes_round_until_one_fails(play: Play, tmp_path: Path) -> None:
    outcomes = iter([True, True, False, True])
    scenarios = [scenario("1", passes), scenario("2", lambda run, machine: run.check(next(outcomes), "red"))]
    file = tmp_path / "out.json"
    assert play("--until-fail", "--json", file, scenarios=scenarios).exit_code == 1
    assert numbers(read(file).results) == ["1", "2"] * 3


def test_until_fail_ends_after_so_many_repetitions(play: Play, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert play("--until-fail", "--repeat", 2, "--json", file, scenarios=FOUR[:1]).exit_code == 0
    assert numbers(read(file).results) == ["1", "1"]
    assert play("--until-fail", "--repeat", 5, "--json", file, scenarios=[scenario("1", fails)]).exit_code == 1
    assert numbers(read(file).results) == ["1"]


def test_jobs_do_a_part_each_and_their_results_become_one_report(
    play: Play, labs: Labs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_jobs(count: int, command: Any, extra: Any = ()) -> list[int]:
        for number in range(1, count + 1):
            assert play("--job", f"{number}/{count}", *extra, scenarios=FOUR).exit_code == 0
        return [0] * count

    monkeypatch.setattr(scenario_run, "run_jobs", create_autospec(parts.run_jobs, side_effect=run_jobs))
    file = tmp_path / "out.json"
    done = play("--jobs", 2, "--json", file, scenarios=FOUR)
    assert done.exit_code == 0, done.output
    assert sorted(numbers(read(file).results)) == ["1", "2", "3", "4"]
    assert sorted(labs.booted) == ["first", "second"]


@pytest.mark.parametrize("code", [1, 137])
@pytest.mark.parametrize(("words", "ends_with"), [((), 1), (("--bisect",), 125)])
def test_a_job_that_did_not_do_its_part_is_no_success(
    play: Play, monkeypatch: pytest.MonkeyPatch, code: int, words: tuple[str, ...], ends_with: int
) -> None:
    def run_jobs(count: int, command: Any, extra: Any = ()) -> list[int]:
        assert play("--job", "1/2", *words, *extra, scenarios=FOUR).exit_code == 0
        return [0, code]

    monkeypatch.setattr(scenario_run, "run_jobs", create_autospec(parts.run_jobs, side_effect=run_jobs))
    done = play("--jobs", 2, *words, scenarios=FOUR)
    assert done.exit_code == ends_with
    assert f"1 of 2 jobs did not do their parts: they ended with {code}" in done.output


def test_jobs_are_processes_with_the_same_options_and_a_part(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vfio-user-xe", "scenario", "run", "no-such-scenario"])
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    assert parts.run_jobs(2, ("scenario", "run")) == [2, 2]
    assert capfd.readouterr().err.count("no-such-scenario") == 2


def test_a_job_that_a_signal_ended_has_not_ended_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(command: Any, **more: Any) -> Any:
        return parts.subprocess.Popen(["sh", "-c", "kill -9 $$"])

    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    monkeypatch.setattr(parts, "launch", create_autospec(parts.launch, side_effect=killed))
    assert parts.run_jobs(2, ("scenario", "run")) == [137, 137]


def test_auto_is_as_many_as_processors_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts.os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(parts, "meminfo", lambda: {"MemAvailable": 8000 * 1024})
    assert parts.job_count("auto", 1024) == 5
    assert parts.job_count("auto", 9000) == 1
    assert parts.job_count("7", 9000) == 7
    monkeypatch.setattr(parts.os, "sched_getaffinity", lambda pid: {0, 1})
    assert parts.job_count("auto", 1024) == 2


@pytest.mark.parametrize(
    ("body", "words", "code"),
    [
        (passes, [], 0),
        (fails, [], 1),
        (lambda run, machine: run.known("creaks", "seen"), [], 0),
        (lambda run, machine: run.known("creaks", "seen"), ["--bad", "creaks"], 1),
        (lambda run, machine: run.known("creaks", "seen"), ["--bad", "expected-fail"], 1),
        (fails, ["--bad", "creaks"], 125),
        (lambda run, machine: run.not_applicable("no such thing"), [], 125),
        (lambda run, machine: run.not_applicable("no such thing"), ["--bad", "not-applicable"], 1),
    ],
)
def test_a_bisection_is_told_good_bad_or_that_it_cannot_be_tested(
    play: Play, body: Any, words: list[str], code: int
) -> None:
    assert play("--bisect", *words, scenarios=[scenario("1", body)]).exit_code == code


def test_a_kernel_that_does_not_boot_or_is_not_there_cannot_be_tested(
    play: Play, labs: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    labs.fail = True
    assert play("--bisect", scenarios=FOUR).exit_code == 125
    missing = create_autospec(cli.named_kernel, side_effect=KernelError("kernel image x/bzImage: no such file"))
    monkeypatch.setattr(cli, "named_kernel", missing)
    assert play("--bisect", "--kernel", "x/bzImage", scenarios=FOUR).exit_code == 125
    assert play("--kernel", "x/bzImage", scenarios=FOUR).exit_code == 2


def test_words_for_the_kernel_add_up(play: Play, labs: Labs) -> None:
    assert play("--append", "kmemleak=off", "--append", "no5lvl quiet", scenarios=FOUR[:1]).exit_code == 0
    assert labs.booted[0].endswith("kmemleak=off no5lvl quiet")


@pytest.mark.parametrize("names", [[], ["--output", "folder"]], ids=["in memory", "in a folder"])
def test_what_came_out_before_a_kernel_was_gone_is_written(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: list[str]
) -> None:
    there = cli.runner_of

    def gone(suite: Any, kernel: str | None, *rest: Any) -> Any:
        if kernel == "b":
            raise KernelError("kernel image b: no such file")
        return there(suite, kernel, *rest)

    monkeypatch.setattr(scenario_run, "runner_of", gone)
    monkeypatch.chdir(tmp_path)
    file, junit = tmp_path / "out.json", tmp_path / "out.xml"
    words = ["--kernel", "a", "--kernel", "b", "--json", file, "--junit", junit, *names]
    done = play(*words, scenarios=[scenario("1", passes)])
    assert done.exit_code == 2
    assert "kernel image b: no such file" in done.stderr
    assert numbers(read(file).results) == ["1"]
    assert "scenario-1" in junit.read_text()
    assert "1 scenarios" in done.output


def test_what_came_out_before_the_disk_was_full_is_written_elsewhere(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = Journal.append

    def full(self: Journal, result: Result) -> None:
        if result.case.number == "3":
            raise NotKept(tmp_path / "out", OSError(errno.ENOSPC, "No space left on device"))
        kept(self, result)

    monkeypatch.setattr(Journal, "append", full)
    file = tmp_path / "out.json"
    done = play("--output", tmp_path / "out", "--json", file, scenarios=[scenario(str(n), passes) for n in (1, 2, 3)])
    assert done.exit_code == 1
    assert "out: results cannot be kept: No space left on device" in done.stderr
    assert numbers(read(file).results) == ["1", "2"]


@pytest.mark.parametrize(("body", "code"), [(passes, 125), (fails, 1)], ids=["good so far", "bad already"])
def test_a_bisection_is_told_what_was_seen_before_the_guests_ended(
    play: Play, monkeypatch: pytest.MonkeyPatch, body: Any, code: int
) -> None:
    ran = runner.Runner.run_plan

    def ends(self: Any, plan: Any, *rest: Any) -> Any:
        ran(self, plan, *rest)
        raise KernelError("it is gone")

    monkeypatch.setattr(runner.Runner, "run_plan", ends)
    assert play("--bisect", scenarios=[scenario("1", body)]).exit_code == code


@pytest.mark.parametrize(
    "words", [["--bad", "creak"], ["--kernel", "a", "--kernel", "b"], ["--modules", "d"], ["no-such-scenario"]]
)
def test_a_wrong_argument_ends_a_bisection(play: Play, words: list[str]) -> None:
    assert play("--bisect", *words, scenarios=FOUR).exit_code == 128
    assert play("--bad", "creak", scenarios=FOUR).exit_code == 2


def test_what_counts_as_bad_ends_until_fail_and_is_the_exit_code(play: Play, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    scenarios = [scenario("1", lambda run, machine: run.known("creaks", "seen")), scenario("2", passes)]
    assert play("--until-fail", "--bad", "creaks", "--json", file, scenarios=scenarios).exit_code == 1
    assert numbers(read(file).results) == ["1"]
    assert play(scenarios=scenarios).exit_code == 0
