"""Nothing that a kernel says of itself escapes the judgement, whenever it says it and whatever is done to its log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import NonCallableMock

import pytest

from tests.support.played_kernel import PlayedKernel
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.kernel_reports import Kind, examples
from vfio_user_xe.emulator.results import Fact, Result, Verdict
from vfio_user_xe.emulator.scenarios import runner
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.runner import Runner
from vfio_user_xe.emulator.scenarios.scenario import SETUP, Scenario, Setup, Suite
from vfio_user_xe.emulator.testing.lab import Lab

WARNING = "WARNING: CPU: 0 PID: 7 at drivers/made/up.c:1 made_up+0x1/0x2"
HUNG = "INFO: task a:1 blocked for more than 5 seconds."
LOCKDEP_ON = "lockdep=1\nlocks=1\n"


class Card:
    def call(self, command: str, /, **arguments: Any) -> Any:
        return {"help": [], "ledger": [], "verdicts": {}, "ownership": {}}.get(command)


@dataclass
class Guest(PlayedKernel):
    """A guest's shell, and a kernel that logs what it is told to."""

    boot: tuple[str, ...] = ()
    console: str = ""
    cmdline: str = ""
    tainted: int = 0
    warnings: int = 0
    symbols: str = ""
    lockdep: str = ""
    leaks: str = ""
    card: Card = field(default_factory=Card)

    def __post_init__(self) -> None:
        super().__init__(priority=4)
        self.say(*self.boot)

    def say(self, *lines: str) -> None:
        super().say(*lines)
        self.console += "".join(f"{line}\r\n" for line in lines)

    def console_tail(self, lines: int) -> str:
        return self.console.replace("\r", "")

    def answer(self, command: str) -> str:
        if "scan" in command and "sleep" in command:
            found, self.leaks = self.leaks, ""
            if found:
                self.say("kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)")
            return found
        if "lockdep_stats" in command:
            return self.lockdep + (self.symbols if "kallsyms" in command else "")
        if "tainted" in command:
            return f"tainted={self.tainted}\nwarn={self.warnings}\noops=0\n"
        return self.cmdline if "cmdline" in command else "7.3.4"


class Tried(Machine):
    shell: Guest


Body = Callable[[Run, Tried], None]


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch) -> list[Guest]:
    """Those that are booted next; what was booted is taken out."""
    waiting: list[Guest] = []

    @contextlib.contextmanager
    def boot(serve: Any, **settings: Any) -> Iterator[Any]:
        guest = waiting.pop(0)
        lab = NonCallableMock(spec=Lab, guest=guest, card=guest.card, others=[])
        lab.usable.side_effect = lambda: not guest.dead
        yield lab

    monkeypatch.setattr(runner, "open_lab", boot)
    monkeypatch.setattr(runner, "command_line", lambda kernel: "")
    return waiting


def carried_out(*bodies: Body, setup: Setup[Tried] | None = None, **scenario: Any) -> list[Result]:
    """Set-ups' and scenarios' results, in their order."""
    used = setup or Setup("a guest", (), {}, Tried.of)
    scenarios = [
        Scenario(str(at), f"scenario-{at}", "", "", used, body, **scenario) for at, body in enumerate(bodies, 1)
    ]
    suite = Suite("tried", scenarios, {"known-one": "a defect"}, reports={"known-one": r"known_one\+0x"})
    return Runner(suite, {}, kernel=Kernel(Path("bzImage"), None)).run(scenarios)


def says(*lines: str) -> Body:
    return lambda run, machine: machine.shell.say(*lines)


def nothing(run: Run, machine: Tried) -> None:
    pass


def facts(result: Result) -> dict[str, Any]:
    return {item.name: item.value for item in result.evidence if isinstance(item, Fact)}


def test_what_boot_and_preparation_report_fails_the_set_up_and_not_the_scenario(guests: list[Guest]) -> None:
    guests.append(Guest(boot=("Linux version 7.3.4", WARNING)))
    setup, scenario = carried_out(nothing)
    assert (setup.case.number, setup.verdict, scenario.verdict) == (SETUP, Verdict.FAIL, Verdict.PASS)
    assert "made_up" in setup.reason


def test_a_set_up_s_own_excuses_cover_what_they_name(guests: list[Guest]) -> None:
    guests.append(Guest(boot=(WARNING, WARNING)))
    excuse = Excuse(Kind.WARNING, "it is known", place="made_up")
    setup, _ = carried_out(nothing, setup=Setup("a guest", (), {}, Tried.of, excuses=(excuse,)))
    assert setup.verdict is Verdict.FAIL, "two reports, one excuse"


