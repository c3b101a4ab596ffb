"""The engines of one GT, as GuC submission sees them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vfio_user_xe.device_models.xe.engines import commands, disassembler
from vfio_user_xe.device_models.xe.engines.context import Context, EngineListener
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.scheduler import Scheduler
from vfio_user_xe.emulator.model.registers import Register

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer, Handler
    from vfio_user_xe.device_models.xe.function import Gt, XeFunction

log = logging.getLogger(__name__)


class Engines:
    """The engines of one GT and what runs on them.

    Everything is called, and calls back, on the card's executor. Contexts run in the order and for the time that their
    policies and their functions' say (`scheduler.py`).
    """

    def __init__(self, gt: Gt, listener: EngineListener, pipelines: Mapping[str, Handler] | None = None) -> None:
        """Makes the engines of `gt.infos`; the PF must be there already.

        `pipelines` executes commands of the 3D and compute pipelines, by name.
        """
        tables = commands.Tables(pipelines=pipelines).with_trace(_trace)
        gpu = gt.gpu
        self._gt = gt
        clock = gpu.card.clock
        self.engines = [Engine(info, listener, gpu.pf.registers, gpu.vram, tables, clock) for info in gt.infos]
        siblings = {engine.info.base + offset: read for engine in self.engines for offset, read in engine.live.items()}
        for engine in self.engines:
            engine.siblings = siblings
            gpu.card.tracer.join(engine.tap)
            gpu.card.tracer.join(engine.streamer.tap)
        self.scheduler = Scheduler(self.engines, gpu.executor, listener, clock)

    # Contexts.

    def register(self, context: Context) -> None:
        """Take `context`; it runs from RING_HEAD of its image once it is enabled.

        Raises ValueError when there is no engine of its class.
        """
        self.scheduler.register(context)

    def adopt(self, context: Context) -> None:
        """Take `context` that was saved elsewhere: it goes on where its image says, even in the middle of a batch.

        For a VF that was migrated here with its memory.
        """
        self.scheduler.register(context)
        for lrc in context.members:
            lrc.adopted = True

    def remove(self, context: Context) -> None:
        """Forget `context`; off the engine at once if it is on one."""
        self.scheduler.remove(context)

    def enable(self, context: Context) -> None:
        """Let it run (MODE_SET 1): from where it was when it was disabled, even in the middle of a batch."""
        self.scheduler.enable(context)

    def kick(self, context: Context) -> None:
        """RING_TAIL in its image (or its work queue) has changed (SCHED_CONTEXT)."""
        self.scheduler.kick(context)

    def disable(self, context: Context, done: Callable[[], None]) -> None:
        """Preempt it and save its image (MODE_SET 0), then `done()`. At the latest after `preempt_us`, by a reset."""
        self.scheduler.disable(context, done)

    def resume(self, context: Context, success: bool = True) -> None:
        """Answer to `EngineListener.page_fault`: repeat the access, or (not `success`) make it a `memory_fault`."""
        self.scheduler.resume(context, success)

    def policy_changed(self, context: Context) -> None:
        """`quantum_us`, `preempt_us` or `priority` of a registered context has changed."""
        self.scheduler.requeue(context)

    # Functions.

    def function_policy(
        self, vfid: int, *, quantum_us: int | Sequence[int], preempt_us: int | Sequence[int], priority: int = 0
    ) -> None:
        """How a function shares the engines with others (KLVs EXEC_QUANTUM, PREEMPT_TIMEOUT, SCHED_PRIORITY).

        Numbers are for all engines, or one for each scheduling group.
        """
        policy = self.scheduler.policy(vfid)
        policy.quantum_us, policy.preempt_us, policy.priority = quantum_us, preempt_us, priority

    def scheduling_groups(self, groups: Mapping[str, int] | None) -> None:
        """The scheduling group of each engine by name; one that is not there runs nothing. None: there are no groups."""
        for engine in self.engines:
            engine.group = 0 if groups is None else groups.get(engine.info.name)
        self.scheduler.groups_changed()

    def pause_function(self, vfid: int, done: Callable[[], None]) -> None:
        """Take every context of a function off the engines; then `done()`."""
        self.scheduler.pause(vfid, done)

    def resume_function(self, vfid: int) -> None:
        """Let a paused function run again."""
        self.scheduler.unpause(vfid)

    def reset_function(self, vfid: int) -> None:
        """Drop every context of a function at once, saving nothing (FLR)."""
        self.scheduler.reset_function(vfid)

    def reset(self) -> None:
        """GRDOM_FULL: drop every context at once, saving nothing; engine registers to their reset values."""
        self.scheduler.reset()
        for engine in self.engines:
            engine.reset()

    def invalidate(self, function: XeFunction, asid: int | None = None) -> None:
        """TLB invalidation by a function: one address space, or all of the function's."""
        self._gt.gpu.spaces.invalidate(function.vfid, asid)

    # To look at.

    def has_work(self) -> bool:
        """Whether a context is on an engine or wants one."""
        return self.scheduler.has_work()

    def registers(self) -> list[Register]:
        """Live engine registers for the PF's register file, at absolute offsets."""
        return [register for engine in self.engines for register in engine.declared_registers()]

    def activity(self) -> dict[tuple[str, int], int]:
        """Nanoseconds that each (engine name, vfid) was running a context until now."""
        return {(e.name, vfid): time for e in self.engines for vfid, time in e.busy().items()}

    def inspect(self) -> list[dict[str, Any]]:
        """What each engine does, as plain data."""
        return [engine.inspect() for engine in self.engines]


def _trace(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> None:
    """Tell a command that is about to be executed."""
    if not streamer.tap.on:
        return
    # The dwords now: they may be different when the line is written.
    command = words[index : index + length].tolist()
    lrc, engine, context = streamer.lrc, streamer.engine.name, streamer.engine.context
    place = streamer.place(index)
    source = "batch" if lrc.stack else "ring"

    def fields() -> Mapping[str, Any]:
        return {
            "engine": engine,
            "context": context.guc_id if context else -1,
            source: place,
            **disassembler.fields(command),
        }

    streamer.tap(lrc.function.pci.name, commands.name_of(command[0]), fields)
