"""How long cases take, as earlier runs recorded it: by this a run is divided evenly."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path

from vfio_user_xe.emulator.results.json_file import NotAReport
from vfio_user_xe.emulator.results.model import Result

UNKNOWN = 5.0
"""Seconds of a case that no run has recorded, where none is recorded at all."""


class Times(dict[str, float]):
    """Seconds by name of a case.

    A name that is not there takes as long as the middle one of those that are: for a subtest ("test@subtest"), of the same test's
    if it has any. So a part of a suite's subtests is enough to know its slow tests.
    """

    def of(self, name: str) -> float:
        """Seconds that the case takes, as far as is known."""
        known = self.get(name)
        if known is None:
            known = self._of_tests.get(_test(name))
        return self.usual if known is None else known

    @cached_property
    def usual(self) -> float:
        """The median."""
        return _median(self.values()) if self else UNKNOWN

    @cached_property
    def _of_tests(self) -> dict[str, float]:
        """The median of each test's subtests. Times are not changed once they were asked for."""
        seen: dict[str, list[float]] = {}
        for name, seconds in self.items():
            seen.setdefault(_test(name), []).append(seconds)
        return {test: _median(seconds) for test, seconds in seen.items()}


def _test(name: str) -> str:
    return name.partition("@")[0]


def _median(values: Collection[float]) -> float:
    return sorted(values)[len(values) // 2]


def times_of(results: Iterable[Result]) -> Times:
    """The mean seconds of each case, by its label or else its name."""
    seen: dict[str, list[float]] = {}
    for result in results:
        seen.setdefault(result.case.label or result.case.name, []).append(result.seconds)
    return Times({name: round(sum(seconds) / len(seconds), 1) for name, seconds in seen.items()})


def load_times(path: Path) -> Times:
    """What `save_times` wrote.

    Raises:
        NotAReport: it is something else; the text begins with the path.
        OSError: it cannot be read.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise NotAReport(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 for value in data.values()
    ):
        raise NotAReport(f"{path}: want an object of seconds by name")
    return Times({name: float(value) for name, value in data.items()})


def save_times(times: Mapping[str, float], path: Path) -> None:
    """Write them, in the order of the names.

    Raises:
        OSError: it cannot be written.
    """
    path.write_text(json.dumps(dict(sorted(times.items())), indent=1) + "\n", "utf-8")
