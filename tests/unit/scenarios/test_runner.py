"""The scenario runner: verdicts, and guests that are shared, replaced and ended."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from typer.testing import CliRunner

from tests.support.scenario_plays import (
    SECOND,
    Labs,
    Tried,
    fails,
    logs,
    passes,
    run_all,
    run_suite,
    scenario,
)
from vfio_user_xe.emulator.cli import scenario as cli
from vfio_user_xe.emulator.cli import scenario_findings as findings_cli
from vfio_user_xe.emulator.cli import scenario_run
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import ChannelLost, CommandTimeout
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.settings import Beside
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.results import Verdict
from vfio_user_xe.emulator.results.json_file import read
from vfio_user_xe.emulator.scenarios.finding import Finding
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.runner import Runner, grouped, select
from vfio_user_xe.emulator.scenarios.scenario import Setup, Suite
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect, NotApplicable


def test_a_scenario_s_verdict_is_what_it_raises(labs: Labs) -> None:
    results = run_all(
        labs,
        scenario("1", passes),
        scenario("2", fails),
        scenario("3", lambda run, machine: run.known("known-one", "seen")),
        scenario("4", lambda run, machine: run.known("unheard-of", "seen")),
        scenario("5", lambda run, machine: run.not_applicable("no such thing here")),
        scenario("6", lambda run, machine: 1 / 0),
        scenario("7", lambda run, machine: sys.exit("no such tool")),
    )
    assert [r.verdict for r in results] == [
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.EXPECTED_FAIL,
        Verdict.FAIL,
        Verdict.NOT_APPLICABLE,
        Verdict.FAIL,
        Verdict.FAIL,
    ]
    assert (results[2].defect, results[2].reason) == ("known-one", "seen")
    assert "unheard-of" in results[3].reason
    assert "ZeroDivisionError" in results[5].reason
    assert results[6].reason == "SystemExit: no such tool"
    assert all(r.properties["kernel"] == "7.3.4" for r in results)


@pytest.mark.parametrize(
    "text",
    [
        "WARNING: CPU: 1 PID: 7 at kernel/x.c:1",
        "BUG: KASAN: slab-use-after-free in xe_bo_put",
        "refcount_t: underflow; use-after-free.",
        "INFO: task xe-dmabuf:71 blocked for more than 5 seconds.",
        "WARNING: possible circular locking dependency detected",
    ],
)
def test_a_kernel_that_reports_itself_fails_a_scenario_that_passed(labs: Labs, text: str) -> None:
    (result,) = run_all(labs, scenario("1", logs("[drm] all is well", text)))
    assert result.verdict is Verdict.FAIL
    assert text in result.reason


def test_a_report_of_the_kernel_is_a_known_defect_only_where_the_suite_knows_it(labs: Labs) -> None:
    deadlock = ("WARNING: possible circular locking dependency detected", " of_known_one+0x1/0x2")
    misuse = ("BUG: KASAN: slab-use-after-free in of_unknown",)

    def known(*lines: str) -> Any:
        def body(run: Run, machine: Tried) -> None:
            logs(*lines)(run, machine)
            run.known("known-one", "seen")

        return body

    results = run_all(
        labs,
        scenario("1", logs(*deadlock)),
        scenario("2", logs("WARNING: possible circular locking dependency detected", " of_another+0x1/0x2")),
        scenario("3", logs(*deadlock, *misuse)),
        scenario("4", known(*misuse)),
        scenario("5", known(*deadlock)),
    )
    assert [result.verdict for result in results] == [
        Verdict.EXPECTED_FAIL,
        Verdict.FAIL,
        Verdict.FAIL,
        Verdict.FAIL,
        Verdict.EXPECTED_FAIL,
    ]
    assert "slab-use-after-free" in results[2].reason
    assert (
        results[3].reason
        == "the kernel reported: BUG: KASAN: slab-use-after-free in of_unknown (besides known-one: seen)"
    )
    assert results[4].reason == "seen"


def test_what_a_scenario_excuses_does_not_fail_it(labs: Labs) -> None:
    def body(run: Run, machine: Tried) -> None:
        run.excuse(Kind.HUNG_TASK, "it is meant to", message="task a:1 ")
        machine.shell.say("INFO: task a:1 blocked for more than 5 seconds.")

    (result,) = run_all(labs, scenario("1", body))
    assert result.verdict is Verdict.PASS


@pytest.mark.parametrize(("append", "verdict"), [("quiet kmemleak=off", Verdict.PASS), ("quiet", Verdict.FAIL)])
def test_what_the_command_line_asks_for_is_excused_of_a_kernel_that_a_scenario_boots_anew(
    labs: Labs, append: str, verdict: Verdict
) -> None:
    boots = scenario("1", logs("kmemleak: Kernel memory leak detector disabled"))
    suite = Suite("tried", (boots, scenario("2", passes)), {})
    runner = Runner(suite, {}, kernel=Kernel(Path("bzImage"), None), append=append)
    _, first, second = runner.run(suite.scenarios)
    assert (first.verdict, second.verdict) == (verdict, Verdict.PASS)
    assert "excuse" not in second.reason


def test_scenarios_of_one_setup_share_a_guest(labs: Labs) -> None:
    seen: list[str] = []
    body = lambda run, machine: seen.append(machine.setup)  # noqa: E731
    run_all(labs, scenario("1", body), scenario("2", body, SECOND), scenario("3", body))
    assert labs.booted == ["first", "second"]
    assert seen == ["first", "first", "second"]


def test_a_guest_in_which_a_command_may_go_on_is_replaced(labs: Labs) -> None:
    def late(run: Run, machine: Tried) -> None:
        raise CommandTimeout("the command did not end within 60 s")

    first, second = run_all(labs, scenario("1", late), scenario("2", passes))
    assert (first.verdict, second.verdict) == (Verdict.FAIL, Verdict.PASS)
    assert "did not end within 60 s" in first.reason
    assert len(labs.booted) == 2


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Failed("the guest is reset"), "the guest is reset; then ChannelLost: no answer"),
        (KnownDefect("creaks", "it sleeps"), "creaks: it sleeps; then ChannelLost: no answer"),
        (NotApplicable("no KUnit"), "no KUnit; then ChannelLost: no answer"),
        (ValueError("a mistake"), "ChannelLost: no answer"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_guest_that_is_lost_while_a_scenario_cleans_up_does_not_hide_what_was_seen(
    labs: Labs, verdict: Exception, words: str
) -> None:
    def body(run: Run, machine: Tried) -> None:
        try:
            raise verdict
        finally:
            raise ChannelLost("no answer")

    (result,) = run_all(labs, scenario("1", body))
    assert (result.verdict, result.reason) == (Verdict.FAIL, words)


def test_a_guest_that_was_given_up_is_replaced(labs: Labs) -> None:
    run_all(
        labs, scenario("1", lambda run, machine: run.give_up("dead task")), scenario("2", passes), scenario("3", passes)
    )
    assert labs.booted == ["first", "first"]


def test_a_guest_whose_kernel_gave_the_device_up_is_replaced(labs: Labs) -> None:
    scenarios = [scenario("1", logs("device wedged, needs recovery")), scenario("2", passes), scenario("3", passes)]
    run_suite(Suite("tried", scenarios, {}, fatal="device wedged"))
    assert labs.booted == ["first", "first"]


def test_a_guest_that_does_not_answer_any_more_is_replaced(labs: Labs) -> None:
    labs.healthy = False
    results = run_all(labs, scenario("1", passes), scenario("2", passes))
    assert len(labs.booted) == 2
    assert [result.verdict for result in results] == [Verdict.PASS, Verdict.PASS]


def test_a_guest_that_does_not_boot_fails_its_scenario_and_no_other_setup_s(labs: Labs) -> None:
    labs.fail = True
    results = run_all(labs, scenario("1", passes), scenario("2", passes, SECOND))
    assert [result.verdict for result in results] == [Verdict.FAIL, Verdict.FAIL]
    assert "did not boot" in results[0].reason
    assert labs.booted == ["first", "second"]


def test_a_kernel_that_the_machine_cannot_start_makes_its_scenarios_not_applicable(
    labs: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    labs.lacking = "CONFIG_EFI_STUB"
    monkeypatch.setattr(Kernel, "release", "7.3.4")
    [result] = run_all(labs, scenario("1", passes))
    assert (result.verdict, result.reason) == (
        Verdict.NOT_APPLICABLE,
        "bzImage: it is built without CONFIG_EFI_STUB",
    )
    assert result.properties["kernel"] == "7.3.4"


def test_scenarios_are_repeated(labs: Labs) -> None:
    results = run_all(labs, scenario("1", passes), repeat=3)
    assert [result.repetition for result in results] == [1, 2, 3]


def test_names_and_numbers_select() -> None:
    suite = Suite("tried", [scenario("1", passes), scenario("17", passes), scenario("17b", passes)], {})
    assert [s.number for s in select(suite, ["17"])] == ["17", "17b"]
    assert [s.number for s in select(suite, ["scenario-17b", "1"])] == ["17b", "1"]
    assert len(select(suite, [])) == 3
    grouped_too = replace(suite, scenarios=[*suite.scenarios, replace(scenario("19", passes), groups=("hang",))])
    assert [s.number for s in select(grouped_too, ["hang"])] == ["19"]
    with pytest.raises(LookupError, match="did you mean"):
        select(suite, ["scenario-71"])


def test_setups_stay_together_in_the_order_of_their_first_scenario() -> None:
    chosen = [scenario("1", passes, SECOND), scenario("2", passes), scenario("3", passes, SECOND)]
    assert [s.number for s in grouped(chosen)] == ["1", "3", "2"]


@pytest.mark.parametrize("kind", [LookupError, SystemExit])
def test_a_setup_that_fails_costs_its_scenario_only(labs: Labs, kind: type[BaseException]) -> None:
    def broken(lab: Any) -> None:
        raise kind("xe gave VF 1 no VRAM")

    results = run_all(labs, scenario("1", passes, Setup("broken", (), {"append": "b"}, broken)), scenario("2", passes))
    assert [result.verdict for result in results] == [Verdict.FAIL, Verdict.PASS]
    assert "xe gave VF 1 no VRAM" in results[0].reason


def test_what_came_out_before_an_interrupt_is_written(
    labs: Labs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(run: Run, machine: Tried) -> None:
        raise KeyboardInterrupt

    suite = Suite("tried", [scenario("1", passes), scenario("2", interrupt), scenario("3", passes)], {})
    monkeypatch.setattr(cli, "load_suite", lambda name: suite)
    monkeypatch.setattr(cli, "locate", lambda: create_autospec(Environment, instance=True))
    monkeypatch.setattr(Kernel, "packaged", lambda environment: Kernel(Path("bzImage"), None))
    done = CliRunner().invoke(scenario_run.app, ["run", "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 130
    assert [result.case.number for result in read(tmp_path / "out.json").results] == ["up", "1"]
    assert labs.running == 0


def test_findings_that_are_interrupted_run_on_no_further_kernel(
    labs: Labs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(run: Run, machine: Tried) -> None:
        raise KeyboardInterrupt

    found = [Finding("creaks", "it creaks", ("scenario-1", "scenario-2"))]
    suite = Suite("tried", [scenario("1", passes), scenario("2", interrupt)], {}, findings=found)
    tried: list[str] = []

    def named(kernel: str, modules: Path | None, environment: Environment) -> Kernel:
        tried.append(kernel)
        return Kernel(Path("bzImage"), None)

    monkeypatch.setattr(findings_cli, "installed_suites", lambda: ["tried"])
    monkeypatch.setattr(findings_cli, "load_suite", lambda name: suite)
    monkeypatch.setattr(cli, "locate", lambda: create_autospec(Environment, instance=True))
    monkeypatch.setattr(cli, "named_kernel", named)
    data = tmp_path / "seen.json"
    asked = ["findings", "--kernel", "6.18", "--kernel", "7.3", "--data", str(data)]
    done = CliRunner().invoke(findings_cli.app, asked)
    assert (done.exit_code, tried, labs.running) == (130, ["6.18"], 0)
    assert [entry["scenario"] for entry in json.loads(data.read_text())] == ["scenario-1"]
    assert "| it creaks |" in done.output


def test_further_guests_of_a_setup_have_the_same_kernel_and_files_as_the_first(labs: Labs) -> None:
    beside = (Beside(("vf1",), {"append": "quiet", "files": {"/own": b"x"}}),)
    run_all(labs, replace(scenario("1", passes), setup=replace(SECOND, beside=beside)))
    [[guest]] = labs.beside
    assert guest.functions == ("vf1",)
    assert guest.guest["append"].split()[0] == "quiet"
    assert guest.guest["files"] == {"/own": b"x"}
    assert guest.guest["kernel"] is not None
