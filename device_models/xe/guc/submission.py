"""Submission: contexts, their policies, running and stopping them, and what the engines report (`xe_guc_submit.c`).

Contexts are the engines' (`engines/context.py:Context`); this module gives them names (guc_ids, counted by each
function from 0), checks what hosts ask, and turns what happens on the engines into events.
"""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.engines.context import ENABLED, Context
from vfio_user_xe.device_models.xe.engines.types import EngineView
from vfio_user_xe.device_models.xe.guc import actions, klv
from vfio_user_xe.device_models.xe.guc.capture import Capture
from vfio_user_xe.device_models.xe.guc.errors import (
    CONTEXT_ALREADY_REGISTERED,
    CONTEXT_NOT_REGISTERED,
    INVALID_CONTEXT_INDEX,
    INVALID_ENGINE_ID,
    INVALID_PARAMS,
    GucError,
)
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.device_models.xe.guc.sriov import Sriov
from vfio_user_xe.device_models.xe.memory.address_space import Fault, TranslationFault
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.device_models.xe.profiles.profile import GUC_CLASS_TO_CLASS
from vfio_user_xe.device_models.xe.soc.memirq import USER_BIT

_KMD = 1 << 0
_ENABLE, _DISABLE = 1, 0
CAT_ERROR_TYPE_UNKNOWN = 0xDEADBEEF
"""The type of a CAT error for hosts that opted in to types. The hardware's own numbers are not published."""

_POLICIES = frozenset(
    {
        klv.EXECUTION_QUANTUM,
        klv.PREEMPTION_TIMEOUT,
        klv.SCHEDULING_PRIORITY,
        klv.PREEMPT_TO_IDLE,
        klv.SLPM_GT_FREQUENCY,
    }
)
_SCHEDULING = frozenset({klv.RENDER_COMPUTE_YIELD})


