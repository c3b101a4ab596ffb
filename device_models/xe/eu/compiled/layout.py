"""The structures of `runtime/eu.h` as ctypes has them; `library.py` compares the sizes when it loads the handlers."""

from __future__ import annotations

import ctypes
import struct
from enum import IntEnum, IntFlag

from vfio_user_xe.device_models.xe.eu.registers import STORAGE_BYTES

LANES = 32

SCRATCH = -(-STORAGE_BYTES // 64) * 64
"""Where sources and results lie meanwhile that are converted: `SCRATCH_PARTS` times 256 bytes behind a thread's storage."""
SCRATCH_PARTS = 4
SCRATCH_BYTES = 256
THREAD_BYTES = SCRATCH + SCRATCH_PARTS * SCRATCH_BYTES + 256
"""Storage of one thread; the slack lets an operation load all lanes of a short source."""

CONSTANT = 1 << 31
"""Bit of an offset: it is in the kernel's constants."""

OP = struct.Struct("<Q6IH6B3BBBB2x2IQ")
"""handler, destination, sources, lanes, address, flag, first lane, no mask, predicate, inverse, condition, saturate,
modifiers of the sources, begins, detail, final, strides, extra."""

MESSAGE = struct.Struct("<10B2x5IqQ")
"""address, data and register bytes, components, space, atomic, returns, pointer, high half, plain, bytes of a component, data,
a0, surface shift, bytes of the response, offset, surface."""


class Reason(IntEnum):
    """Why a thread or a slot stopped."""

    RAN_OUT = 0
    """The budget is used up."""
    GONE = 1
    """The thread has ended; of a slot: no group is left."""
    BARRIER = 2
    """The thread waits for others of its group."""
    MISS = 3
    """A page is not in the map, or not for this access."""
    SURFACE = 4
    """A surface is not in the table."""
    INTERPRET = 5
    """The instruction at the thread's place is not for this back end."""
    STOPPED = 6
    """`Slot.stop` is set."""
    STRAYED = 7
    """There is no instruction at the thread's place."""
    BLOCKED = 8
    """All threads that could run are set aside."""
    TEXTURE = 9
    """An image is not in the table of those that sampler messages name."""
    SAMPLER = 10
    """A sampler state is not in the table."""


class ThreadState(IntEnum):
    RUNNING = 0
    AT_BARRIER = 1
    SET_ASIDE = 2
    """Waits for something that the caller knows, such as a page fault."""
    DONE = 3


class Modified(IntEnum):
    """How a source is fetched (bits)."""

    SCALAR = 1
    NEGATE = 2
    ABSOLUTE = 4
    CONSTANT = 8
    COMPLEMENT = 16
    LOW_HALF = 32
    HIGH_HALF = 64


class Access(IntFlag):
    READ = 1
    WRITE = 2


class KernelStruct(ctypes.Structure):
    _fields_ = [
        ("ops", ctypes.c_void_p),
        ("op_at", ctypes.c_void_p),
        ("first", ctypes.c_int64),
        ("last", ctypes.c_int64),
        ("constants", ctypes.c_void_p),
    ]


class ThreadStruct(ctypes.Structure):
    _fields_ = [
        ("storage", ctypes.c_void_p),
        ("constants", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("depths", ctypes.c_void_p),
        ("at", ctypes.c_void_p),
        ("kernel", ctypes.c_void_p),
        ("slot", ctypes.c_void_p),
        ("active", ctypes.c_uint32),
        ("waiting", ctypes.c_uint32),
        ("next_wait", ctypes.c_int64),
        ("ready", ctypes.c_int64),
        ("state", ctypes.c_int32),
        ("signalled", ctypes.c_uint32),
        ("notifications", ctypes.c_uint32),
        ("reason", ctypes.c_int32),
        ("miss_kind", ctypes.c_int32),
        ("miss_address", ctypes.c_uint64),
        ("miss_bytes", ctypes.c_int64),
    ]


class PageStruct(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_uint64),
        ("host", ctypes.c_void_p),
        ("access", ctypes.c_uint32),
        ("ledger", ctypes.c_uint32),
    ]


class CountStruct(ctypes.Structure):
    _fields_ = [
        ("reads", ctypes.c_uint64),
        ("read_bytes", ctypes.c_uint64),
        ("writes", ctypes.c_uint64),
        ("written_bytes", ctypes.c_uint64),
    ]


class MapStruct(ctypes.Structure):
    _fields_ = [("pages", ctypes.c_void_p), ("slots", ctypes.c_uint64), ("used", ctypes.c_uint64)]


class SurfaceStruct(ctypes.Structure):
    _fields_ = [
        ("key", ctypes.c_uint64),
        ("base", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("stride", ctypes.c_uint64),
    ]


class WalkStruct(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("payload", ctypes.c_void_p),
        ("arfs", ctypes.c_void_p),
        ("payload_bytes", ctypes.c_uint64),
        ("arf_bytes", ctypes.c_uint64),
        ("arf_at", ctypes.c_uint64),
        ("dispatch", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("entry", ctypes.c_int64),
        ("first", ctypes.c_int64 * 3),
        ("end", ctypes.c_int64 * 3),
        ("total", ctypes.c_int64),
        ("shaders", ctypes.c_int64),
        ("fastest", ctypes.c_int64),
        ("apart", ctypes.c_char * 64),
        ("next", ctypes.c_int64),
        ("halts", ctypes.c_int64),
    ]


class SlotStruct(ctypes.Structure):
    _fields_ = [
        ("threads", ctypes.c_void_p),
        ("map", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("touched", ctypes.c_void_p),
        ("surfaces", ctypes.c_void_p),
        ("surface_slots", ctypes.c_uint64),
        ("slm", ctypes.c_void_p),
        ("slm_bytes", ctypes.c_uint64),
        ("stateless_base", ctypes.c_uint64),
        ("walk", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
        ("thread_count", ctypes.c_int32),
        ("current", ctypes.c_int32),
        ("occupied", ctypes.c_int32),
        ("culprit", ctypes.c_int32),
        ("executed", ctypes.c_int64),
        ("alive", ctypes.c_int64),
        ("group", ctypes.c_int64 * 3),
        ("taken", ctypes.c_int64),
        ("taken_end", ctypes.c_int64),
        ("barriers", ctypes.c_uint32 * 32),
        ("number", ctypes.c_int64),
        ("halts", ctypes.c_int64),
        ("recent", ctypes.c_uint64 * (3 * 2 * (8 + 32))),
        ("sampling", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("urb", ctypes.c_void_p),
        ("urb_bytes", ctypes.c_uint64),
    ]


SIZES = (
    OP.size,
    ctypes.sizeof(KernelStruct),
    ctypes.sizeof(ThreadStruct),
    ctypes.sizeof(PageStruct),
    ctypes.sizeof(CountStruct),
    ctypes.sizeof(MapStruct),
    ctypes.sizeof(SurfaceStruct),
    ctypes.sizeof(SlotStruct),
    ctypes.sizeof(WalkStruct),
    MESSAGE.size,
)
