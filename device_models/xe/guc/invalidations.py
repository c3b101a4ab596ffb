"""What became of one driver's TLB invalidations: which were answered, by the numbers that the driver gave them.

A driver that complains of an answer that did not come in time (`xe_tlb_inval.c:xe_tlb_inval_fence_timeout`) names that number.
"""

from __future__ import annotations

from collections import deque

_KEPT = 256


class Invalidations:
    """Of one function and one GuC, since either was reset."""

    def __init__(self) -> None:
        self._answered: deque[int] = deque(maxlen=_KEPT)
        self._open: deque[int] = deque(maxlen=_KEPT)

    def done(self, seqno: int, sent: bool) -> None:
        """One was carried out; `sent`: TLB_INVALIDATION_DONE is on its way to the driver."""
        (self._answered if sent else self._open).append(seqno)

    def forget(self) -> None:
        """The driver begins anew."""
        self._answered.clear()
        self._open.clear()

    def inspect(self) -> dict[str, list[int]]:
        """The last that were answered, and those that were not."""
        return {"answered": list(self._answered), "open": list(self._open)}
