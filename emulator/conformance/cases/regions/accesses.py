"""REGION_READ and REGION_WRITE that reach the device, and what they find there."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.regions.bodies import BOTH, CONFIG, PATTERN, READ, WRITE, access_body
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire


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
        reply = t.tolerated(t.client, wire.REGION_READ, access_body(scratch.offset + offset, scratch.region, size))
        if not reply.failed:
            t.equal(reply.body[16:], PATTERN[offset : offset + size], f"{size} bytes at {offset}")


@case(BOTH, silent=True)
def odd_sizes_work_or_are_refused(t: Context) -> None:
    """Accesses of other sizes work, or are refused; nothing in between."""
    scratch = t.scratch(256)
    for size in (3, 5, 6, 7, 9, 12, 16, 31, 64, 255):
        body = access_body(scratch.offset, scratch.region, size, PATTERN[:size])
        if t.tolerated(t.client, wire.REGION_WRITE, body).failed:
            continue
        got = t.accepted(t.client, wire.REGION_READ, access_body(scratch.offset, scratch.region, size))
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
    body = access_body(4, CONFIG, 2)
    reply = t.accepted(t.client, wire.REGION_READ, body)
    t.equal(reply.body[:16], body, "the fixed part of the reply")
    t.equal(len(reply.body), 16 + 2, "the payload's size")


@case(WRITE)
def write_reply_has_offset_region_and_count(t: Context) -> None:
    """The reply repeats what was written, without the data."""
    scratch = t.scratch(64)
    body = access_body(scratch.offset, scratch.region, 4)
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
