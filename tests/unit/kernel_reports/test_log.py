"""The log is read to the last line, once, and what was lost is noticed."""

from __future__ import annotations

import inspect
import os
import subprocess
from unittest.mock import create_autospec

import pytest

from tests.support.played_kernel import PlayedKernel
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.kernel_reports import KernelLog, LogLost
from vfio_user_xe.emulator.kernel_reports.lines import texts
from vfio_user_xe.emulator.kernel_reports.log import Shell


def log_of(guest: PlayedKernel, console: str = "") -> KernelLog:
    return KernelLog(guest, lambda: console)


def test_what_stands_for_a_guest_s_shell_is_called_as_one() -> None:
    """Names, kinds and defaults of the parameters are those of the real one."""
    real, stand_in = (inspect.signature(run, eval_str=True) for run in (BlockingGuest.run, PlayedKernel.run))
    assert stand_in == real


def test_every_line_is_read_once() -> None:
    guest = PlayedKernel()
    log = log_of(guest)
    guest.say("one", "two")
    assert texts(log.read()) == ["one", "two"]
    guest.say("three")
    assert texts(log.read()) == ["three"]
    assert log.read() == []


def test_a_log_that_is_cleared_loses_nothing() -> None:
    guest = PlayedKernel()
    log = log_of(guest)
    guest.say("one")
    guest.run("dmesg -c")
    assert "one" in texts(log.read())


def test_reading_that_was_cut_short_is_done_again() -> None:
    guest = PlayedKernel()
    guest.say("one")
    guest.cut = 2
    assert texts(log_of(guest).read()) == ["one"]
    guest.cut = 3
    with pytest.raises(LogLost, match="larger log_buf_len"):
        log_of(guest).read()


def test_records_that_were_overwritten_are_missed() -> None:
    guest = PlayedKernel()
    log = log_of(guest)
    log.read()
    guest.say("one", "two", "three")
    del guest.records[:3]
    with pytest.raises(LogLost, match="2 records"):
        log.read()
    guest.say("four")
    assert texts(log.read()) == ["four"]


def test_a_record_that_is_missing_within_the_log_is_missed_once() -> None:
    guest = PlayedKernel()
    log = log_of(guest)
    log.read()
    guest.say("one", "two", "three")
    del guest.records[2]
    with pytest.raises(LogLost, match="1 record"):
        log.read()
    guest.say("four")
    assert texts(log.read()) == ["four"]


def test_behind_a_gap_in_the_log_reading_goes_on() -> None:
    # A terminal gives a line with each read as /dev/kmsg does, and an end of file (^D) where that fails with EPIPE; the next goes on.
    guest = create_autospec(Shell, instance=True)
    guest.run.return_value = Result(1, b"", "", 0.0)
    with pytest.raises(LogLost, match="none from number 0 on; exit code 1"):
        KernelLog(guest, str).read()
    mark, _, script = guest.run.call_args.args[0].partition("; ")
    last = "6,2,1,-;" + mark.partition("<6>")[2].partition("'")[0]
    master, slave = os.openpty()
    os.write(master, f"6,0,1,-;one\n\x04{last}\n6,3,1,-;next\n\x04".encode())
    done = subprocess.run(
        ["sh", "-c", script.replace("/dev/kmsg", os.ttyname(slave))],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == ["6,0,1,-;one", last]
    assert done.returncode == 0


def test_of_a_guest_that_is_dead_the_console_has_what_was_not_read() -> None:
    guest = PlayedKernel()
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
    guest = PlayedKernel()
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
    guest = PlayedKernel()
    log = log_of(guest)
    log.read()
    assert log.rebooted() == []
