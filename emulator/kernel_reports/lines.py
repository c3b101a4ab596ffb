"""Lines of a kernel's log, however it was read: with or without level, time and caller.

<4>[   12.345678][  T123] message      the console and `dmesg -r` (printk.c:info_print_prefix)
kern  :warn  : [   12.345678] message  `dmesg -x`
4,339,5140900,-,caller=T123;message    /dev/kmsg (Documentation/ABI/testing/dev-kmsg)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_PREFIX = re.compile(
    r"(?:<(?P<priority>\d+)>)?"
    r"(?:(?P<facility>kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp)\s*:(?P<level>\w+)\s*:\s?)?"
    r"(?:\[\s*(?P<time>\d+\.\d{6})\])?"
    r"(?:\[\s*(?P<caller>[TC]\d+)(?:\([^\]]*\))?\s*\])?"
)
_RECORD = re.compile(
    r"(?P<priority>\d+),(?P<sequence>\d+),(?P<time>\d+),[^;]*?(?:caller=(?P<caller>[TC]\d+)[^;]*)?;(?P<text>.*)"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One message's line: `text` without any prefix. What a way of reading does not tell is None."""

    text: str
    seconds: float | None = None
    """Since the kernel began."""
    level: int | None = None
    """0 (emergency) to 7 (debug)."""
    caller: str | None = None
    """`T123`: a task, `C1`: a processor."""
    sequence: int | None = None
    """The record's number in the kernel's buffer."""

    def __str__(self) -> str:
        return self.text if self.seconds is None else f"[{self.seconds:12.6f}] {self.text}"


def parse(text: str) -> list[Line]:
    """The lines of a log as `dmesg` or a console shows it."""
    return [_shown(line) for line in text.splitlines()]


def records(text: str) -> list[Line]:
    """The lines of what /dev/kmsg gave. A message of several lines is several, with the number of their record."""
    found: list[Line] = []
    for line in text.splitlines():
        match = _RECORD.fullmatch(line)
        if match is None:  # a device's properties, which follow a record behind a blank
            continue
        found += [
            Line(
                part,
                int(match["time"]) / 1e6,
                int(match["priority"]) & 7,
                match["caller"],
                int(match["sequence"]),
            )
            for part in _unescaped(match["text"]).split("\n")
        ]
    return found


def texts(lines: Iterable[Line]) -> list[str]:
    """The lines' texts."""
    return [line.text for line in lines]


def _shown(line: str) -> Line:
    match = _PREFIX.match(line)
    assert match is not None  # all of it may be missing
    text = line[match.end() :]
    if match["time"] or match["caller"]:
        text = text.removeprefix(" ")
    level = int(match["priority"]) & 7 if match["priority"] else None
    if match["level"] in _LEVELS:
        level = _LEVELS.index(match["level"])
    return Line(text, float(match["time"]) if match["time"] else None, level, match["caller"])


def _unescaped(text: str) -> str:
    """/dev/kmsg writes what cannot be printed, and backslashes, as \\xNN (printk.c:msg_add_ext_text)."""
    raw = re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), text)
    try:
        return raw.encode("latin-1").decode("utf-8", errors="replace")
    except UnicodeEncodeError:  # it had text that is no byte: nothing was escaped there
        return raw
