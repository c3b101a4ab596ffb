"""Standard output and standard error of a command, which may take no more: `vfio-user-xe scenario list | head`."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import trio

from vfio_user_xe.emulator.cli.errors import EXIT_FAILED, say

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EXIT_READER_LEFT = 128 + signal.SIGPIPE
"""The exit code that a shell gives to a program that SIGPIPE ended. Most tools end by SIGPIPE when their reader leaves."""

_OUTPUT, _MESSAGES = 1, 2
_lost: dict[int, OSError] = {}
"""Descriptors that take no more, and why: the reader has left (BrokenPipeError), or the file system is full."""


def output_lost() -> bool:
    """Whether standard output takes no more, and the program ends for that reason."""
    return _OUTPUT in _lost


def lost_exit_code() -> int:
    """The exit code of a program that ends because standard output takes no more."""
    return EXIT_READER_LEFT if isinstance(_lost.get(_OUTPUT), BrokenPipeError) else EXIT_FAILED


@contextmanager
def ending_with_the_reader() -> Iterator[None]:
    """End the program when standard output takes no more: quietly with `EXIT_READER_LEFT` if its reader has left, else with a message.

    Python ignores SIGPIPE, as a server must: a client that goes is no reason to end. So printing to a pipe without a reader
    ends with a BrokenPipeError, wherever it is done, and once more while the interpreter ends. Only errors of standard output
    and standard error are handled here. A connection that breaks raises its error as before.
    """
    before = sys.stdout, sys.stderr
    streams = _Stream(_OUTPUT), _Stream(_MESSAGES)
    sys.stdout, sys.stderr = (_over(stream, old) for stream, old in zip(streams, before, strict=True))
    try:
        yield
    finally:
        for stream in streams:
            stream.goes_on = True
        try:
            sys.stdout.flush()
            if output_lost() and lost_exit_code() != EXIT_READER_LEFT:
                say(f"standard output cannot be written: {_lost[_OUTPUT].strerror}")
            sys.stderr.flush()
        finally:
            sys.stdout, sys.stderr = before
        if output_lost() and isinstance(sys.exception() or SystemExit(), SystemExit | KeyboardInterrupt):
            raise SystemExit(lost_exit_code()) from None


class _Stream(io.FileIO):
    """A standard stream's descriptor, for writing. When it takes no more the program ends, unless it `goes_on` without it.

    A stream that was closed when the program started is the null device.
    """

    def __init__(self, descriptor: int) -> None:
        self.number = descriptor
        self.goes_on = descriptor != _OUTPUT
        if (sys.stdout if descriptor == _OUTPUT else sys.stderr) is None:
            super().__init__(os.devnull, "w")
        else:
            super().__init__(descriptor, "w", closefd=False)

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            _lost[self.number] = error
        # What is written from now on, by children too, goes nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if not self.goes_on:
            _end()
        return memoryview(data).nbytes


class _AtOnce(io.BufferedWriter):
    """Keeps nothing back. A raw file alone would not do: it may write a part of what it is given."""

    def write(self, data: ReadableBuffer, /) -> int:
        written = super().write(data)
        self.flush()
        return written


def _end() -> None:
    """End the command as Ctrl-C does: every command that has something to save or to end has a way for that.

    Raises:
        KeyboardInterrupt: here, where the exception reaches the command.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.SIG_IGN:  # a shell script's background job
        if main or _of_trio():
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGTERM)
    elif main and handler is signal.default_int_handler:
        raise KeyboardInterrupt
    else:
        os.kill(os.getpid(), signal.SIGINT)


def _of_trio() -> bool:
    """Whether this thread works for a task: what it raises, the task raises."""
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    except trio.Cancelled:
        pass
    return True


def _over(stream: _Stream, old: TextIO | None) -> TextIO:
    """A text file over `stream` that encodes as `old` does, and keeps back at most a line: a long run is seen by `| tee`, too."""
    if not isinstance(old, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(stream), "utf-8", "backslashreplace", line_buffering=True)
    return io.TextIOWrapper(
        (_AtOnce if old.write_through else io.BufferedWriter)(stream),
        old.encoding,
        old.errors,
        line_buffering=True,
        write_through=old.write_through,
    )
