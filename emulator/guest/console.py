"""The guest's console as QEMU sends it: kept, written to a log, searched, and watched for a kernel panic."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from pathlib import Path

import trio

# Bytes kept in memory; the log file has everything.
_HISTORY = 4 << 20
_PIPE = 1 << 20
_PANIC = re.compile(rb"Kernel panic - not syncing")
_END_OF_PANIC = re.compile(rb"---\[ end Kernel panic[^\n]*\n")
_PANIC_GRACE = 2.0  # seconds for the rest of a panic's report to arrive


class Console:
    """A guest's console, read in a task of the caller's (`serve`); `far` is the file descriptor QEMU writes to,
    `closed` is set when it has ended.

    A pipe, because it holds 64 KiB to 1 MiB of single characters; a Unix socket holds a few hundred, and the kernel's
    serial console throws away what is not taken from it within milliseconds.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log = log.open("wb", buffering=0) if log is not None else None
        near, far = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a user may have used up what pipe(7) allows
            fcntl.fcntl(far, fcntl.F_SETPIPE_SZ, _PIPE)
        self.far = os.fdopen(far, "wb", buffering=0)
        self._pipe = trio.lowlevel.FdStream(near)
        self._text = bytearray()
        self._start = 0  # the position of the first byte kept
        self._changed = trio.Event()
        self.closed = trio.Event()

    @property
    def position(self) -> int:
        """How many bytes the guest has written so far."""
        return self._start + len(self._text)

    def tail(self, lines: int = 30, since: int = 0) -> str:
        """The last lines of the console, of what came after the position `since`."""
        text = self._text[max(0, since - self._start) :].decode(errors="replace").replace("\r", "")
        return "\n".join(text.rstrip("\n").split("\n")[-lines:])

    async def wait_for(self, pattern: str, since: int = 0) -> re.Match[str]:
        """Wait until the complete lines after `since` match a regular expression (multi-line); returns the match."""
        compiled = re.compile(pattern, re.MULTILINE)
        while True:
            lines, _, _ = self._text[max(0, since - self._start) :].rpartition(b"\n")
            text = lines.decode(errors="replace").replace("\r", "")
            if match := compiled.search(text):
                return match
            await self._changed.wait()

    async def serve(self) -> None:
        """Read until QEMU closes the console; never raises but for cancellation."""
        try:
            while data := await self._pipe.receive_some(1 << 16):
                self._text += data
                if len(self._text) > 2 * _HISTORY:
                    self._start += len(self._text) - _HISTORY
                    del self._text[:-_HISTORY]
                if self._log is not None:
                    self._log.write(data)
                self._wake()
        except trio.BrokenResourceError:
            pass
        finally:
            self.closed.set()

    async def panic(self, since: int = 0) -> str:
        """Wait for a kernel panic after the position `since` and for the rest of its report; returns its first line."""
        while (match := _PANIC.search(self._text, max(0, since - self._start))) is None:
            # Go on where this search ended, less what a pattern cut in two may have begun with.
            since = max(since, self.position - 200)
            await self._changed.wait()
        found = self._start + match.start()
        with trio.move_on_after(_PANIC_GRACE):
            while not _END_OF_PANIC.search(self._text, max(0, found - self._start)):
                await self._changed.wait()
        line, _, _ = self._text[max(0, found - self._start) :].partition(b"\n")
        return line.decode(errors="replace").rstrip()

    def close(self) -> None:
        self._pipe.close()
        self.far.close()
        if self._log is not None:
            self._log.close()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
