"""Groups of threads: a walk over them, and slots in which they run."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel
from vfio_user_xe.device_models.xe.eu.compiled.layout import (
    LANES,
    THREAD_BYTES,
    Reason,
    SlotStruct,
    SurfaceStruct,
    ThreadState,
    ThreadStruct,
    WalkStruct,
)
from vfio_user_xe.device_models.xe.eu.compiled.memory import Map, address_of, aligned
from vfio_user_xe.device_models.xe.eu.ir import ENDED
from vfio_user_xe.device_models.xe.eu.registers import ARF_BASE, CR0, DISPATCH_MASKS, F0, IP, STORAGE_BYTES

_ARFS_FROM, _ARFS_TO = F0, IP
"""What a new thread finds zeroed or preset of its architecture registers: flags, sr0, cr0, n0. Others are undefined."""

Triple = tuple[int, int, int]
_SURFACE_SLOTS = 512
_WALK = struct.Struct("<8Q10q64x2q")
"""A `WalkStruct` in the order of its fields: ctypes takes four times as long for them by name."""
assert _WALK.size == ctypes.sizeof(WalkStruct)
_EXTENT = struct.Struct("<7q")
"""Of a `WalkStruct`: first, end, total."""
_REASONS = tuple(Reason)


class Walk:
    """Groups `first` to `end` (exclusive) of one dispatch, x fastest, or y if `fastest` is 1. Slots take them one by one.

    `payload` is what each thread of a group begins with: [threads, bytes], writable, r0 first, of which dwords 1, 6 and 7 become the
    group's place. `dispatch` has the lanes of each thread, `entry` is where they begin, `cr0` their cr0.0, with cr0.1 in
    bits 63:32. Stateless messages (A32) are from `stateless_base` on, general state base.

    Threads of `shaders` do not belong to a group's place: their r0 is the payload's. Those that come to an instruction which
    has to be interpreted are set aside, so that it can be done for many at once when the slot is BLOCKED (`Slot.aside`).
    """

    def __init__(
        self,
        kernel: Kernel,
        payload: NDArray[np.uint8],
        dispatch: Sequence[int],
        entry: int,
        end: Triple,
        first: Triple = (0, 0, 0),
        cr0: int = 0,
        stateless_base: int = 0,
        shaders: bool = False,
        fastest: int = 0,
    ) -> None:
        if len(payload) != len(dispatch):
            raise ValueError(f"payloads of {len(payload)} threads, and lanes of {len(dispatch)}")
        if payload.shape[1] < 64 or payload.shape[1] > ARF_BASE:
            raise ValueError(f"a payload of {payload.shape[1]} bytes: r0 (64 bytes) to {ARF_BASE} are possible")
        self.kernel = kernel
        self.threads = len(dispatch)
        self.stateless_base = stateless_base
        self._payload = np.ascontiguousarray(payload)
        self._start = _start(tuple(dispatch), entry, cr0)
        self.struct = WalkStruct.from_buffer_copy(
            _WALK.pack(
                kernel.address,
                address_of(self._payload),
                self._start.arfs_at,
                self._payload.shape[1],
                self._start.arfs.shape[1],
                _ARFS_FROM,
                self._start.dispatch_at,
                self._start.places_at,
                entry,
                *first,
                *end,
                _groups(first, end),
                shaders,
                fastest,
                0,
                0,
            )
        )
        self.address = ctypes.addressof(self.struct)
        """Of the `struct walk`."""

    def again(self, end: Triple, first: Triple = (0, 0, 0)) -> None:
        """Walk over other groups, whose threads begin as those of the last did; no slot runs groups of it."""
        _EXTENT.pack_into(self.struct, WalkStruct.first.offset, *first, *end, _groups(first, end))
        self.struct.next = 0

    @property
    def halts(self) -> int:
        """How often a slot has stopped because a thread needs something."""
        return int(self.struct.halts)

    @property
    def is_given_out(self) -> bool:
        """All groups have been begun."""
        return bool(self.struct.next >= self.struct.total)


def _groups(first: Triple, end: Triple) -> int:
    wide, high, deep = end[0] - first[0], end[1] - first[1], end[2] - first[2]
    return wide * high * deep if wide > 0 and high > 0 and deep > 0 else 0


@dataclass(frozen=True, slots=True)
class _Start:
    """How the threads of a group begin, and where that is in memory; not to be written."""

    dispatch: NDArray[np.uint32]
    places: NDArray[np.int64]
    arfs: NDArray[np.uint8]
    dispatch_at: int
    places_at: int
    arfs_at: int


@lru_cache(maxsize=256)
def _start(dispatch: tuple[int, ...], entry: int, cr0: int) -> _Start:
    lanes = np.array(dispatch, dtype=np.uint32)
    here = lanes[:, None] >> np.arange(LANES, dtype=np.uint32) & 1
    arfs = np.zeros((len(lanes), _ARFS_TO - _ARFS_FROM), dtype=np.uint8)
    for at in DISPATCH_MASKS:
        arfs[:, at - _ARFS_FROM : at - _ARFS_FROM + 4] = lanes[:, None].view(np.uint8)
    arfs[:, CR0 - _ARFS_FROM : CR0 - _ARFS_FROM + 8] = np.frombuffer(cr0.to_bytes(8, "little"), np.uint8)
    places = np.where(here, entry, ENDED).astype(np.int64)
    return _Start(lanes, places, arfs, lanes.ctypes.data, places.ctypes.data, arfs.ctypes.data)


@dataclass(frozen=True, slots=True)
class Miss:
    """A page that a thread needs and the map does not have, or not for this access."""

    address: int
    bytes: int
    writes: bool


class Slot:
    """Room for one group, and the way it runs: `run` releases the interpreter's lock.

    One host thread at a time. Everything that a group is made of is in arrays of this object.
    """

    def __init__(self, map_: Map, threads: int, slm_bytes: int = 0) -> None:
        self.map = map_
        self.size = threads, slm_bytes
        self.storage = aligned(threads * THREAD_BYTES).reshape(threads, THREAD_BYTES)
        self.registers = self.storage[:, :STORAGE_BYTES]
        """[threads, STORAGE_BYTES]"""
        self.places = aligned(8 * threads * LANES).view(np.int64).reshape(threads, LANES)
        self.depths = aligned(4 * threads * LANES).view(np.int32).reshape(threads, LANES)
        self.slm = aligned(max(64, slm_bytes + 64))
        self.counts = map_.counts()
        self._surfaces = np.zeros(_SURFACE_SLOTS, dtype=_SURFACE)
        self._bound = 0
        self._stop = ctypes.c_int32(0)
        kind = ThreadStruct * threads
        self.threads = kind.from_buffer(aligned(ctypes.sizeof(kind)).data)
        for index, thread in enumerate(self.threads):
            thread.storage = self.storage[index].ctypes.data
            thread.places = self.places[index].ctypes.data
            thread.depths = self.depths[index].ctypes.data
            thread.state = ThreadState.DONE
        self.struct = SlotStruct.from_buffer(aligned(ctypes.sizeof(SlotStruct)).data)
        self.struct.threads = ctypes.addressof(self.threads)
        self.struct.map = map_.address
        self.struct.surfaces = self._surfaces.ctypes.data
        self.struct.surface_slots = _SURFACE_SLOTS
        self.struct.slm = self.slm.ctypes.data
        self.struct.slm_bytes = slm_bytes
        self.struct.stop = ctypes.addressof(self._stop)
        self.struct.thread_count = threads
        self._address = ctypes.addressof(self.struct)
        self._walk: Walk | None = None

    def begin(self, walk: Walk, number: int = 0) -> None:
        """Take groups of `walk` from now on; their threads are `number` and on among all that run at once, which they find in sr0.0.

        Nothing of another kernel that ran here before can be seen by them, except by shaders. To clear registers takes longer than
        a small group runs: shaders, which are many, find in undefined registers what a thread of the same address space left
        there, and groups what one of the same kernel left, in this walk or an earlier one.

        Raises:
            ValueError: its groups have another number of threads than the slot.
            RuntimeError: a group is in flight.
        """
        if walk.threads != len(self.threads):
            raise ValueError(f"groups of {walk.threads} threads in a slot for {len(self.threads)}")
        if self.struct.occupied:
            raise RuntimeError("a group is in flight in this slot")
        if not walk.struct.shaders and (self._walk is None or self._walk.kernel is not walk.kernel):
            self.storage.fill(0)
            self.slm.fill(0)
        self._walk = walk
        self.struct.number = number
        self.struct.taken = self.struct.taken_end = 0
        self.struct.walk = walk.address
        self.struct.stateless_base = walk.stateless_base

    def begin_again(self) -> None:
        """Take groups of the same walk, which goes over others now (`Walk.again`); none is in flight."""
        struct = self.struct
        struct.taken = struct.taken_end = 0
        self.forget_surfaces()
        self.go_on()

    def run(self, budget: int, halts: int | None = None, deadline: int = 0) -> Reason:
        """Run groups until none is left (GONE), `budget` ops are used up, or a thread needs something (`culprit`).

        With a `deadline` (of `Library.deadline`) it goes on until then when they are used up.
        STOPPED as soon as `Walk.halts` is not `halts` (what it is now, if not given) any more.
        """
        if self._walk is None:
            raise RuntimeError("no walk has begun in this slot")
        self.struct.halts = self._walk.halts if halts is None else halts
        self.struct.counts = self.counts.address
        self.struct.touched = self.counts.touched_address
        return _REASONS[int(self._walk.kernel.library.run_slot(self._address, budget, deadline))]

    def stop(self) -> None:
        """Make `run` return soon (from another host thread); it returns at once until `go_on`."""
        self._stop.value = 1

    def go_on(self) -> None:
        self._stop.value = 0

    @property
    def culprit(self) -> int:
        """The thread that made `run` return with MISS, SURFACE, INTERPRET or STRAYED."""
        return int(self.struct.culprit)

    @property
    def miss(self) -> Miss:
        """After MISS: what the culprit needs."""
        thread = self.threads[self.culprit]
        return Miss(thread.miss_address, thread.miss_bytes, bool(thread.miss_kind & 2))

    @property
    def missing_surface(self) -> int:
        """After SURFACE: the key (`messages.surface_key`) of what the culprit needs."""
        return int(self.threads[self.culprit].miss_address)

    @property
    def group(self) -> Triple:
        """The group in flight."""
        x, y, z = self.struct.group
        return (x, y, z)

    @property
    def executed(self) -> int:
        """Ops that were run in this slot."""
        return int(self.struct.executed)

    def set_aside(self, thread: int) -> None:
        """Let the others of the group run without `thread` until `resume`."""
        self.threads[thread].state = ThreadState.SET_ASIDE

    def resume(self, thread: int) -> None:
        if self.threads[thread].state == ThreadState.SET_ASIDE:
            self.threads[thread].state = ThreadState.RUNNING

    def aside(self) -> NDArray[np.int64]:
        """The threads that are set aside."""
        return np.nonzero(self._thread_words()[:, _STATE] == ThreadState.SET_ASIDE)[0]

    def resume_all(self, threads: NDArray[np.int64]) -> None:
        """Let these go on, which were set aside."""
        self._thread_words()[threads, _STATE] = ThreadState.RUNNING

    def save(self) -> dict[str, NDArray[Any]]:
        """The group in flight, by name of what it is made of; only while `run` does not."""
        threads = self._thread_words()
        return {
            "registers": self.registers.copy(),
            "places": self.places.copy(),
            "depths": self.depths.copy(),
            "slm": self.slm.copy(),
            "threads": threads[:, _KEPT].copy(),
            "slot": np.array([getattr(self.struct, name) for name in _SAVED] + list(self.struct.group), dtype=np.int64),
            "barriers": np.array(self.struct.barriers, dtype=np.uint32),
        }

    def restore(self, saved: dict[str, NDArray[Any]]) -> None:
        """Put a group that `save` gave into this slot, which has begun a walk with the same kernel.

        Raises:
            KeyError: something is missing.
            ValueError: it was saved of a slot of another size, or names groups that the walk does not have.
            RuntimeError: no walk has begun here, or a group is in flight.
        """
        if self._walk is None or self.struct.occupied:
            raise RuntimeError("a group is in flight in this slot" if self._walk else "no walk has begun in this slot")
        values = saved["slot"].tolist()
        _, _, taken, taken_end = values[: len(_SAVED)]
        if not 0 <= taken <= taken_end <= self._walk.struct.total:
            raise ValueError(f"groups {taken} to {taken_end} are taken, of a walk of {self._walk.struct.total}")
        threads = self._thread_words()
        for name, target in (
            ("registers", self.registers),
            ("places", self.places),
            ("depths", self.depths),
            ("slm", self.slm),
        ):
            if saved[name].shape != target.shape:
                raise ValueError(f"{name} of shape {saved[name].shape} do not fit into a slot with {target.shape}")
            target[:] = saved[name]
        threads[:, _KEPT] = saved["threads"]
        kernel = self._walk.kernel
        for thread in self.threads:
            thread.kernel = kernel.address
            thread.slot = ctypes.addressof(self.struct)
            thread.constants = kernel.struct.constants
        for name, value in zip(_SAVED, values, strict=False):
            setattr(self.struct, name, value)
        self.struct.group[:] = values[len(_SAVED) :]
        self.struct.barriers[:] = [int(value) for value in saved["barriers"]]

    def _thread_words(self) -> NDArray[np.uint32]:
        words = np.frombuffer(memoryview(self.threads).cast("B"), dtype=np.uint32)
        return words.reshape(len(self.threads), -1)

    def end(self, thread: int) -> None:
        """The thread has ended elsewhere: the others need not wait for it."""
        if self._walk is None:
            raise RuntimeError("no walk has begun in this slot")
        self._walk.kernel.library.end_thread(ctypes.addressof(self.threads[thread]))

    def end_all(self, threads: NDArray[np.int64]) -> None:
        """As `end`, of shaders, which wait for no barriers; none of them has ended before."""
        self._thread_words()[threads, _STATE] = ThreadState.DONE
        self.places[threads] = ENDED

    def bind_surface(self, key: int, base: int, size: int | None, stride: int = 0) -> None:
        """Enter a surface: accesses start at `base`; those not inside of `size` bytes read zero and write nothing.

        With a `stride` each thread of the slot has its own, so many bytes behind the one before.

        Raises:
            ValueError: there are too many; `forget_surfaces` makes room.
        """
        if self._bound * 2 >= _SURFACE_SLOTS:
            raise ValueError(f"{self._bound} surfaces are bound already")
        place = (key * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 20 & (_SURFACE_SLOTS - 1)
        while self._surfaces["key"][place] not in (0, key):
            place = (place + 1) % _SURFACE_SLOTS
        self._bound += self._surfaces["key"][place] == 0
        self._surfaces[place] = (key, base, (1 << 64) - 1 if size is None else size, stride)

    def forget_surfaces(self) -> None:
        if self._bound:
            self._surfaces[:] = 0
            self._bound = 0


_SAVED = ("current", "occupied", "taken", "taken_end")
"""Of a `SlotStruct`; the group follows."""
# state, signalled, notifications: words of a `struct thread` that a saved group needs; the rest is found anew.
_STATE = ThreadStruct.state.offset // 4
_KEPT = [getattr(ThreadStruct, name).offset // 4 for name in ("state", "signalled", "notifications")]
_SURFACE = np.dtype([("key", np.uint64), ("base", np.uint64), ("bytes", np.uint64), ("stride", np.uint64)])
assert _SURFACE.itemsize == ctypes.sizeof(SurfaceStruct)
