"""VF migration: what the GuC keeps of a VF, saved and restored by the PF, and the VF's fix-up (`xe_sriov_vf.c`).

The PF pauses a VF and asks for its state (SAVE_RESTORE_VF; opaque to drivers), and gives it to the GuC of the card
where the VF goes on, which may have put the VF's GGTT elsewhere. When that VF is resumed it hears of it (SW_INT_0),
says that it begins to mend its addresses (RESFIX_START) and that it is done (RESFIX_DONE); until then only its mailbox
is served, and any request but queries is refused with VF_MIGRATED.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from construct import ConstructError

from vfio_user_xe.device_models.xe.engines.context import DISABLED, ENABLED, FAILED, NEW, Context
from vfio_user_xe.device_models.xe.guc import actions, klv
from vfio_user_xe.device_models.xe.guc.errors import (
    INVALID_BUFFER,
    INVALID_PARAMS,
    INVALID_SIZE,
    INVALID_STATE,
    INVALID_VFID,
    VF_MIGRATED,
    GucError,
)
from vfio_user_xe.device_models.xe.guc.formats.migration import STATE
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import PAUSED, RESFIX, RUNNING, Host
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.device_models.xe.guc.sriov import Sriov
from vfio_user_xe.device_models.xe.guc.submission import Submission
from vfio_user_xe.device_models.xe.soc.memirq import SW_INT_0_BIT

log = logging.getLogger(__name__)

SAVE, RESTORE = 0, 1
MAX_STATE = 8 << 20
"""Bytes (`xe_gt_sriov_pf_migration.c:XE_GT_SRIOV_PF_MIGRATION_GUC_DATA_MAX_SIZE`)."""

MOST_IN_FLIGHT = 6 << 20
"""Of these, for threads that were in flight."""


@dataclass(slots=True)
class _Restored:
    """A VF whose state was restored and that was not fixed up yet."""

    contexts: list[Context]
    marker: int = 0
    """Of the last RESFIX_START; 0: none came."""


class Migration:
    """SAVE_RESTORE_VF, RESFIX_START and RESFIX_DONE for one GT."""

    def __init__(self, guc: Guc, sriov: Sriov, submission: Submission) -> None:
        self._guc = guc
        self._sriov = sriov
        self._submission = submission
        self._restored: dict[int, _Restored] = {}
        guc.handle(actions.SAVE_RESTORE_VF, self._save_restore)
        guc.handle(actions.RESFIX_START, self._start_fixup)
        guc.handle(actions.RESFIX_DONE, self._finish_fixup)
        guc.on_host_reset.append(self._forget)
        sriov.on_resume = self._resumed

    def admit(self, host: Host, action: int) -> None:
        """Refuse what a VF that was migrated and has not begun to mend its addresses may not ask."""
        restored = self._restored.get(host.vfid)
        if restored is None or host.state != RESFIX or restored.marker:
            return
        if action not in (actions.RESFIX_START, actions.QUERY_SINGLE_KLV, actions.VF_RESET, actions.RESFIX_DONE):
            raise GucError(VF_MIGRATED, host.name)

    # The PF's side.

    def _save_restore(self, host: Host, message: Message) -> int:
        vfid, address, size = message.payload[0], message.address(1), message.payload[3] & 0xFFFFFFF
        if not 0 < vfid < len(self._guc.hosts):
            raise GucError(INVALID_VFID, str(vfid))
        target = self._guc.hosts[vfid]
        if message.data0 not in (SAVE, RESTORE):
            raise GucError(INVALID_PARAMS, f"operation {message.data0}")
        if message.data0 == SAVE and not address and not size:
            return len(self._saved(target)) // 4
        target.needs(PAUSED)
        if not 0 < size <= MAX_STATE // 4:
            raise GucError(INVALID_SIZE, f"{size} dwords")
        if message.data0 == RESTORE:
            self._restore(target, memoryview(host.space.read(address, 4 * size)))
            return size
        data = self._saved(target)
        if len(data) > 4 * size:
            raise GucError(INVALID_SIZE, f"{size} dwords, {len(data) // 4} are needed")
        host.space.write(address, data)
        return len(data) // 4

    def _saved(self, target: Host) -> bytes:
        config, ctb = self._sriov.config(target.vfid), target.ctb
        status, source = self._guc.interrupts.memirq(target.function).addresses(self._guc.gt.index)
        data: bytes = STATE.build(
            {
                "gt": self._guc.gt.index,
                "ggtt_start": config.get(klv.GGTT_START),
                "ggtt_size": config.get(klv.GGTT_SIZE),
                **{
                    name: {"address": ring.address, "descriptor": ring.descriptor, "dwords": ring.size}
                    for name, ring in (("h2g", ctb.h2g), ("g2h", ctb.g2h))
                },
                "ctb_enabled": ctb.enabled or target.ctb_awaits_fixup,
                "memirq_status": status,
                "memirq_source": source,
                "opt_ins": sorted(target.opt_ins),
                "contexts": _saved_contexts(self._contexts(target)),
                "end": b"",
            }
        )
        return data + bytes(-len(data) % 4)

    def _contexts(self, target: Host) -> list[Context]:
        """What the VF has registered; saved again before it was fixed up, what was restored."""
        restored = self._restored.get(target.vfid)
        return restored.contexts if restored is not None else self._submission.contexts(target.vfid)

    def _restore(self, target: Host, data: memoryview) -> None:
        try:
            state = STATE.parse(data)
        except (ConstructError, OverflowError, MemoryError) as error:
            raise GucError(INVALID_BUFFER, f"no state of a VF: {error}") from error
        config = self._sriov.config(target.vfid)
        if state.gt != self._guc.gt.index:
            raise GucError(INVALID_BUFFER, f"state of GT {state.gt}")
        if state.ggtt_size != config.get(klv.GGTT_SIZE):
            raise GucError(INVALID_BUFFER, f"a GGTT of {state.ggtt_size:#x}, not {config.get(klv.GGTT_SIZE):#x} bytes")
        # The entries themselves are loaded by the PF's driver, where this VF has them (xe_ggtt_node_load).
        shift = config.get(klv.GGTT_START) - state.ggtt_start
        contexts = [self._restored_context(target, saved, shift) for saved in state.contexts]
        if len({context.guc_id for context in contexts}) != len(contexts):
            raise GucError(INVALID_BUFFER, "a guc_id is there twice")
        self._guc.reset_host(target)
        for ring, saved in ((target.ctb.h2g, state.h2g), (target.ctb.g2h, state.g2h)):
            ring.address, ring.descriptor = _shifted(saved.address, shift), _shifted(saved.descriptor, shift)
            ring.size = saved.dwords
        memirq = self._guc.interrupts.memirq(target.function)
        memirq.set_guc_status(self._guc.gt.index, _shifted(state.memirq_status, shift))
        memirq.set_guc_source(self._guc.gt.index, _shifted(state.memirq_source, shift))
        target.opt_ins.update(state.opt_ins)
        target.ctb_awaits_fixup = bool(state.ctb_enabled)
        self._restored[target.vfid] = _Restored(contexts)

    def _restored_context(self, target: Host, saved: Any, shift: int) -> Context:
        if saved.guc_id >= self._sriov.contexts_of(target.vfid):
            raise GucError(INVALID_BUFFER, f"guc_id {saved.guc_id} of {self._sriov.contexts_of(target.vfid)}")
        engines = [info for info in self._guc.gt.infos if info.engine_class == saved.engine_class]
        present = sum(1 << info.logical for info in engines)
        if not saved.lrcs or not saved.logical_mask or saved.logical_mask & ~present:
            raise GucError(INVALID_BUFFER, f"guc_id {saved.guc_id} is for engines that are not here")
        queue = saved.work_queue
        return Context(
            target.function,
            saved.guc_id,
            saved.engine_class,
            saved.logical_mask,
            [_shifted(lrc, shift) for lrc in saved.lrcs],
            work_queue=(_shifted(queue.descriptor, shift), _shifted(queue.address, shift), queue.size)
            if queue is not None
            else None,
            quantum_us=saved.quantum_us,
            preempt_us=saved.preempt_us,
            priority=saved.priority,
            kernel=bool(saved.kernel),
            arrived=list(saved.in_flight),
            saved_as=FAILED if saved.failed else ENABLED if saved.enabled else DISABLED,
        )

    def _resumed(self, target: Host) -> bool:
        """The PF resumes a VF; whether it must be fixed up before it runs."""
        restored = self._restored.get(target.vfid)
        if restored is None:
            return False
        restored.marker = 0
        target.becomes(RESFIX)
        self._guc.interrupts.memirq(target.function).raise_guc(self._guc.gt.index, SW_INT_0_BIT)
        return True

    # The VF's side.

    def _start_fixup(self, host: Host, message: Message) -> int:
        restored = self._fixing(host)
        if not message.data0:
            raise GucError(INVALID_PARAMS, "a marker of 0")
        restored.marker = message.data0
        return 0

    def _finish_fixup(self, host: Host, message: Message) -> int:
        restored = self._fixing(host)
        if not restored.marker or message.data0 != restored.marker:
            # It was saved and restored once more since it began: what it mended is wrong by now.
            raise GucError(VF_MIGRATED, f"marker {message.data0}, not {restored.marker}")
        del self._restored[host.vfid]
        if host.ctb_awaits_fixup:
            # The host has emptied both rings without telling (xe_guc_ct.c:xe_guc_ct_restart).
            host.ctb_awaits_fixup = False
            host.ctb.enable()
        host.becomes(RUNNING)
        for context in restored.contexts:
            self._submission.adopt(context)
        self._guc.engines.resume_function(host.vfid)
        return 0

    def _fixing(self, host: Host) -> _Restored:
        restored = self._restored.get(host.vfid)
        if restored is None or host.state != RESFIX:
            raise GucError(INVALID_STATE, f"{host.name} was not migrated")
        return restored

    def _forget(self, host: Host) -> None:
        if self._restored.pop(host.vfid, None) is not None and host.state == RESFIX:
            host.becomes(RUNNING)
            self._guc.engines.resume_function(host.vfid)
        host.ctb_awaits_fixup = False


def _shifted(address: int, shift: int) -> int:
    """Where a GGTT address of the VF is now; 0 is "none". Low bits of LRC descriptors are flags, and stay."""
    return (address + shift) & (1 << 64) - 1 if address else 0


def _saved_contexts(contexts: list[Context]) -> list[dict[str, Any]]:
    """Contexts as `STATE` has them. Threads in flight come with them as far as there is room; others begin their groups anew."""
    left = MOST_IN_FLIGHT
    found = []
    for context in contexts:
        in_flight = context.in_flight()
        size = sum(len(part) for part in in_flight)
        if size > left:
            log.warning(
                "%s: %d bytes of threads in flight are too many to be saved, and begin anew", context.name, size
            )
            in_flight, size = [], 0
        left -= size
        found.append(_saved_context(context) | {"in_flight": in_flight})
    return found


def _saved_context(context: Context) -> dict[str, Any]:
    queue = context.work_queue
    state = context.saved_as if context.state is NEW else context.state
    return {
        "guc_id": context.guc_id,
        "engine_class": context.engine_class,
        "logical_mask": context.logical_mask,
        "quantum_us": context.quantum_us,
        "preempt_us": context.preempt_us,
        "priority": context.priority,
        "kernel": context.kernel,
        "enabled": state is ENABLED,
        "failed": state is FAILED,
        "parallel": queue is not None,
        "work_queue": dict(zip(("descriptor", "address", "size"), queue, strict=True)) if queue is not None else None,
        "lrcs": list(context.lrcs),
    }
