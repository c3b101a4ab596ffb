"""The GuC's log buffer: the page of states in front of its parts (`abi/guc_log_abi.h`), and the boot parameter that
says how large the parts are (`xe_guc.c:guc_ctl_log_params_flags`)."""

from __future__ import annotations

from dataclasses import dataclass

from construct import Array, Bytes, Int32ul, Struct

from vfio_user_xe.emulator.model.layout import offset_of, word

STATE = Struct(
    "marker" / Bytes(8),
    "read_ptr" / Int32ul,
    "write_ptr" / Int32ul,
    "size" / Int32ul,
    "sampled_write_ptr" / Int32ul,
    "wrap_offset" / Int32ul,
    "flags" / word(("flush_to_file", 1), ("buffer_full_cnt", 4)),
    "version" / Int32ul,
)
"""Of one part, in bytes. The host moves `read_ptr` and clears `flush_to_file`; the rest is the GuC's."""
PARTS = ("events", "crash_dump", "capture")
"""In the order of their states."""
HEADER = Struct("states" / Array(len(PARTS), STATE))

READ_PTR, WRITE_PTR, SIZE, SAMPLED_WRITE_PTR, FLAGS = (
    offset_of(STATE, field) for field in ("read_ptr", "write_ptr", "size", "sampled_write_ptr", "flags")
)
"""Offsets in a state: the GuC stores field by field, as the host writes to the same state."""
FLUSH_TO_FILE = 1 << 0

PARAMETER = word(
    ("valid", 1),
    ("notify_on_half_full", 1),
    ("capture_in_mib", 1),
    ("log_in_mib", 1),
    ("crash_dump", 2),
    ("events", 4),
    ("capture", 2),
    ("page", 20),
)
"""GUC_CTL_LOG_PARAMS. Sizes are one less than the number of units of 4 KiB, or of 1 MiB."""

_PAGE, _MIB = 4096, 1 << 20


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where the log is: GGTT addresses, and bytes."""

    header: int
    capture_state: int
    capture: int
    capture_size: int


def place(parameter: int) -> LogPlace | None:
    """Where GUC_CTL_LOG_PARAMS says that the log is; None without a log. The crash dump comes after the events."""
    fields = PARAMETER.parse(parameter.to_bytes(4, "little"))
    if not fields.valid:
        return None
    unit = _MIB if fields.log_in_mib else _PAGE
    before = (fields.events + 1) * unit + (fields.crash_dump + 1) * unit
    base = fields.page * _PAGE
    size = (fields.capture + 1) * (_MIB if fields.capture_in_mib else _PAGE)
    return LogPlace(base, base + PARTS.index("capture") * STATE.sizeof(), base + _PAGE + before, size)
