"""REGION_WRITE_MULTI: several writes in one message."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.regions.bodies import CONFIG, MULTI, PATTERN
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import INVALID, MALFORMED, NO_SUCH_INDEX, OUT_OF_RANGE, TOO_LARGE
from vfio_user_xe.emulator.conformance.profile import Scratch
from vfio_user_xe.emulator.vfio_user import wire


def _multi_scratch(t: Context) -> Scratch:
    if t.client.server_capabilities.get("write_multiple") is not True:
        t.skip("the server does not agree to write_multiple")
    return t.scratch(256)


def _entry(offset: int, region: int, count: int, data: bytes = b"") -> bytes:
    return wire.WRITE_MULTI_ENTRY.pack(offset, region, count, data)


def _multi(*entries: bytes, count: int | None = None) -> bytes:
    return wire.WRITE_MULTI.pack(len(entries) if count is None else count) + b"".join(entries)


@case(MULTI)
def several_writes_in_one_message_are_all_done(t: Context) -> None:
    """Every write of the message is done, with its own offset and size."""
    scratch = _multi_scratch(t)
    t.client.region_write(scratch.region, scratch.offset, bytes(64))
    writes = [(0, b"A"), (2, b"BC"), (4, b"DEFG"), (8, b"HIJKLMNO"), (16, b"PQR")]
    done = t.client.write_multi([(scratch.region, scratch.offset + at, data) for at, data in writes])
    t.equal(done, len(writes), "wr_cnt of the reply")
    want = b"A\0BCDEFGHIJKLMNOPQR" + bytes(5)
    t.equal(t.client.region_read(scratch.region, scratch.offset, 24), want, "the memory")


@case(MULTI)
def several_writes_are_done_in_order(t: Context) -> None:
    """Later writes of the message win."""
    scratch = _multi_scratch(t)
    t.client.write_multi([(scratch.region, scratch.offset, bytes([value]) * 4) for value in range(1, 60)])
    t.equal(t.client.region_read(scratch.region, scratch.offset, 4), bytes([59]) * 4, "the memory")


@case(MULTI)
def several_writes_may_go_to_several_regions(t: Context) -> None:
    """Every write names its own region."""
    _multi_scratch(t)
    regions = {scratch.region: scratch for scratch in t.profile.scratch}
    if len(regions) < 2:
        t.skip("the profile has scratch memory in one region only")
    first, second = list(regions.values())[:2]
    t.client.write_multi([(first.region, first.offset, b"1st!"), (second.region, second.offset, b"2nd!")])
    t.equal(t.client.region_read(first.region, first.offset, 4), b"1st!", "the first region's memory")
    t.equal(t.client.region_read(second.region, second.offset, 4), b"2nd!", "the second region's memory")


@case(MULTI)
def two_hundred_writes_in_one_message_are_done(t: Context) -> None:
    """QEMU sends up to 200 writes in one message."""
    scratch = _multi_scratch(t)
    data = (PATTERN * 4)[:200]
    entries = [(scratch.region, scratch.offset + index, data[index : index + 1]) for index in range(200)]
    t.equal(t.client.write_multi(entries), 200, "wr_cnt of the reply")
    t.equal(t.client.region_read(scratch.region, scratch.offset, 200), data, "the memory")


@case(MULTI)
def posted_writes_in_one_message_are_done(t: Context) -> None:
    """With No_reply the writes are done, without a reply."""
    scratch = _multi_scratch(t)
    t.client.write_multi(
        [(scratch.region, scratch.offset, b"post"), (scratch.region, scratch.offset + 4, b"ed.!")], posted=True
    )
    t.equal(t.client.region_read(scratch.region, scratch.offset, 8), b"posted.!", "the memory")
    t.silent(t.client)


@case(MULTI, silent=True)
def message_without_writes_does_no_harm(t: Context) -> None:
    """A count of 0 is done, or refused."""
    _multi_scratch(t)
    t.tolerated(t.client, wire.REGION_WRITE_MULTI, _multi())


def _bad_multi(name: str, rule: str, count: int) -> None:
    def check(t: Context) -> None:
        scratch = _multi_scratch(t)
        body = _multi(_entry(scratch.offset, scratch.region, 4, b"data"), count=count)
        t.refused(t.client, wire.REGION_WRITE_MULTI, body, INVALID | MALFORMED | TOO_LARGE)

    check.__name__ = name
    check.__doc__ = rule
    case(MULTI)(check)


_bad_multi("fewer_writes_than_announced_are_refused", "wr_cnt must not exceed the writes that are there.", 2)
_bad_multi("enormous_number_of_writes_is_refused", "A wr_cnt of 2^60 is refused, at once.", 1 << 60)
_bad_multi(
    "wr_cnt_that_wraps_around_is_refused", "wr_cnt times 24 must not overflow into something valid.", (1 << 61) + 1
)


@case(MULTI)
def write_of_more_than_8_bytes_is_refused(t: Context) -> None:
    """A write in such a message has 8 bytes at most."""
    scratch = _multi_scratch(t)
    for count in (9, 16, 0xFFFFFFFF):
        body = _multi(_entry(scratch.offset, scratch.region, count))
        t.refused(t.client, wire.REGION_WRITE_MULTI, body, INVALID | TOO_LARGE | OUT_OF_RANGE)


@case(MULTI)
def write_outside_of_its_region_is_refused(t: Context) -> None:
    """Every write is checked like a REGION_WRITE."""
    _multi_scratch(t)
    size = t.client.region_info(CONFIG).size
    _, count, _ = t.client.device_info()
    for entry in (_entry(size, CONFIG, 4), _entry(0, count, 4), _entry((1 << 64) - 2, CONFIG, 4)):
        t.refused(t.client, wire.REGION_WRITE_MULTI, _multi(entry), OUT_OF_RANGE | NO_SUCH_INDEX)


@case(MULTI)
def short_multi_write_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    _multi_scratch(t)
    for length in (0, 7):
        t.refused(t.client, wire.REGION_WRITE_MULTI, _multi()[:length], INVALID | MALFORMED)
    t.refused(t.client, wire.REGION_WRITE_MULTI, _multi(_entry(0, CONFIG, 1), count=1)[:-1], INVALID | MALFORMED)
