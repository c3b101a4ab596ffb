"""Additional data structures: where the driver tells the GuC what it needs to know (`xe_guc_fwif.h:struct guc_ads`).

Fields are GGTT addresses unless their name says otherwise.
"""

from __future__ import annotations

from construct import Array, Int16ul, Int32ul, Padding, Struct

from vfio_user_xe.emulator.model.layout import word

ENGINE_CLASSES = 16
INSTANCES = 32

REGISTER_SET = Struct("address" / Int32ul, "count" / Int16ul, Padding(2))
"""Registers that the GuC saves and restores over an engine reset (`struct guc_mmio_reg_set`)."""
_BY_CLASS = Array(ENGINE_CLASSES, Int32ul)
_BY_OWNER = Array(2, _BY_CLASS)

ADS = Struct(
    "reg_state_list" / Array(ENGINE_CLASSES, Array(INSTANCES, REGISTER_SET)),
    Padding(4),
    "scheduler_policies" / Int32ul,
    "gt_system_info" / Int32ul,
    Padding(4),
    "control_data" / Int32ul,
    "golden_context_lrca" / _BY_CLASS,
    "eng_state_size" / _BY_CLASS,
    "private_data" / Int32ul,
    "um_init_data" / Int32ul,
    "capture_instance" / _BY_OWNER,
    "capture_class" / _BY_OWNER,
    "capture_global" / Array(2, Int32ul),
    "wa_klv_addr_lo" / Int32ul,
    "wa_klv_addr_hi" / Int32ul,
    "wa_klv_size" / Int32ul,
    Padding(44),
)
"""Lists of captured registers are by owner (0: the PF, 1: a VF), then by class of capture (`xe_guc_capture.c:xe_engine_class_to_guc_capture_class`)."""

_PARAMETER = word(("", 1), ("page", 31))


def address(parameter: int) -> int:
    """The GGTT address that boot parameter GUC_CTL_ADS says; 0 without ADS."""
    return int(_PARAMETER.parse(parameter.to_bytes(4, "little")).page) << 12
