"""REGION_READ and REGION_WRITE that must be refused, and change nothing."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.regions.bodies import BOTH, CONFIG, READ, WRITE, access_body
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import (
    INVALID,
    MALFORMED,
    NO_SUCH_INDEX,
    NOT_ALLOWED,
    OUT_OF_RANGE,
    TOO_LARGE,
)
from vfio_user_xe.emulator.vfio_user import wire


def _both(t: Context, offset: int, region: int, count: int, errnos: frozenset[int]) -> None:
    t.refused(t.client, wire.REGION_READ, access_body(offset, region, count), errnos)
    t.refused(t.client, wire.REGION_WRITE, access_body(offset, region, count, bytes(count)), errnos)


@case(BOTH)
def missing_region_is_refused(t: Context) -> None:
    """Indices that DEVICE_GET_INFO does not count do not exist."""
    _, count, _ = t.client.device_info()
    for region in (count, 0xFFFFFFFF):
        _both(t, 0, region, 4, NO_SUCH_INDEX | OUT_OF_RANGE)


@case(BOTH)
def empty_region_is_refused(t: Context) -> None:
    """A region of size 0 has no bytes to access."""
    _, count, _ = t.client.device_info()
    empty = [index for index in range(count) if not t.client.region_info(index).size]
    if not empty:
        t.skip("every region has a size")
    _both(t, 0, empty[0], 4, NO_SUCH_INDEX | OUT_OF_RANGE)


@case(BOTH)
def access_at_the_end_is_refused(t: Context) -> None:
    """The first byte behind a region is not part of it."""
    for info in t.regions(t.client):
        t.refused(t.client, wire.REGION_READ, access_body(info.size, info.index, 4), OUT_OF_RANGE)
    _both(t, t.client.region_info(CONFIG).size, CONFIG, 4, OUT_OF_RANGE)


@case(BOTH)
def access_over_the_end_is_refused(t: Context) -> None:
    """An access that begins inside of a region and ends outside is refused as a whole."""
    for info in t.regions(t.client):
        t.refused(t.client, wire.REGION_READ, access_body(info.size - 2, info.index, 4), OUT_OF_RANGE)
        t.refused(t.client, wire.REGION_READ, access_body(info.size - 4, info.index, 8), OUT_OF_RANGE)


@case(WRITE)
def write_over_the_end_changes_nothing(t: Context) -> None:
    """A write that is refused for its end has not written its beginning."""
    scratch = t.scratch(64)
    size = t.client.region_info(scratch.region).size
    if scratch.offset + scratch.length != size:
        mapped = [s for s in t.profile.scratch if s.offset + s.length == t.client.region_info(s.region).size]
        if not mapped:
            t.skip("no scratch memory reaches to the end of its region")
        scratch = mapped[0]
        size = t.client.region_info(scratch.region).size
    t.client.region_write(scratch.region, size - 2, b"ok")
    t.refused(t.client, wire.REGION_WRITE, access_body(size - 2, scratch.region, 4, b"FAIL"), OUT_OF_RANGE)
    t.equal(t.client.region_read(scratch.region, size - 2, 2), b"ok", "the last two bytes")


@case(BOTH)
def offset_that_wraps_around_is_refused(t: Context) -> None:
    """offset + count must not overflow 64 bits into something valid."""
    for offset in ((1 << 64) - 1, (1 << 64) - 4, 1 << 63):
        _both(t, offset, CONFIG, 8, OUT_OF_RANGE)


@case(BOTH)
def count_above_the_limit_is_refused(t: Context) -> None:
    """count must not exceed max_data_xfer_size."""
    limit = t.client.max_data_xfer_size
    for info in t.regions(t.client):
        if info.size > limit:
            t.refused(t.client, wire.REGION_READ, access_body(0, info.index, limit + 1), TOO_LARGE)
            return
    t.skip(f"no region is larger than max_data_xfer_size ({limit})")


@case(BOTH)
def enormous_count_is_refused(t: Context) -> None:
    """A count of 4 GiB is refused, at once."""
    for count in (0x80000000, 0xFFFFFFFF):
        t.refused(t.client, wire.REGION_READ, access_body(0, CONFIG, count), TOO_LARGE | OUT_OF_RANGE)


@case(BOTH, silent=True)
def count_of_zero_does_no_harm(t: Context) -> None:
    """An access of nothing is refused, or succeeds without data."""
    for command in (wire.REGION_READ, wire.REGION_WRITE):
        reply = t.tolerated(t.client, command, access_body(0, CONFIG, 0))
        if not reply.failed:
            t.check(len(reply.body) in (0, 16), f"{len(reply.body)} bytes of payload for a count of 0")


@case(READ)
def short_read_request_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 8, 15):
        t.refused(t.client, wire.REGION_READ, access_body(0, CONFIG, 4)[:length], INVALID | MALFORMED)


@case(WRITE)
def short_write_request_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 8, 15):
        t.refused(t.client, wire.REGION_WRITE, access_body(0x3C, CONFIG, 1)[:length], INVALID | MALFORMED)


@case(READ, silent=True)
def data_with_a_read_does_no_harm(t: Context) -> None:
    """Bytes behind a read request are refused or ignored."""
    reply = t.tolerated(t.client, wire.REGION_READ, access_body(0, CONFIG, 4, bytes(64)))
    if not reply.failed:
        t.equal(len(reply.body), 20, "the payload's size")


def _mismatch(name: str, count: int, data: bytes) -> None:
    def check(t: Context) -> None:
        scratch = t.scratch(64)
        t.client.region_write(scratch.region, scratch.offset, b"\x11" * 16)
        body = access_body(scratch.offset, scratch.region, count, data)
        t.refused(t.client, wire.REGION_WRITE, body, INVALID | MALFORMED)
        t.equal(t.client.region_read(scratch.region, scratch.offset, 16), b"\x11" * 16, "the memory")

    check.__name__ = f"write_with_{name}_data_is_refused"
    check.__doc__ = "count says how many bytes of data there are; nothing is written where that is wrong."
    case(WRITE)(check)


_mismatch("no", 4, b"")
_mismatch("less", 8, b"\x22" * 4)
_mismatch("more", 4, b"\x22" * 8)


@case(WRITE)
def write_to_a_read_only_region_is_refused(t: Context) -> None:
    """A region without the write flag is not written."""
    info = next((info for info in t.regions(t.client) if not info.writable), None)
    if info is None:
        t.skip("every region is writable")
    before = t.client.region_read(info.index, 0, 4)
    for size in (1, 4, 64):
        t.refused(t.client, wire.REGION_WRITE, access_body(0, info.index, size, b"\xa5" * size), NOT_ALLOWED)
    t.equal(t.client.region_read(info.index, 0, 4), before, "the region's first bytes")


@case(READ)
def read_of_a_write_only_region_is_refused(t: Context) -> None:
    """A region without the read flag is not read."""
    info = next((info for info in t.regions(t.client) if not info.readable), None)
    if info is None:
        t.skip("every region is readable")
    t.refused(t.client, wire.REGION_READ, access_body(0, info.index, 4), NOT_ALLOWED)


@case(BOTH, silent=True)
def failure_inside_the_device_is_an_error_reply(t: Context) -> None:
    """An access that the device itself cannot carry out gets an error, and the session goes on."""
    device = t.device()
    body = access_body(numbers.REG_BROKEN, numbers.REGISTERS, 4)
    for command, data in ((wire.REGION_READ, b""), (wire.REGION_WRITE, bytes(4))):
        t.check(t.tolerated(t.client, command, body + data).failed, "an access that failed was answered as a success")
    t.equal(device.get(numbers.REG_MAGIC), numbers.MAGIC, "the magic number afterwards")
