"""Which results of a run count as bad, and what `git bisect run` is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vfio_user_xe.emulator.model.options import unknown
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.scenarios.scenario import SETUP

GOOD, BAD, CANNOT_TEST = 0, 1, 125
"""Exit codes of git-bisect(1): other codes from 1 to 127 are bad too, and what is above ends the bisection."""
ABORT = 128
"""The bisection is to end: the command itself is wrong, whatever the commit."""


@dataclass(frozen=True, slots=True)
class Bad:
    """Verdicts, and defects by name, that count as bad."""

    names: frozenset[str] = frozenset({Verdict.FAIL})

    @staticmethod
    def parse(names: Sequence[str], defects: Iterable[str]) -> Bad:
        """From the words of an option; none: failures.

        Raises:
            LookupError: a word is neither a verdict that can be bad nor one of `defects`.
        """
        allowed = [*(verdict for verdict in Verdict if verdict is not Verdict.PASS), *defects]
        for name in names:
            if name not in allowed:
                raise LookupError(unknown(name, "verdict or defect", allowed))
        return Bad(frozenset(names)) if names else Bad()

    def __call__(self, result: Result) -> bool:
        """Whether a result is bad. What reached no kernel says nothing of it."""
        if not result.properties.get("kernel"):
            return False
        return result.verdict in self.names or bool(result.defect and result.defect in self.names)

    @property
    def undecided(self) -> frozenset[str]:
        """Verdicts that say neither good nor bad: what did not run, and, where a known defect is looked for, another failure.

        A scenario that fails for another reason has not come to where the defect would be seen.
        """
        looks_for_defect = not self.names <= {Verdict.FAIL, Verdict.NOT_APPLICABLE, Verdict.SKIP}
        return frozenset({Verdict.NOT_APPLICABLE, Verdict.SKIP, *((Verdict.FAIL,) if looks_for_defect else ())})


def bisect_code(results: Iterable[Result], bad: Bad) -> int:
    """What to tell `git bisect run`: bad if anything is; else that it cannot be tested if a scenario could not be judged.

    A scenario could not be judged that reached no kernel, or whose verdict is undecided.
    """
    seen = list(results)
    if any(map(bad, seen)):
        return BAD
    scenarios = [result for result in seen if result.case.number != SETUP]
    judged = [result.verdict not in bad.undecided and bool(result.properties.get("kernel")) for result in scenarios]
    return GOOD if judged and all(judged) else CANNOT_TEST
