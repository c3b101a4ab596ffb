"""The result of a case, and a report of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum

from vfio_user_xe.emulator.results.evidence import Evidence


class Status(Enum):
    """The three things that a CI system tells apart."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Verdict(StrEnum):
    """What a suite says of a case."""

    PASS = "pass"
    FAIL = "fail"
    EXPECTED_FAIL = "expected-fail"
    """It did not pass, as a defect that is known by name or an expectation says."""
    SKIP = "skip"
    """It was not carried out: a profile, an expectation or the case itself says so."""
    NOT_APPLICABLE = "not-applicable"
    """What was tested, or the machine, does not have what the case is about."""

    @property
    def status(self) -> Status:
        """What a CI system is told."""
        match self:
            case Verdict.PASS:
                return Status.PASSED
            case Verdict.FAIL:
                return Status.FAILED
            case _:
                return Status.SKIPPED


class Outcome(StrEnum):
    """How a test that others wrote ended; its suite judges this against what it expects."""

    PASS = "pass"
    WARN = "warn"
    """It passed, and the kernel's log has a line that a healthy driver does not write."""
    IDLE = "idle"
    """It passed, and was to make the device work, which it did not: such a pass proves nothing."""
    SKIP = "skip"
    FAIL = "fail"
    CRASH = "crash"
    TIMEOUT = "timeout"
    LOST = "lost"
    """The guest did not survive it: panic, reboot or QEMU's end."""


@dataclass(frozen=True, slots=True)
class Case:
    """What was tested.

    `suite` is the heading that it is listed under, `group` a dotted name within (JUnit's classname), `name` its own.
    `rule` says what is correct, `source` where that is written; `label` is what a line of text calls it, `title` a page.
    """

    suite: str
    group: str
    name: str
    title: str = ""
    rule: str = ""
    source: str = ""
    label: str = ""
    number: str = ""
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class Result:
    """What one run of a case came to.

    `reason` says why a verdict is no plain pass, `defect` names a known defect, `excuse` is why an expectation accepts an
    `outcome` that is no pass. `better`: it passed although a failure was expected. `properties` say in a few words where it
    ran (kernel, function, setup): the same case with other properties is not the same test. `figures` are what was
    measured, in a few words. Not safe to change from several threads.
    """

    case: Case
    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    defect: str = ""
    outcome: Outcome | None = None
    excuse: str = ""
    better: bool = False
    repetition: int = 1
    properties: dict[str, str] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """What a CI system is told."""
        return self.verdict.status

    @property
    def word(self) -> str:
        """The outcome where the suite knows one, else the verdict."""
        return str(self.outcome or self.verdict)

    @property
    def message(self) -> str:
        """Why it failed or was skipped, in a sentence."""
        if self.defect:
            return f"known defect {self.defect}: {self.reason}"
        if self.outcome is None:
            return self.reason
        if self.status is Status.FAILED:
            return f"{self.outcome}: {self.reason}"
        return f"{self.outcome}, as expected: {self.excuse or self.reason}"


@dataclass(slots=True)
class Report:
    """Results of one run, or of several that were merged; `defects` explains the known defects by name."""

    name: str
    results: list[Result]
    defects: dict[str, str] = field(default_factory=dict)
    title: str = ""

    @property
    def suites(self) -> dict[str, list[Result]]:
        """The results by suite, in the order in which suites appear."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            found.setdefault(result.case.suite, []).append(result)
        return found

    @property
    def counts(self) -> Counter[Verdict]:
        """How many results have which verdict."""
        return Counter(result.verdict for result in self.results)

    @property
    def failed(self) -> bool:
        """Whether any case failed."""
        return any(result.status is Status.FAILED for result in self.results)

    @property
    def kernels(self) -> list[str]:
        """The kernels that cases ran on."""
        return sorted({kernel for result in self.results if (kernel := result.properties.get("kernel"))})

    @staticmethod
    def merge(name: str, reports: Iterable[Report], title: str = "") -> Report:
        """One report of several: the shards of a run, or runs of different suites.

        No result is dropped: one that comes a second time (the same case with the same properties) becomes a
        further repetition, so that a pass never hides a failure. The reports are left as they are.

        Raises:
            ValueError: two reports explain a defect differently.
        """
        merged = Report(name, [], {}, title)
        taken: set[tuple[object, ...]] = set()
        for report in reports:
            for defect, text in report.defects.items():
                if merged.defects.setdefault(defect, text) != text:
                    raise ValueError(
                        f'the defect "{defect}" is "{merged.defects[defect]}" in one report and "{text}" in {report.name}'
                    )
            merged.results += _renumbered(report.results, taken)
        return merged


def _renumbered(results: Iterable[Result], taken: set[tuple[object, ...]]) -> Iterator[Result]:
    for result in results:
        case = (result.case.suite, result.case.group, result.case.name, *sorted(result.properties.items()))
        repetition = result.repetition
        while (*case, repetition) in taken:
            repetition += 1
        taken.add((*case, repetition))
        yield replace(result, repetition=repetition, properties=dict(result.properties), evidence=list(result.evidence))
