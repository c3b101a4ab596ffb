"""Error capture: the lists of registers that the driver wants, and the groups that the GuC writes into the log
(`abi/guc_capture_abi.h`)."""

from __future__ import annotations

from construct import Array, Int32ul, PrefixedArray, Struct

from vfio_user_xe.emulator.model.layout import word

GLOBAL, ENGINE_CLASS, ENGINE_INSTANCE = range(3)
"""Types of a list."""
NO_CONTEXT = 0xFFFFFFFF
"""The LRC and the guc_id of a capture that belongs to no context."""
MAX_REGISTERS = 1023

LIST_HEADER = word(("count", 16))
"""`struct guc_debug_capture_list_header`: how many registers follow."""
REGISTER = Struct("offset" / Int32ul, "value" / Int32ul, "flags" / Int32ul, "mask" / Int32ul)
"""`struct guc_mmio_reg`. In the list of an engine instance the offset is from the engine's base."""

CAPTURE = Struct(
    "vfid" / Int32ul,
    "info" / word(("type", 4), ("guc_class", 4), ("instance", 4)),
    "lrca" / Int32ul,
    "guc_id" / Int32ul,
    "registers" / PrefixedArray(Int32ul, REGISTER),
)
"""`struct guc_state_capture_header_t`, and its registers."""
GROUP = Struct("vfid" / Int32ul, "captures" / PrefixedArray(Int32ul, CAPTURE))
"""`struct guc_state_capture_group_header_t`, and its captures: all of one reset."""


def registers(count: int) -> Array:
    """`count` registers of a list."""
    return Array(count, REGISTER)