class Submission:
    """Contexts of all functions on one GT; the engines' listener."""

    def __init__(self, guc: Guc, sriov: Sriov, capture: Capture) -> None:
        self._guc = guc
        self._sriov = sriov
        self._capture = capture
        self._contexts: dict[tuple[int, int], Context] = {}
        self._faulted: dict[int, Context] = {}
        """Contexts that wait for the answer to a page fault, by the token in the fault's PDATA."""
        self._token = 0
        self.on_work: list[Callable[[], None]] = []
        """Called when a context may have got work."""
        for action, handler in (
            (actions.REGISTER_CONTEXT, self._register),
            (actions.REGISTER_CONTEXT_MULTI_LRC, self._register_parallel),
            (actions.DEREGISTER_CONTEXT, self._deregister),
            (actions.SCHED_CONTEXT, self._sched),
            (actions.SCHED_CONTEXT_MODE_SET, self._mode_set),
            (actions.UPDATE_CONTEXT_POLICIES, self._update_policies),
            (actions.UPDATE_SCHEDULING_POLICIES, self._update_scheduling),
            (actions.GLOBAL_SCHED_POLICY_CHANGE, lambda host, message: 0),
            (actions.PAGE_FAULT_RES_DESC, self._page_fault_response),
        ):
            guc.handle(action, handler)
        guc.on_host_reset.append(self._host_reset)

    def contexts(self, vfid: int) -> list[Context]:
        """The contexts of a function."""
        return [context for (owner, _), context in self._contexts.items() if owner == vfid]

    def adopt(self, context: Context) -> None:
        """Take a context that was saved elsewhere, in the state in which it was there."""
        self._contexts[context.function.vfid, context.guc_id] = context
        self._guc.engines.adopt(context)
        if context.saved_as is ENABLED:
            self._guc.engines.enable(context)
            self._announce_work()

    # What hosts ask.

    def _register(self, host: Host, message: Message) -> int:
        lrcs = [message.address(9)]
        self._add(host, message, lrcs, None)
        return 0

    def _register_parallel(self, host: Host, message: Message) -> int:
        payload = message.payload
        count = payload[9]
        if not 1 <= count <= (len(payload) - 10) // 2:
            raise GucError(INVALID_PARAMS, f"{count} LRCs in {len(payload)} dwords")
        lrcs = [message.address(10 + 2 * n) for n in range(count)]
        self._add(host, message, lrcs, (message.address(4), message.address(6), payload[8]))
        self._sriov.adverse_event(host.vfid, klv.THRESHOLD_MULTI_LRC_COUNT)
        # "Incompatible with scheduler groups and cause the latter to be turned off" (abi/guc_klvs_abi.h).
        self._sriov.set_groups(())
        return 0

    def _add(self, host: Host, message: Message, lrcs: list[int], work_queue: tuple[int, int, int] | None) -> None:
        flags, guc_id, guc_class, mask = message.payload[:4]
        if guc_id >= self._sriov.contexts_of(host.vfid):
            raise GucError(INVALID_CONTEXT_INDEX, f"{guc_id} of {self._sriov.contexts_of(host.vfid)}")
        if (host.vfid, guc_id) in self._contexts:
            raise GucError(CONTEXT_ALREADY_REGISTERED, str(guc_id))
        engine_class = GUC_CLASS_TO_CLASS.get(guc_class, -1)
        present = sum(1 << info.logical for info in self._guc.gt.infos if info.engine_class == engine_class)
        if not mask or mask & ~present:
            raise GucError(INVALID_ENGINE_ID, f"class {guc_class}, instances {mask:#x} of {present:#x}")
        context = Context(
            host.function,
            guc_id,
            engine_class,
            mask,
            lrcs,
            work_queue=work_queue,
            kernel=bool(flags & _KMD),
        )
        self._contexts[host.vfid, guc_id] = context
        self._guc.engines.register(context)

    def _deregister(self, host: Host, message: Message) -> int:
        guc_id = message.payload[0]
        context = self._context(host, guc_id)
        del self._contexts[host.vfid, guc_id]
        self._forget_fault(context)
        self._guc.engines.remove(context)
        host.event(actions.DEREGISTER_CONTEXT_DONE, guc_id)
        return 0

    def _sched(self, host: Host, message: Message) -> int:
        self._guc.engines.kick(self._context(host, message.payload[0]))
        self._announce_work()
        return 0

    def _mode_set(self, host: Host, message: Message) -> int:
        guc_id, mode = message.payload[:2]
        context = self._context(host, guc_id)
        if mode == _ENABLE:
            # The host counts on MODE_DONE before anything that the context does.
            host.event(actions.SCHED_CONTEXT_MODE_DONE, guc_id, _ENABLE)
            # Long-running VMs are bound anew while their contexts are disabled, and nothing else is invalidated then:
            # "this is done automatically when the context is re-enabled" (xe_pt.c:bind_op_prepare).
            self._guc.engines.invalidate(host.function)
            self._guc.engines.enable(context)
            self._announce_work()
        elif mode == _DISABLE:

            def done() -> None:
                host.event(actions.SCHED_CONTEXT_MODE_DONE, guc_id, _DISABLE)

            self._guc.engines.disable(context, done)
        else:
            raise GucError(INVALID_PARAMS, f"mode {mode}")
        return 0

    def _update_policies(self, host: Host, message: Message) -> int:
        context = self._context(host, message.payload[0])
        for key, value in klv.parse(message.payload[1:], _POLICIES):
            if key == klv.EXECUTION_QUANTUM:
                context.quantum_us = value[0]
            elif key == klv.PREEMPTION_TIMEOUT:
                context.preempt_us = value[0]
            elif key == klv.SCHEDULING_PRIORITY:
                context.priority = value[0]
        self._guc.engines.policy_changed(context)
        return 0

    def _update_scheduling(self, host: Host, message: Message) -> int:
        # How render and compute share the GT when both want it: here neither ever keeps the other from running.
        return len(klv.parse(message.payload, _SCHEDULING))

    def _page_fault_response(self, host: Host, message: Message) -> int:
        failed = bool(message.payload[0] & 2)  # PFR_SUCCESS carries "failed" (xe_guc_pagefault.c:guc_ack_fault)
        context = self._faulted.get(message.payload[1] >> 16)
        if context is not None and context.function is host.function:
            del self._faulted[message.payload[1] >> 16]
            self._guc.engines.resume(context, not failed)
        return 0

    def _announce_work(self) -> None:
        for callback in self.on_work:
            callback()

    def _context(self, host: Host, guc_id: int) -> Context:
        context = self._contexts.get((host.vfid, guc_id))
        if context is None:
            raise GucError(CONTEXT_NOT_REGISTERED, str(guc_id))
        return context

    def _host_reset(self, host: Host) -> None:
        for key in [key for key in self._contexts if key[0] == host.vfid]:
            self._forget_fault(self._contexts.pop(key))
        self._guc.engines.reset_function(host.vfid)

    def _forget_fault(self, context: Context) -> None:
        for token in [token for token, waiting in self._faulted.items() if waiting is context]:
            del self._faulted[token]

    # What engines report.

    def user_interrupt(self, function: XeFunction, engine: EngineView) -> None:
        """`EngineListener.user_interrupt`."""
        if function.vfid and not engine.interrupt_mask >> USER_BIT & 1:
            # The enable mask of the interrupt page, which the context has loaded (xe_memirq.c:memirq_set_enable).
            return
        now = self._guc.gt.gpu.card.clock.seconds
        start = now()
        info = next(i for i in self._guc.gt.infos if i.base == engine.info.base)
        self._guc.interrupts.raise_engine(
            function, info, engine.interrupt_status_pointer, engine.interrupt_source_pointer
        )
        if function.vfid:
            self._sriov.adverse_time(function.vfid, klv.THRESHOLD_IRQ_STORM, now() - start)

    def page_fault(self, context: Context, engine: EngineView, fault: TranslationFault) -> bool:
        """Ask the host to bind what is missing; every VM may be in fault mode, only the host knows.

        `EngineListener.page_fault`. False when there is nobody to ask, or nothing to ask for: then it is fatal.
        """
        host = self._guc.hosts[context.function.vfid]
        asid = fault.asid
        if not host.ctb.enabled or asid is None:
            return False
        self._token = token = (self._token + 1) & 0xFFFF
        self._faulted[token] = context
        info = engine.info
        host.event(
            actions.PAGE_FAULT_REQ_DESC,
            fault.level & 7 | info.instance << 19 | info.engine_class << 25 | (token & 0xF) << 28,
            token >> 4 | asid << 12,
            int(fault.write) | context.function.vfid << 4 | fault.address & 0xFFFFF000,
            fault.address >> 32,
        )
        self._sriov.adverse_event(context.function.vfid, klv.THRESHOLD_PAGE_FAULT)
        return True

    def memory_fault(self, context: Context, engine: EngineView, fault: Fault) -> None:
        """A CAT error: the context is lost (`EngineListener.memory_fault`)."""
        host = self._guc.hosts[context.function.vfid]
        self._forget_fault(context)
        self._capture.context(context, engine)
        payload = [context.guc_id]
        if klv.EXT_CAT_ERR_TYPE in host.opt_ins:
            payload.append(CAT_ERROR_TYPE_UNKNOWN)
        host.event(actions.MEMORY_CAT_ERROR, *payload)
        host.event(actions.CONTEXT_RESET_NOTIFICATION, context.guc_id)
        self._sriov.adverse_event(context.function.vfid, klv.THRESHOLD_CAT_ERR)

    def context_reset(self, context: Context, engine: EngineView, reason: str) -> None:
        """The context would not be preempted (`EngineListener.context_reset`)."""
        self._capture.context(context, engine)
        self._guc.hosts[context.function.vfid].event(actions.CONTEXT_RESET_NOTIFICATION, context.guc_id)
        self._sriov.adverse_event(context.function.vfid, klv.THRESHOLD_ENGINE_RESET)
