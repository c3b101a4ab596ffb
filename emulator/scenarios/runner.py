"""Runs scenarios: a guest for each setup, a new one whenever a scenario has given it up."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Generic, Protocol, Unpack

from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.guest.errors import CommandTimeout, GuestError, KernelLacks
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.settings import Beside, GuestSettings
from vfio_user_xe.emulator.kernel_reports import Kind, LogLost, reports
from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.options import unknown
from vfio_user_xe.emulator.results import Evidence, Fact, Result, Verdict
from vfio_user_xe.emulator.scenarios.evidence import evidence_of, figures_of, kernel_evidence, log_evidence
from vfio_user_xe.emulator.scenarios.excuses import Excuse, asked_for, unexcused
from vfio_user_xe.emulator.scenarios.judgement import Findings, Judgement, judge, must_be_red
from vfio_user_xe.emulator.scenarios.machine import MachineT
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import SETUP, Scenario, Setup, Suite
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect, NotApplicable, first_line, why_failed
from vfio_user_xe.emulator.scenarios.watched import Watched, command_line, log_of
from vfio_user_xe.emulator.testing.lab import Lab, open_lab


class Opener(Protocol):
    """What `vfio_user_xe.emulator.testing.lab.open_lab` is."""

    def __call__(
        self,
        serve: Sequence[str],
        *,
        others: Sequence[Sequence[str]],
        beside: Sequence[Beside],
        **guest: Unpack[GuestSettings],
    ) -> AbstractContextManager[Lab]: ...


class Runner(Generic[MachineT]):
    """Runs scenarios of one suite on one kernel."""

    def __init__(
        self,
        suite: Suite[MachineT],
        files: Mapping[str, Path],
        *,
        kernel: Kernel,
        console_folder: Path | None = None,
        append: str = "",
        kernel_name: str = "",
        opened: Opener | None = None,
    ) -> None:
        """`kernel_name`: what results call it; empty: its release. `opened` serves cards and boots guests
        with them; None: `open_lab`."""
        self._suite = suite
        self._files = files
        self._kernel = kernel
        self._console_folder = console_folder
        self._append = " ".join(filter(None, [command_line(kernel), append]))
        self._kernel_name = kernel_name
        self._opened = opened
        self._boots = 0
        self._stack = ExitStack()
        self._running: Watched[MachineT] | None = None
        self._interrupted: tuple[Scenario[MachineT], Run] | None = None
        self._results: list[Result] = []
        self._progress: Callable[[Result], None] | None = None
        self._set_up: Counter[str] = Counter()

    def run(
        self, scenarios: Iterable[Scenario[MachineT]], repeat: int = 1, progress: Callable[[Result], None] | None = None
    ) -> list[Result]:
        """Run each `repeat` times, those that share a setup one after the other.

        Every boot of a guest has a result of its own among those of the scenarios; so have reports that come after a
        guest's last scenario.
        """
        plan = [(scenario, repetition) for scenario in grouped(scenarios) for repetition in range(1, repeat + 1)]
        return self.run_plan(plan, progress)

    def run_plan(
        self,
        plan: Iterable[tuple[Scenario[MachineT], int]],
        progress: Callable[[Result], None] | None = None,
        until: Callable[[Result], bool] = lambda result: False,
    ) -> list[Result]:
        """Run scenarios, each as the repetition of this number, until one ends so that `until` says enough; results as of `run`."""
        self._results, self._progress = [], progress
        with self.session():
            for scenario, repetition in plan:
                self._run_one(scenario, repetition)
                if until(self._last()):
                    break
        return self._results

    @contextmanager
    def session(self, progress: Callable[[Result], None] | None = None) -> Iterator[None]:
        """A time in which `run_one` may be called; the guest that is left at its end is ended, and judged once more."""
        self._progress = progress or self._progress
        try:
            yield
        finally:
            self._close()

    def run_one(self, scenario: Scenario[MachineT], repetition: int = 1) -> Result:
        """Run one scenario within a `session`, in the guest that is there if it may be."""
        self._run_one(scenario, repetition)
        return self._last()

    def renew(self) -> None:
        """End the guest within a `session`, if there is one: the next scenario gets a new one."""
        self._close()

    def _last(self) -> Result:
        return next(result for result in reversed(self._results) if result.case.number != SETUP)

    @property
    def has_guest(self) -> bool:
        """Whether a guest runs that the next scenario of its setup will get."""
        return self._running is not None

    def _add(self, result: Result) -> None:
        self._results.append(result)
        if self._progress is not None:
            self._progress(result)

    def _run_one(self, scenario: Scenario[MachineT], repetition: int) -> None:
        case = scenario.described(self._suite.name)
        properties = {"setup": scenario.setup.name, "kernel": ""}
        run = None
        started = time.monotonic()
        try:
            guest = self._ready(scenario.setup)
            properties["kernel"] = self._kernel_name or guest.release
            started = time.monotonic()
            run = Run(guest.log)
            result = self._judged(scenario, run, guest)
        except KernelLacks as lacking:
            properties["kernel"] = self._kernel_name or self._kernel.release
            result = Result(case, Verdict.NOT_APPLICABLE, str(lacking))
        except MISTAKES as error:  # a guest's, a server's, or a mistake in the setup: none may cost the other results
            result = Result(case, Verdict.FAIL, f"the scenario could not be run: {first_line(error)}")
            result.evidence = self._last_words()
            self._end_guest()
        except BaseException:  # Ctrl-C, which ends the session
            self._interrupted = None if run is None else (scenario, run)
            raise
        result.seconds, result.properties, result.repetition = time.monotonic() - started, properties, repetition
        if run is not None:
            result.evidence = [*evidence_of(self._suite, run), *result.evidence]
            result.figures = figures_of(run)
        self._add(result)
        if self._running is not None and run is not None and run.given_up:
            self._end_guest()
        elif self._running is not None and not self._running.lab.usable():
            self._close()

    def _judged(self, scenario: Scenario[MachineT], run: Run, guest: Watched[MachineT]) -> Result:
        guest.rearm()
        guest.lab.card.call("heal")
        guest.lab.card.call("ledger", clear=True)
        before = self._account(run, guest)
        result = self._carried_out(scenario, run, guest)
        findings = guest.findings(run.kernel_log)
        run.kernel_log = findings.lines
        self._ask_the_card(run, guest.lab)
        for name, why in findings.silenced.items():
            run.give_up(f"{name} is silenced: {why}")
        for report in filter(lambda report: report.kind is Kind.PANIC, findings.reports):
            # Its console may be read only later: the guest would then fail in the middle of another scenario.
            run.give_up(str(report))
        if self._suite.fatal:
            for line in filter(lambda line: re.search(self._suite.fatal, line.text), findings.lines):
                run.give_up(line.text)
        after = self._account(run, guest) if before and not run.given_up else {}
        run.records.accounts = {name: (count, after.get(name)) for name, count in before.items()}
        # A kernel that the scenario has booted anew says so again; where it has not, the excuse would be one too many.
        run.excuses += [one for one in asked_for(self._append) if any(map(one.covers, findings.reports))]
        late, unmeasured = self._lateness(guest, findings, run.excuses)
        if unmeasured:
            run.note(unmeasured)
        run.excuses += late
        judgement = judge(findings, result, run.excuses, self._suite.known_in(scenario.name))
        if scenario.must_report is not None or scenario.must_fail_with:
            must_be_red(result, scenario.must_report, scenario.must_fail_with, judgement)
        result.evidence = kernel_evidence(findings, judgement, guest.reporters, late)
        return result

    def _carried_out(self, scenario: Scenario[MachineT], run: Run, guest: Watched[MachineT]) -> Result:
        case = scenario.described(self._suite.name)
        try:
            scenario.run(run, guest.machine)
        except NotApplicable as reason:
            return Result(case, Verdict.NOT_APPLICABLE, str(reason))
        except KnownDefect as known:
            if known.defect in self._suite.defects:
                return Result(case, Verdict.EXPECTED_FAIL, known.evidence, defect=known.defect)
            return Result(case, Verdict.FAIL, f'names the defect "{known.defect}", which the suite does not list')
        except (Failed, AssertionError) as failed:
            return Result(case, Verdict.FAIL, str(failed))
        except CommandTimeout as late:
            # It was told to die, and may be where it cannot: what it does then would be another scenario's to answer for.
            run.give_up("a command did not end in time, and may go on")
            return Result(case, Verdict.FAIL, why_failed(late))
        except MISTAKES as error:  # a program's, a guest's, or the scenario's own: all are to be looked at
            return Result(case, Verdict.FAIL, why_failed(error))
        return Result(case, Verdict.PASS)

    def _lateness(
        self, guest: Watched[MachineT], findings: Findings, excuses: Sequence[Excuse]
    ) -> tuple[Sequence[Excuse], str]:
        """What the suite excuses of reports that `excuses` do not cover, for the machine is busy; why that cannot be found out."""
        left, _ = unexcused(findings.reports, excuses)
        try:
            return (self._suite.late(guest.machine, left) if left else ()), ""
        except (GuestError, CommandError, OSError) as error:
            return (), f"how busy the machine is cannot be measured: {first_line(error)}"

    def _account(self, run: Run, guest: Watched[MachineT]) -> Mapping[str, int]:
        try:
            return self._suite.account(guest.machine)
        except (GuestError, OSError, ValueError) as error:
            run.note(f"accounts cannot be read: {first_line(error)}")
            return {}

    def _ask_the_card(self, run: Run, lab: Lab) -> None:
        """What a report shows of every run, as far as it can be had."""
        try:
            records = run.records
            records.ledger = lab.card.call("ledger")
            records.verdicts = lab.card.call("verdicts")
            records.ownership = lab.card.call("ownership")
            offered = {entry["command"] for entry in lab.card.call("help")}
            for command in offered.intersection(self._suite.records):
                records.of_suite[command] = lab.card.call(command)
        except (CommandError, OSError) as error:
            run.note(f"the card does not answer: {error}")

    def _ready(self, setup: Setup[MachineT]) -> Watched[MachineT]:
        """The guest of a setup: the one that runs, or a new one, which is judged for how it came up."""
        if self._running is not None and self._running.setup == setup:
            return self._running
        self._close()
        started = time.monotonic()
        lab = self._stack.enter_context(self._lab(setup))
        log = log_of(lab)
        try:
            guest = Watched(setup, lab, setup.prepare(lab), log)
            guest.begin()
        except MISTAKES as error:
            lines = log.read_or_rest()
            failed = Result(setup.described(self._suite.name), Verdict.FAIL, first_line(error))
            self._judge_setup(failed, Findings(lines, reports(lines)), setup, None, started)
            raise
        result = Result(setup.described(self._suite.name), Verdict.PASS)
        findings = guest.findings()
        self._judge_setup(result, findings, setup, guest, started)
        self._running = guest
        return guest

    def _judge_setup(
        self,
        result: Result,
        findings: Findings,
        setup: Setup[MachineT],
        guest: Watched[MachineT] | None,
        started: float,
        known: Mapping[str, str] | None = None,
    ) -> None:
        """`guest` None: there is none that could be asked. `known`: defects besides those of the set-up, as of `judge`."""
        excuses = (*setup.excuses, *asked_for(self._append))
        late, unmeasured = self._lateness(guest, findings, excuses) if guest is not None else ((), "")
        states, release = (guest.reporters, guest.release) if guest is not None else ({}, "")
        excuses = (*excuses, *late)
        judgement = judge(findings, result, excuses, {**(known or {}), **self._suite.known_in(result.case.name)})
        self._set_up[result.case.name] += 1
        result.repetition = self._set_up[result.case.name]
        result.seconds = time.monotonic() - started
        result.properties = {"setup": setup.name, "kernel": (self._kernel_name or release) if release else ""}
        result.evidence = [log_evidence(findings.lines), *kernel_evidence(findings, judgement, states, late)]
        if unmeasured:
            result.evidence.append(Fact("late answers", unmeasured))
        self._add(result)

    def _lab(self, setup: Setup[MachineT]) -> AbstractContextManager[Lab]:
        first = self._settings(setup, setup.guest)
        beside = [Beside(one.functions, self._settings(setup, one.guest)) for one in setup.beside]
        return (self._opened or open_lab)(setup.serve, others=setup.others, beside=beside, **first)

    def _settings(self, setup: Setup[MachineT], guest: GuestSettings) -> GuestSettings:
        settings = guest.copy()
        settings["append"] = " ".join(filter(None, [settings.get("append", ""), self._append]))
        settings["files"] = {**self._files, **(settings.get("files") or {})}
        settings["kernel"] = self._kernel
        if self._console_folder is not None:
            self._boots += 1
            settings["console"] = self._console_folder / f"console-{self._boots}-{setup.name}.txt"
        return settings

    def _last_words(self) -> list[Evidence]:
        """What the kernel has logged since its log was judged last, of a guest that is given up for another reason."""
        if self._running is None:
            return []
        try:
            lines = self._running.log.read_or_rest()
        except LogLost as lost:
            return [Fact("the kernel's log", str(lost))]
        found = Findings(lines, reports(lines))
        return [log_evidence(lines), *kernel_evidence(found, Judgement(found.reports, []), self._running.reporters)]

    def _close(self) -> None:
        """End the guest; what its kernel has reported since its last scenario fails a result of its own.

        Of a scenario that was interrupted, what it excused until then is excused, and what is known of it, or what it had to
        provoke, is no fault.
        """
        guest, self._interrupted, interrupted = self._running, None, self._interrupted
        if guest is not None:
            findings = Findings()
            try:
                findings.lines = guest.log.read_or_rest()
                findings.reports = reports(findings.lines)
            except LogLost as lost:
                findings.contradictions.append(str(lost))
            setup, after, known = guest.setup, "after the last scenario", dict[str, str]()
            if interrupted is not None:
                scenario, run = interrupted
                findings.lines = [*run.kernel_log, *findings.lines]
                findings.reports = reports(findings.lines)
                setup = replace(setup, excuses=(*setup.excuses, *run.excuses, *_provoked(scenario)))
                known.update(self._suite.known_in(scenario.name))
                after = f"in {scenario.number}, which was interrupted"
            if findings.reports or findings.contradictions:
                case = replace(
                    guest.setup.described(self._suite.name),
                    name=f"after-{guest.setup.slug}",
                    title=f"{after}: {guest.setup.name}",
                )
                result = Result(case, Verdict.PASS)
                self._judge_setup(result, findings, setup, guest, time.monotonic(), known)
        self._end_guest()

    def _end_guest(self) -> None:
        """End the guest from outside: it may be beyond doing so itself. Its log was judged just before."""
        self._stack.close()
        self._stack, self._running = ExitStack(), None


def grouped(scenarios: Iterable[Scenario[MachineT]]) -> list[Scenario[MachineT]]:
    """Scenarios in their order, but those of one setup together."""
    chosen = list(scenarios)
    setups = list(dict.fromkeys(scenario.setup.name for scenario in chosen))
    return sorted(chosen, key=lambda scenario: setups.index(scenario.setup.name))


def select(suite: Suite[MachineT], names: Iterable[str]) -> list[Scenario[MachineT]]:
    """Scenarios by name, number ("17" is all of 17's variants) or group; all without names.

    Raises:
        LookupError: a name means nothing.
    """
    wanted = list(names)
    if not wanted:
        return list(suite.scenarios)
    chosen: dict[str, Scenario[MachineT]] = {}
    for name in wanted:
        found = [
            s
            for s in suite.scenarios
            if name in (s.name, s.number, s.number.rstrip("abcdefghijklmnopqrstuvwxyz"), *s.groups)
        ]
        if not found:
            groups = sorted({group for s in suite.scenarios for group in s.groups})
            raise LookupError(unknown(name, "scenario", [*groups, *(s.name for s in suite.scenarios)]))
        chosen.update((s.name, s) for s in found)
    return list(chosen.values())


def _provoked(scenario: Scenario[MachineT]) -> list[Excuse]:
    """What excuses the report that a scenario must provoke."""
    kind = scenario.must_report
    return [] if kind is None else [Excuse(kind, f"{scenario.number} provokes it", pattern=".")]