def test_a_preparation_that_fails_is_judged_with_the_log_until_then(guests: list[Guest]) -> None:
    def broken(booted: Any) -> Tried:
        booted.guest.say(WARNING)
        raise LookupError("no such driver")

    guests.append(Guest())
    setup, scenario = carried_out(nothing, setup=Setup("a guest", (), {}, broken))
    assert (setup.verdict, setup.reason, scenario.verdict) == (Verdict.FAIL, "no such driver", Verdict.FAIL)
    assert facts(setup)["unexcused_reports"] == [WARNING]


def test_what_is_logged_between_two_scenarios_belongs_to_the_second(guests: list[Guest]) -> None:
    guest = Guest()
    guests.append(guest)
    used = Setup("a guest", (), {}, Tried.of)
    scenarios = [Scenario(number, number, "", "", used, nothing) for number in ("1", "2")]
    tried = Runner(Suite("tried", scenarios, {}), {}, kernel=Kernel(Path("bzImage"), None))
    results = tried.run(scenarios, progress=lambda result: guest.say(WARNING) if result.case.number == "1" else None)
    assert [result.verdict for result in results] == [Verdict.PASS, Verdict.PASS, Verdict.FAIL]


def test_what_is_logged_after_the_last_scenario_fails_a_result_of_its_own(guests: list[Guest]) -> None:
    guest = Guest()
    guests.append(guest)
    scenarios = [Scenario("1", "one", "", "", Setup("a guest", (), {}, Tried.of), nothing)]
    late = Runner(Suite("tried", scenarios, {}), {}, kernel=Kernel(Path("bzImage"), None))
    results = late.run(scenarios, progress=lambda result: guest.say(WARNING) if result.case.number == "1" else None)
    assert [(result.case.name, result.verdict) for result in results] == [
        ("setup-a-guest", Verdict.PASS),
        ("one", Verdict.PASS),
        ("after-a-guest", Verdict.FAIL),
    ]


def test_a_guest_that_panics_is_judged_by_its_console(guests: list[Guest]) -> None:
    def panics(run: Run, machine: Tried) -> None:
        machine.shell.say("Kernel panic - not syncing: made up")
        machine.shell.dead = True
        machine.run("true")

    guests.extend([Guest(), Guest()])
    _, first, second_setup, second = carried_out(panics, nothing)
    assert first.verdict is Verdict.FAIL
    assert facts(first)["unexcused_reports"] == ["Kernel panic - not syncing: made up"]
    assert (second_setup.verdict, second.verdict) == (Verdict.PASS, Verdict.PASS)


def test_lines_that_were_overwritten_before_they_were_read_fail_the_scenario(guests: list[Guest]) -> None:
    def floods(run: Run, machine: Tried) -> None:
        machine.shell.next += 1000

    guests.append(Guest())
    _, result = carried_out(floods)
    assert result.verdict is Verdict.FAIL
    assert "1000 records" in result.reason


def test_a_taint_without_a_report_fails_the_scenario(guests: list[Guest]) -> None:
    def taints(run: Run, machine: Tried) -> None:
        machine.shell.tainted = 1 << 9

    guests.append(Guest())
    _, first, second = carried_out(taints, nothing)
    assert (first.verdict, second.verdict) == (Verdict.FAIL, Verdict.PASS)
    assert "tainted (W: a warning)" in first.reason


def test_a_warning_that_was_counted_and_not_seen_fails_the_scenario(guests: list[Guest]) -> None:
    def warns(run: Run, machine: Tried) -> None:
        run.excuse(Kind.WARNING, "one is expected", place="made_up")
        machine.shell.say(WARNING)
        machine.shell.warnings += 2

    guests.append(Guest())
    _, result = carried_out(warns)
    assert result.reason == "warn_count rose by 2, the log has 1 reports"


def test_a_leak_that_kmemleak_finds_fails_the_scenario_and_names_who_allocated(guests: list[Guest]) -> None:
    def leaks(run: Run, machine: Tried) -> None:
        machine.shell.leaks = (
            'unreferenced object 0xffff88810a2b3c40 (size 64):\n  comm "sh", pid 71\n  backtrace (crc 0):\n'
            "    made_up_alloc+0x26/0xa0\n"
        )

    guests.append(Guest(lockdep="kmemleak=1\n"))
    _, first, second = carried_out(leaks, nothing)
    assert (first.verdict, second.verdict) == (Verdict.FAIL, Verdict.PASS)
    assert "unreferenced object" in first.reason
    assert "made_up_alloc" in first.reason


