"""REGION_READ, REGION_WRITE and REGION_WRITE_MULTI."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import (
    INVALID,
    MALFORMED,
    NO_SUCH_INDEX,
    NOT_ALLOWED,
    OUT_OF_RANGE,
    TOO_LARGE,
)
from vfio_user_xe.emulator.conformance.profile import Scratch
from vfio_user_xe.emulator.vfio_user import wire

READ = "VFIO_USER_REGION_READ"
WRITE = "VFIO_USER_REGION_WRITE"
MULTI = "VFIO_USER_REGION_WRITE_MULTI"
BOTH = "Read and Write Operations"

CONFIG = wire.CONFIG
PATTERN = bytes((index * 37 + 11) & 0xFF for index in range(256))


def _access(offset: int, region: int, count: int, data: bytes = b"") -> bytes:
    return wire.REGION_ACCESS.pack(offset, region, count) + data


# Reading and writing.


def _size(size: int) -> None:
    def check(t: Context) -> None:
        scratch = t.scratch(64)
        for offset in range(scratch.offset, scratch.offset + 32, size):
            t.client.region_write(scratch.region, offset, PATTERN[offset % 64 : offset % 64 + size])
            got = t.client.region_read(scratch.region, offset, size)
            t.equal(got, PATTERN[offset % 64 : offset % 64 + size], f"{size} bytes at {offset:#x}")

    check.__name__ = f"access_of_{size}_bytes_works"
    check.__doc__ = f"Aligned accesses of {size} bytes read what was written."
    case(BOTH)(check)


for _bytes in (1, 2, 4, 8):
    _size(_bytes)


@case(BOTH)
def bytes_are_in_the_order_of_memory(t: Context) -> None:
    """A value that is written as a whole is read byte by byte in the same order, and the other way round."""
    scratch = t.scratch(64)
    t.client.region_write(scratch.region, scratch.offset, PATTERN[:8])
    for index in range(8):
        got = t.client.region_read(scratch.region, scratch.offset + index, 1)
        t.equal(got, PATTERN[index : index + 1], f"byte {index} of 8")
    for index in range(8):
        t.client.region_write(scratch.region, scratch.offset + 8 + index, PATTERN[16 + index : 17 + index])
    t.equal(t.client.region_read(scratch.region, scratch.offset + 8, 8), PATTERN[16:24], "8 bytes written one by one")


@case(BOTH, silent=True)
def unaligned_accesses_work_or_are_refused(t: Context) -> None:
    """An access that is not aligned to its size works, or is refused; nothing in between."""
    scratch = t.scratch(64)
    t.client.region_write(scratch.region, scratch.offset, PATTERN[:32])
    for offset, size in ((1, 2), (1, 4), (2, 4), (3, 4), (4, 8), (5, 8), (7, 2)):
        reply = t.tolerated(t.client, wire.REGION_READ, _access(scratch.offset + offset, scratch.region, size))
        if not reply.failed:
            t.equal(reply.body[16:], PATTERN[offset : offset + size], f"{size} bytes at {offset}")


@case(BOTH, silent=True)
def odd_sizes_work_or_are_refused(t: Context) -> None:
    """Accesses of other sizes work, or are refused; nothing in between."""
    scratch = t.scratch(256)
    for size in (3, 5, 6, 7, 9, 12, 16, 31, 64, 255):
        body = _access(scratch.offset, scratch.region, size, PATTERN[:size])
        if t.tolerated(t.client, wire.REGION_WRITE, body).failed:
            continue
        got = t.accepted(t.client, wire.REGION_READ, _access(scratch.offset, scratch.region, size))
        t.equal(got.body[16:], PATTERN[:size], f"{size} bytes")


@case(BOTH)
def largest_access_works(t: Context) -> None:
    """max_data_xfer_size bytes can be read and written at once."""
    size = t.client.max_data_xfer_size
    scratch = t.scratch(size)
    data = PATTERN * (size // len(PATTERN)) + bytes(size % len(PATTERN))
    t.client.region_write(scratch.region, scratch.offset, data)
    t.check(t.client.region_read(scratch.region, scratch.offset, size) == data, f"{size} bytes are not as written")


@case(BOTH, silent=True)
def large_access_to_trapped_memory_works(t: Context) -> None:
    """Trapped memory can be read and written by the kibibyte."""
    scratch = t.scratch(8192, trapped=True)
    t.client.region_write(scratch.region, scratch.offset, PATTERN * 32)
    t.equal(t.client.region_read(scratch.region, scratch.offset, 8192), PATTERN * 32, "8192 bytes")


@case(READ)
def read_reply_has_offset_region_and_count(t: Context) -> None:
    """The reply repeats what was read, and the data follow."""
    body = _access(4, CONFIG, 2)
    reply = t.accepted(t.client, wire.REGION_READ, body)
    t.equal(reply.body[:16], body, "the fixed part of the reply")
    t.equal(len(reply.body), 16 + 2, "the payload's size")


@case(WRITE)
def write_reply_has_offset_region_and_count(t: Context) -> None:
    """The reply repeats what was written, without the data."""
    scratch = t.scratch(64)
    body = _access(scratch.offset, scratch.region, 4)
    reply = t.accepted(t.client, wire.REGION_WRITE, body + b"abcd")
    t.equal(reply.body, body, "the reply's payload")


@case(WRITE)
def write_changes_nothing_beside_it(t: Context) -> None:
    """A write touches its bytes only."""
    scratch = t.scratch(64)
    t.client.region_write(scratch.region, scratch.offset, bytes(16))
    t.client.region_write(scratch.region, scratch.offset + 4, b"\xff" * 4)
    t.client.region_write(scratch.region, scratch.offset + 10, b"\xee")
    want = bytes(4) + b"\xff" * 4 + bytes(2) + b"\xee" + bytes(5)
    t.equal(t.client.region_read(scratch.region, scratch.offset, 16), want, "16 bytes around the writes")


@case(BOTH)
def trapped_access_reaches_the_device_as_it_is(t: Context) -> None:
    """An access of 1, 2, 4 or 8 bytes reaches the device once, with its offset and size."""
    device = t.device()
    for size in (1, 2, 4):
        before = device.get(numbers.REG_WRITES)
        t.client.region_write(numbers.SCRATCH, 0x40, PATTERN[:size])
        t.equal(device.get(numbers.REG_WRITES) - before, 1, f"the number of writes for one of {size} bytes")
        t.equal(device.get(numbers.REG_LAST_OFFSET), 0x40, "the write's offset")
        t.equal(device.get(numbers.REG_LAST_SIZE), size, "the write's size")


# Configuration space.


@case(READ)
def configuration_space_is_the_same_in_any_size(t: Context) -> None:
    """The first 64 bytes of configuration space read the same by 1, 2 and 4 bytes."""
    parts = {
        size: b"".join(t.client.region_read(CONFIG, offset, size) for offset in range(0, 64, size))
        for size in (1, 2, 4)
    }
    t.equal(parts[1], parts[4], "configuration space read byte by byte, against dwords,")
    t.equal(parts[2], parts[4], "configuration space read by words, against dwords,")


@case(READ)
def configuration_space_is_read_at_once(t: Context) -> None:
    """A client may read all of configuration space in one message, as QEMU does."""
    size = t.client.region_info(CONFIG).size
    whole = t.client.region_read(CONFIG, 0, size)
    t.equal(whole[:64], t.client.region_read(CONFIG, 0, 64), "the header in a read of everything")


@case(READ, silent=True)
def capability_list_ends(t: Context) -> None:
    """The list of PCI capabilities is a list: dword aligned, without a loop."""
    config = t.client.region_read(CONFIG, 0, 256)
    at = config[0x34] & 0xFC if config[0x06] & 0x10 else 0
    seen: list[int] = []
    while at:
        t.check(at >= 0x40 and at not in seen, f"the capability list runs {[*map(hex, [*seen, at])]}")
        seen.append(at)
        at = config[at + 1] & 0xFC


@case(WRITE)
def bar_sizing_agrees_with_the_regions(t: Context) -> None:
    """Writing all ones to a BAR reads back its size, which is its region's."""
    registers = {0x10 + 4 * index: t.client.read(CONFIG, 0x10 + 4 * index, 4) for index in range(6)}
    index = 0
    while index < 6:
        offset = 0x10 + 4 * index
        size = t.client.region_info(index).size
        if not size or registers[offset] & 1:
            index += 1
            continue
        wide = registers[offset] & 6 == 4
        t.client.write(CONFIG, offset, 4, 0xFFFFFFFF)
        mask = t.client.read(CONFIG, offset, 4) & 0xFFFFFFF0
        if wide:
            t.client.write(CONFIG, offset + 4, 4, 0xFFFFFFFF)
            mask |= t.client.read(CONFIG, offset + 4, 4) << 32
            t.client.write(CONFIG, offset + 4, 4, registers[offset + 4])
        t.client.write(CONFIG, offset, 4, registers[offset])
        limit = 1 << (64 if wide else 32)
        t.equal((limit - mask) % limit, size, f"the size of BAR {index} by its register")
        index += 2 if wide else 1


