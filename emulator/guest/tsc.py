"""The rate of the host's time-stamp counter, which a guest under TCG counts with.

QEMU without KVM gives a guest the host's counter (target/i386: cpu_get_tsc; system/cpu-timers.c: cpu_get_ticks). Linux measures its rate
against timers that QEMU emulates, in a few milliseconds, and on a busy host QEMU may not run in just those: seen were 31.8 MHz instead of
2300 (`tsc: PIT calibration deviates from HPET`). Time in such a guest runs that much too fast, every limit in it is over at once, and its
kernel warns of itself. So the rate is measured here, and told (`tsc_early_khz=`, arch/x86/kernel/tsc.c).
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import time
from collections.abc import Callable

_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
"""rdtsc; shl rdx, 32; or rax, rdx; ret."""
_SECONDS = 0.05
_TRIES = 50
_SHARP = 100_000
"""Nanoseconds within which a reading of both clocks has to lie, 0.2 % of the time between two."""
_PLAUSIBLE = range(100_000, 20_000_000)
"""kHz. Others say that something happened in between, such as the migration of a host that is a virtual machine."""


def host_tsc_khz() -> int | None:
    """The rate in kHz, measured once in a process (50 ms). None where it cannot be: no x86-64, no memory that may be executed, a busy host.

    What a busy host prevented is tried again for the next guest. From any thread.
    """
    try:
        return _measured()
    except _NotMeasured:
        return None


class _NotMeasured(Exception):
    """There is no rate."""


@functools.cache
def _measured() -> int:
    """The rate in kHz.

    Raises:
        _NotMeasured: it cannot be had now.
    """
    if platform.machine() != "x86_64":
        raise _NotMeasured
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError as error:  # a hardened host allows no such memory
        raise _NotMeasured from error
    page.write(_RDTSC)
    start = ctypes.c_char.from_buffer(page)
    counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
    try:
        found = rate(counter, lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), time.sleep)
    finally:
        del counter, start
        page.close()
    if found is None:
        raise _NotMeasured
    return found


def rate(counter: Callable[[], int], clock: Callable[[], int], sleep: Callable[[float], None]) -> int | None:
    """The rate of `counter` in kHz by `clock`, which has nanoseconds; None if the two could not be read close to each other, or it is no processor's."""
    first = _both(counter, clock)
    sleep(_SECONDS)
    last = _both(counter, clock)
    if first is None or last is None or last[1] <= first[1]:
        return None
    khz = round((last[0] - first[0]) * 1_000_000 / (last[1] - first[1]))
    return khz if khz in _PLAUSIBLE else None


def _both(counter: Callable[[], int], clock: Callable[[], int]) -> tuple[int, int] | None:
    """A reading of both, the sharpest of some; None if none is sharp."""
    best: tuple[int, int, int] | None = None
    for _ in range(_TRIES):
        before = clock()
        count = counter()
        after = clock()
        if best is None or after - before < best[0]:
            best = after - before, count, (before + after) // 2
    assert best is not None
    return best[1:] if best[0] <= _SHARP else None
