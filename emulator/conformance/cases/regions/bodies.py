"""Names of the specification's sections on region accesses, and a request's body."""

from __future__ import annotations

from vfio_user_xe.emulator.vfio_user import wire

READ = "VFIO_USER_REGION_READ"
WRITE = "VFIO_USER_REGION_WRITE"
MULTI = "VFIO_USER_REGION_WRITE_MULTI"
BOTH = "Read and Write Operations"

CONFIG = wire.CONFIG
PATTERN = bytes((index * 37 + 11) & 0xFF for index in range(256))


def access_body(offset: int, region: int, count: int, data: bytes = b"") -> bytes:
    return wire.REGION_ACCESS.pack(offset, region, count) + data
