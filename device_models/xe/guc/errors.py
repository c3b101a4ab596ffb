"""Error codes of the GuC, in HXG FAILURE messages (`abi/guc_errors_abi.h`)."""

from __future__ import annotations

ERROR_NAMES: dict[int, str] = {}


def _error(code: int, name: str) -> int:
    ERROR_NAMES[code] = name
    return code


PROTOCOL = _error(0x04, "ERROR_PROTOCOL")
INVALID_STATE = _error(0x0A, "INVALID_STATE")
UNSUPPORTED_VERSION = _error(0x0B, "UNSUPPORTED_VERSION")
INVALID_VFID = _error(0x0C, "INVALID_VFID")
UNPROVISIONED_VF = _error(0x0D, "UNPROVISIONED_VF")
INVALID_EVENT = _error(0x0E, "INVALID_EVENT")
NOT_SUPPORTED = _error(0x20, "NOT_SUPPORTED")
UNKNOWN_ACTION = _error(0x30, "UNKNOWN_ACTION")
ACTION_ABORTED = _error(0x31, "ACTION_ABORTED")
NO_PERMISSION = _error(0x40, "NO_PERMISSION")
CANNOT_COMPLETE_ACTION = _error(0x41, "CANNOT_COMPLETE_ACTION")
INVALID_KLV_DATA = _error(0x50, "INVALID_KLV_DATA")
INVALID_PARAMS = _error(0x60, "INVALID_PARAMS")
INVALID_CONTEXT_INDEX = _error(0x61, "INVALID_CONTEXT_INDEX")
INVALID_CONTEXT_REGISTRATION = _error(0x62, "INVALID_CONTEXT_REGISTRATION")
INVALID_DOORBELL_ID = _error(0x63, "INVALID_DOORBELL_ID")
INVALID_ENGINE_ID = _error(0x64, "INVALID_ENGINE_ID")
INVALID_BUFFER_RANGE = _error(0x70, "INVALID_BUFFER_RANGE")
INVALID_BUFFER = _error(0x71, "INVALID_BUFFER")
INVALID_GGTT_ADDRESS = _error(0x80, "INVALID_GGTT_ADDRESS")
PENDING_ACTION = _error(0x90, "PENDING_ACTION")
CONTEXT_NOT_REGISTERED = _error(0x100, "CONTEXT_NOT_REGISTERED")
CONTEXT_ALREADY_REGISTERED = _error(0x101, "CONTEXT_ALREADY_REGISTERED")
INVALID_SIZE = _error(0x102, "INVALID_SIZE")
MALFORMED_KLV = _error(0x103, "MALFORMED_KLV")
INVALID_CONTEXT = _error(0x104, "INVALID_CONTEXT")
INVALID_KLV_KEY = _error(0x105, "INVALID_KLV_KEY")
DATA_TOO_LARGE = _error(0x106, "DATA_TOO_LARGE")
VF_MIGRATED = _error(0x107, "VF_MIGRATED")
VGT_DISABLED = _error(0x300, "VGT_DISABLED")
CTB_FULL = _error(0x301, "CTB_FULL")
VGT_UNAUTHORIZED_REQUEST = _error(0x302, "VGT_UNAUTHORIZED_REQUEST")
CTB_INVALID = _error(0x303, "CTB_INVALID")
CTB_NOT_REGISTERED = _error(0x304, "CTB_NOT_REGISTERED")
CTB_INVALID_DESC = _error(0x306, "CTB_INVALID_DESC")
INVALID_CONFIG_STATE = _error(0x30F, "INVALID_CONFIG_STATE")
GENERIC_FAIL = _error(0xF000, "GENERIC_FAIL")


class GucError(Exception):
    """A request that the GuC refuses with `code`; `hint` (12 bits) goes along in the FAILURE message."""

    def __init__(self, code: int, reason: str = "", hint: int = 0) -> None:
        super().__init__(f"{ERROR_NAMES.get(code, hex(code))}{': ' if reason else ''}{reason}")
        self.code = code
        self.hint = hint
