"""A child process whose output is kept and whose end a trio task can wait for."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import trio

from vfio_user_xe.emulator.child_process import launch

_LOOKED_AT = 1 << 16
"""Bytes of what was written, from its end, that `Process.last_words` looks at."""
_TOLD = 4000
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")


class Process:
    """A program that `launch` starts: it ends with the *thread* that makes this object. Standard output and error go to a file that has no name and is read with `output`."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], pass_fds: Iterable[int] = ()) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        try:
            self._child = launch(
                command, stdout=self._output, stderr=subprocess.STDOUT, variables=variables, pass_fds=pass_fds
            )
        except BaseException:
            self._output.close()
            raise
        self._pidfd = os.pidfd_open(self._child.pid)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self._child.poll()

    async def wait(self) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        while (code := self._child.poll()) is None:
            await trio.lowlevel.wait_readable(self._pidfd)
        return code

    def output(self, limit: int = 4000) -> str:
        """The last `limit` bytes of what it wrote."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), limit, max(0, size - limit)).decode(errors="replace")

    def last_words(self) -> str:
        """What it wrote, for a message: the end of it, and lines that differ in numbers alone once."""
        return folded(self.output(_LOOKED_AT))[-_TOLD:].strip()

    def close(self) -> None:
        """Kill it with its process group and wait; harmless when it has ended or `close` was called before."""
        if self._output.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        os.close(self._pidfd)
        self._output.close()


def folded(text: str) -> str:
    """The text without lines that say what one before has said, of other numbers.

    QEMU behind a vIOMMU writes such a line for each range that nobody had mapped, dozens a boot, and they hide the one that matters.
    """
    often: Counter[str] = Counter()
    firsts: dict[str, str] = {}
    for line in text.splitlines():
        shape = _NUMBER.sub("#", line)
        firsts.setdefault(shape, line)
        often[shape] += 1
    end = "\n" if text.endswith("\n") else ""
    return (
        "\n".join(
            line + (f" ({often[shape]} such lines)" if often[shape] > 1 else "") for shape, line in firsts.items()
        )
        + end
    )


def describe_exit(code: int) -> str:
    """`exit code 1` or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
