"""A guest's kernel log, read to the last line and never twice, whoever clears it meanwhile.

/dev/kmsg numbers its records: what was overwritten before it was read leaves a gap, and nothing that `dmesg -c` does changes what
is read here. When the guest does not answer any more, its console has the rest.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import Protocol

from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.kernel_reports.lines import Line, parse, records

_MARK = "vfio-user-xe: log read"
_TRIES = 3
_PARTS = 8
"""Into which gaps in the log may cut what one try reads."""
_FIRST = "Linux version "
"""What a kernel logs first (init/version.c: linux_banner)."""


class LogLost(Exception):
    """Lines of the log were overwritten before they were read: nobody can say what was in them."""


class Shell(Protocol):
    """What runs commands in a guest."""

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60, check: bool = False) -> Result:
        """See `vfio_user_xe.emulator.guest.guest.Guest.run`."""
        ...


class KernelLog:
    """The log of a guest, boot by boot. Not safe to use from several threads."""

    def __init__(self, shell: Shell, console: Callable[[], str]) -> None:
        """`console` gives what the guest's console wrote, as far as it is remembered."""
        self._shell = shell
        self._console = console
        self._reader = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._next = 0
        self.boots = 0
        """How often the guest has booted anew."""
        self._mark = ""
        self._told = 0
        """Lines of the console behind the mark that `rest` has given."""

    def read(self, timeout: float = 60) -> list[Line]:
        """What was logged since the last call.

        Raises:
            LogLost: records were overwritten before they could be read. The next call goes on behind them.
            GuestError: the guest does not answer; see `rest`.
        """
        ended = ""
        for _ in range(_TRIES):
            mark = f"{_MARK} {self._reader} {next(self._numbers)}"
            # A read fails where records are missing, overwritten or lost, and the next one goes on behind them
            # (printk.c:devkmsg_read, EPIPE). Without the mark all of it is done again. A record that a reader has no room
            # for is lost (EINVAL): busybox's awk reads some 400 bytes at a time, its cat 64 KiB. That one waits for the next
            # record when awk has ended, so it is given one, and then has nobody to write to.
            script = (
                f"echo '<6>{mark}' > /dev/kmsg; exec 3</dev/kmsg; for part in $(seq {_PARTS}); do cat <&3 | {{ "
                f"awk -F '[,;]' '!/^ / && $2 >= {self._next}; /;{mark}$/ {{ end = 1; exit }} END {{ exit !end }}'; "
                f"code=$?; exec < /dev/null; echo '<7>{_MARK}' > /dev/kmsg; exit $code; }} && break; done"
            )
            answer = self._shell.run(script, timeout=timeout)
            found = records(answer.stdout)
            if any(line.text == mark for line in found):
                return self._taken(found, mark)
            last = f"the last is number {found[-1].sequence}" if found else f"none from number {self._next} on"
            ended = f"{len(found)} lines, {last}; exit code {answer.returncode} {answer.stderr}".rstrip()
        raise LogLost(f"the kernel's log could not be read up to its end (a larger log_buf_len may help): {ended}")

    def rest(self) -> list[Line]:
        """What the console wrote after the last `read` or `rest`, of a guest that does not answer any more."""
        lines = self._behind_mark()
        self._told += len(lines)
        return _of_the_kernel(lines)

    def read_or_rest(self) -> list[Line]:
        """`read`, or what the console has when the guest does not answer.

        Raises:
            LogLost: lines of the log are lost.
        """
        try:
            return self.read(timeout=20)
        except GuestError:
            return self.rest()

    def rebooted(self) -> list[Line]:
        """The guest has booted anew: what the boot before logged last, from the console; `read` begins with the new one's log."""
        lines = self._behind_mark()
        first = next((at for at, line in enumerate(lines) if _FIRST in line.text), len(lines))
        self._next, self._mark, self._told, self.boots = 0, "", 0, self.boots + 1
        return _of_the_kernel(lines[:first])

    def _behind_mark(self) -> list[Line]:
        """Lines of the console that nobody was given yet, our own among them."""
        text = self._console()
        if self._mark:
            text = text.rpartition(self._mark)[2].partition("\n")[2]
        return parse(text)[self._told :]

    def _taken(self, found: list[Line], mark: str) -> list[Line]:
        numbers = dict.fromkeys(line.sequence for line in found if line.sequence is not None)
        last = max(numbers)
        lost = last + 1 - self._next - len(numbers)
        self._next, self._mark, self._told = last + 1, mark, 0
        if lost:
            raise LogLost(f"{lost} records of the kernel's log were overwritten before they were read")
        return _of_the_kernel(found)


def _of_the_kernel(lines: list[Line]) -> list[Line]:
    """Without the lines by which the log is read."""
    return [line for line in lines if not line.text.startswith(_MARK)]
