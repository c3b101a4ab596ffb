"""EU stall sampling: where threads are, and why they wait, into a ring of records for each Xe core (`xe_eu_stall.c`).

The driver gives a buffer in the GGTT and a rate; each Xe core counts samples by instruction and writes 64-byte records behind its
write pointer, which the driver polls. Pointers count records and have one bit more than the buffer needs; a full buffer drops.
What samples is whoever executes threads: an op of them stands for a cycle.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.gt.mcr import Steering
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace
from vfio_user_xe.device_models.xe.profiles.parts import XE_CORES_PER_SLICE
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import MASKED, RO, field, flag, not_modelled

# regs/xe_eu_stall_regs.h
BASE, BASE_UPPER, REPORT, REPORT1, CTRL = 0xE520, 0xE524, 0xE528, 0xE52C, 0xE53C
_ENABLE = 1 << 1
_SIZE_UNIT = 256 << 10
_POINTER_SHIFT, _POINTER_MASK = 2, 0xFFFC
_DROPPED = 1 << 1

RECORD_BYTES = 64
_CYCLES = 251
"""Cycles between two samples, times the rate in CTRL."""
_MOST = 255


class Stall(IntEnum):
    """What a sampled thread is at: the place of its count in a record (`struct xe_eu_stall_data_xe2`)."""

    TDR = 0
    OTHER = 1
    CONTROL = 2
    PIPE = 3
    SEND = 4
    DISTANCE = 5
    SCOREBOARD = 6
    SYNC = 7
    FETCH = 8
    ACTIVE = 9


_IP_BITS = 29


class EuStall:
    """The registers and buffers of one GT. Sampling is the executor's, registers are accessed from transport threads."""

    def __init__(self, gt: Gt, registers: RegisterFile, steering: Steering, ggtt: AddressSpace) -> None:
        """`ggtt` is the PF's: the buffer's address is one there."""
        self._registers = registers
        self._steering = steering
        self._ggtt = ggtt
        self._xe_cores = gt.gpu.profile.part.xe_cores
        self._written = [0] * self._xe_cores
        """Records, modulo twice what a buffer holds."""
        self._taken = [0] * self._xe_cores
        self._dropped = [False] * self._xe_cores
        self._left = _CYCLES
        registers.add(
            [
                gt.register(
                    "XEHPC_EUSTALL_BASE",
                    BASE,
                    fields=[field(6, 31, "BUF_ADDR"), field(3, 5, "XECORE_BUF_SZ"), flag(1, "ENABLE_SAMPLING")],
                ),
                gt.register("XEHPC_EUSTALL_BASE_UPPER", BASE_UPPER),
                gt.register(
                    "XEHPC_EUSTALL_REPORT",
                    REPORT,
                    access=RO,
                    read=self._report,
                    write=self._clear_drop,
                    fields=[field(2, 15, "WRITE_PTR"), flag(1, "OVERFLOW_DROP")],
                ),
                gt.register(
                    "XEHPC_EUSTALL_REPORT1",
                    REPORT1,
                    access=RO,
                    read=self._report1,
                    write=self._take,
                    fields=[field(2, 15, "READ_PTR")],
                ),
                gt.register(
                    "XEHPC_EUSTALL_CTRL",
                    CTRL,
                    access=MASKED,
                    fields=[not_modelled(3, "MOCS", 9), field(0, 2, "SAMPLE_RATE")],
                ),
            ]
        )

    def reset(self) -> None:
        """A GT reset: sampling is off, and the pointers are zero; the driver sees it by the base register."""
        for offset in (BASE, BASE_UPPER, CTRL):
            self._registers.poke(offset, 0)
        self._written = [0] * self._xe_cores
        self._taken = [0] * self._xe_cores
        self._dropped = [False] * self._xe_cores

    # For who executes threads.

    @property
    def enabled(self) -> bool:
        """Whether samples are wanted."""
        return bool(self._registers.peek(BASE) & _ENABLE)

    @property
    def left(self) -> int:
        """Cycles until the next sample is due, at least one."""
        return max(1, self._left)

    def passed(self, cycles: int) -> int:
        """Cycles have passed: how many samples are due. They stay so until they are kept."""
        self._left -= cycles
        period = self._period()
        return 0 if self._left > 0 else 1 + -self._left // period

    def keep(self, core: int, address: int, stall: Stall, samples: int) -> None:
        """Record `samples` of a thread that is at instruction `address` on Xe core `core` (modulo how many there are).

        Raises:
            TranslationFault: the driver's buffer is not mapped.
            AccessFault: the driver's buffer cannot be reached.
        """
        self._left += samples * self._period()
        core %= self._xe_cores
        base = self._registers.peek(BASE)
        records = (base >> 3 & 7) * _SIZE_UNIT // RECORD_BYTES
        if not records:
            return
        written, taken = self._written[core], self._taken[core]
        if (written - taken) % (2 * records) >= records:
            self._dropped[core] = True
            return
        start = (base & ~0x3F) | self._registers.peek(BASE_UPPER) << 32
        place = start + (core * records + written % records) * RECORD_BYTES
        self._ggtt.write(place, _record(address, stall, min(samples, _MOST)))
        self._written[core] = (written + 1) % (2 * records)

    # Registers of the Xe core that is steered to.

    def _period(self) -> int:
        return _CYCLES * max(1, self._registers.peek(CTRL) & 7)

    def _cores(self) -> list[int]:
        """Which Xe cores an access reaches."""
        selected = self._steering.selected
        if selected is None:
            return list(range(self._xe_cores))
        group, instance = selected
        return [(group * XE_CORES_PER_SLICE + instance) % self._xe_cores]

    def _report(self) -> int:
        core = self._cores()[0]
        return self._written[core] << _POINTER_SHIFT & _POINTER_MASK | (_DROPPED if self._dropped[core] else 0)

    def _report1(self) -> int:
        return self._taken[self._cores()[0]] << _POINTER_SHIFT & _POINTER_MASK

    def _clear_drop(self, value: int) -> None:
        if value >> 16 & _DROPPED and not value & _DROPPED:
            for core in self._cores():
                self._dropped[core] = False

    def _take(self, value: int) -> None:
        if value >> 16 & _POINTER_MASK:
            for core in self._cores():
                self._taken[core] = (value & _POINTER_MASK) >> _POINTER_SHIFT


def _record(address: int, stall: Stall, count: int) -> bytes:
    """Bits 31:3 of the instruction's address, ten counts of 8 bits."""
    value = address >> 3 & (1 << _IP_BITS) - 1 | count << _IP_BITS + 8 * stall
    return struct.pack("<QQ48x", value & (1 << 64) - 1, value >> 64)
