"""SLPC's page of shared data (`abi/guc_actions_slpc_abi.h:struct slpc_shared_data`)."""

from __future__ import annotations

from construct import Array, Int32ul, Padding, Struct

from vfio_user_xe.emulator.model.layout import word

HEADER = Struct("size" / Int32ul, "global_state" / Int32ul, "display_data_addr" / Int32ul)
TASK_STATE = Struct(
    "status" / word(("gtperf_task_enabled", 1)),
    "frequency" / word(("max_unslice", 8), ("min_unslice", 8), ("max_slice", 8), ("min_slice", 8)),
)
"""Frequencies in units of 16.67 MHz."""
OVERRIDE_BITS = 8
OVERRIDE_VALUES = 256
OVERRIDES = Struct("set" / Array(OVERRIDE_BITS, Int32ul), "values" / Array(OVERRIDE_VALUES, Int32ul))
"""Parameters that the driver sets, where their bit in `set` is."""

_LINE = 64
SHARED_DATA = Struct(
    "header" / HEADER,
    Padding(_LINE - HEADER.sizeof()),
    "platform_info" / Array(_LINE // 4, Int32ul),
    "task_state" / TASK_STATE,
    Padding(_LINE - TASK_STATE.sizeof()),
    "overrides" / OVERRIDES,
)
