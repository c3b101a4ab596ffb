"""The state of a VF that SAVE_RESTORE_VF moves: opaque to drivers, so it is this model's own."""

from __future__ import annotations

from construct import Bytes, Const, GreedyBytes, If, Int32ul, Int64ul, Prefixed, PrefixedArray, Struct, this

_RING = Struct("address" / Int64ul, "descriptor" / Int64ul, "dwords" / Int32ul)
_CONTEXT = Struct(
    "guc_id" / Int32ul,
    "engine_class" / Int32ul,
    "logical_mask" / Int32ul,
    "quantum_us" / Int32ul,
    "preempt_us" / Int32ul,
    "priority" / Int32ul,
    "kernel" / Int32ul,
    "enabled" / Int32ul,
    "failed" / Int32ul,
    "parallel" / Int32ul,
    "work_queue" / If(this.parallel, Struct("descriptor" / Int64ul, "address" / Int64ul, "size" / Int32ul)),
    "lrcs" / PrefixedArray(Int32ul, Int64ul),
    "in_flight" / PrefixedArray(Int32ul, Prefixed(Int32ul, GreedyBytes)),
)
STATE = Struct(
    Const(b"vfioxeVF"),
    "version" / Const(2, Int32ul),
    "gt" / Int32ul,
    "ggtt_start" / Int64ul,
    "ggtt_size" / Int64ul,
    "h2g" / _RING,
    "g2h" / _RING,
    "ctb_enabled" / Int32ul,
    "memirq_status" / Int64ul,
    "memirq_source" / Int64ul,
    "opt_ins" / PrefixedArray(Int32ul, Int32ul),
    "contexts" / PrefixedArray(Int32ul, _CONTEXT),
    "end" / Bytes(0),
)
"""All that is saved. Addresses are GGTT addresses of the VF where it was saved; what contexts and rings hold is memory,
but for the threads that were in flight."""
