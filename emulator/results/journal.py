"""Results in a file as they come, a line of JSON each: what a killed run has done is kept, and is taken up again.

Several processes may append to one file: a line is written whole, under a lock of the file.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vfio_user_xe.emulator.results.json_file import NotAReport, dumps, loads
from vfio_user_xe.emulator.results.model import Report, Result


class NotKept(OSError):
    """Results cannot be added to their file: the disk is full, for one. What is in it stays."""

    def __init__(self, path: Path, cause: OSError) -> None:
        """`cause` is what the system said."""
        super().__init__(cause.errno, cause.strerror, str(path))

    def __str__(self) -> str:
        return f"{self.filename}: results cannot be kept: {self.strerror}"


def append_line(path: Path, text: str, first: str = "") -> None:
    """Add a line to a file, after `first` where it has no line; one that a killed writer left unfinished is cut off before.

    Raises:
        NotKept: it cannot be written.
    """
    try:
        _append_line(path, text, first)
    except OSError as error:
        raise NotKept(path, error) from None


def _append_line(path: Path, text: str, first: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(descriptor, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        kept = _whole(descriptor, size)
        if kept != size:
            file.truncate(kept)
            file.seek(kept)
        head = f"{first}\n" if first and not kept else ""
        line = memoryview(f"{head}{text}\n".encode())
        while line:
            line = line[file.write(line) :]


def _whole(descriptor: int, size: int) -> int:
    """How many bytes of a file are whole lines."""
    end = size
    while end:
        start = max(0, end - 4096)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


class Journal:
    """The results of one run. The first line has what its report has besides: its name, its title, its defects."""

    def __init__(self, path: Path, about: Report) -> None:
        """Nothing is written before the first result. Of `about`, its results are not taken."""
        self._path = path
        self._about = replace(about, results=[])

    def read(self) -> list[Result]:
        """The results so far; none where there is no file.

        Raises:
            NotAReport: the file holds something else, or another suite's results.
            OSError: it cannot be read.
        """
        parts = _parts(self._path) if self._path.exists() else []
        if not parts:
            return []
        found = _joined(self._path, parts)
        if found.name != self._about.name:
            raise NotAReport(f'{self._path}: has results of "{found.name}", and this is "{self._about.name}"')
        return found.results

    def append(self, result: Result) -> None:
        """Add a result; may be called by any thread.

        Raises:
            NotKept: it cannot be written.
        """
        line = _line(replace(self._about, results=[result], defects={}, title=""))
        append_line(self._path, line, first=_line(self._about))

    def rewrite(self, results: Iterable[Result]) -> None:
        """Keep these results alone.

        Raises:
            OSError: it cannot be written.
        """
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.unlink(missing_ok=True)
        other = Journal(fresh, self._about)
        append_line(fresh, _line(self._about))
        for result in results:
            other.append(result)
        fresh.replace(self._path)


def read_journal(path: Path) -> Report:
    """The report of a journal. A last line that was cut short is not counted; results that come twice are repetitions.

    Raises:
        NotAReport: it is something else; the text begins with the path and the line.
        OSError: it cannot be read.
    """
    parts = _parts(path)
    if not parts:
        raise NotAReport(f"{path}: is empty")
    return _joined(path, parts)


def _parts(path: Path) -> list[Report]:
    """A report a line."""
    parts: list[Report] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                parts.append(loads(line.decode()))
            except ValueError as error:
                raise NotAReport(f"{path}:{number}: {error}") from error
    return parts


def _joined(path: Path, parts: list[Report]) -> Report:
    if other := next((part for part in parts if part.name != parts[0].name), None):
        raise NotAReport(f'{path}: has results of "{parts[0].name}" and of "{other.name}"')
    return Report.merge(parts[0].name, parts, parts[0].title)


def _line(report: Report) -> str:
    return json.dumps(json.loads(dumps(report)), separators=(",", ":"))
