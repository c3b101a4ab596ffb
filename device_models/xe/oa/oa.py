"""The OA units of one GT, and the counters that go with a context: what MI_REPORT_PERF_COUNT stores.

A context has counters of its own while the driver has enabled them in its image (OAR and OAC: `xe_oa.c:xe_oa_configure_oar_context`);
they count what its engine does for it. Reports of other contexts have counters of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.engine_regs import OA_CTX_CONTROL, RING_CONTEXT_CONTROL
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.engines.types import CountedEngine
from vfio_user_xe.device_models.xe.gt.freq import Frequency
from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace
from vfio_user_xe.device_models.xe.oa import layouts
from vfio_user_xe.device_models.xe.oa.formats import COUNTERS, Format, Samples, pack
from vfio_user_xe.device_models.xe.oa.sources import Sources, Values
from vfio_user_xe.device_models.xe.oa.unit import OaUnit
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, RENDER
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import field, flag

_RESUME = 1 << 0
_OAC_CONTEXT_ENABLE = 1 << 8
OAR_OACONTROL, OAC_OACONTROL = 0x2960, 0x15114
_FIELDS = (flag(0, "COUNTER_ENABLE"), field(1, 3, "COUNTER_SEL"), flag(8, "COUNTER_SIZE"), flag(9, "REPORT_BC"))
_SHIFT = 1
"""Of COUNTER_SEL in both, one bit lower than in OAG_OACONTROL."""

_EU_COUNTERS = (0xE458, 0xE558, 0xE658, 0xE758, 0xE45C, 0xE55C, 0xE65C)
"""EU_PERF_CNTL0 to 6: flexible counters of the execution units, which count nothing here."""


class _Counts:
    """Of one context: what it has counted before, and where the engine's counters stood when it came."""

    def __init__(self, since: Values) -> None:
        self.before: Values = np.zeros(COUNTERS, dtype=np.uint64)
        self.since: Values | None = since

    def until(self, now: Values) -> Values:
        """All that it has counted; what has become less meanwhile is another event, or was cleared."""
        return self.before if self.since is None else self.before + np.where(now < self.since, now, now - self.since)


class Oa:
    """Reports of one GT. `units` are as the driver numbers them. On the executor."""

    def __init__(
        self, gt: Gt, registers: RegisterFile, engines: Sequence[Engine], frequency: Frequency, ggtt: AddressSpace
    ) -> None:
        """`ggtt` is the PF's, in which the driver's buffers are."""
        gpu = gt.gpu
        self._registers = registers
        self._clock = gpu.card.clock
        self._sources = Sources(engines, frequency, gpu.fabric.ledger, gpu.profile.part)
        chosen = layouts.MEDIA_UNITS if gt.index else (layouts.OAG,)
        self.units = [OaUnit(gt, registers, layout, self._sources, ggtt) for layout in chosen]
        self._contexts: WeakKeyDictionary[Lrc, _Counts] = WeakKeyDictionary()
        self._of_contexts = () if gt.index else (OAR_OACONTROL, OAC_OACONTROL, *_EU_COUNTERS)
        if gt.index:
            for name, base in layouts.MEDIA_BASES.items():
                registers.add_storage(f"{name}.MPES", gt.offset(base + layouts.MPES_OFFSET), layouts.MPES_BYTES)
            return
        registers.add_storage("PES", layouts.PES, layouts.PES_BYTES)
        registers.add(
            [
                gt.register("OAR_OACONTROL", OAR_OACONTROL, fields=_FIELDS),
                gt.register("OAC_OACONTROL", OAC_OACONTROL, fields=_FIELDS),
                *(gt.register(f"EU_PERF_CNTL{n}", offset) for n, offset in enumerate(_EU_COUNTERS)),
            ]
        )
        for engine in engines:
            if engine.info.engine_class in (RENDER, COMPUTE):
                engine.oa = self

    def reset(self) -> None:
        """A GT reset: no unit makes reports."""
        for unit in self.units:
            unit.reset()
        self._contexts.clear()
        for offset in self._of_contexts:
            self._registers.poke(offset, 0)

    # For engines (`engines.types.PerformanceCounters`).

    def switched_in(self, engine: CountedEngine, lrc: Lrc) -> None:
        """The context of `lrc` is on `engine`."""
        counts = self._contexts.get(lrc) if self._contexts else None
        if counts is not None and self._enabled(engine, lrc):
            counts.since = self._now(engine)
        elif counts is not None:
            del self._contexts[lrc]  # the driver does not count for it any more
        context = engine.context
        # Numbers of contexts are the function's own: reports name those of the PF, whose buffer it is.
        if self.units[0].enabled and context is not None and not context.function.vfid:
            self.units[0].context_switch(context.guc_id)

    def leaves(self, engine: CountedEngine, lrc: Lrc) -> None:
        """The context of `lrc` is about to leave `engine`."""
        counts = self._contexts.get(lrc) if self._contexts else None
        if counts is not None and counts.since is not None:
            counts.before = counts.until(self._now(engine))
            counts.since = None

    def report(self, engine: CountedEngine, lrc: Lrc, identity: int) -> bytes:
        """What MI_REPORT_PERF_COUNT stores for the context; empty: the driver has chosen no format."""
        form = self._format(engine, lrc)
        if form is None or engine.context is None:
            return b""
        now = self._clock.ns()
        values = np.zeros(COUNTERS, dtype=np.uint64)
        if self._enabled(engine, lrc):
            counts = self._contexts.get(lrc)
            if counts is None:
                counts = self._contexts[lrc] = _Counts(self._now(engine))
            values = counts.until(self._now(engine))
        else:
            self._contexts.pop(lrc, None)
        one = [np.array([word], dtype=np.uint64) for word in (engine.timestamp(), engine.context.guc_id)]
        clocks = np.array([self._sources.clocks(now)], dtype=np.uint64)
        return pack(form, identity, Samples(one[0], one[1], clocks, values[None])).tobytes()

    def _now(self, engine: CountedEngine) -> Values:
        return self._sources.of_engine(engine, self.units[0].selects(), self._clock.ns())

    def _enabled(self, engine: CountedEngine, lrc: Lrc) -> bool:
        base = engine.info.base
        control = lrc.registers.get(base + RING_CONTEXT_CONTROL.offset, 0)
        return bool(lrc.registers.get(base + OA_CTX_CONTROL.offset, 0) & _RESUME and control & _OAC_CONTEXT_ENABLE)

    def _format(self, engine: CountedEngine, lrc: Lrc) -> Format | None:
        offset = OAC_OACONTROL if engine.info.engine_class == COMPUTE else OAR_OACONTROL
        is_vf = lrc.function.vfid != 0
        # OAC's is a register of the PF, which a VF does not have; OAR's is the context's.
        control = lrc.registers.get(offset, 0 if is_vf else self._registers.peek(offset))
        chosen = layouts.OAG.chosen(control, _SHIFT)
        return chosen if chosen or is_vf else self.units[0].format()