def test_a_guest_whose_lockdep_has_switched_itself_off_is_given_up(guests: list[Guest]) -> None:
    def reports_a_known_defect(run: Run, machine: Tried) -> None:
        machine.shell.say("WARNING: possible circular locking dependency detected", " known_one+0x1/0x2", " </TASK>")
        machine.shell.lockdep = "lockdep=1\n"

    guests.extend([Guest(lockdep=LOCKDEP_ON), Guest(lockdep=LOCKDEP_ON)])
    _, known, setup, after = carried_out(reports_a_known_defect, nothing)
    assert (known.defect, facts(known)["known defects that the kernel reported"]) == ("known-one", ["known-one"])
    assert setup.case.number == SETUP, "the second scenario has a guest of its own"
    assert facts(known)["kernel's reporters"]["lockdep"] == "silenced"
    assert facts(after)["kernel's reporters"]["lockdep"] == "on"


@pytest.mark.parametrize("said", ["Kernel panic - not syncing: made up", "PANIC: double fault, error_code: 0x0"])
def test_a_guest_whose_kernel_has_panicked_is_given_up(guests: list[Guest], said: str) -> None:
    guests.extend([Guest(), Guest()])
    _, panics, setup, after = carried_out(says(said), nothing)
    assert panics.verdict is Verdict.FAIL
    assert setup.case.number == SETUP, "the second scenario has a guest of its own"
    assert after.verdict is Verdict.PASS


@pytest.mark.parametrize(("cmdline", "boots"), [("quiet", 2), ("quiet kasan_multi_shot", 1)])
def test_kasan_s_first_report_ends_the_guest_unless_it_reports_again(
    guests: list[Guest], cmdline: str, boots: int
) -> None:
    kasan = "BUG: KASAN: slab-use-after-free in made_up+0x1/0x2"
    guests.extend(Guest(symbols="symbol=kasan_report\n", lockdep="hung=120\n", cmdline=cmdline) for _ in range(2))
    results = carried_out(says(kasan), nothing)
    assert sum(result.case.number == SETUP for result in results) == boots


def test_excuses_name_kind_and_place_and_a_count(guests: list[Guest]) -> None:
    def excused(*said: str) -> Body:
        def body(run: Run, machine: Tried) -> None:
            run.excuse(Kind.WARNING, "it is meant to warn", place="made_up")
            machine.shell.say(*said)

        return body

    guests.append(Guest())
    _, one, twice, elsewhere, another_kind, none = carried_out(
        excused(WARNING),
        excused(WARNING, WARNING),
        excused(WARNING.replace("made_up+", "made_up_too+")),
        excused("BUG: KASAN: slab-use-after-free in made_up+0x1/0x2"),
        excused(),
    )
    assert [r.verdict for r in (one, twice, elsewhere, another_kind, none)] == [
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.FAIL,
        Verdict.FAIL,
        Verdict.PASS,
    ]
    assert facts(none)["excuses that were not needed"] == ["WARNING in made_up, up to 1: it is meant to warn"]
    assert "excuses that were not needed" not in facts(one)


def test_an_excuse_without_place_or_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="name the function"):
        Excuse(Kind.WARNING, "because")
    with pytest.raises(ValueError, match="a reason"):
        Excuse(Kind.WARNING, "", place="made_up")


def test_a_report_fails_whatever_else_was_seen(guests: list[Guest]) -> None:
    def seen(end: Callable[[Run], object]) -> Body:
        def body(run: Run, machine: Tried) -> None:
            machine.shell.say(WARNING)
            end(run)

        return body

    guests.append(Guest())
    _, *results = carried_out(
        seen(lambda run: run.known("known-one", "seen")), seen(lambda run: run.not_applicable("nothing to see"))
    )
    assert [result.verdict for result in results] == [Verdict.FAIL, Verdict.FAIL]
    assert "besides known-one" in results[0].reason


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_every_form_of_report_turns_a_scenario_red_that_makes_it(guests: list[Guest], example: Any) -> None:
    guests.append(Guest())
    _, made, *_ = carried_out(says(*example.lines), must_report=example.kind)
    assert made.verdict is Verdict.PASS, made.reason
    assert made.reason.startswith("red, as it should be")


def test_a_judge_that_sees_nothing_or_another_kind_fails_its_own_suite(guests: list[Guest]) -> None:
    guests.append(Guest())
    _, blind, confused, quiet = carried_out(
        nothing, says(HUNG), lambda run, machine: run.not_applicable("no lkdtm"), must_report=Kind.WARNING
    )
    assert [r.verdict for r in (blind, confused, quiet)] == [Verdict.FAIL, Verdict.FAIL, Verdict.NOT_APPLICABLE]
    assert blind.reason == "a report of the kind WARNING was provoked, and judged: pass"


