"""PCODE's mailbox, asked as the driver asks it."""

from __future__ import annotations

import pytest

from vfio_user_xe.device_models.xe.soc import pcode
from vfio_user_xe.device_models.xe.soc.pcode import Pcode
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import PF

PACKAGE = 8


class Mailbox:
    """The driver's side: `xe_pcode.c:pcode_mailbox_rw`."""

    def __init__(self) -> None:
        self.registers = RegisterFile("pf", 0x140000, PF)
        self.pcode = Pcode(self.registers)

    def ask(self, command: int, param1: int = 0, data0: int = 0, data1: int = 0) -> tuple[int, int, int]:
        """Error, DATA0 and DATA1; READY is 0 when the write of the command has ended."""
        self.registers.write(pcode.DATA0, 4, data0)
        self.registers.write(pcode.DATA1, 4, data1)
        self.registers.write(pcode.MAILBOX, 4, pcode.READY | param1 << 8 | command)
        error, *data = (self.registers.read(offset, 4) for offset in (pcode.MAILBOX, pcode.DATA0, pcode.DATA1))
        assert not error & pcode.READY
        return error, data[0], data[1]


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def test_every_command_that_has_a_name_is_answered_and_others_are_refused(mailbox: Mailbox) -> None:
    refused = {command for command in range(256) if mailbox.ask(command)[0] == pcode.ILLEGAL_COMMAND}
    assert refused == set(range(256)) - set(pcode.COMMAND_NAMES)


def test_a_parameter_that_a_command_does_not_have_is_refused_with_another_error(mailbox: Mailbox) -> None:
    assert mailbox.ask(pcode.DGFX_STATUS, 5)[0] == pcode.ILLEGAL_SUBCOMMAND


def test_the_device_says_that_it_has_started(mailbox: Mailbox) -> None:
    assert mailbox.ask(pcode.DGFX_STATUS) == (pcode.SUCCESS, 1, 0)


def test_power_limits_are_what_was_set_until_the_next_reset(mailbox: Mailbox) -> None:
    at_boot = mailbox.ask(pcode.POWER_SETUP, PACKAGE)
    assert mailbox.ask(pcode.POWER_SETUP, PACKAGE + 1, 0x8123, 0x8456)[0] == pcode.SUCCESS
    assert mailbox.ask(pcode.POWER_SETUP, PACKAGE) == (pcode.SUCCESS, 0x8123, 0x8456)
    mailbox.pcode.reset()
    assert mailbox.ask(pcode.POWER_SETUP, PACKAGE) == at_boot


@pytest.mark.parametrize(("channel", "sustained", "peak"), [(PACKAGE, 70, 88), (6, 75, 95)], ids=["package", "card"])
def test_power_limits_are_over_an_interval(mailbox: Mailbox, channel: int, sustained: int, peak: int) -> None:
    """As `xe_hwmon.c:xe_hwmon_power_max_interval_show` computes it, in ms."""

    def decoded(limit: int) -> tuple[int, int]:
        x, y = limit >> 22 & 3, limit >> 17 & 0x1F
        return (limit & 0x7FFF) // 8, ((4 | x) << y) * 1000 >> 10 + 2

    _, first, second = mailbox.ask(pcode.POWER_SETUP, channel)
    assert (decoded(first), decoded(second)) == ((sustained, 28000), (peak, 9))


def test_minimum_frequencies_are_read_as_they_were_written_until_the_next_reset(mailbox: Mailbox) -> None:
    for gt, processor, ring in ((8, 12, 16), (9, 13, 18)):
        assert mailbox.ask(pcode.WRITE_MIN_FREQUENCY_TABLE, data0=ring << 16 | processor << 8 | gt)[0] == pcode.SUCCESS
    assert mailbox.ask(pcode.READ_MIN_FREQUENCY_TABLE, data0=9) == (pcode.SUCCESS, 18 << 8 | 13, 0)
    assert mailbox.ask(pcode.READ_MIN_FREQUENCY_TABLE, data0=10) == (pcode.SUCCESS, 0, 0)
    mailbox.pcode.reset()
    assert mailbox.ask(pcode.READ_MIN_FREQUENCY_TABLE, data0=9) == (pcode.SUCCESS, 0, 0)
