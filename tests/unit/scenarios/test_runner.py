"""The scenario runner: verdicts, guests that are shared, replaced and ended, and what is written about them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import NonCallableMock, create_autospec
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from vfio_user_xe.device_models.xe.scenarios.exhibits import RECORDS, exhibits
from vfio_user_xe.emulator.cli import scenario as cli
from vfio_user_xe.emulator.guest.channel import Result as Output
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import BootFailed, GuestPanic
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.kernel_reports import KernelLog, Kind, Line
from vfio_user_xe.emulator.results import Report, Result, Verdict
from vfio_user_xe.emulator.results.html import html
from vfio_user_xe.emulator.results.json_file import dumps, loads
from vfio_user_xe.emulator.results.junit import junit
from vfio_user_xe.emulator.results.text import evidence, line, verdict_table
from vfio_user_xe.emulator.scenarios import runner
from vfio_user_xe.emulator.scenarios.evidence import as_data, evidence_of, report_of, summary_of
from vfio_user_xe.emulator.scenarios.finding import Finding
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.records import Records
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.runner import Runner, grouped, select
from vfio_user_xe.emulator.scenarios.scenario import SETUP, Scenario, Setup, Suite
from vfio_user_xe.emulator.testing.lab import Lab

VRAM_MAP = {"size": 1 << 30, "vfs": {"vf1": [{"gdpa": 0, "dpa": 1 << 29, "size": 2 << 20}]}}


class Guest:
    """Stands for `BlockingGuest`: a shell, and the log of its kernel."""

    def __init__(self) -> None:
        self.log: list[str] = []

        self.sequence = 0
        self.answers: dict[str, str] = {}
        """What commands that contain a word write."""
        self.dead = False

    def run(self, command: str, **options: Any) -> Output:
        if self.dead:
            raise GuestPanic("the guest's kernel panicked")
        text = next((answer for word, answer in self.answers.items() if word in command), "")
        if "awk" in command:
            mark = command.partition("<6>")[2].partition("'")[0]
            text = "\n".join(f"4,{self.sequence + at},1000,-;{line}" for at, line in enumerate([*self.log, mark]))
            self.sequence += len(self.log) + 1
            self.log = []
        return Output(0, text.encode(), "", 0.0)

    def console_tail(self, lines: int) -> str:
        return "\n".join(self.log)


class Card:
    def call(self, command: str, **arguments: Any) -> Any:
        return {
            "help": [{"command": "vram_map"}],
            "vram_map": VRAM_MAP,
            "ledger": [],
            "ownership": {"changes": [], "resets": []},
            "verdicts": {"paths": [], "stale": [], "foreign": []},
        }.get(command)


class Labs:
    """Stands for `open_lab`: what was booted, and what is running."""

    def __init__(self) -> None:
        self.booted: list[str] = []
        self.running = 0
        self.fail = False
        self.healthy = True
        self.prepared: list[str] = []
        """What kernels log while they boot."""
        self.guests: list[Guest] = []

    @contextlib.contextmanager
    def open(self, serve: Any, **machine: Any) -> Iterator[Any]:
        self.booted.append(machine["append"])
        if self.fail:
            raise BootFailed("the guest did not boot")
        self.running += 1
        guest = Guest()
        guest.log += self.prepared
        self.guests.append(guest)
        lab = NonCallableMock(spec=Lab, guest=guest, card=Card(), others=[])
        lab.usable.side_effect = lambda: self.healthy and not guest.dead
        try:
            yield lab
        finally:
            self.running -= 1


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch) -> Labs:
    labs = Labs()
    monkeypatch.setattr(runner, "open_lab", labs.open)
    monkeypatch.setattr(runner, "command_line", lambda kernel: "")
    return labs


class Tried(Machine):
    """The machine of a setup, which says whose it is."""

    shell: Guest

    def __init__(self, shell: Guest, card: Any, others: Any, setup: str = "") -> None:
        super().__init__(shell, card, others)
        self.setup = setup
        shell.answers["uname -r"] = "7.3.4"


def setup(name: str) -> Setup[Tried]:
    return Setup(name, (), {"append": name}, lambda booted: Tried(booted.guest, booted.card, booted.others, name))


FIRST, SECOND = setup("first"), setup("second")


def scenario(number: str, body: Any, where: Setup[Tried] = FIRST) -> Scenario[Tried]:
    return Scenario(number, f"scenario-{number}", f"title of {number}", "it works", where, body)


def run_all(labs: Labs, *scenarios: Scenario[Tried], **options: Any) -> list[Result]:
    suite = Suite(
        "tried",
        scenarios,
        {"known-one": "a defect"},
        reports={"known-one": r"(?s)circular.*of_known_one"},
        records=RECORDS,
        exhibits=exhibits,
    )
    results = run_suite(suite, **options)
    assert labs.running == 0, "a guest was left"
    return results


def run_suite(suite: Suite[Tried], **options: Any) -> list[Result]:
    """The scenarios' results: the set-ups' are apart (`setups_of`)."""
    return [result for result in all_results(suite, **options) if result.case.number != SETUP]


def all_results(suite: Suite[Tried], **options: Any) -> list[Result]:
    return Runner(suite, {}, kernel=Kernel(Path("bzImage"), None)).run(suite.scenarios, **options)


def passes(run: Run, machine: Tried) -> None:
    with run.step("a step"):
        run.note("inside", good=True)


def fails(run: Run, machine: Tried) -> None:
    run.check([], "one is not two")


def logs(*lines: str) -> Any:
    def body(run: Run, machine: Tried) -> None:
        machine.shell.log += lines

    return body


def test_a_scenario_s_verdict_is_what_it_raises(labs: Labs) -> None:
    results = run_all(
        labs,
        scenario("1", passes),
        scenario("2", fails),
        scenario("3", lambda run, machine: run.known("known-one", "seen")),
        scenario("4", lambda run, machine: run.known("unheard-of", "seen")),
        scenario("5", lambda run, machine: run.not_applicable("no such thing here")),
        scenario("6", lambda run, machine: 1 / 0),
    )
    assert [r.verdict for r in results] == [
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.EXPECTED_FAIL,
        Verdict.FAIL,
        Verdict.NOT_APPLICABLE,
        Verdict.FAIL,
    ]
    assert (results[2].defect, results[2].reason) == ("known-one", "seen")
    assert "unheard-of" in results[3].reason
    assert "ZeroDivisionError" in results[5].reason
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
        machine.shell.log.append("INFO: task a:1 blocked for more than 5 seconds.")

    (result,) = run_all(labs, scenario("1", body))
    assert result.verdict is Verdict.PASS


def test_scenarios_of_one_setup_share_a_guest(labs: Labs) -> None:
    seen: list[str] = []
    body = lambda run, machine: seen.append(machine.setup)  # noqa: E731
    run_all(labs, scenario("1", body), scenario("2", body, SECOND), scenario("3", body))
    assert labs.booted == ["first", "second"]
    assert seen == ["first", "first", "second"]


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


@pytest.fixture
def results(labs: Labs) -> list[Result]:
    return run_all(
        labs,
        scenario("2", passes),
        scenario("10", lambda run, machine: run.known("known-one", "seen <here>")),
        scenario("c1", lambda run, machine: run.not_applicable("nothing")),
        scenario("1", logs("\x1b[1mcoloured\x1b[0m", "BUG: <script>alert(1)</script>")),
    )


def test_junit_tells_failures_from_what_is_known_and_what_does_not_apply(results: list[Result]) -> None:
    root = ElementTree.fromstring(junit(report_of(Suite("tried", [], {}), results)))
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("4", "1", "2")
    messages = {case.get("name"): (case.find("skipped"), case.find("failure")) for case in root}
    skipped = messages["scenario-10"][0]
    assert skipped is not None
    assert "known-one" in str(skipped.get("message"))
    assert messages["scenario-1"][1] is not None


def test_text_is_sorted_by_number_with_controls_last(results: list[Result]) -> None:
    assert [row.split()[0] for row in verdict_table(results).splitlines()] == ["1", "2", "10", "c1"]
    assert "1 passed, 1 failed, 1 failed as known, 1 not applicable" in summary_of(results, 1)
    assert "known-one: seen <here>" in line(results[1])


def test_everything_can_be_written_as_json(results: list[Result]) -> None:
    data = json.loads(json.dumps([as_data(result) for result in results]))
    assert list(data[0]) == [
        *("number", "name", "title", "expected", "setup", "verdict", "defect", "reason", "seconds", "kernel"),
        *("repetition", "events", "facts", "shown", "kernel_log", "kernel_reports", "unexcused_reports"),
        *("ledger", "verdicts", "ownership", "vram_map", "accounts"),
    ]
    assert [result["verdict"] for result in data] == ["pass", "expected-fail", "not-applicable", "fail"]
    times, texts = zip(*(line.split("] ", 1) for line in data[3]["kernel_log"]), strict=True)
    assert texts == ("\x1b[1mcoloured\x1b[0m", "BUG: <script>alert(1)</script>")
    assert set(times) == {"[    0.001000"}
    assert [(event["text"], event["depth"]) for event in data[0]["events"]] == [("a step", 0), ("inside", 1)]
    assert data[3]["unexcused_reports"] == ["BUG: <script>alert(1)</script>"]


def test_the_page_stands_alone_and_shows_foreign_text_as_text(results: list[Result]) -> None:
    page = html(report_of(Suite("tried", [], {"known-one": "a defect"}), results))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert "vf1: GDPA 0x0 is DPA 0x20000000" in page
    assert page.count('<details class="run"') == 4
    assert page.count("<details") == page.count("</details>")


def test_the_page_shows_which_way_accesses_took_and_what_changed_hands(labs: Labs) -> None:
    (result,) = run_all(labs, scenario("1", passes))
    counted = {"reads": 3, "bytes_read": 4096, "writes": 0, "bytes_written": 0, "spans": 1}
    ways = (("iov", "vram"), ("p2p", "system"), ("iov", "stale vram"), ("iov", "kernel vram"))
    run = Run(create_autospec(KernelLog, instance=True))
    run.records.ledger = [
        {
            "initiator": "pf",
            "owner": "vf1",
            "interconnect": link,
            "way": "zero-copy" if link == "iov" else "legacy",
            "kind": kind,
            **counted,
        }
        for link, kind in ways
    ]
    run.records.verdicts = {
        "stale": [
            {
                "reason": "reset",
                "initiator": "pf",
                "owner": "vf1",
                "interconnect": "iov",
                "way": "zero-copy",
                "reads": 1,
                "writes": 2,
                "after": 0.5,
            }
        ]
    }
    run.records.ownership = {
        "changes": [{"time": 1.5, "address": 1 << 29, "length": 2 << 20, "old": "vf1", "new": "pf"}],
        "resets": [{"owner": "vf1", "began": 2.0, "ended": None, "accesses": []}],
    }
    suite = Suite("tried", [], {}, exhibits=exhibits)
    result.evidence = evidence_of(suite, run)
    page = html(report_of(suite, [result]))
    assert [page.count(f'<div class="path {look}"') for look in ("zero-copy", "legacy", "stale")] == [1, 1, 1]
    assert "3 reads (4 KiB)" in page
    assert "reset: pf to vf1 over iov, 1 reads, 2 writes; over a path that was opened 0.500 s after" in page
    assert "2 MiB from DPA 0x20000000 on: vf1 → pf" in page
    assert "reset of vf1, lasts" in page


def test_only_the_suite_s_own_records_are_asked_of_the_card(labs: Labs) -> None:
    suite = Suite("tried", [scenario("1", passes)], {})
    (result,) = run_suite(suite)
    assert "vram_map" not in as_data(result)
    (result,) = run_all(labs, scenario("1", passes))
    assert as_data(result)["vram_map"] == VRAM_MAP


def test_exhibits_that_fail_are_noted_and_cost_no_verdict(labs: Labs) -> None:
    def broken(records: Records) -> Any:
        raise KeyError("vfs")

    suite = Suite("tried", [scenario("1", passes), scenario("2", passes)], {}, exhibits=broken)
    results = run_suite(suite)
    assert [result.verdict for result in results] == [Verdict.PASS, Verdict.PASS]
    assert "the suite&#39;s exhibits failed: KeyError: &#39;vfs&#39;" in html(report_of(suite, results))


def test_runs_of_one_kernel_merge_as_repetitions_whatever_was_measured(labs: Labs) -> None:
    counts = iter(range(1 << 20, 5 << 20, 1 << 20))
    suite = Suite("tried", [scenario("1", passes)], {}, account=lambda machine: {"VRAM in use": next(counts)})
    runs = [report_of(suite, run_suite(suite)) for _ in range(2)]
    assert runs[0].results[0].figures != runs[1].results[0].figures
    assert [result.repetition for result in Report.merge("all", runs).results] == [1, 2]


def test_a_kernel_s_report_cannot_break_junit_page_or_terminal(labs: Labs) -> None:
    bad = "BUG: \x1b]0;title\x07\x1b[31mred\x00\x0b\x9b2J\ud800\ufffe ]]> </pre><script>alert('x')</script>"
    (result,) = run_all(labs, scenario("1", lambda run, machine: run.kernel_log.append(Line(bad))))
    assert result.verdict is Verdict.FAIL
    report = report_of(Suite("tried", [], {}), [result])
    failure = ElementTree.fromstring(junit(report).encode()).find("testcase/failure")
    assert failure is not None
    seen = "BUG: red\ufffd\ufffd\ufffd2J\ufffd\ufffd ]]> </pre><script>alert('x')</script>"
    assert str(failure.get("message")).endswith(seen)
    assert seen in str(failure.text)
    page = html(report)
    page.encode()
    assert "<script" not in page
    assert page.count("</pre>") == page.count("<pre>")
    assert line(result).isprintable() is False
    assert {c for c in line(result) if not c.isprintable()} == {"\n"}
    assert loads(dumps(report)) == report


def test_evidence_is_what_a_scenario_shows(labs: Labs) -> None:
    def body(run: Run, machine: Tried) -> None:
        run.fact("hidden", "not shown")
        run.evidence("stack", {"task (7)": "inner\nouter"})
        run.evidence("freed by", "nothing")

    (result,) = run_all(labs, scenario("1", body))
    text = evidence(result)
    assert [part.strip() for part in text.splitlines()] == ["stack:", "task (7)", "inner", "outer", "freed by: nothing"]
    assert as_data(result)["shown"] == ["stack", "freed by"]


def test_repetitions_are_one_row_for_each_verdict(labs: Labs) -> None:
    outcomes = iter([True, False, True])
    results = run_all(labs, scenario("1", lambda run, machine: run.check(next(outcomes), "red")), repeat=3)
    assert [row.split()[:3] for row in verdict_table(results).splitlines()] == [
        ["1", "fail", "title"],
        ["1", "2x", "pass"],
    ]


def test_accounts_are_kept_before_and_after_and_not_of_a_guest_that_is_given_up(labs: Labs) -> None:
    counts = iter([10 << 20, 10 << 20, 10 << 20, 11 << 20, 12 << 20])
    scenarios = [scenario("1", passes), scenario("2", passes), scenario("3", lambda run, machine: run.give_up("dead"))]
    suite = Suite("tried", scenarios, {}, account=lambda machine: {"VRAM in use": next(counts)})
    results = run_suite(suite)
    assert [as_data(r)["accounts"]["VRAM in use"] for r in results] == [
        [10 << 20, 10 << 20],
        [10 << 20, 11 << 20],
        [12 << 20, None],
    ]
    page = html(report_of(suite, results))
    assert "10 MiB before, afterwards the same" in page
    assert "10 MiB before, afterwards 11 MiB" in page
    assert "12 MiB before, afterwards the guest was given up" in page


def test_a_setup_that_fails_costs_its_scenario_only(labs: Labs) -> None:
    def broken(lab: Any) -> None:
        raise LookupError("xe gave VF 1 no VRAM")

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
    done = CliRunner().invoke(cli.app, ["run", "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 130
    assert [result["number"] for result in json.loads((tmp_path / "out.json").read_text())] == ["up", "1"]
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

    monkeypatch.setattr(cli, "installed_suites", lambda: ["tried"])
    monkeypatch.setattr(cli, "load_suite", lambda name: suite)
    monkeypatch.setattr(cli, "locate", lambda: create_autospec(Environment, instance=True))
    monkeypatch.setattr(cli, "named_kernel", named)
    data = tmp_path / "seen.json"
    asked = ["findings", "--kernel", "6.18", "--kernel", "7.3", "--data", str(data)]
    done = CliRunner().invoke(cli.app, asked)
    assert (done.exit_code, tried, labs.running) == (130, ["6.18"], 0)
    assert [entry["scenario"] for entry in json.loads(data.read_text())] == ["scenario-1"]
    assert "| it creaks |" in done.output
