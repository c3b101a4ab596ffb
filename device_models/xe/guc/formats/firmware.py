"""The header of a firmware blob (`abi/uc_fw_abi.h:struct uc_css_header`)."""

from __future__ import annotations

from dataclasses import dataclass

from construct import Bytes, Int32ul, Padding, Struct

from vfio_user_xe.emulator.model.layout import word

_MODULE_TYPE = 6

_VERSION = word(("patch", 8), ("minor", 8), ("major", 8))

CSS_HEADER = Struct(
    "module_type" / Int32ul,
    "header_size_dw" / Int32ul,
    "header_version" / Int32ul,
    "module_id" / Int32ul,
    "module_vendor" / Int32ul,
    "date" / word(("day", 8), ("month", 8), ("year", 16)),
    "size_dw" / Int32ul,
    "key_size_dw" / Int32ul,
    "modulus_size_dw" / Int32ul,
    "exponent_size_dw" / Int32ul,
    "time" / word(("hour", 8), ("minute", 8), ("second", 16)),
    "username" / Bytes(8),
    "buildnumber" / Bytes(12),
    "sw_version" / _VERSION,
    "submission_version" / _VERSION,
    Padding(48),
    "private_data_size" / Int32ul,
    "header_info" / Int32ul,
)

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class FirmwareHeader:
    """What the GuC's boot needs of a blob's header."""

    version: Version
    """Major, minor, patch of the firmware."""
    submission_version: Version
    """Of its interface; of the GuC's firmware only."""


def parse_header(data: bytes) -> FirmwareHeader | None:
    """The header in `data`, `CSS_HEADER.sizeof()` bytes; None when it is the header of no firmware."""
    header = CSS_HEADER.parse(data)
    if header.module_type != _MODULE_TYPE or not 0 < header.header_size_dw < header.size_dw:
        return None
    version, interface = (
        (packed.major, packed.minor, packed.patch) for packed in (header.sw_version, header.submission_version)
    )
    return FirmwareHeader(version, interface)
