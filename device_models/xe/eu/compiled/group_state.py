"""A group in the middle of its threads as bytes that can be kept and brought to another process: `pack`, `unpack`.

Arrays of `Slot.save` one behind the other, by the sizes of the slot that they are for; what does not fit is refused, since the bytes may
come from anywhere.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.compiled.layout import LANES, ThreadState
from vfio_user_xe.device_models.xe.eu.registers import STORAGE_BYTES

_BARRIERS, _SLOT_WORDS, _THREAD_WORDS = 32, 7, 3

Saved = dict[str, NDArray[Any]]


def _arrays(threads: int, slm_bytes: int) -> list[tuple[str, type[np.generic], tuple[int, ...]]]:
    """Name, type and shape of what a group is made of; `routine` are the lanes of each thread in the system routine."""
    return [
        ("registers", np.uint8, (threads, STORAGE_BYTES)),
        ("places", np.int64, (threads, LANES)),
        ("depths", np.int32, (threads, LANES)),
        ("slm", np.uint8, (max(64, slm_bytes + 64),)),
        ("threads", np.uint32, (threads, _THREAD_WORDS)),
        ("slot", np.int64, (_SLOT_WORDS,)),
        ("barriers", np.uint32, (_BARRIERS,)),
        ("routine", np.uint32, (threads,)),
    ]


def pack(saved: Saved, threads: int, slm_bytes: int) -> bytes:
    """What `Slot.save` gave, with `routine`, compressed."""
    parts = [saved[name].astype(kind, copy=False).tobytes() for name, kind, _ in _arrays(threads, slm_bytes)]
    return zlib.compress(b"".join(parts), 1)


def unpack(data: bytes, threads: int, slm_bytes: int) -> Saved:
    """What `pack` was given. Threads that were set aside run: they repeat what they were at.

    Raises:
        ValueError: it is of a slot of another size, or is damaged.
    """
    layout = _arrays(threads, slm_bytes)
    size = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for _, kind, shape in layout)
    decompressor = zlib.decompressobj()
    try:
        raw = decompressor.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(f"a saved group is damaged: {error}") from error
    if len(raw) != size or not decompressor.eof:
        raise ValueError(f"a saved group has {len(raw)} bytes or more, one of {threads} threads has {size}")
    saved: Saved = {}
    at = 0
    for name, kind, shape in layout:
        count = int(np.prod(shape))
        saved[name] = np.frombuffer(raw, kind, count, at).reshape(shape).copy()
        at += count * np.dtype(kind).itemsize
    states = saved["threads"][:, 0]
    if states.max() > ThreadState.DONE or not 0 <= saved["slot"][0] < threads:
        raise ValueError(f"a saved group has threads in states {states.tolist()}, and {saved['slot'][0]} has its turn")
    states[states == ThreadState.SET_ASIDE] = ThreadState.RUNNING
    return saved
