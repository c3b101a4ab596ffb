"""Suite files of user space, the results of their tests, and what a lost guest costs."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from typer.testing import CliRunner

from vfio_user_xe.device_models.xe.info import INFO
from vfio_user_xe.emulator.cli import parts
from vfio_user_xe.emulator.cli import suite as cli
from vfio_user_xe.emulator.guest.channel import Result as Done
from vfio_user_xe.emulator.guest.errors import CommandTimeout, GuestError
from vfio_user_xe.emulator.results import Outcome, Report, json_file
from vfio_user_xe.emulator.results.matrix import matrix, matrix_text
from vfio_user_xe.emulator.results.shard import Parts, Shard
from vfio_user_xe.emulator.results.times import Times
from vfio_user_xe.emulator.suites.expectations import Expectations
from vfio_user_xe.emulator.suites.group import Part
from vfio_user_xe.emulator.suites.report import append_result, forget_results, read_results, report_of
from vfio_user_xe.emulator.suites.subtest import KernelLog, SubtestResult
from vfio_user_xe.emulator.suites.table import SuiteError
from vfio_user_xe.emulator.suites.userland import kinds, runner, source
from vfio_user_xe.emulator.suites.userland.bench import Bench, SetupFailed, own_log
from vfio_user_xe.emulator.suites.userland.kinds import CommandTests, Name, PiglitTests, read_piglit_result
from vfio_user_xe.emulator.suites.userland.suite import Group, Kind, Needs, Source, UserlandSuite

GROUP = Group("programs", Kind.COMMAND, commands={"one": "true", "two": "false"})
SUITE = UserlandSuite("a suite", Needs("compute"), (GROUP,), KernelLog(), timeouts=(("one", 5.0),))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(f'title = "t"\n[guest]\nuserland = "compute"\n{text}')
    return path


def test_every_suite_of_the_card_can_be_read() -> None:
    names = [name for name in INFO.suites if name != "igt"]
    assert "pyopencl" in names
    for name in names:
        folder = INFO.suites[name]
        suite = UserlandSuite.load(folder / "suite.toml")
        assert suite.groups
        if (folder / "expectations.toml").exists():
            Expectations.load(folder / "expectations.toml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[group]]\nname = "a"\nkind = "junit"', r'kind: "junit" is not allowed \(allowed: pytest, piglit, command\)'),
        ('[[group]]\nname = "a"\nkind = "pytest"', r"needs a table \[source\]"),
        ('[[group]]\nname = "a"\nkind = "piglit"', r'profile: belongs to kind = "piglit"'),
        ('[[group]]\nname = "a"\nkind = "command"\nprofile = "quick"\ncommands = {a = "b"}', 'this is "command"'),
        ('[[group]]\nname = "a"\nkind = "command"\ncommands = {a = "b"}\non = "vf0"', r'"vf0" is not a function'),
        (
            '[[group]]\nname = "a"\nkind = "command"\ncommands = {a = "b"}\nfiles = {"/root/x" = "absent.py"}',
            r"want .* with a file in .*, not /root/x",
        ),
        (
            '[source]\nfolder = "t"\n[[group]]\nname = "a"\nkind = "pytest"\nfiles = {"/root/x" = "suite.toml"}',
            r'files: belongs to kind = "command"; this is "pytest"',
        ),
        ('[timeouts]\n"*" = 0', r'timeouts\."\*" must be a number of seconds above 0'),
        ("[kernel_log]\nerrors = ['(']", "is not a regular expression"),
        ("[surprise]", 'there is no key "surprise"'),
    ],
)
def test_a_wrong_suite_file_is_refused_with_the_place_and_what_is_allowed(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(SuiteError, match=complaint):
        UserlandSuite.load(written(tmp_path, text))


@pytest.mark.parametrize(
    ("code", "output", "outcome"),
    [
        (0, 'hello\nPIGLIT: {"result": "pass" }\n', Outcome.PASS),
        (1, 'Probe at (1,2)\nPIGLIT: {"result": "fail" }\n', Outcome.FAIL),
        (0, 'PIGLIT: {"subtest": {"a" : "fail"}}\nPIGLIT: {"result": "skip" }\n', Outcome.SKIP),
        (0, "nothing of it\n", Outcome.FAIL),
        (139, 'PIGLIT: {"result": "pass" }\n', Outcome.CRASH),
    ],
)
def test_the_result_that_a_test_of_piglit_prints_counts(code: int, output: str, outcome: Outcome) -> None:
    assert read_piglit_result(code, output)[0] is outcome


def test_piglits_commands_are_found_by_name() -> None:
    bench = create_autospec(Bench, instance=True)
    bench.run.return_value = Done(0, b"spec@arb_x@one ::: /usr/lib/piglit/bin/x one -auto\nnoise\n", "", 1.0)
    tests = PiglitTests("quick", ("spec@*",))
    assert tests.names(bench) == [("spec", "arb_x@one")]
    bench.run.return_value = Done(0, b'PIGLIT: {"result": "pass" }\n', "", 1.0)
    ((result,),) = tests.run(bench, [("spec", "arb_x@one")], lambda name: 7.0)
    assert (result.name, result.outcome) == ("spec@arb_x@one", Outcome.PASS)
    assert "/usr/lib/piglit/bin/x one -auto" in bench.run.call_args.args[0]
    assert bench.run.call_args.kwargs["limit"] == 7.0


@pytest.mark.parametrize(
    ("done", "outcome"),
    [
        (Done(0, b"fine", "", 1.0), Outcome.PASS),
        (Done(77, b"no such thing here", "", 1.0), Outcome.SKIP),
        (Done(3, b"wrong", "", 1.0), Outcome.FAIL),
        (Done(134, b"", "", 1.0), Outcome.CRASH),
        (CommandTimeout("slow", output=b"so far"), Outcome.TIMEOUT),
        (GuestError("panic"), Outcome.LOST),
    ],
)
def test_a_command_is_judged_by_how_it_ends(done: Done | Exception, outcome: Outcome) -> None:
    bench = create_autospec(Bench, instance=True)
    bench.run.side_effect = [done]
    ((result,),) = CommandTests({"one": "true"}).run(bench, [("one", "")], lambda name: 1.0)
    assert result.outcome is outcome
    assert bench.close.called == (outcome is Outcome.LOST)


class Scripted:
    """Tests that end as they are told; `GuestError` loses the guest."""

    def __init__(self, outcomes: dict[str, Outcome | GuestError]) -> None:
        self.outcomes = outcomes
        self.files: dict[str, str] = {}

    def names(self, bench: Bench) -> list[Name]:
        return [(name, "") for name in self.outcomes]

    def run(self, bench: Bench, names: Sequence[Name], limit: object) -> Iterator[list[SubtestResult]]:
        for test, subtest in names:
            outcome = self.outcomes[test]
            if isinstance(outcome, GuestError):
                raise outcome
            yield [SubtestResult(test, subtest, outcome)]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> runner.UserlandRun:
    monkeypatch.setattr(runner, "locate_userland", create_autospec(runner.locate_userland))
    bench = create_autospec(Bench, instance=True)
    bench.__enter__.return_value = bench
    bench.group = GROUP
    monkeypatch.setattr(runner, "Bench", create_autospec(Bench, return_value=bench))
    return runner.UserlandRun("s", SUITE, Expectations(), tmp_path / "out")


def run(given: runner.UserlandRun, tests: Scripted, monkeypatch: pytest.MonkeyPatch) -> dict[str, Outcome]:
    monkeypatch.setattr(runner, "tests_of", lambda group, folder: tests)
    return {result.name: result.outcome for result in runner.run_userland(given, lambda text: None)}


def test_a_test_that_loses_the_guest_is_lost_and_the_rest_runs(
    given: runner.UserlandRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = Scripted({"a": Outcome.PASS, "b": GuestError("panic"), "c": Outcome.FAIL})
    assert run(given, tests, monkeypatch) == {"a": Outcome.PASS, "b": Outcome.LOST, "c": Outcome.FAIL}


def test_a_guest_that_cannot_be_set_up_ends_the_run_and_keeps_the_results(
    given: runner.UserlandRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SetupFailed):
        run(given, Scripted({"a": Outcome.PASS, "b": SetupFailed("no driver")}), monkeypatch)
    resumed = replace(given, resume=True)
    ended = run(resumed, Scripted({"a": Outcome.FAIL, "b": Outcome.PASS}), monkeypatch)
    assert ended == {"a": Outcome.PASS, "b": Outcome.PASS}, "what was run before is not run again"


def test_a_sample_is_spread_evenly(given: runner.UserlandRun, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = Scripted(dict.fromkeys("abcdefgh", Outcome.PASS))
    assert list(run(replace(given, sample=4), tests, monkeypatch)) == ["a", "c", "e", "g"]


def test_patterns_that_fit_no_test_are_refused(given: runner.UserlandRun, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SuiteError, match="no test of the suite s fits nothing"):
        run(replace(given, tests=("nothing",)), Scripted({"a": Outcome.PASS}), monkeypatch)


def test_a_requirement_takes_the_upstream_version_of_the_userlands_package() -> None:
    wanted = Source("thing=={python3-thing}", "test")
    assert source.requirement(wanted, {"python3-thing": "1:2025.1+dfsg-2+b2"}) == "thing==2025.1"
    with pytest.raises(SuiteError, match="no package python3-thing"):
        source.requirement(wanted, {})


def test_a_source_is_downloaded_once_and_a_missing_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "thing-1/test").mkdir(parents=True)
    (tmp_path / "thing-1/test/test_it.py").write_text("")

    def download(command: Sequence[str], **settings: object) -> object:
        calls.append(command)
        with tarfile.open(Path(command[command.index("--dest") + 1]) / "thing-1.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "thing-1", "thing-1")
        return create_autospec(source.subprocess.CompletedProcess, instance=True, returncode=0, stderr="")

    calls: list[Sequence[str]] = []
    monkeypatch.setattr(source.subprocess, "run", download)
    for _ in range(2):
        folder = source.fetch_source(Source("thing==1", "test"), {})
        assert [path.name for path in folder.iterdir()] == ["test_it.py"]
    assert len(calls) == 1
    with pytest.raises(source.FetchFailed, match=r"has no folder tests \(there are: test\)"):
        source.fetch_source(Source("thing==1", "tests"), {})


def test_a_source_that_is_damaged_is_told_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def download(command: Sequence[str], **settings: object) -> object:
        with tarfile.open(Path(command[command.index("--dest") + 1]) / "thing-1.tar.gz", "w:gz") as archive:
            outside = tarfile.TarInfo("thing-1/../../outside")
            archive.addfile(outside)
        return create_autospec(source.subprocess.CompletedProcess, instance=True, returncode=0, stderr="")

    monkeypatch.setattr(source.subprocess, "run", download)
    with pytest.raises(source.FetchFailed, match=r"source of thing==1 is damaged or cannot be stored: .*outside"):
        source.fetch_source(Source("thing==1", "test"), {})
    assert [path.name for path in (tmp_path / "cache/vfio-user-xe/suites").iterdir()] == ["lock"]


def test_tests_and_files_can_lie_in_the_suite_s_own_folder(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tool.py").write_text("pass")
    text = """