# What must be refused.


def _both(t: Context, offset: int, region: int, count: int, errnos: frozenset[int]) -> None:
    t.refused(t.client, wire.REGION_READ, _access(offset, region, count), errnos)
    t.refused(t.client, wire.REGION_WRITE, _access(offset, region, count, bytes(count)), errnos)


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
        t.refused(t.client, wire.REGION_READ, _access(info.size, info.index, 4), OUT_OF_RANGE)
    _both(t, t.client.region_info(CONFIG).size, CONFIG, 4, OUT_OF_RANGE)


@case(BOTH)
def access_over_the_end_is_refused(t: Context) -> None:
    """An access that begins inside of a region and ends outside is refused as a whole."""
    for info in t.regions(t.client):
        t.refused(t.client, wire.REGION_READ, _access(info.size - 2, info.index, 4), OUT_OF_RANGE)
        t.refused(t.client, wire.REGION_READ, _access(info.size - 4, info.index, 8), OUT_OF_RANGE)


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
    t.refused(t.client, wire.REGION_WRITE, _access(size - 2, scratch.region, 4, b"FAIL"), OUT_OF_RANGE)
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
            t.refused(t.client, wire.REGION_READ, _access(0, info.index, limit + 1), TOO_LARGE)
            return
    t.skip(f"no region is larger than max_data_xfer_size ({limit})")


