"""A child process whose output is kept and whose end a trio task can wait for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence

import trio

from vfio_user_xe.emulator.child_process import launch


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

    def close(self) -> None:
        """Kill it with its process group and wait; harmless when it has ended or `close` was called before."""
        if self._output.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        os.close(self._pidfd)
        self._output.close()


def describe_exit(code: int) -> str:
    """`exit code 1` or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
