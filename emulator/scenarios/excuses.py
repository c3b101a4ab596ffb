"""Reports of the kernel that a scenario or a set-up causes on purpose: what exactly, how often, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vfio_user_xe.emulator.kernel_reports import KernelReport, Kind


@dataclass(frozen=True, slots=True)
class Excuse:
    """At most `count` reports of one kind, in one place, for a reason.

    `place` is a function that the report names; `message`, for reports that name none, text that its first line has, and
    `pattern` a regular expression that is found there. One of the three is needed.

    Raises:
        ValueError: none is given, there is no reason, or `count` is below 1.
    """

    kind: Kind
    reason: str
    place: str = ""
    message: str = ""
    count: int = 1
    pattern: str = ""

    def __post_init__(self) -> None:
        if not (self.place or self.message or self.pattern):
            raise ValueError(f"an excuse for every {self.kind} report: name the function or the message")
        if self.count < 1 or not self.reason:
            raise ValueError(
                f"an excuse needs a reason and a count from 1 on (count {self.count}, reason {self.reason!r})"
            )

    def covers(self, report: KernelReport) -> bool:
        """Whether the report is one of those meant."""
        return (
            report.kind is self.kind
            and (not self.place or self.place in report.functions)
            and self.message in report.headline
            and re.search(self.pattern, report.headline) is not None
        )

    def __str__(self) -> str:
        where = " ".join(
            filter(
                None,
                [
                    self.place and f"in {self.place}",
                    self.message and f'"{self.message}"',
                    self.pattern and f"/{self.pattern}/",
                ],
            )
        )
        return f"{self.kind} {where}, up to {self.count}: {self.reason}"


def unexcused(found: Iterable[KernelReport], excuses: Iterable[Excuse]) -> tuple[list[KernelReport], list[Excuse]]:
    """The reports that no excuse covers, or one too many, and the excuses that covered none."""
    allowed = list(excuses)
    left = [excuse.count for excuse in allowed]
    rest = []
    for report in found:
        at = next((at for at, excuse in enumerate(allowed) if left[at] and excuse.covers(report)), None)
        if at is None:
            rest.append(report)
        else:
            left[at] -= 1
    return rest, [excuse for excuse, count in zip(allowed, left, strict=True) if count == excuse.count]


def asked_for(append: str) -> list[Excuse]:
    """What a kernel says of itself because of its command line."""
    if "kmemleak=off" not in append.split():
        return []
    return [Excuse(Kind.KMEMLEAK, "it was switched off on the command line", message="leak detector disabled")]
