"""Sensors and telemetry: temperatures and fans (`xe_hwmon.c`), and the PMT discovery table (`xe_vsec.c`, `xe_pmt.h`).

The telemetry region is shown through a remapper window; only what the driver reads of it exists: the energy counters,
which grow by the power of an idle package and of its card, and the PUNIT's GUID, without which every read of it fails.
"""

from __future__ import annotations

from vfio_user_xe.emulator.model.clock import CardClock
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, Register, field

FAN_SPEED = (0x138140, 0x138170, 0x1381A0)
VRAM_CHANNEL_TEMPERATURE = 0x138260
VRAM_CHANNELS = 16
VRAM_TEMPERATURE = 0x1382C0
PACKAGE_TEMPERATURE = 0x138434
PACKAGE_ENERGY, PLATFORM_ENERGY = 0x138120, 0x138458
"""Where drivers up to 6.16 read energy (`regs/xe_pcode_regs.h`); later ones read telemetry."""

SOC_BASE = 0x280000
REMAP_INDEX = SOC_BASE + 0x8
DISCOVERY = SOC_BASE + 0xDB000
CRASHLOG_DISCOVERY = DISCOVERY + 0x60
TELEMETRY = SOC_BASE + 0xE0000
ENERGY_STATUS = TELEMETRY + 0x0200 + 0x30  # PUNIT_TELEMETRY_OFFSET, BMG_ENERGY_STATUS_PMT_OFFSET

PUNIT_GUID = 1 << 28 | 0xE2F8 << 12
"""Capability type 1 (telemetry), device id 0xe2f8, record 0 (PUNIT): `xe_vsec.c:xe_guid_decode`."""

_PACKAGE_CELSIUS = 40
_VRAM_CELSIUS = 44
_CHANNELS_FITTED = 4

_PACKAGE_WATTS = 14
"""Of an idle one; no figure is published."""
_CARD_WATTS = 19
"""With memory and regulators."""
_ENERGY_UNITS_PER_JOULE = 1 << 14  # xe_hwmon.c: ENERGY_UNIT 0xe


class Telemetry:
    """Sensors of the card. Temperatures do not follow the work done."""

    def __init__(self, registers: RegisterFile, clock: CardClock) -> None:
        """`clock` is what energy is counted by."""
        self._clock = clock
        self._start = clock.seconds()
        channels = [
            Register(
                f"BMG_VRAM_TEMPERATURE_N({n})",
                VRAM_CHANNEL_TEMPERATURE + 4 * n,
                # Bits 30:8 of a channel's register are degrees (TEMP_MASK_VRAM_N); 0 is a channel that is not there.
                reset=_VRAM_CELSIUS << 8 if n < _CHANNELS_FITTED else 0,
                access=RO,
                fields=[field(8, 30, "TEMP")],
            )
            for n in range(VRAM_CHANNELS)
        ]
        registers.add(
            [
                *(Register(f"BMG_FAN_{n + 1}_SPEED", offset, access=RO) for n, offset in enumerate(FAN_SPEED)),
                *channels,
                Register("BMG_VRAM_TEMPERATURE", VRAM_TEMPERATURE, reset=_VRAM_CELSIUS, access=RO),
                Register("BMG_PACKAGE_TEMPERATURE", PACKAGE_TEMPERATURE, reset=_PACKAGE_CELSIUS, access=RO),
                Register("BMG_PACKAGE_ENERGY_STATUS", PACKAGE_ENERGY, access=RO, read=self._package_energy),
                Register("BMG_PLATFORM_ENERGY_STATUS", PLATFORM_ENERGY, access=RO, read=self._card_energy),
                Register("SG_REMAP_INDEX1", REMAP_INDEX),
                Register("SG_REMAP_ADDR_PREFIX", SOC_BASE + 0x164, access=RO),
                Register("SG_REMAP_ADDR_POSTFIX", SOC_BASE + 0x168, access=RO),
                Register("PUNIT_TELEMETRY_HEADER", DISCOVERY, access=RO),
                Register("PUNIT_TELEMETRY_GUID", DISCOVERY + 4, reset=PUNIT_GUID, access=RO),
                Register("ENERGY_STATUS_PACKAGE", ENERGY_STATUS, access=RO, read=self._package_energy),
                Register("ENERGY_STATUS_CARD", ENERGY_STATUS + 4, access=RO, read=self._card_energy),
            ]
        )

    def _package_energy(self) -> int:
        return self._energy(_PACKAGE_WATTS)

    def _card_energy(self) -> int:
        return self._energy(_CARD_WATTS)

    def _energy(self, watts: int) -> int:
        return int((self._clock.seconds() - self._start) * watts * _ENERGY_UNITS_PER_JOULE) & 0xFFFFFFFF
