"""What a GT's performance events have come to: clocks, how long engines were busy, what engines counted, memory accesses.

Values only grow. The ones that follow from time are kept up by each look, with the frequency that the GT has then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.engines.perf_events import Event
from vfio_user_xe.device_models.xe.engines.types import CountedEngine
from vfio_user_xe.device_models.xe.memory.ppgtt import SYSTEM_KIND, VRAM_KIND
from vfio_user_xe.device_models.xe.profiles.parts import Part
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, COPY, RENDER
from vfio_user_xe.emulator.fabric.ledger import Ledger

_EVENT = 0xFFFF
_ONE_CORE = 1 << 16
_CORE_SHIFT, _CORE_MASK = 20, 0x3F
"""A PES register: the event; whether of one Xe core; which (TEST_EVENT1_CYCLES_XECORE0 and its like in `oa-bmg.xml`)."""
_TRANSACTION = 64
Values = NDArray[np.uint64]
"""Of counters, in the order of their registers."""
_ALL = (1 << 64) - 1
"""Counters wrap: a guest's commands may ask for any number of groups."""
_BUSY = {RENDER: Event.RENDER_ENGINE_BUSY, COMPUTE: Event.COMPUTE_ENGINE_BUSY, COPY: Event.COPY_ENGINE_BUSY}
_MEMORY = {
    Event.GPU_MEMORY_64B_TRANSACTION_READ: (VRAM_KIND, False, _TRANSACTION),
    Event.GPU_MEMORY_64B_TRANSACTION_WRITE: (VRAM_KIND, True, _TRANSACTION),
    Event.GPU_MEMORY_BYTE_READ: (VRAM_KIND, False, 2),
    Event.GPU_MEMORY_BYTE_WRITE: (VRAM_KIND, True, 2),
    Event.SYSMEM_TRANSACTION_READ: (SYSTEM_KIND, False, _TRANSACTION),
    Event.SYSMEM_TRANSACTION_WRITE: (SYSTEM_KIND, True, _TRANSACTION),
}
"""How the ledger's kinds of such accesses end, whether they write, and bytes of one event."""


class Rate(Protocol):
    """The GT's frequency."""

    @property
    def hertz(self) -> int:
        """Now; 0 while the GT sleeps."""
        ...


class Sources:
    """The events of one GT. On the executor."""

    def __init__(self, engines: Sequence[CountedEngine], rate: Rate, ledger: Ledger, part: Part) -> None:
        self._engines = engines
        self._rate = rate
        self._ledger = ledger
        self._part = part
        self._looked = -1
        self._clocks = 0.0
        self._busy = [0] * len(engines)
        self._partly: dict[Event, float] = dict.fromkeys((*_BUSY.values(), Event.GPU_BUSY), 0.0)

    def clocks(self, now: int) -> int:
        """Clocks of the GT until `now`, in nanoseconds of the card's clock."""
        self._look(now)
        return int(self._clocks)

    def values(self, selects: Sequence[int], now: int) -> Values:
        """What the event of each PES register in `selects` has come to; 0 for events that nobody counts."""
        self._look(now)
        wanted = {select & _EVENT for select in selects}
        known = self._known(wanted)
        return np.array([self._value(select, known) for select in selects], dtype=np.uint64)

    def of_engine(self, engine: CountedEngine, selects: Sequence[int], now: int) -> Values:
        """As `values`, but of what one engine does: for a context while it runs there."""
        self._look(now)
        timed = self._timed()
        known: dict[int, int] = {event: timed[event] for event in (Event.TEST_EVENT1, Event.TEST_EVENT2)}
        own = _BUSY.get(engine.engine_class)
        if own is not None:
            known[own] = known[Event.GPU_BUSY] = timed[own]
        known.update(engine.counted)
        return np.array([self._value(select, known) for select in selects], dtype=np.uint64)

    def _look(self, now: int) -> None:
        passed, hertz = max(0, now - self._looked) if self._looked >= 0 else 0, self._rate.hertz
        self._looked = now
        self._clocks += passed * hertz / 1e9
        most = 0
        for index, engine in enumerate(self._engines):
            total = sum(engine.busy().values())
            added, self._busy[index] = max(0, total - self._busy[index]), total
            event = _BUSY.get(engine.engine_class)
            if event is not None:
                self._partly[event] += min(added, passed) * hertz / 1e9
            most = max(most, added)
        # Of engines that work at once at least the busiest one: nobody keeps when none did.
        self._partly[Event.GPU_BUSY] += min(most, passed) * hertz / 1e9

    def _timed(self) -> dict[int, int]:
        clocks = int(self._clocks)
        return {
            **{event: int(value) for event, value in self._partly.items()},
            Event.TEST_EVENT1: clocks * self._part.xe_cores,
            Event.TEST_EVENT2: clocks * self._part.slices,
        }

    def _known(self, wanted: set[int]) -> dict[int, int]:
        known: dict[int, int] = self._timed()
        for engine in self._engines:
            for event, number in engine.counted.items():
                known[event] = known.get(event, 0) + number
        memory = [event for event in _MEMORY if event in wanted]
        if memory:
            known |= self._memory(memory)
        return known

    def _memory(self, events: Iterable[Event]) -> dict[int, int]:
        totals: Counter[tuple[str, bool]] = Counter()
        for entry in self._ledger.entries():
            for kind in (VRAM_KIND, SYSTEM_KIND):
                if entry.kind.endswith(kind):
                    totals[kind, False] += entry.bytes_read
                    totals[kind, True] += entry.bytes_written
        return {event: totals[kind, write] // unit for event in events for kind, write, unit in (_MEMORY[event],)}

    def _value(self, select: int, known: Mapping[int, int]) -> int:
        event = select & _EVENT
        if not select & _ONE_CORE:
            return known.get(event, 0) & _ALL
        core = select >> _CORE_SHIFT & _CORE_MASK
        # Only of the test event is known what one core does.
        return int(self._clocks) if event == Event.TEST_EVENT1 and core < self._part.xe_cores else 0
