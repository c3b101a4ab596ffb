"""The log is read to the last line, once, and what was lost is noticed."""

from __future__ import annotations

import pytest

from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.errors import CommandTimeout
from vfio_user_xe.emulator.kernel_reports import KernelLog, LogLost
from vfio_user_xe.emulator.kernel_reports.lines import texts


class Guest:
    """A kernel's buffer of records, of which a reader may miss some."""

    def __init__(self) -> None:
        self.records: list[tuple[int, str]] = []
        self.next = 0
        self.cut = 0
        """How many reads end early."""
        self.dead = False

    def say(self, *lines: str) -> None:
        for line in lines:
            self.records.append((self.next, line))
            self.next += 1

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60, check: bool = False) -> Result:
        if self.dead:
            raise CommandTimeout("no answer")
        self.say(command.partition("<6>")[2].partition("'")[0])
        first = int(command.partition(">= ")[2].partition(";")[0])
        found = [f"6,{number},1000,-;{line}\n SUBSYSTEM=pci" for number, line in self.records if number >= first]
        if self.cut:
            self.cut -= 1
            found = found[:-1]
        return Result(0, "\n".join(found).encode(), "", 0.0)


def log_of(guest: Guest, console: str = "") -> KernelLog:
    return KernelLog(guest, lambda: console)


def test_every_line_is_read_once() -> None:
    guest = Guest()
    log = log_of(guest)
    guest.say("one", "two")
    assert texts(log.read()) == ["one", "two"]
    guest.say("three")
    assert texts(log.read()) == ["three"]
    assert log.read() == []


def test_a_log_that_is_cleared_loses_nothing() -> None:
    guest = Guest()
    log = log_of(guest)
    guest.say("one")
    guest.run("dmesg -c >= 0;")
    assert "one" in texts(log.read())


def test_reading_that_was_cut_short_is_done_again() -> None:
    guest = Guest()
    guest.say("one")
    guest.cut = 2
    assert texts(log_of(guest).read()) == ["one"]
    guest.cut = 3
    with pytest.raises(LogLost, match="larger log_buf_len"):
        log_of(guest).read()


def test_records_that_were_overwritten_are_missed() -> None:
    guest = Guest()
    log = log_of(guest)
    log.read()
    guest.say("one", "two", "three")
    del guest.records[:3]
    with pytest.raises(LogLost, match="2 records"):
        log.read()
    guest.say("four")
    assert texts(log.read()) == ["four"]


def test_of_a_guest_that_is_dead_the_console_has_what_was_not_read() -> None:
    guest = Guest()
    log = KernelLog(guest, lambda: "\n".join(f"[    1.000000] {text}" for _, text in guest.records))
    guest.say("old")
    log.read()
    guest.say("new")
    guest.dead = True
    assert texts(log.read_or_rest()) == ["new"]
    guest.say("newest")
    assert texts(log.read_or_rest()) == ["newest"]


def test_after_a_reboot_the_end_of_the_boot_before_comes_from_the_console_and_the_new_log_is_read_from_its_start() -> (
    None
):
    guest = Guest()
    log = KernelLog(guest, lambda: "\n".join(console))
    console = ["early"]
    guest.say("early")
    assert texts(log.read()) == ["early"]
    mark = guest.records[-1][1]
    console += [mark, "[    9.000000] last words", "[    0.000000] Linux version 7.3.4", "[    0.100000] early"]
    guest.records, guest.next = [], 0
    guest.say("Linux version 7.3.4", "early")
    assert texts(log.rebooted()) == ["last words"]
    assert log.boots == 1
    assert texts(log.read()) == ["Linux version 7.3.4", "early"]


def test_a_boot_whose_end_the_console_does_not_show_has_no_last_words() -> None:
    guest = Guest()
    log = log_of(guest)
    log.read()
    assert log.rebooted() == []
