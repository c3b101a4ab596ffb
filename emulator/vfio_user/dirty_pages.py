"""Which pages of guest memory the device wrote: DMA logging for a client that migrates its guest.

Logging is by what the device *may* have written: handing out a writable view marks its pages. A view that is still
held when the log is read would go on being written unseen, so reading the log takes all views back (the session
does that), and the device opens them anew.
"""

from __future__ import annotations

import threading


class DirtyPages:
    """A log of pages, of `page_size` bytes each."""

    def __init__(self) -> None:
        self.active = False
        self.page_size = 4096
        self._ranges: list[tuple[int, int]] = []
        self._pages: set[int] = set()
        self._lock = threading.Lock()

    def start(self, page_size: int, ranges: list[tuple[int, int]]) -> None:
        """Log writes to `(address, length)` ranges, or to all memory when there are none."""
        with self._lock:
            self.page_size = page_size
            self._ranges = ranges
            self._pages.clear()
            self.active = True

    def stop(self) -> None:
        """Stop logging and forget."""
        with self._lock:
            self.active = False
            self._pages.clear()

    def mark(self, address: int, length: int) -> None:
        """The device may write `[address, address + length)`."""
        with self._lock:
            first, last = address // self.page_size, (address + max(length, 1) - 1) // self.page_size
            self._pages.update(range(first, last + 1))

    def report(self, address: int, length: int, page_size: int) -> bytes:
        """The bitmap of `[address, address + length)`, a bit a `page_size` bytes; reported pages are clean again."""
        bits = -(-length // page_size)
        bitmap = bytearray(-(-bits // 64) * 8)
        with self._lock:
            reported = set()
            for page in self._pages:
                start, end = page * self.page_size, (page + 1) * self.page_size
                if end <= address or start >= address + length:
                    continue
                reported.add(page)
                if not self._logged(start, end):
                    continue
                first = max(start, address) - address
                last = min(end, address + length) - 1 - address
                for bit in range(first // page_size, last // page_size + 1):
                    bitmap[bit >> 3] |= 1 << (bit & 7)
            self._pages -= reported
        return bytes(bitmap)

    def _logged(self, start: int, end: int) -> bool:
        return not self._ranges or any(a < end and start < a + n for a, n in self._ranges)