def test_a_guest_that_dies_between_two_scenarios_is_judged_by_its_console(guests: list[Guest]) -> None:
    guest = Guest()
    guests.extend([guest, Guest()])

    def dies(result: Result) -> None:
        if result.case.number == "1":
            guest.say("BUG: kernel NULL pointer dereference, address: 0000000000000018")
            guest.dead = True

    used = Setup("a guest", (), {}, Tried.of)
    scenarios = [Scenario(number, number, "", "", used, nothing) for number in ("1", "2")]
    tried = Runner(Suite("tried", scenarios, {}), {}, kernel=Kernel(Path("bzImage"), None))
    results = tried.run(scenarios, progress=dies)
    assert [(result.case.name, result.verdict) for result in results] == [
        ("setup-a-guest", Verdict.PASS),
        ("1", Verdict.PASS),
        ("after-a-guest", Verdict.FAIL),
        ("setup-a-guest", Verdict.PASS),
        ("2", Verdict.PASS),
    ]


def test_a_scenario_that_cannot_begin_keeps_what_the_kernel_said(guests: list[Guest]) -> None:
    class Silent(Card):
        def call(self, command: str, /, **arguments: Any) -> Any:
            if command == "heal":
                guest.say(WARNING)
                raise OSError("the server does not answer")
            return super().call(command, **arguments)

    guest = Guest()
    guests.append(guest)
    guest.card = Silent()
    _, result = carried_out(nothing)
    assert (result.verdict, facts(result)["unexcused_reports"]) == (Verdict.FAIL, [WARNING])


def test_a_log_that_is_lost_after_the_last_scenario_fails_too(guests: list[Guest]) -> None:
    guest = Guest()
    guests.append(guest)

    def floods(result: Result) -> None:
        guest.next += 5 if result.case.number == "1" else 0

    scenarios = [Scenario("1", "1", "", "", Setup("a guest", (), {}, Tried.of), nothing)]
    tried = Runner(Suite("tried", scenarios, {}), {}, kernel=Kernel(Path("bzImage"), None))
    *_, last = tried.run(scenarios, progress=floods)
    assert (last.case.name, last.verdict) == ("after-a-guest", Verdict.FAIL)
    assert "5 records" in last.reason


@pytest.mark.parametrize("excused", [True, False])
def test_what_an_interrupted_scenario_excuses_is_excused(guests: list[Guest], excused: bool) -> None:
    def interrupted(run: Run, machine: Tried) -> None:
        if excused:
            run.excuse(Kind.HUNG_TASK, "it waits for an importer", message=HUNG)
        machine.shell.say(HUNG)
        raise KeyboardInterrupt

    guests.append(Guest())
    scenarios = [Scenario("17", "17", "", "", Setup("a guest", (), {}, Tried.of), interrupted)]
    tried, seen = Runner(Suite("tried", scenarios, {}), {}, kernel=Kernel(Path("bzImage"), None)), list[Result]()
    with pytest.raises(KeyboardInterrupt):
        tried.run(scenarios, progress=seen.append)
    last = seen[-1]
    assert (last.case.title, last.verdict) == (
        "in 17, which was interrupted: a guest",
        Verdict.PASS if excused else Verdict.FAIL,
    )
    assert facts(last)["kernel_reports"]


@pytest.mark.parametrize(
    ("must_report", "known", "only_in", "verdict"),
    [
        (Kind.HUNG_TASK, {}, {}, Verdict.PASS),
        (Kind.WARNING, {}, {}, Verdict.FAIL),
        (None, {"known-one": "blocked for more"}, {"known-one": ("17",)}, Verdict.EXPECTED_FAIL),
        (None, {"known-one": "blocked for more"}, {"known-one": ("18",)}, Verdict.FAIL),
    ],
)
def test_what_an_interrupted_scenario_provokes_or_is_known_for_is_no_fault(
    guests: list[Guest],
    must_report: Kind | None,
    known: dict[str, str],
    only_in: dict[str, tuple[str]],
    verdict: Verdict,
) -> None:
    def interrupted(run: Run, machine: Tried) -> None:
        machine.shell.say(HUNG)
        raise KeyboardInterrupt

    guests.append(Guest())
    used = Setup("a guest", (), {}, Tried.of)
    scenarios = [Scenario("17", "17", "", "", used, interrupted, must_report=must_report)]
    suite = Suite("tried", scenarios, known, reports=known, reports_only_in=only_in)
    tried, seen = Runner(suite, {}, kernel=Kernel(Path("bzImage"), None)), list[Result]()
    with pytest.raises(KeyboardInterrupt):
        tried.run(scenarios, progress=seen.append)
    assert (seen[-1].case.name, seen[-1].verdict) == ("after-a-guest", verdict)
