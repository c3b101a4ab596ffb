"""PCODE: the mailbox to the power-management firmware (`xe_pcode.c`, commands in `xe_pcode_api.h`).

The driver writes DATA0 and DATA1, then command and READY into the mailbox, and polls until READY clears; the low
byte then holds an error code. Commands complete inside the write: they only compute.
"""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, Register, field, flag, reserved

MAILBOX = 0x138124
DATA0 = 0x138128
DATA1 = 0x13812C
SCRATCH = 0x138320
SCRATCH_COUNT = 8
PCIE_CAP = 0x138340

READY = 1 << 31

SUCCESS = 0x0
ILLEGAL_COMMAND = 0x1
ILLEGAL_SUBCOMMAND = 0x4

DGFX_STATUS = 0x7E
POWER_SETUP = 0x7C
FAN_SPEED_CONTROL = 0x7D
THERMAL_INFO = 0x25
LATE_BINDING = 0x5C
FREQUENCY_CONFIG = 0x6E
WRITE_MIN_FREQUENCY_TABLE = 0x08
READ_MIN_FREQUENCY_TABLE = 0x09

COMMAND_NAMES = {
    DGFX_STATUS: "DGFX_PCODE_STATUS",
    POWER_SETUP: "PCODE_POWER_SETUP",
    FAN_SPEED_CONTROL: "FAN_SPEED_CONTROL",
    THERMAL_INFO: "PCODE_THERMAL_INFO",
    LATE_BINDING: "PCODE_LATE_BINDING",
    FREQUENCY_CONFIG: "PCODE_FREQUENCY_CONFIG",
    WRITE_MIN_FREQUENCY_TABLE: "PCODE_WRITE_MIN_FREQ_TABLE",
    READ_MIN_FREQUENCY_TABLE: "PCODE_READ_MIN_FREQ_TABLE",
}

ERROR_NAMES = {SUCCESS: "SUCCESS", ILLEGAL_COMMAND: "ILLEGAL_CMD", ILLEGAL_SUBCOMMAND: "ILLEGAL_SUBCOMMAND"}
_MAILBOX = (
    # A command while READY is set, an error code when it is not.
    field(0, 7, "COMMAND", COMMAND_NAMES | ERROR_NAMES),
    field(8, 15, "PARAM1"),
    field(16, 23, "PARAM2"),
    reserved(24, 30),
    flag(31, "READY"),
)

_LIMIT_ENABLE = 1 << 15
_WATT = 8  # power limits count eighths of a watt (xe_hwmon.c: PWR_UNIT 3)


def _limit(watts: int, x: int, y: int) -> int:
    """A power limit as the mailbox has it; it is for an average over 1.x * 2^y / 1024 s, `x` quarters (PWR_LIM_TIME_X, _Y)."""
    return _LIMIT_ENABLE | watts * _WATT | x << 22 | y << 17


# What a 70 W card might be set to, over 28 s and 9.8 ms; no published figure for these exists, the driver shows whatever it reads.
_PACKAGE_LIMITS = (_limit(70, 3, 14), _limit(88, 1, 3))
_CARD_LIMITS = (_limit(75, 3, 14), _limit(95, 1, 3))
# Degrees Celsius by xe_hwmon.c:enum xe_temp_limit: package shutdown, package critical, memory shutdown, package max,
# memory critical.
_TEMPERATURE_LIMITS = (110, 100, 110, 95, 105)

Answer = tuple[int, int, int]
"""Error code, DATA0, DATA1."""


