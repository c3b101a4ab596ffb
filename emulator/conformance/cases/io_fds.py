"""DEVICE_GET_REGION_IO_FDS: optional for a server, but it must answer."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import INVALID, MALFORMED, NO_FEATURE, NO_SUCH_INDEX, UNKNOWN_COMMAND
from vfio_user_xe.emulator.vfio_user import wire

IO_FDS = "VFIO_USER_DEVICE_GET_REGION_IO_FDS"
_REFUSED = INVALID | MALFORMED | UNKNOWN_COMMAND


def _body(index: int, argsz: int = 16, flags: int = 0, count: int = 0) -> bytes:
    return wire.REGION_IO_FDS.pack(argsz, flags, index, count)


@case(IO_FDS)
def every_region_answers(t: Context) -> None:
    """Regions without such descriptors say that they have none, or refuse; the others say how many, and the size."""
    for info in t.regions(t.client):
        reply = t.exchange(t.client, wire.DEVICE_GET_REGION_IO_FDS, _body(info.index))
        if reply.failed:
            t.is_error(reply, NO_FEATURE | _REFUSED)
            continue
        argsz, flags, index, count = wire.REGION_IO_FDS.unpack_from(reply.body)
        t.equal(index, info.index, "the index in the reply")
        t.equal(flags, 0, "flags")
        t.equal(len(reply.body), wire.REGION_IO_FDS.size, "the payload's size for an argsz of 16")
        least = wire.REGION_IO_FDS.size + count * wire.IO_FD.size
        t.check(argsz >= least, f"argsz {argsz} has no room for {count} sub-regions")
    t.usable(t.client)


@case(IO_FDS)
def sub_regions_lie_in_their_region(t: Context) -> None:
    """Every sub-region is inside its region and names a descriptor that came."""
    found = False
    for info in t.regions(t.client):
        if t.exchange(t.client, wire.DEVICE_GET_REGION_IO_FDS, _body(info.index)).failed:
            continue
        with t.client.region_io_fds(info.index) as io_fds:
            for entry in io_fds.entries:
                found = True
                t.check(entry.offset + entry.size <= info.size, f"sub-region {entry.offset:#x} is outside the region")
                t.check(entry.fd >= 0, f"sub-region {entry.offset:#x} names a descriptor that did not come")
    if not found:
        t.skip("no region has descriptors for I/O (they are optional)")


@case(IO_FDS)
def io_fds_of_a_missing_region_are_refused(t: Context) -> None:
    """Indices that DEVICE_GET_INFO does not count do not exist."""
    _, count, _ = t.client.device_info()
    for index in (count, 0xFFFFFFFF):
        t.refused(t.client, wire.DEVICE_GET_REGION_IO_FDS, _body(index), NO_SUCH_INDEX | UNKNOWN_COMMAND)


@case(IO_FDS)
def io_fds_with_flags_are_refused(t: Context) -> None:
    """The client must set flags to zero."""
    t.refused(t.client, wire.DEVICE_GET_REGION_IO_FDS, _body(wire.CONFIG, flags=1), _REFUSED)


@case(IO_FDS)
def io_fds_with_a_count_are_refused(t: Context) -> None:
    """All other fields must be zero."""
    t.refused(t.client, wire.DEVICE_GET_REGION_IO_FDS, _body(wire.CONFIG, count=3), _REFUSED)


@case(IO_FDS)
def too_small_io_fds_argsz_is_refused(t: Context) -> None:
    """argsz must have room for the fixed part."""
    for argsz in (0, 15):
        t.refused(t.client, wire.DEVICE_GET_REGION_IO_FDS, _body(wire.CONFIG, argsz), _REFUSED)


@case(IO_FDS)
def short_io_fds_request_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 15):
        t.refused(t.client, wire.DEVICE_GET_REGION_IO_FDS, _body(wire.CONFIG)[:length], _REFUSED)
