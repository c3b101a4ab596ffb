"""Standard output and standard error of a command, whose reader may leave: `vfio-user-xe scenario list | head`."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EXIT_READER_LEFT = 128 + signal.SIGPIPE
"""As a shell counts a program that SIGPIPE ended, which is how other tools end then."""

_OUTPUT, _MESSAGES = 1, 2
_left: set[int] = set()
"""Descriptors whose readers have left."""


def reader_left() -> bool:
    """Whether nobody reads what this program prints: a reader has left, and the program is ending for it."""
    return _OUTPUT in _left


@contextmanager
def ending_with_the_reader() -> Iterator[None]:
    """End the program quietly with `EXIT_READER_LEFT` when nobody reads its output any more.

    Python ignores SIGPIPE, as a server must: a client that goes is no reason to end. So printing to a pipe without a reader
    ends with a BrokenPipeError, wherever it is done, and once more while the interpreter ends. This one looks at the two
    streams alone; a connection that breaks stays the error that it is.
    """
    before = sys.stdout, sys.stderr
    streams = _Stream(_OUTPUT), _Stream(_MESSAGES)
    sys.stdout, sys.stderr = (_over(stream, old) for stream, old in zip(streams, before, strict=True))
    try:
        yield
    finally:
        for stream in streams:
            stream.ends = True
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
        if reader_left() and isinstance(sys.exception() or SystemExit(), SystemExit | KeyboardInterrupt):
            raise SystemExit(EXIT_READER_LEFT) from None


class _Stream(io.FileIO):
    """A file descriptor that is written to; the program ends when the reader of its output has left, unless it `ends` already."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.ends = descriptor != _OUTPUT

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            _left.add(self.fileno())
        # What is written from now on, by children too, goes nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if not self.ends:
            _end()
        return memoryview(data).nbytes


def _end() -> None:
    """End the command: at once where nothing else runs, else as Ctrl-C does, for which every command that waits has a way."""
    own_way = signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, signal.SIG_IGN)
    if own_way or threading.current_thread() is not threading.main_thread():
        os.kill(os.getpid(), signal.SIGINT)
    else:
        raise SystemExit(EXIT_READER_LEFT)


def _over(stream: _Stream, old: TextIO) -> TextIO:
    """A text file over `stream` that encodes and buffers as `old` does."""
    at_once = os.isatty(stream.fileno()) or stream.fileno() == _MESSAGES or bool(os.environ.get("PYTHONUNBUFFERED"))
    return io.TextIOWrapper(io.BufferedWriter(stream), old.encoding, old.errors, line_buffering=at_once)