class Pcode:
    """The mailbox of the card's PCODE."""

    def __init__(self, registers: RegisterFile) -> None:
        self._registers = registers
        self._min_frequencies: dict[int, int] = {}
        """By GT frequency: ratios of what is to run no slower, processor in 7:0 and ring in 15:8."""
        self._power_limits = {6: _CARD_LIMITS, 8: _PACKAGE_LIMITS}
        self._handlers: dict[int, Callable[[int, int, int, int], Answer]] = {
            DGFX_STATUS: self._status,
            POWER_SETUP: self._power_setup,
            FAN_SPEED_CONTROL: self._fan_speed_control,
            THERMAL_INFO: self._thermal_info,
            LATE_BINDING: self._late_binding,
            FREQUENCY_CONFIG: self._frequency_config,
            WRITE_MIN_FREQUENCY_TABLE: self._write_min_frequencies,
            READ_MIN_FREQUENCY_TABLE: self._read_min_frequencies,
        }
        registers.add(
            [
                Register("PCODE_MAILBOX", MAILBOX, write=self._mailbox_written, fields=_MAILBOX),
                Register("PCODE_DATA0", DATA0),
                Register("PCODE_DATA1", DATA1),
                *(Register(f"PCODE_SCRATCH({n})", SCRATCH + 4 * n, access=RO) for n in range(SCRATCH_COUNT)),
                Register("BMG_PCIE_CAP", PCIE_CAP, access=RO, fields=[field(0, 1, "LINK_DOWNGRADE", {2: "CAPABLE"})]),
            ]
        )

    def reset(self) -> None:
        """Power limits and the table of minimum frequencies go back to what they were at boot."""
        self._power_limits = {6: _CARD_LIMITS, 8: _PACKAGE_LIMITS}
        self._min_frequencies.clear()

    def _mailbox_written(self, value: int) -> None:
        if not value & READY:
            return
        command, param1, param2 = value & 0xFF, value >> 8 & 0xFF, value >> 16 & 0xFF
        registers = self._registers
        handler = self._handlers.get(command)
        if handler is None:
            error = ILLEGAL_COMMAND
        else:
            error, data0, data1 = handler(param1, param2, registers.peek(DATA0), registers.peek(DATA1))
            registers.poke(DATA0, data0)
            registers.poke(DATA1, data1)
        registers.poke(MAILBOX, error)

    def _status(self, param1: int, param2: int, data0: int, data1: int) -> Answer:
        # DGFX_GET_INIT_STATUS: bit 0 is "complete", bit 31 a downgraded link.
        return (SUCCESS, 1, 0) if param1 == 0 else (ILLEGAL_SUBCOMMAND, 0, 0)

    def _power_setup(self, param1: int, param2: int, data0: int, data1: int) -> Answer:
        if param1 in (4, 5):  # the I1 current limit: this card sets none
            return SUCCESS, 0, 0
        if param1 in (6, 8):
            first, second = self._power_limits[param1]
            return SUCCESS, first, second
        if param1 in (7, 9):
            self._power_limits[param1 - 1] = (data0, data1)
            return SUCCESS, data0, data1
        return ILLEGAL_SUBCOMMAND, 0, 0

    def _fan_speed_control(self, param1: int, param2: int, data0: int, data1: int) -> Answer:
        # FSC_READ_NUM_FANS. A fan would make the driver ask for a fan-table firmware (xe_late_bind_fw.c).
        return (SUCCESS, 0, 0) if param1 == 4 else (ILLEGAL_SUBCOMMAND, 0, 0)

    def _thermal_info(self, param1: int, param2: int, data0: int, data1: int) -> Answer:
        if param1 == 0:
            return SUCCESS, int.from_bytes(_TEMPERATURE_LIMITS[:4], "little"), _TEMPERATURE_LIMITS[4]
        # READ_THERMAL_CONFIG and READ_THERMAL_DATA: no sensors beyond the ones that have registers.
        return (SUCCESS, 0, 0) if param1 in (1, 2) else (ILLEGAL_SUBCOMMAND, 0, 0)

    def _late_binding(self, param1: int, param2: int, data0: int, data1: int) -> Answer:
        # Capability status 0: neither fan table nor VR configuration can be bound (xe_device_sysfs.c).
        return (SUCCESS, 0, 0) if param1 in (0, 1, 2) else (ILLEGAL_SUBCOMMAND, 0, 0)

    def _frequency_config(self, param1: int, param2: int, data0: int, data1: int) -> Answer:
        return (SUCCESS, 0, 0) if param1 in (0, 1) else (ILLEGAL_SUBCOMMAND, 0, 0)

    # A GT frequency is in 7:0, in units of 50 MHz. Drivers use the table on devices that share the processor's last level
    # cache only (xe_pcode.c:xe_pcode_init_min_freq_table); what a read answers is in i915's selftest_llc.c.

    def _write_min_frequencies(self, param1: int, param2: int, data0: int, data1: int) -> Answer:
        self._min_frequencies[data0 & 0xFF] = data0 >> 8 & 0xFFFF
        return SUCCESS, data0, data1

    def _read_min_frequencies(self, param1: int, param2: int, data0: int, data1: int) -> Answer:
        return SUCCESS, self._min_frequencies.get(data0 & 0xFF, 0), 0
