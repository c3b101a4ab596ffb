"""What tests ask of processes: their children, open descriptors and threads, and that a block leaves none of these behind.

Processes, threads and descriptors end while they are listed: one that goes between the listing and the look at it counts as gone.
What a block leaves behind is told by identity, not by number: what an earlier test left may go meanwhile.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.support.wait import eventually

T = TypeVar("T")
PROC = Path("/proc")
OF_THE_PROCESS = ("eu_", "Trio thread ")
"""Names of threads that are kept for whoever needs one next: the pool of compiled kernels, and trio's workers."""
_PARENT = 1
"""Where a process' parent stands in `stat`, counted from its state (proc_pid_stat(5))."""


class Descriptor(NamedTuple):
    """An open descriptor: its number, and what it refers to, a socket or a pipe with its inode."""

    number: int
    target: str


def children(pid: int | None = None) -> set[int]:
    """Processes that this one, or `pid`, has started and not waited for; those that have ended are among them.

    `/proc/PID/task/TID/children` is not asked: it may leave out a child while another one ends (proc_tid_children(5)).
    """
    parent = str(os.getpid() if pid is None else pid)
    return {
        int(name)
        for name in os.listdir(PROC)
        if name.isdigit() and (fields := _stat(PROC / name)) and fields[_PARENT] == parent
    }


def descriptors(pid: int | None = None) -> set[Descriptor]:
    """What is open in this process, or in `pid`; nothing of a process that has ended."""
    folder = PROC / ("self" if pid is None else str(pid)) / "fd"
    found = set()
    for name in _listed(folder):
        with suppress(OSError):
            found.add(Descriptor(int(name), os.readlink(folder / name)))
    return found


def runs(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    fields = _stat(PROC / str(pid))
    return bool(fields) and fields[0] not in "ZX"


def is_stopped(pid: int) -> bool:
    """Whether a process exists and a signal has stopped all its threads."""
    folder = PROC / str(pid) / "task"
    states = [fields[0] for name in _listed(folder) if (fields := _stat(folder / name))]
    return bool(states) and all(state == "T" for state in states)


def processor_nanoseconds(pid: int) -> int:
    """User and system time of the threads that a process has now (`schedstat`: nanoseconds, where `stat` has ticks)."""
    folder, total = PROC / str(pid) / "task", 0
    for name in _listed(folder):
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int((folder / name / "schedstat").read_text().split()[0])
    return total


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """What this process opens within the block is closed at its end, or soon after.

    Raises:
        AssertionError: it is not.
    """

    def collected() -> set[Descriptor]:
        gc.collect()  # what is in a cycle has not been given back yet
        return descriptors()

    return _nothing_left(collected, "descriptors are left open")


@contextmanager
def no_children_left() -> Iterator[None]:
    """Processes that are started within the block are gone and waited for at its end, or soon after.

    Raises:
        AssertionError: they are not.
    """
    return _nothing_left(children, "processes are neither gone nor waited for")


@contextmanager
def no_threads_left() -> Iterator[None]:
    """Threads that are started within the block have ended at its end, or soon after, but those of `OF_THE_PROCESS`.

    Raises:
        AssertionError: they have not.
    """
    return _nothing_left(
        lambda: {thread for thread in threading.enumerate() if not thread.name.startswith(OF_THE_PROCESS)},
        "threads that nothing has ended",
    )


def _nothing_left(present: Callable[[], Set[T]], message: str) -> Iterator[None]:
    before = present()
    yield
    eventually(lambda: present() <= before, lambda: f"{message}: {present() - before}")


def _stat(folder: Path) -> list[str]:
    """The fields of a process or a thread from its state on; none if it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return (folder / "stat").read_text().rpartition(")")[2].split()
    return []


def _listed(folder: Path) -> list[str]:
    with suppress(FileNotFoundError, ProcessLookupError):
        return os.listdir(folder)
    return []
