"""What stands for the shell of a guest where none runs: its kernel's buffer of records, and commands that are answered."""

from __future__ import annotations

from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.errors import GuestPanic


class PlayedKernel:
    """Stands for `BlockingGuest.run`, whose signature `run` has, and answers as a kernel does whose /dev/kmsg is read.

    A subclass answers other commands.
    """

    def __init__(self, *, priority: int = 6) -> None:
        """Records have this priority (syslog(2))."""
        self.records: list[tuple[int, str]] = []
        self.next = 0
        """The number of the next record; more than one more than the last one's: records were overwritten."""
        self.cut = 0
        """How many reads of the log end early."""
        self.dead = False
        self._priority = priority

    def say(self, *lines: str) -> None:
        """Log these lines."""
        for line in lines:
            self.records.append((self.next, line))
            self.next += 1

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60, check: bool = False) -> Result:
        """See `BlockingGuest.run`."""
        if self.dead:
            raise GuestPanic("the guest's kernel panicked")
        text = self._read(command) if "awk" in command and "/dev/kmsg" in command else self.answer(command)
        return Result(0, text.encode(), "", 0.0)

    def answer(self, command: str) -> str:
        """What another command writes."""
        return ""

    def _read(self, script: str) -> str:
        """As `KernelLog.read` asks for: a mark is logged, and the records from a number on are written."""
        self.say(script.partition("<6>")[2].partition("'")[0])
        first = int(script.partition(">= ")[2].partition(";")[0])
        found = [
            f"{self._priority},{number},1000,-;{line}\n SUBSYSTEM=pci"
            for number, line in self.records
            if number >= first
        ]
        if self.cut:
            self.cut -= 1
            found = found[:-1]
        return "\n".join(found)
