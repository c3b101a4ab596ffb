"""What suites of every kind have: groups by name, the function under test, options of the card, time limits, kernel logs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.results.shard import Parts
from vfio_user_xe.emulator.suites.subtest import KernelLog
from vfio_user_xe.emulator.suites.table import SuiteError, Table, fits

_KEPT_LOG = 4000
"""Bytes of a server's log that are kept with a test, from its end."""


class Named(Protocol):
    """A group of tests; several may have one name."""

    @property
    def name(self) -> str: ...


GroupT = TypeVar("GroupT", bound=Named)


def selected(groups: Sequence[GroupT], names: Iterable[str]) -> list[GroupT]:
    """The groups of these names, in their order (all without names).

    Raises:
        SuiteError: there is no group of a name.
    """
    wanted = list(names)
    known = list(dict.fromkeys(group.name for group in groups))
    for name in wanted:
        if name not in known:
            raise SuiteError(f'there is no group "{name}" (allowed: {", ".join(known)})')
    return [group for group in groups if not wanted or group.name in wanted]


def checked_function(name: str, place: str) -> str:
    """`name`, if it is that of a function; `place` is where it stands.

    Raises:
        SuiteError: it is not.
    """
    if not re.fullmatch(r"pf|vf[1-9]\d*", name):
        raise SuiteError(f'{place}: "{name}" is not a function; allowed is "pf" or "vf1", "vf2", ...')
    return name


def vf_number(function: str) -> int:
    """The number of a VF by its name ("vf1"), 0 for the PF."""
    return int(function[2:]) if function.startswith("vf") else 0


def time_limit(limits: Iterable[tuple[str, float]], name: str, default: float) -> float:
    """Seconds that the test `name` may take: those of the first pattern that fits."""
    return next((seconds for pattern, seconds in limits if fits(pattern, name)), default)


def kernel_log(table: Table) -> KernelLog:
    """The rules of a `[kernel_log]` table.

    Raises:
        SuiteError: an expression is malformed, or there is an unknown key.
    """
    try:
        rules = KernelLog.compiled(table.texts("errors"), table.texts("allowed"), table.texts("wedged"))
    except re.error as error:
        raise SuiteError(f"{table.place}: {error.pattern!r} is not a regular expression: {error}") from error
    table.finish()
    return rules


def serve_arguments(device: Mapping[str, object], function: str) -> list[str]:
    """Arguments of `vfio-user-xe serve` for the options of a group's card, with the VF under test."""
    vf = vf_number(function)
    vfs = ["--vfs", str(vf)] if vf and "vfs" not in device else []
    return [*vfs, *(word for key, value in device.items() for word in ("--set", f"{key}={_setting(value)}"))]


@dataclass(frozen=True)
class Part:
    """Which part of a suite's tests a run does, on which kernel, and where logs go.

    `kernel` None is the fetched one; `kernel_name` is what results call it. `job` is a number where several processes write
    to one output folder: each has a folder of its own for logs in it.
    """

    parts: Parts = field(default_factory=Parts)
    kernel: Kernel | None = None
    kernel_name: str = ""
    job: str = ""

    def place(self, function: str) -> str:
        """Where a group's tests run, for a reader."""
        return ", ".join(filter(None, (function, self.kernel_name)))

    def logs(self, output: Path) -> Path:
        """The folder for consoles and servers' logs; it is made."""
        folder = output / f"job-{self.job}" if self.job else output
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class ServerLog:
    """The log of a served card, read piece by piece; not for use by several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def more(self) -> str:
        """The end of what was logged since the last call; "" where the file cannot be read."""
        with contextlib.suppress(OSError), self._path.open("rb") as log:
            log.seek(self._position)
            said = log.read()
            self._position += len(said)
            return said.decode(errors="replace")[-_KEPT_LOG:].strip()
        return ""


def _setting(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