[source]
folder = "tests"
[[group]]
name = "a"
kind = "pytest"
[[group]]
name = "b"
kind = "command"
[group.commands]
run = "python3 /root/tool.py"
[group.files]
"/root/tool.py" = "tool.py"
"""
    suite = UserlandSuite.load(written(tmp_path, text))
    assert suite.source is not None
    assert source.fetch_source(suite.source, {}) == tmp_path / "tests"
    assert kinds.tests_of(suite.groups[1], None).files == {"/root/tool.py": tmp_path / "tool.py"}
    (tmp_path / "tests").rmdir()
    with pytest.raises(SuiteError, match="has no folder tests"):
        source.fetch_source(suite.source, {})


def test_shards_of_a_suite_have_together_every_test_once(
    given: runner.UserlandRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = Scripted(dict.fromkeys("abcdefgh", Outcome.PASS))
    times = Times({"a": 100.0, **dict.fromkeys("bcdefgh", 1.0)})
    found = []
    for number in (1, 2):
        part = Part(Parts((Shard(number, 2),), times))
        found.append(list(run(replace(given, part=part), tests, monkeypatch)))
    assert sorted([*found[0], *found[1]]) == list("abcdefgh")
    assert found[0] == ["a"], "what takes longest has a shard of its own"


def test_the_same_test_on_another_kernel_is_run_again(
    given: runner.UserlandRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = Scripted({"a": Outcome.PASS})
    run(replace(given, part=Part(kernel_name="6.18")), tests, monkeypatch)
    run(replace(given, part=Part(kernel_name="7.3.4"), resume=True), tests, monkeypatch)
    seen = read_results(given.output / "results.jsonl")
    assert [(result.test, result.kernel) for result in seen] == [("a", "6.18"), ("a", "7.3.4")]
    assert report_of(seen, Expectations(), "s").kernels == ["6.18", "7.3.4"]


def test_a_test_of_two_groups_runs_in_both_and_is_two_cases(
    given: runner.UserlandRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = tuple(replace(GROUP, name=name) for name in ("neo", "rusticl"))
    both = replace(given, suite=replace(SUITE, groups=groups))
    run(both, Scripted({"a": Outcome.PASS}), monkeypatch)
    seen = read_results(given.output / "results.jsonl")
    assert [(result.test, result.group) for result in seen] == [("a", "neo"), ("a", "rusticl")]
    run(replace(both, resume=True), Scripted({"a": Outcome.FAIL}), monkeypatch)
    assert read_results(given.output / "results.jsonl") == seen, "nothing is run again"
    report = report_of(seen, Expectations(), "s")
    assert len({(result.case.suite, result.case.group) for result in report.results}) == 2
    parts = [report_of([result], Expectations(), "s") for result in seen]
    assert [result.repetition for result in Report.merge("s", parts).results] == [1, 1]
    assert "| a [a (neo, pf)] | pass 1 of 1 |" in matrix_text(matrix(report))


def test_the_boot_of_a_guest_is_no_part_of_a_test_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def takes(seconds: float, answer: object = None) -> Callable[..., object]:
        def passes(*_: object, **__: object) -> object:
            nonlocal now
            now += seconds
            return answer

        return passes

    clock = create_autospec(time)
    clock.monotonic.side_effect = lambda: now
    monkeypatch.setattr(kinds, "time", clock)
    bench = create_autospec(Bench, instance=True)
    bench.ready.side_effect = takes(40.0)
    bench.run.side_effect = takes(2.0, Done(0, b"", "", 2.0))
    ((result,),) = CommandTests({"one": "true"}).run(bench, [("one", "")], lambda name: 1.0)
    assert result.seconds == 2.0


def test_a_job_has_a_folder_of_its_own_for_logs(tmp_path: Path) -> None:
    assert Part(job="2").logs(tmp_path) == tmp_path / "job-2"
    (tmp_path / "job-2" / "console-1.log").touch()
    forget_results(tmp_path)
    assert list((tmp_path / "job-2").iterdir()) == []


def test_jobs_write_to_one_folder_and_their_results_are_judged_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def jobs(count: int, command: Sequence[str], extra: Sequence[str] = ()) -> list[int]:
        for number in range(count):
            append_result(tmp_path / "out" / "results.jsonl", SubtestResult(f"test-{number}", "", Outcome.PASS))
        return [0] * count

    monkeypatch.setattr(parts, "run_jobs", create_autospec(parts.run_jobs, side_effect=jobs))
    file = tmp_path / "out.json"
    words = ["run", "programs", "--jobs", "3", "--output", str(tmp_path / "out"), "--json", str(file)]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert len(json_file.read(file).results) == 3


def test_a_complaint_of_the_kernel_belongs_to_the_test_that_ran() -> None:
    log = "\n".join(
        [
            "[1.0] of the driver",
            "[2.0] in-guest: begin test_a.py::test_one",
            "[2.1] of one",
            "[3.0] in-guest: begin test_a.py::test_two[x y]",
            "[3.1] of two",
            "[3.2] and its end",
        ]
    )
    one = SubtestResult("test_a.py", "test_one", Outcome.PASS)
    two = SubtestResult("test_a.py", "test_two[x y]", Outcome.TIMEOUT)
    unnamed = SubtestResult("test_b.py", "", Outcome.FAIL)
    assert own_log(one, log).splitlines() == ["[1.0] of the driver", "[2.1] of one"]
    assert own_log(two, log).splitlines() == ["[3.1] of two", "[3.2] and its end"]
    assert own_log(unnamed, log) == log
