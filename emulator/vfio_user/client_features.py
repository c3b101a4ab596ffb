"""DEVICE_FEATURE, as a client uses it: features, migration, and the log of DMA writes."""

from __future__ import annotations

from collections.abc import Sequence

from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client_requests import RequestError, Requests


class Features(Requests):
    """The part of `Client` that asks for features of the device."""

    def device_feature(self, flags: int, data: bytes = b"", argsz: int | None = None) -> bytes:
        """DEVICE_FEATURE with `flags` (feature number and `wire.FEATURE_*`); returns the reply's data."""
        size = wire.DEVICE_FEATURE_BODY.size + len(data) if argsz is None else argsz
        reply = self._fixed(wire.DEVICE_FEATURE, wire.DEVICE_FEATURE_BODY.pack(size, flags) + data)
        self._unpack(reply, wire.DEVICE_FEATURE_BODY)
        return reply.body[wire.DEVICE_FEATURE_BODY.size :]

    def has_feature(self, number: int, operations: int = 0) -> bool:
        """Whether the server has a feature, and all of `operations` (`wire.FEATURE_GET`, `FEATURE_SET`) of it."""
        try:
            self.device_feature(wire.FEATURE_PROBE | operations | number)
        except RequestError:
            return False
        return True

    def set_migration_state(self, state: int) -> None:
        """Ask for a migration state (`VFIO_DEVICE_STATE_*` of <linux/vfio.h>)."""
        self.device_feature(wire.FEATURE_SET | wire.FEATURE_MIG_DEVICE_STATE, wire.MIG_STATE.pack(state, 0))

    def mig_data_read(self, size: int) -> bytes:
        """The next bytes of migration data, at most `size`; fewer mean that this was all."""
        reply = self._fixed(wire.MIG_DATA_READ, wire.MIG_DATA.pack(wire.MIG_DATA.size + size, size))
        _, got = self._unpack(reply, wire.MIG_DATA)
        return reply.body[wire.MIG_DATA.size : wire.MIG_DATA.size + got]

    def mig_data_write(self, data: bytes) -> None:
        """Give the server migration data."""
        size = wire.MIG_DATA.size + len(data)
        self._fixed(wire.MIG_DATA_WRITE, wire.MIG_DATA.pack(size, len(data)) + data)

    def start_dma_logging(self, page_size: int, ranges: Sequence[tuple[int, int]] = ()) -> None:
        """Start to log DMA writes to `ranges` of (address, length); to everything without."""
        data = wire.DMA_LOGGING_CONTROL.pack(page_size, len(ranges), 0)
        data += b"".join(wire.DMA_LOGGING_RANGE.pack(*piece) for piece in ranges)
        self.device_feature(wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_START, data)

    def stop_dma_logging(self) -> None:
        """Stop logging."""
        self.device_feature(wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_STOP)

    def dma_logging_report(self, address: int, length: int, page_size: int) -> bytes:
        """The dirty bitmap of a range, one bit a page, in whole 64-bit words."""
        data = wire.DMA_LOGGING_REPORT.pack(address, length, page_size)
        words = -(-length // page_size // 64) if page_size else 0
        argsz = wire.DEVICE_FEATURE_BODY.size + len(data) + 8 * max(1, words)
        return self.device_feature(wire.FEATURE_GET | wire.FEATURE_DMA_LOGGING_REPORT, data, argsz)[len(data) :]
