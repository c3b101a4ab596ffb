"""Thread groups in flight: which threads belong together, their shared local memory, their barriers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.messages.payload import BarrierSignal
from vfio_user_xe.device_models.xe.eu.reference.threads import Status, Threads

NAMED_BARRIERS = 32
SLM_ADDRESS_MASK = (1 << 19) - 1
"""The bits of an offset in shared local memory that count: as many as the largest memory of a group, 384 KiB, needs.

Those above are ignored. IGC relies on that: it sets bit 28 in pointers to local variables that are more than loaded and
stored through, so that none is the null pointer (IGC PrivateMemoryToSLM.hpp:VALID_LOCAL_HIGH_BITS).
"""
_PRODUCER_ONLY, _CONSUMER_ONLY = 1, 2


class GroupsInFlight(Protocol):
    """What messages need of the groups that run."""

    @property
    def slm_bytes(self) -> int:
        """Shared local memory of a group."""
        ...

    @property
    def memory(self) -> NDArray[np.uint8]:
        """All of it."""
        ...

    def slm_start(self, threads: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the memory of each thread's group begins in `memory`."""
        ...

    def scratch_slot(self, threads: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number for each thread that no other that runs has."""
        ...

    def signal(self, thread: int, signal: BarrierSignal) -> None:
        """A thread's barrier message."""
        ...


class Groups:
    """`count` groups of `size` threads each; thread `t` is in group `t // size`."""

    def __init__(self, threads: Threads, size: int, slm_bytes: int) -> None:
        self.threads = threads
        self.size = size
        self.count = len(threads) // size
        self._slm_bytes = slm_bytes
        self.slm = np.zeros((self.count, slm_bytes), dtype=np.uint8)
        self._signalled = np.zeros((self.count, NAMED_BARRIERS), dtype=np.int32)
        self._waiting: dict[tuple[int, int], list[int]] = {}
        """Consumers of a barrier that is not complete, by group and barrier."""

    @property
    def slm_bytes(self) -> int:
        """Shared local memory of a group."""
        return self._slm_bytes

    @property
    def memory(self) -> NDArray[np.uint8]:
        """The shared local memory of all groups, one after the other."""
        return self.slm.reshape(-1)

    def slm_start(self, threads: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the memory of each thread's group begins in `memory`."""
        return np.asarray(threads // self.size * self._slm_bytes)

    def scratch_slot(self, threads: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number for each thread that no other that runs has."""
        return threads

    def signal(self, thread: int, signal: BarrierSignal) -> None:
        """A thread's barrier message; completes the barrier if it was the last."""
        group, number = thread // self.size, signal.number % NAMED_BARRIERS
        if signal.kind != _CONSUMER_ONLY:
            self._signalled[group, number] += 1
        if signal.kind != _PRODUCER_ONLY:
            self._waiting.setdefault((group, number), []).append(thread)
        if number:
            self._complete_named(group, number, signal)
        else:
            self._complete_plain(group)

    def ended(self) -> None:
        """Threads have ended: barriers that waited for them only are complete."""
        for group, number in list(self._waiting):
            if not number:
                self._complete_plain(group)

    def _complete_plain(self, group: int) -> None:
        first = group * self.size
        there = np.count_nonzero(self.threads.status[first : first + self.size] != Status.ENDED)
        if self._signalled[group, 0] >= there:
            self._release(group, 0)

    def _complete_named(self, group: int, number: int, signal: BarrierSignal) -> None:
        waiting = self._waiting.get((group, number), [])
        if self._signalled[group, number] >= signal.producers and len(waiting) >= signal.consumers:
            self._release(group, number)

    def _release(self, group: int, number: int) -> None:
        self._signalled[group, number] = 0
        waiting = self._waiting.pop((group, number), [])
        if waiting:
            self.threads.notify(waiting)
