"""A process of its own for code that may crash: the library ends its process by `assert` where others return an error."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from vfio_user_xe.emulator.child_process import end_with_parent

_FORWARDED = (signal.SIGTERM, signal.SIGINT)


class Crash(Exception):
    """The process died by a signal; `signal` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(f"died by {signal.Signals(number).name}")
        self.signal = number


def isolated(work: Callable[[], str], *, silent: bool = False) -> str:
    """What `work` returns when it runs in a process of its own.

    For a process without threads: the child is a fork of it. `silent` drops what the child writes to standard error.

    Raises:
        Crash: that process died.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        if silent:
            faulthandler.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        end_with_parent(signal.SIGKILL)
        _leave(lambda: _write_all(writer, work().encode()))
    os.close(writer)
    with open(reader, "rb") as result:
        text = result.read().decode()
    code = _wait(child)
    return text if code == 0 else f"the process ended with code {code}"


def supervised(work: Callable[[], int], fds: Sequence[int] = ()) -> int:
    """Run `work` in a process of its own and return its exit code; signals to end are passed on.

    `fds` are the child's from now on: this process closes them. For a process without threads: the child is a fork of it.
    The child gets SIGTERM when this process is killed.

    Raises:
        Crash: that process died.
    """
    child = os.fork()
    if child == 0:
        # Out of the group that a terminal signals as a whole: what is passed on must not come twice.
        os.setpgid(0, 0)
        end_with_parent(signal.SIGTERM)
        _leave(work)
    for fd in fds:
        os.close(fd)

    def forward(number: int, frame: FrameType | None) -> None:
        os.kill(child, number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        return _wait(child)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(work: Callable[[], int | None]) -> NoReturn:
    """End the forked child: without what the parent would do at its end, except for what was written."""
    code = 1
    try:
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> int:
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise Crash(os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _write_all(fd: int, data: bytes) -> None:
    with open(fd, "wb") as file:
        file.write(data)
