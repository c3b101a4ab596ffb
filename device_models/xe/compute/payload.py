"""What threads find in their registers: r0, local ids, inline data.

`brw_fs_thread_payload.cpp` and NEO's kernels read it so: r0.0 indirect data start, .1 group X, .2 thread in the group 7:0 and
threads of the group 31:24, .3 sampler state pointer, .4 binding table pointer, .5 scratch, .6 and .7 group Y and Z.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.descriptors import Triple, Walker

REGISTER = 64
_WORDS = REGISTER // 4


def lanes(walker: Walker) -> list[int]:
    """The dispatch mask of each thread of a group. Not to be changed: others get the same list."""
    return _lanes(walker.interface.threads, walker.simd, walker.last_mask)


@lru_cache(maxsize=256)
def _lanes(threads: int, simd: int, last_mask: int) -> list[int]:
    full = (1 << simd) - 1
    return [full] * (threads - 1) + [last_mask & full]


def group_registers(walker: Walker, scratch: int) -> NDArray[np.uint8]:
    """[threads of a group, bytes]: registers from r0 on, the same for every group but for r0.1, .6 and .7."""
    threads = walker.interface.threads
    ids = walker.emit_ids if walker.generate_ids else (False, False, False)
    pointers = walker.interface.sampler_state, walker.interface.binding_table, scratch
    registers = _form(threads, walker.simd, walker.local, walker.order, ids, walker.emit_inline, pointers).copy()
    put_data(registers.view(np.uint32), walker)
    return registers


def put_data(words: NDArray[np.uint32], walker: Walker) -> None:
    """Write the walker's own into registers of its form (`Walker.form`), as dwords: where indirect data starts, and inline data."""
    words[:, 0] = walker.indirect_data
    if walker.emit_inline:
        words[:, -_WORDS : 8 - _WORDS] = walker.inline


@lru_cache(maxsize=256)
def _form(
    threads: int,
    simd: int,
    local: Triple,
    order: Triple,
    ids: tuple[bool, bool, bool],
    inline: bool,
    pointers: Triple,
) -> NDArray[np.uint8]:
    """What is the same in all groups of that form."""
    r0 = np.zeros((threads, _WORDS), dtype=np.uint32)
    r0[:, 2] = np.arange(threads, dtype=np.uint32) & 0xFF | np.uint32((threads & 0xFF) << 24)
    r0[:, 3:6] = pointers
    parts = [r0.view(np.uint8)]
    if any(ids):
        places = local_ids(threads, simd, local, order)
        parts += [places[:, dimension] for dimension in range(3) if ids[dimension]]
    if inline:
        parts.append(np.zeros((threads, REGISTER), dtype=np.uint8))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def local_ids(threads: int, simd: int, local: Triple, order: Triple) -> NDArray[np.uint8]:
    """[threads of a group, dimension, bytes of a register]: words of the lanes' ids, in the walk order."""
    index = np.arange(threads * simd, dtype=np.int64)
    found = np.zeros((3, len(index)), dtype=np.int64)
    for dimension in order:
        size = local[dimension]
        found[dimension] = index % size
        index = index // size
    registers = np.zeros((threads, 3, REGISTER // 2), dtype=np.uint16)
    registers[:, :, :simd] = found.reshape(3, -1, simd).transpose(1, 0, 2)
    return registers.view(np.uint8)
