"""The MMIO mailbox: four scratch registers and a doorbell, for one function and one GT (`xe_guc.c:xe_guc_mmio_send_recv`).

A host writes a request to VF_SW_FLAG(0..3) and rings GUC_HOST_INTERRUPT; the GuC's answer appears in the same
registers, dword 0 last (its bit 31, the origin, is what the host polls for 50 ms). The doorbell also announces
messages in the CT buffer. The PF sees the scratch registers of VF n at +0x400 * n, and clears them on FLR.

A request is answered on the executor, which on a busy machine may come to it later than those 50 ms: so the access that
rings takes the request and leaves NO_RESPONSE_BUSY, which gives the GuC two seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.guc.hxg import NO_RESPONSE_BUSY, ORIGIN_GUC
from vfio_user_xe.emulator.model.registers import PF, VF, Register

SCRATCH = (0x190240, 0x190310)
"""VF_SW_FLAG(0) of the main GT and MED_VF_SW_FLAG(0) of the media GT."""
DOORBELL = (0x1901F0, 0x190304)
PF_VIEW_STRIDE = 0x400
COUNT = 4
BUSY = ORIGIN_GUC | NO_RESPONSE_BUSY << 28

_NAMES = (("VF_SW_FLAG", "GUC_HOST_INTERRUPT"), ("MED_VF_SW_FLAG", "MED_GUC_HOST_INTERRUPT"))


class Mailbox:
    """The scratch registers of one function towards the GuC of one GT."""

    __slots__ = ("_gt", "_ring", "dwords", "request")

    def __init__(self, gt: int, ring: Callable[[], None]) -> None:
        """`ring` is called inside the access when the doorbell is written: it may only queue."""
        self._gt = gt
        self._ring = ring
        self.dwords = [0] * COUNT
        self.request: tuple[int, ...] | None = None
        """The request that was taken and is not answered yet."""

    def registers(self) -> list[Register]:
        """The function's own view: scratch registers and doorbell."""
        flag, doorbell = _NAMES[self._gt]
        ring = self._ring
        declared = [self._scratch(f"{flag}({n})", SCRATCH[self._gt] + 4 * n, n) for n in range(COUNT)]
        declared.append(Register(doorbell, DOORBELL[self._gt], access="ro", write=lambda value: ring()))
        return declared

    def pf_view(self, vfid: int) -> list[Register]:
        """The PF's view of a VF's scratch registers (`xe_mmio.c:xe_mmio_init_vf_view`)."""
        flag, base = _NAMES[self._gt][0], SCRATCH[self._gt] + PF_VIEW_STRIDE * vfid
        return [self._scratch(f"VF{vfid}.{flag}({n})", base + 4 * n, n) for n in range(COUNT)]

    def take(self) -> None:
        """Take the request that is there, if any, and say so. Safe inside an access."""
        if not self.dwords[0] >> 31 and self.dwords[0] != 0:
            self.request = tuple(self.dwords)
            self.dwords[0] = BUSY

    def give_back(self) -> None:
        """Put a request that was taken back into the registers, so that it can be saved or served later."""
        if self.request is not None and self.dwords[0] == BUSY:
            self.dwords[:] = self.request
        self.request = None

    def answer(self, words: tuple[int, ...]) -> None:
        """Put the GuC's answer to the request that was taken there; nowhere when it was cleared meanwhile."""
        if self.request is None:
            return
        self.request = None
        for index in range(COUNT - 1, -1, -1):
            self.dwords[index] = words[index] if index < len(words) else 0

    def clear(self) -> None:
        """All zero."""
        self.request = None
        self.dwords[:] = [0] * COUNT

    def clear_by_flr(self) -> None:
        """All zero, unless somebody waits for the answer to a request that was taken.

        Where the executor is late, a driver may have rung before the FLR of its function was noticed. It was shown BUSY, and takes
        a mailbox that is cleared then for a broken protocol (`xe_guc_mmio_send_recv`); so its request is answered when the FLR is done.
        """
        if self.request is None or self.dwords[0] not in (BUSY, 0):
            self.clear()

    def _scratch(self, name: str, offset: int, index: int) -> Register:
        dwords = self.dwords

        def read() -> int:
            return dwords[index]

        def write(value: int) -> None:
            dwords[index] = value

        return Register(name, offset, access="ro", read=read, write=write, visible=frozenset({PF, VF}))
