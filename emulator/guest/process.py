"""A child process that cannot outlive this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence

import trio

# Runs between fork and the program, in an interpreter of its own: what preexec_fn would do is not safe in a process
# with threads.  PR_SET_PDEATHSIG (1, prctl(2)) survives execve; a parent that died before it was set is noticed.
_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""


class Process:
    """A program in a process group of its own, killed by the kernel when the *thread* that started it ends.

    So start it from a thread that lives as long as it is wanted (trio's own, not a worker of `trio.to_thread`).
    Standard input is empty; standard output and error go to a file that has no name and is read with `output`.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], pass_fds: Iterable[int] = ()) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command],
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(pass_fds),
                process_group=0,
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
