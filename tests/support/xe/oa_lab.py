"""An OA unit in this process, driven as `xe_oa.c` drives it, with a clock and an executor that move by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest.mock import NonCallableMock

import numpy as np

from tests.support.xe.engine_lab import Lab
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.memory.formats.ggtt import PRESENT
from vfio_user_xe.device_models.xe.memory.function import Device
from vfio_user_xe.device_models.xe.oa import layouts
from vfio_user_xe.device_models.xe.oa.sources import Sources
from vfio_user_xe.device_models.xe.oa.unit import Layout, OaUnit
from vfio_user_xe.device_models.xe.profiles.parts import Part
from vfio_user_xe.device_models.xe.profiles.profile import EngineInfo
from vfio_user_xe.emulator.fabric.ledger import Ledger
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.clock import CardClock
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.registers import Register

BUFFER, MEMORY = 0x80_0000, 0x10_0000
SIZE = 128 << 10
HERTZ = 1_920_000_000
PART = Part("G21", xe_cores=16, memory_bits=128)
TICKS_A_MICROSECOND = 19.2


class Rate:
    """A GT that always runs at `HERTZ`."""

    hertz = HERTZ


def engine(engine_class: int, name: str = "rcs0") -> Any:
    """An engine that has done nothing; tests set what it counted and how long it was busy."""
    info = EngineInfo(name, engine_class, 0, 0, 0x2000, 0)
    made = NonCallableMock(spec=Engine, info=info, engine_class=engine_class, counted=Counter(), context=None)
    made.busy.return_value = {}
    return made


class OaLab:
    """One unit on the registers and the GGTT of a lab's PF; `now` are nanoseconds of its clock."""

    def __init__(self, lab: Lab, layout: Layout = layouts.OAG) -> None:
        self.lab = lab
        self.layout = layout
        self.now = 1_000_000_000
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.queued: list[Callable[[], None]] = []
        self.on_executor = True
        executor = NonCallableMock(spec=Executor)
        executor.is_current.side_effect = lambda: self.on_executor
        executor.submit.side_effect = self.queued.append
        executor.call_later.side_effect = lambda seconds, job: self.timers.append((self.now + seconds * 1e9, job))
        gt: Any = NonCallableMock(spec=Gt, index=0)
        gt.gpu = NonCallableMock(spec=Device, executor=executor)
        gt.gpu.card = NonCallableMock(spec=Card, clock=CardClock(lambda: self.now, lambda: self.now / 1e9))
        gt.register.side_effect, gt.offset.side_effect = Register, lambda at: at
        self.engines = [engine(0)]
        self.ledger = Ledger()
        sources = Sources(self.engines, Rate(), self.ledger, PART)
        self.registers = lab.pf.registers
        self.unit = OaUnit(gt, self.registers, layout, sources, lab.pf.ggtt_space)
        for page in range(SIZE // 0x1000):
            lab.pf.ggtt.entries[(BUFFER >> 12) + page] = (MEMORY + page * 0x1000) | PRESENT

    def write(self, offset: int, value: int) -> None:
        self.registers.write(offset, 4, value)

    def read(self, offset: int) -> int:
        return int(self.registers.read(offset, 4))

    def open(self, *, exponent: int | None = None, sel: int = 1, wide: bool = True, debug: int = 0) -> None:
        """What the driver does for a stream: debug, period, buffer, OACONTROL."""
        at = self.layout
        self.write(at.debug, 0xFFFF << 16 | debug)
        self.write(at.context_control, 1 | (0 if exponent is None else 2 | exponent << 2))
        self.write(at.status, 0)
        self.write(at.head, BUFFER)
        self.write(at.buffer, BUFFER | 1)
        self.write(at.tail, BUFFER)
        self.lab.pf.ggtt_space.write(BUFFER, bytes(SIZE))
        self.write(at.control, sel << at.format_shift | wide << 8 | 1)

    def close(self) -> None:
        self.write(self.layout.control, 0)

    def passes(self, nanoseconds: int) -> None:
        """Time passes; timers that are due run, each at its time."""
        until = self.now + nanoseconds
        while due := [timer for timer in self.timers if timer[0] <= until]:
            at, job = min(due, key=lambda timer: timer[0])
            self.timers.remove((at, job))
            self.now = max(self.now, int(at))
            job()
        self.now = until

    @property
    def tail(self) -> int:
        """Offset in the buffer."""
        return self.read(self.layout.tail) - BUFFER

    def memory(self, offset: int, length: int) -> bytes:
        return bytes(self.lab.pf.ggtt_space.read(BUFFER + offset, length))

    def reports(self, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
        """All from the buffer's start to the tail: [reports, qwords]."""
        return np.frombuffer(self.memory(0, self.tail), dtype=np.uint64).reshape(-1, size // 8)
