"""Contexts as drivers make them: the image that an engine loads, and its registration with the GuC."""

from __future__ import annotations

COPY_CLASS = 3
REGISTER_CONTEXT, REMOVE_CONTEXT = 0x4502, 0x4503
SCHEDULE, SET_MODE = 0x1000, 0x1001
CAT_ERROR, PAGE_FAULT, PAGE_FAULT_ANSWER = 0x6000, 0x6002, 0x6003

_LOAD = 0x22 << 23 | 1 << 19 | 1 << 12
"""MI_LOAD_REGISTER_IMM, CS_MMIO, FORCE_POSTED: without these a value may be taken for the end of the image's commands."""


def lrc_image(ring: int, ring_size: int, *, tail: int = 0, asid: int = 0, root: int = 0) -> dict[int, int]:
    """Dwords of a context's image by their index, as `xe_lrc.c:empty_lrc_data` and `xe_lrc_ctx_init` write them.

    `ring` is a GGTT address, sizes and `tail` are in bytes; without a `root` there is no PPGTT.
    """
    return {
        0x01: _LOAD | 2 * 13 - 1,
        0x21: _LOAD | 2 * 9 - 1,
        0x03: 0x0009_0009,
        0x05: 0,
        0x07: tail,
        0x09: ring,
        0x0B: ring_size - 0x1000 | 1,
        0x2F: asid,
        0x31: root >> 32,
        0x33: root & 0xFFFFFFFF | 0x1B if root else 0,
    }


def registration(guc_id: int, engine_class: int, mask: int, descriptor: int) -> tuple[int, ...]:
    """REGISTER_CONTEXT of a context without a work queue (`xe_guc_submit.c:__register_exec_queue`)."""
    where = (descriptor & 0xFFFFFFFF, descriptor >> 32)
    return REGISTER_CONTEXT, 1, guc_id, engine_class, mask, 0, 0, 0, 0, 0, *where