@case(BOTH)
def enormous_count_is_refused(t: Context) -> None:
    """A count of 4 GiB is refused, at once."""
    for count in (0x80000000, 0xFFFFFFFF):
        t.refused(t.client, wire.REGION_READ, _access(0, CONFIG, count), TOO_LARGE | OUT_OF_RANGE)


@case(BOTH, silent=True)
def count_of_zero_does_no_harm(t: Context) -> None:
    """An access of nothing is refused, or succeeds without data."""
    for command in (wire.REGION_READ, wire.REGION_WRITE):
        reply = t.tolerated(t.client, command, _access(0, CONFIG, 0))
        if not reply.failed:
            t.check(len(reply.body) in (0, 16), f"{len(reply.body)} bytes of payload for a count of 0")


@case(READ)
def short_read_request_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 8, 15):
        t.refused(t.client, wire.REGION_READ, _access(0, CONFIG, 4)[:length], INVALID | MALFORMED)


@case(WRITE)
def short_write_request_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 8, 15):
        t.refused(t.client, wire.REGION_WRITE, _access(0x3C, CONFIG, 1)[:length], INVALID | MALFORMED)


@case(READ, silent=True)
def data_with_a_read_does_no_harm(t: Context) -> None:
    """Bytes behind a read request are refused or ignored."""
    reply = t.tolerated(t.client, wire.REGION_READ, _access(0, CONFIG, 4, bytes(64)))
    if not reply.failed:
        t.equal(len(reply.body), 20, "the payload's size")


def _mismatch(name: str, count: int, data: bytes) -> None:
    def check(t: Context) -> None:
        scratch = t.scratch(64)
        t.client.region_write(scratch.region, scratch.offset, b"\x11" * 16)
        body = _access(scratch.offset, scratch.region, count, data)
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
        t.refused(t.client, wire.REGION_WRITE, _access(0, info.index, size, b"\xa5" * size), NOT_ALLOWED)
    t.equal(t.client.region_read(info.index, 0, 4), before, "the region's first bytes")


@case(READ)
def read_of_a_write_only_region_is_refused(t: Context) -> None:
    """A region without the read flag is not read."""
    info = next((info for info in t.regions(t.client) if not info.readable), None)
    if info is None:
        t.skip("every region is readable")
    t.refused(t.client, wire.REGION_READ, _access(0, info.index, 4), NOT_ALLOWED)


@case(BOTH, silent=True)
def failure_inside_the_device_is_an_error_reply(t: Context) -> None:
    """An access that the device itself cannot carry out gets an error, and the session goes on."""
    device = t.device()
    body = _access(numbers.REG_BROKEN, numbers.REGISTERS, 4)
    for command, data in ((wire.REGION_READ, b""), (wire.REGION_WRITE, bytes(4))):
        t.check(t.tolerated(t.client, command, body + data).failed, "an access that failed was answered as a success")
    t.equal(device.get(numbers.REG_MAGIC), numbers.MAGIC, "the magic number afterwards")


# Partly mapped regions.


@case(BOTH)
def access_over_an_areas_edge_is_whole(t: Context) -> None:
    """Bytes on both sides of a mappable area's edge are read and written as one range."""
    t.device()
    edge = numbers.SPARSE_AREAS[0][0]
    t.client.region_write(numbers.SPARSE, edge - 8, PATTERN[:16])
    parts = b"".join(t.client.region_read(numbers.SPARSE, edge - 8 + index, 1) for index in range(16))
    t.equal(parts, PATTERN[:16], "16 bytes around the edge, read one by one")
    t.equal(t.client.region_read(numbers.SPARSE, edge - 8, 16), PATTERN[:16], "16 bytes around the edge, read at once")
    mapped = t.client.map_region(numbers.SPARSE)
    t.equal(bytes(mapped.at(edge, 8)), PATTERN[8:16], "the part inside the area, seen through the mapping")


@case(BOTH)
def gaps_between_areas_are_trapped(t: Context) -> None:
    """Accesses between the mappable areas reach the device."""
    device = t.device()
    before = device.get(numbers.REG_WRITES)
    t.client.write(numbers.SPARSE, 0, 4, 1)
    t.client.write(numbers.SPARSE, numbers.SPARSE_AREAS[0][0], 4, 2)
    t.equal(
        device.get(numbers.REG_WRITES) - before, 1, "the number of trapped writes, of one to a gap and one to an area,"
    )


# Several writes in one message.


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
