"""TLB invalidation (`xe_guc_tlb_inval.c`): by H2G with an answer, and by MMIO while there is no CT buffer.

What is kept of translations (windows, page-table walks) is dropped; TLB_INVALIDATION_ALL also follows every change of
LMTT (`xe_lmtt.c:lmtt_invalidate_hw`), so the VFs' memory is looked up anew.
"""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.guc import actions
from vfio_user_xe.device_models.xe.guc.errors import INVALID_PARAMS, GucError
from vfio_user_xe.device_models.xe.guc.guc import Guc
from vfio_user_xe.device_models.xe.guc.host import Host
from vfio_user_xe.device_models.xe.guc.hxg import Message
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, flag

INV_DESC0 = 0xCF7C
INV_DESC1 = 0xCF80
INV_CR = 0xCEE8
_VALID = 1 << 0

FULL, PAGE_SELECTIVE, PAGE_SELECTIVE_CONTEXT, GUC = range(4)


class TlbInvalidation:
    """TLB_INVALIDATION, TLB_INVALIDATION_ALL, and the registers of one GT."""

    def __init__(self, guc: Guc, registers: RegisterFile, lmtt_changed: Callable[[], None]) -> None:
        """`lmtt_changed()` follows LMTT; it is called for every TLB_INVALIDATION_ALL."""
        self._guc = guc
        self._lmtt_changed = lmtt_changed
        self.count = 0
        gt = guc.gt
        registers.add(
            [
                gt.register(
                    "PVC_GUC_TLB_INV_DESC0", INV_DESC0, access=RO, write=self._desc0_written, fields=[flag(0, "VALID")]
                ),
                gt.register("PVC_GUC_TLB_INV_DESC1", INV_DESC1, fields=[flag(6, "INVALIDATE")]),
                gt.register(
                    "GUC_TLB_INV_CR", INV_CR, access=RO, write=self._desc0_written, fields=[flag(0, "INVALIDATE")]
                ),
            ]
        )
        guc.handle(actions.TLB_INVALIDATION, self._invalidate)
        guc.handle(actions.TLB_INVALIDATION_ALL, self._invalidate_all)

    def _desc0_written(self, value: int) -> None:
        if value & _VALID:
            gpu = self._guc.gt.gpu
            gpu.executor.submit(lambda: self._flush(gpu.pf, None))

    def _invalidate(self, host: Host, message: Message) -> int:
        seqno, operation = message.payload[:2]
        kind = operation & 0xFF
        if kind > GUC:
            raise GucError(INVALID_PARAMS, f"TLB invalidation type {kind}")
        asid = message.payload[2] if kind == PAGE_SELECTIVE and len(message.payload) > 2 else None
        self._flush(host.function, asid)
        return self._done(host, seqno)

    def _invalidate_all(self, host: Host, message: Message) -> int:
        if not host.vfid:
            self._lmtt_changed()
        self._flush(host.function, None)
        return self._done(host, message.payload[0])

    def _done(self, host: Host, seqno: int) -> int:
        host.invalidations.done(seqno, host.event(actions.TLB_INVALIDATION_DONE, seqno))
        return 0

    def _flush(self, function: XeFunction, asid: int | None) -> None:
        self.count += 1
        if asid is None:
            function.ggtt_space.flush()
        self._guc.engines.invalidate(function, asid)
