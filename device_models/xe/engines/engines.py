"""The engines of one GT and the contexts that are registered with them: what GuC submission asks for.

engines = Engines(gt, listener)
context = Context(function, guc_id, engine_class, logical_mask, [lrc descriptor])
engines.register(context)
engines.enable(context)         # runs what is between RING_HEAD and RING_TAIL
engines.kick(context)           # RING_TAIL has moved on
engines.disable(context, done)  # preempt, save, then done()
engines.remove(context)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vfio_user_xe.device_models.xe.engines import commands, disassembler, register_access, work_queue
from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer, Handler
from vfio_user_xe.device_models.xe.engines.command_tables import Tables
from vfio_user_xe.device_models.xe.engines.context import (
    DISABLED,
    ENABLED,
    FAILED,
    NEW,
    REMOVED,
    Context,
)
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.engines.scheduler import Scheduler
from vfio_user_xe.device_models.xe.engines.types import EngineListener
from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.emulator.model.registers import Register

log = logging.getLogger(__name__)


class Engines:
    """The engines of one GT and what runs on them.

    Everything is called, and calls back, on the card's executor. Contexts run in the order and for the time that their
    policies and their functions' say (`turns.py`). A call that the state of a context does not allow is a `StateError`.
    """

    def __init__(self, gt: Gt, listener: EngineListener, pipelines: Mapping[str, Handler] | None = None) -> None:
        """Makes the engines of `gt.infos`; the PF must be there already.

        `pipelines` executes commands of the 3D and compute pipelines, by name.
        """
        tables = Tables(pipelines=pipelines).with_trace(_trace)
        gpu = gt.gpu
        self._gt = gt
        clock = gpu.card.clock
        self.engines = [Engine(info, listener, gpu.pf.registers, gpu.vram, tables, clock) for info in gt.infos]
        siblings = {engine.info.base + offset: read for engine in self.engines for offset, read in engine.live.items()}
        for engine in self.engines:
            engine.siblings = siblings
            gpu.card.tracer.join(engine.tap)
            gpu.card.tracer.join(engine.streamer.tap)
            gpu.card.tracer.join(engine.kernels.tap)
        self.scheduler = Scheduler(self.engines, gpu.executor, listener, clock)
        self.contexts: set[Context] = set()

    # Contexts.

    def register(self, context: Context) -> None:
        """Take `context`; it runs from RING_HEAD of its image once it is enabled.

        Raises:
            ValueError: there is no engine of its class.
            StateError: it is registered already.
        """
        if not self.scheduler.slots.has_class(context.engine_class):
            raise ValueError(f"{context.name}: there is no engine of class {context.engine_class}")
        context.states.require(NEW, REMOVED)
        context.states.to(DISABLED)
        context.members = [Lrc(context.function, descriptor, context.engine_class) for descriptor in context.lrcs]
        context.waiting = None
        self.contexts.add(context)

    def adopt(self, context: Context) -> None:
        """Take `context` that was saved elsewhere: enabled, it goes on where its image says, even in the middle of a batch.

        For a VF that was migrated here with its memory.

        Raises:
            ValueError: there is no engine of its class.
            StateError: it is registered already.
        """
        self.register(context)
        for lrc in context.members:
            lrc.adopted = True
        for lrc, arrived in zip(context.members, context.arrived, strict=False):
            lrc.arrived = arrived
        if context.saved_as is FAILED:
            context.states.to(FAILED)

    def remove(self, context: Context) -> None:
        """Forget `context`; off the engine at once if it is on one.

        Raises:
            StateError: it is not registered.
        """
        context.states.require(DISABLED, ENABLED, FAILED)
        context.states.to(REMOVED)
        self._forget(context)
        context.finish_disabling()

    def enable(self, context: Context) -> None:
        """Let it run (MODE_SET 1): from where it was when it was disabled, even in the middle of a batch.

        One that has failed does not run again. Raises:
            StateError: it is not registered.
        """
        context.states.require(DISABLED, ENABLED, FAILED)
        if context.state is DISABLED:
            context.states.to(ENABLED)
        self.kick(context)

    def kick(self, context: Context) -> None:
        """RING_TAIL in its image (or its work queue) has changed (SCHED_CONTEXT)."""
        if context.state is not ENABLED:
            return
        try:
            if context.work_queue is not None:
                wrong = work_queue.consume(context)
                if wrong is not None:
                    log.warning("%s: %s", context.name, wrong)
            if context.resident or context.queued or context.waiting is not None:
                return
            ready = any(lrc.has_work() for lrc in context.members)
        except (TranslationFault, AccessFault) as fault:
            self.scheduler.fail(context, fault)
            return
        if ready:
            self.scheduler.queue(context)

    def disable(self, context: Context, done: Callable[[], None]) -> None:
        """Preempt it and save its image (MODE_SET 0), then `done()`. At the latest after `preempt_us`, by a reset.

        Raises:
            StateError: it is not registered.
        """
        context.states.require(DISABLED, ENABLED, FAILED)
        if context.state is ENABLED:
            context.states.to(DISABLED)
        self.scheduler.turns.remove(context)
        context.when_disabled(done)
        self.scheduler.slots.wake_holding(context)

    def resume(self, context: Context, success: bool = True) -> None:
        """Answer to `EngineListener.page_fault`: repeat the access, or (not `success`) make it a `memory_fault`."""
        fault, context.waiting = context.waiting, None
        if fault is None:
            return
        if not success:
            self.scheduler.fail(context, fault)
        elif context.state is ENABLED and not context.resident and not context.queued:
            self.scheduler.queue(context, first=True)

    def policy_changed(self, context: Context) -> None:
        """`quantum_us`, `preempt_us` or `priority` of a registered context has changed."""
        if context.queued:
            self.scheduler.turns.remove(context)
            self.scheduler.queue(context)
        self.scheduler.slots.wake_holding(context)

    # Functions.

    def function_policy(
        self, vfid: int, *, quantum_us: int | Sequence[int], preempt_us: int | Sequence[int], priority: int = 0
    ) -> None:
        """How a function shares the engines with others (KLVs EXEC_QUANTUM, PREEMPT_TIMEOUT, SCHED_PRIORITY).

        Numbers are for all engines, or one for each scheduling group.
        """
        policy = self.scheduler.turns.policy(vfid)
        policy.quantum_us, policy.preempt_us, policy.priority = quantum_us, preempt_us, priority

    def scheduling_groups(self, groups: Mapping[str, int] | None) -> None:
        """The scheduling group of each engine by name; one that is not there runs nothing. None: there are no groups."""
        for engine in self.engines:
            engine.group = 0 if groups is None else groups.get(engine.info.name)
        self.scheduler.slots.wake_all()

    def pause_function(self, vfid: int, done: Callable[[], None]) -> None:
        """Preempt every context of a function, then call `done()`."""
        self.scheduler.pause(vfid, done)

    def resume_function(self, vfid: int) -> None:
        """Let a paused function run again."""
        self.scheduler.unpause(vfid)

    def reset_function(self, vfid: int) -> None:
        """Drop every context of a function at once, saving nothing (FLR)."""
        for context in [context for context in self.contexts if context.function.vfid == vfid]:
            self._lose(context)
        self.scheduler.check_paused(vfid)

    def reset(self) -> None:
        """GRDOM_FULL: drop every context at once, saving nothing; engine registers to their reset values."""
        for context in list(self.contexts):
            self._lose(context)
        self.scheduler.reset()
        for engine in self.engines:
            engine.reset()

    def _lose(self, context: Context) -> None:
        """Who waits for it to be disabled was reset too."""
        context.states.to(REMOVED)
        context.forget_disabling()
        self._forget(context)

    def _forget(self, context: Context) -> None:
        self.contexts.discard(context)
        self.scheduler.drop(context)

    def invalidate(self, function: XeFunction, asid: int | None = None) -> None:
        """TLB invalidation by a function: one address space, or all of the function's."""
        self._gt.gpu.spaces.invalidate(function.vfid, asid)

    # To look at.

    def has_work(self) -> bool:
        """Whether a context is on an engine or wants one."""
        return any(context.queued or context.resident for context in self.contexts)

    def registers(self) -> list[Register]:
        """The engines' registers for the PF's register file, at absolute offsets."""
        return [register for engine in self.engines for register in engine.declared_registers()]

    def activity(self) -> dict[tuple[str, int], int]:
        """Nanoseconds that each (engine name, vfid) was running a context until now."""
        return {(e.name, vfid): time for e in self.engines for vfid, time in e.busy().items()}

    def inspect(self) -> list[dict[str, Any]]:
        """The state of each engine, as plain data."""
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
            **_registers(streamer, command),
        }

    streamer.tap(lrc.function.pci.name, commands.name_of(command[0]), fields)


def _registers(streamer: CommandStreamer, words: list[int]) -> dict[str, str]:
    """The registers that a command reaches, by name."""
    registers, header = streamer.engine.registers, words[0]

    def name(dword: int, relative: int, remapped: int) -> str:
        return registers.name_of(register_access.address(streamer, dword, header & relative, header & remapped))

    which = commands.name_of(header)
    if which == "MI_LOAD_REGISTER_IMM":
        pairs = zip(words[1::2], words[2::2], strict=False)
        return {"registers": " ".join(f"{name(dword, 1 << 19, 1 << 17)}={value:#x}" for dword, value in pairs)}
    if which in ("MI_LOAD_REGISTER_MEM", "MI_STORE_REGISTER_MEM"):
        return {"register": name(words[1], 1 << 19, 1 << 17)}
    if which == "MI_LOAD_REGISTER_REG":
        return {"source": name(words[1], 1 << 18, 1 << 16), "destination": name(words[2], 1 << 19, 1 << 17)}
    return {}
