"""Runs scenarios: a guest for each setup, a new one whenever a scenario has spoiled it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vfio_user_xe.emulator.control.dispatch import CommandError
from vfio_user_xe.emulator.guest import GuestError, Kernel
from vfio_user_xe.emulator.model.options import unknown
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.scenarios.evidence import evidence_of, figures_of
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Scenario, Setup, Suite
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect, NotApplicable
from vfio_user_xe.emulator.testing.lab import Lab, open_lab

_OWN_KERNEL_BOOT = 300.0
"""Seconds: a kernel with lockdep and KASAN needs more than a minute without KVM, and more on a busy machine."""


class Runner:
    """Runs scenarios of one suite on one kernel."""

    def __init__(
        self,
        suite: Suite,
        files: Mapping[str, Path],
        *,
        kernel: Kernel | None = None,
        console_folder: Path | None = None,
        append: str = "",
    ) -> None:
        self._suite = suite
        self._files = files
        self._kernel = kernel
        self._console_folder = console_folder
        self._append = append
        self._boots = 0
        self._stack = ExitStack()
        self._setup: Setup | None = None
        self._lab: Lab | None = None
        self._prepared: Any = None
        self._release = ""

    def run(
        self, scenarios: Iterable[Scenario], repeat: int = 1, progress: Callable[[Result], None] | None = None
    ) -> list[Result]:
        """Run each `repeat` times, those that share a setup one after the other."""
        results = []
        try:
            for scenario in grouped(scenarios):
                for repetition in range(1, repeat + 1):
                    result = self._run_one(scenario)
                    result.repetition = repetition
                    results.append(result)
                    if progress is not None:
                        progress(result)
        finally:
            self._close()
        return results

    def _run_one(self, scenario: Scenario) -> Result:
        started = time.monotonic()
        case = scenario.described(self._suite.name)
        run = None
        try:
            lab = self._ready(scenario.setup)
            run = Run(lab)
            result = self._judge(scenario, run)
        except Exception as error:  # a guest's, a server's, or a mistake in the setup: none may cost the other results
            result = Result(case, Verdict.FAIL, f"the scenario could not be run: {_first_line(error)}")
            self._close()
        result.seconds = time.monotonic() - started
        result.properties = {"setup": scenario.setup.name, "kernel": self._release}
        if run is not None:
            result.evidence = evidence_of(self._suite, run)
            result.figures = figures_of(run)
        if run is not None and (run.spoiled or self._lab is None or not self._lab.usable()):
            self._close()
        return result

    def _judge(self, scenario: Scenario, run: Run) -> Result:
        lab: Lab = run.lab
        case = scenario.described(self._suite.name)
        lab.guest.run("dmesg -c > /dev/null", timeout=30)
        lab.card.call("heal")
        lab.card.call("ledger", clear=True)
        before = self._account(run)
        try:
            scenario.run(run, self._prepared)
            result = Result(case, Verdict.PASS)
        except NotApplicable as reason:
            result = Result(case, Verdict.NOT_APPLICABLE, str(reason))
        except KnownDefect as known:
            if known.defect in self._suite.defects:
                result = Result(case, Verdict.EXPECTED_FAIL, known.evidence, defect=known.defect)
            else:
                result = Result(case, Verdict.FAIL, f'names the defect "{known.defect}", which the suite does not list')
        except (Failed, AssertionError) as failed:
            result = Result(case, Verdict.FAIL, str(failed))
        except (
            Exception
        ) as error:  # a client's error, a guest's, or the scenario's own mistake: all are to be looked at
            result = Result(case, Verdict.FAIL, f"{type(error).__name__}: {_first_line(error)}")
        self._collect(run)
        if self._suite.fatal:
            for line in filter(re.compile(self._suite.fatal).search, run.kernel_log):
                run.spoil(line)
        after = self._account(run) if before and not run.spoiled else {}
        run.records["accounts"] = {name: [count, after.get(name)] for name, count in before.items()}
        self._judge_reports(run, result)
        return result

    def _account(self, run: Run) -> Mapping[str, int]:
        try:
            return self._suite.account(self._prepared)
        except (GuestError, OSError, ValueError) as error:
            run.note(f"accounts cannot be read: {_first_line(error)}")
            return {}

    def _judge_reports(self, run: Run, result: Result) -> None:
        """What the kernel reports of itself fails any run, unless the suite knows the defect that it tells of."""
        known = {name: re.compile(pattern) for name, pattern in self._suite.reports.items()}
        for report in run.reports() if result.verdict is not Verdict.FAIL else []:
            text = "\n".join(report)
            defect = next((name for name, pattern in known.items() if pattern.search(text)), None)
            if defect is None:
                besides = f" (besides {result.defect}: {result.reason})" if result.defect else ""
                result.verdict, result.defect = Verdict.FAIL, ""
                result.reason = f"the kernel reported: {report[0]}{besides}"
                return
            if result.verdict is not Verdict.EXPECTED_FAIL:
                result.verdict, result.defect = Verdict.EXPECTED_FAIL, defect
                result.reason = f"the kernel reported: {report[0]}"

    def _collect(self, run: Run) -> None:
        """What a report shows of every run, as far as it can be had."""
        lab: Lab = run.lab
        try:
            run.read_kernel_log()
        except GuestError as error:
            run.note(f"the kernel's log cannot be read: {_first_line(error)}")
        try:
            offered = {entry["command"] for entry in lab.card.call("help")}
            for command in ("ledger", "verdicts", "ownership", *offered.intersection(self._suite.records)):
                run.records[command] = lab.card.call(command)
        except (CommandError, OSError) as error:
            run.note(f"the card does not answer: {error}")

    def _ready(self, setup: Setup) -> Lab:
        if self._lab is not None and self._setup == setup:
            return self._lab
        self._close()
        machine = dict(setup.machine)
        machine["append"] = " ".join(filter(None, [machine.get("append", ""), self._append]))
        machine["files"] = {**self._files, **machine.get("files", {})}
        if self._kernel is not None:
            machine["kernel"] = self._kernel
            machine.setdefault("boot_timeout", _OWN_KERNEL_BOOT)
        if self._console_folder is not None:
            self._boots += 1
            machine["console"] = self._console_folder / f"console-{self._boots}-{setup.name}.txt"
        self._lab = self._stack.enter_context(open_lab(setup.serve, **machine))
        self._setup = setup
        self._release = self._lab.sh("uname -r")
        self._prepared = setup.prepare(self._lab)
        return self._lab

    def _close(self) -> None:
        """End the guest from outside: it may be beyond doing so itself."""
        self._stack.close()
        self._stack, self._lab, self._setup, self._prepared = ExitStack(), None, None, None


def grouped(scenarios: Iterable[Scenario]) -> list[Scenario]:
    """Scenarios in their order, but those of one setup together."""
    chosen = list(scenarios)
    setups = list(dict.fromkeys(scenario.setup.name for scenario in chosen))
    return sorted(chosen, key=lambda scenario: setups.index(scenario.setup.name))


def select(suite: Suite, names: Iterable[str]) -> list[Scenario]:
    """Scenarios by name, number ("17" is all of 17's variants) or group; all without names. Raises LookupError."""
    wanted = list(names)
    if not wanted:
        return list(suite.scenarios)
    chosen: dict[str, Scenario] = {}
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


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
