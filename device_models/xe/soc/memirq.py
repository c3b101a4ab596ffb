"""Memory-based interrupts (`xe_memirq.c`): how a VF hears from engines and GuC.

The VF gives a page of its GGTT: at 0x000 a status report, 16 bytes for each source (a byte for each interrupt bit); at
0x400 a source report, a byte for each source; at 0x440 the enable mask. The producer writes 0xff to the status byte,
then 0xff to the source byte, then sends the VF's MSI. The VF tells its GuC exact addresses of the GuC's own bytes
(SELF_CFG), and the engines the two bases (registers in the context image).
"""

from __future__ import annotations

import logging

from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.emulator.fabric.interconnect import AccessFault

log = logging.getLogger(__name__)

SOURCE_REPORT = 0x400
STATUS_STRIDE = 16
GUC2HOST_BIT = 15
SW_INT_0_BIT = 0
USER_BIT = 0
_GUC_SOURCE = (25, 24)


class Memirq:
    """The interrupt page of one VF. Everything here runs on the executor."""

    def __init__(self, function: XeFunction) -> None:
        self._function = function
        self._guc_status = [0, 0]
        self._guc_source = [0, 0]
        self.faults = 0
        """Interrupts that could not be reported because the VF's addresses lead nowhere."""

    def reset(self, gt: int) -> None:
        """Forget the addresses that the VF told the GuC of `gt`."""
        self._guc_status[gt] = self._guc_source[gt] = 0

    def set_guc_status(self, gt: int, address: int) -> None:
        """GGTT address of the GuC's status bytes (SELF_CFG 0x0900)."""
        self._guc_status[gt] = address

    def set_guc_source(self, gt: int, address: int) -> None:
        """GGTT address of the GuC's source byte (SELF_CFG 0x0901)."""
        self._guc_source[gt] = address

    def addresses(self, gt: int) -> tuple[int, int]:
        """(status, source) GGTT addresses that the VF told the GuC of `gt`; 0 when it did not."""
        return self._guc_status[gt], self._guc_source[gt]

    def raise_guc(self, gt: int, bit: int = GUC2HOST_BIT) -> None:
        """An interrupt of the GuC of `gt`: GUC2HOST, or SW_INT_0 ("you were migrated")."""
        if self._guc_source[gt]:
            self._report(self._guc_status[gt] + bit, self._guc_source[gt])

    def raise_engine(self, source: int, status_base: int, source_base: int) -> None:
        """MI_USER_INTERRUPT of the engine with number `source`, reported below the two GGTT addresses."""
        if not source_base:
            if not self._guc_source[0]:
                return
            page = self._guc_source[0] - SOURCE_REPORT - _GUC_SOURCE[0]
            status_base, source_base = page, page + SOURCE_REPORT
        self._report(status_base + STATUS_STRIDE * source + USER_BIT, source_base + source)

    def _report(self, status: int, source: int) -> None:
        space = self._function.ggtt_space
        try:
            space.write(status, b"\xff")
            space.write(source, b"\xff")
        except (TranslationFault, AccessFault) as fault:
            self.faults += 1
            if self.faults == 1:
                log.warning("%s: cannot report an interrupt: %s", self._function.name, fault)
            return
        self._function.pci.raise_msi()
