"""The launcher of child processes: none outlives who started it.

    child = launch(["qemu-system-x86_64", "-version"], stdout=file, stderr=file)

Every child of the engine is started here: QEMU, served cards, servers under test. Those that are forks of this process
(libvfio-user's) call `end_with_parent` themselves.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

_PR_SET_PDEATHSIG = 1
"""prctl(2); the setting survives execve."""

# Runs between fork and the program, in an interpreter of its own: what preexec_fn would do is not safe in a process
# with threads. A parent that died before the signal was set is noticed by its process id.
_LAUNCHER = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{{sys.argv[2]}}: {{error.strerror}}")
"""


def launch(
    command: Sequence[str],
    *,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    variables: Mapping[str, str] | None = None,
    pass_fds: Iterable[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, killed by the kernel when the *thread* that started it ends.

    So call it from a thread that lives as long as the program is wanted (trio's own, not a worker of `trio.to_thread`).
    Standard input is empty. `variables` are added to the environment. A program that cannot be executed ends with code 1
    and says why on standard error.

    Raises:
        OSError: no process can be made.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command],
        env={**os.environ, **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        process_group=0,
    )


def end_with_parent(number: int) -> None:
    """In a child that is a fork: get signal `number` when the thread that forked ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
