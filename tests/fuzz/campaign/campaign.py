"""The loop over targets and cases: counted, resumable, with a limit of time for a case and a look for leaks."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.campaign.target import Target
from tests.support.processes import descriptors

_SAVE_SECONDS = 10.0
_SLACK_DESCRIPTORS = 8
"""What the interpreter and its libraries may keep open between two looks."""
_MOST_FINDINGS = 50
_GRACE = 60.0
"""At least so many seconds after the limit of a case the process is ended: one that merely does not get the processor goes on."""
_STARTS, _REST = 3, 5.0
"""How often a target is opened before that is a finding, and seconds in between."""


class Hang(Exception):
    """A case takes too long."""


@dataclass
class Count:
    """What was run of one target so far."""

    cases: int = 0
    units: int = 0
    seconds: float = 0.0
    next: int = 0
    """Number of the next case."""
    resident: int = 0
    """Most KiB that the process had after the target was closed."""
    findings: list[dict[str, str | int]] = field(default_factory=list)


@dataclass
class State:
    """All counts, in a file if there is one."""

    path: Path | None
    counts: dict[str, Count] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | None) -> State:
        """What an earlier run has left; nothing without a file."""
        state = cls(path)
        if path is not None and path.exists():
            state.counts = {name: Count(**count) for name, count in json.loads(path.read_text()).items()}
        return state

    def of(self, name: str) -> Count:
        """The count of a target."""
        return self.counts.setdefault(name, Count())

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is None:
            return
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps({name: asdict(count) for name, count in self.counts.items()}, indent=1))
        beside.replace(self.path)


class Campaign:
    """Targets in turn, each for `fresh` cases at a time."""

    def __init__(self, targets: Sequence[Target], state: State) -> None:
        self.targets = targets
        self.state = state
        self._saved = time.monotonic()
        self._descriptors: dict[str, int] = {}

    def run(self, *, until: float | None = None, cases: int | None = None) -> int:
        """Until the moment `until` (of `time.monotonic`), and at most `cases` of each target; the number of findings."""
        left = {target.name: cases for target in self.targets}
        found = 0
        while any(many is None or many > 0 for many in left.values()):
            for target in self.targets:
                many = left[target.name]
                wanted = target.fresh if many is None else min(target.fresh, many)
                if not wanted:
                    continue
                done, broken = self._turn(target, wanted, until)
                found += broken
                if many is not None:
                    left[target.name] = many - done
                if until is not None and time.monotonic() >= until:
                    self.state.save()
                    return found
        self.state.save()
        return found

    def repeat(self, target: Target, number: int) -> None:
        """Run case `number` of a target alone; what it finds is raised."""
        target.open()
        try:
            with _limit(target.seconds):
                target.case(_random(target, number))
        finally:
            target.close()

    def _turn(self, target: Target, cases: int, until: float | None) -> tuple[int, int]:
        """Cases that were run, and whether one of them, or the end, found something."""
        count, done = self.state.of(target.name), 0
        start = time.monotonic()
        try:
            self._open(target)
            while done < cases and (until is None or time.monotonic() < until):
                number, done, count.next = count.next, done + 1, count.next + 1
                with _limit(target.seconds):
                    count.units += target.case(_random(target, number))
                count.cases += 1
                self._save_sometimes()
            with _limit(target.seconds):
                target.close()
            self._look_for_leaks(target, count)
        except Exception as error:
            self._note(target, count, error)
            with suppress(Exception):
                target.close()
            self._descriptors.pop(target.name, None)
            return max(done, 1), 1
        finally:
            count.seconds += time.monotonic() - start
        return done, 0

    @staticmethod
    def _open(target: Target) -> None:
        """Try it some times: on a machine that has more to do, a server may not be ready in time."""
        for left in reversed(range(_STARTS)):
            try:
                with _limit(target.seconds):
                    target.open()
                return
            except Exception:
                with suppress(Exception):
                    target.close()
                if not left:
                    raise
                time.sleep(_REST)

    def _look_for_leaks(self, target: Target, count: Count) -> None:
        gc.collect()
        opened = len(descriptors())
        before = self._descriptors.setdefault(target.name, opened)
        assert opened <= before + _SLACK_DESCRIPTORS, f"{opened} descriptors are open, {before} after the first turn"
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 10
        count.resident = max(count.resident, resident)

    def _note(self, target: Target, count: Count, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error}"[:600]
        finding: dict[str, str | int] = {
            "case": count.next - 1,
            "error": text,
            "where": f"{Path(last.filename).name}:{last.lineno} {last.name}",
        }
        print(f"{target.name}: case {finding['case']}: {text} ({finding['where']})", flush=True)
        if len(count.findings) < _MOST_FINDINGS:
            count.findings.append(finding)
        self.state.save()

    def _save_sometimes(self) -> None:
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self._saved = time.monotonic()
            self.state.save()


def _random(target: Target, number: int) -> Random:
    return Random(f"{target.name}/{number}")


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the main thread after that time; end the process when that does not help."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"still running after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + max(2 * seconds, _GRACE), exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *others)
