"""DMA_MAP and DMA_UNMAP: which ranges there are, and what the device reaches through them.

Whether a range is mapped shows from outside: mapping over it is refused exactly if it is.
"""

from __future__ import annotations

import os
import random

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import (
    BAD_DESCRIPTOR,
    EXISTS,
    INVALID,
    MALFORMED,
    NOT_MAPPED,
    OUT_OF_RANGE,
    TOO_MANY,
)
from vfio_user_xe.emulator.conformance.outcomes import Failure
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, encode

MAP = "VFIO_USER_DMA_MAP"
UNMAP = "VFIO_USER_DMA_UNMAP"

PAGE = 4096
BASE = 0x4000_0000
RW = wire.DMA_READABLE | wire.DMA_WRITABLE
READ, WRITE = wire.DMA_READABLE, wire.DMA_WRITABLE


def _map(address: int, size: int, flags: int = RW, offset: int = 0, argsz: int = wire.DMA_MAP_BODY.size) -> bytes:
    return wire.DMA_MAP_BODY.pack(argsz, flags, offset, address, size)


def _unmap(address: int, size: int, flags: int = 0, argsz: int = wire.DMA_UNMAP_BODY.size) -> bytes:
    return wire.DMA_UNMAP_BODY.pack(argsz, flags, address, size)


def _memory(t: Context, size: int) -> Memory:
    memory = Memory(size, "client memory")
    t.finally_(memory.close)
    return memory


def _is_mapped(t: Context, client: Client, address: int, size: int = PAGE) -> bool:
    """Whether anything is mapped in a range; leaves it as it was. No case maps with these permissions."""
    if t.exchange(client, wire.DMA_MAP, _map(address, size, flags=WRITE)).failed:
        return True
    client.dma_unmap(address, size)
    return False


# Mapping.


@case(MAP)
def range_with_a_descriptor_is_mapped(t: Context) -> None:
    """Memory that the server can map itself comes with a descriptor."""
    t.client.dma_map(BASE, 16 * PAGE, fd=_memory(t, 16 * PAGE).fd)
    t.check(_is_mapped(t, t.client, BASE), "the range is not mapped afterwards")


@case(MAP)
def range_without_a_descriptor_is_mapped(t: Context) -> None:
    """Memory that the server cannot map comes without a descriptor."""
    t.client.dma_map(BASE, 16 * PAGE)
    t.check(_is_mapped(t, t.client, BASE), "the range is not mapped afterwards")


@case(MAP)
def dma_map_reply_has_no_payload(t: Context) -> None:
    """There is no payload in the reply."""
    reply = t.accepted(t.client, wire.DMA_MAP, _map(BASE, PAGE))
    t.equal(len(reply.body), 0, "the payload's size")


@case(MAP)
def ranges_may_be_readable_or_writable_only(t: Context) -> None:
    """The flags say what the device may do; either one is enough."""
    memory = _memory(t, PAGE)
    for number, flags in enumerate((READ, WRITE)):
        t.client.dma_map(BASE + 2 * number * PAGE, PAGE, flags=flags)
        t.client.dma_map(BASE + (2 * number + 1) * PAGE, PAGE, flags=flags, fd=memory.fd)


@case(MAP, silent=True)
def range_without_permissions_does_no_harm(t: Context) -> None:
    """A range that is neither readable nor writable is refused, or mapped and of no use."""
    t.tolerated(t.client, wire.DMA_MAP, _map(BASE, PAGE, flags=0))


@case(MAP, silent=True)
def undefined_map_flags_are_refused(t: Context) -> None:
    """Flags that no specification defines are refused."""
    t.refused(t.client, wire.DMA_MAP, _map(BASE, PAGE, flags=RW | 0x80000000), INVALID)
    t.check(not _is_mapped(t, t.client, BASE), "the refused range is mapped")


@case(MAP)
def same_range_again_is_refused(t: Context) -> None:
    """Mapping over an existing range fails with EEXIST, though it be the same."""
    t.client.dma_map(BASE, PAGE)
    t.refused(t.client, wire.DMA_MAP, _map(BASE, PAGE), EXISTS)


@case(MAP)
def same_range_with_the_same_descriptor_again_is_refused(t: Context) -> None:
    """Mapping over an existing range fails with EEXIST, though it be the same memory."""
    memory = _memory(t, PAGE)
    t.client.dma_map(BASE, PAGE, fd=memory.fd)
    t.refused(t.client, wire.DMA_MAP, _map(BASE, PAGE), EXISTS, [memory.fd])


def _overlap(name: str, rule: str, address: int, size: int) -> None:
    def check(t: Context) -> None:
        t.client.dma_map(BASE + 4 * PAGE, 4 * PAGE)
        t.refused(t.client, wire.DMA_MAP, _map(address, size), EXISTS)
        t.client.dma_unmap(BASE + 4 * PAGE, 4 * PAGE)

    check.__name__ = f"range_{name}_is_refused"
    check.__doc__ = f"{rule} fails with EEXIST, and the existing range stays."
    case(MAP)(check)


_overlap("over_the_beginning_of_another", "Mapping over the beginning of a range", BASE + 3 * PAGE, 2 * PAGE)
_overlap("over_the_end_of_another", "Mapping over the end of a range", BASE + 7 * PAGE, 2 * PAGE)
_overlap("inside_of_another", "Mapping inside of a range", BASE + 5 * PAGE, PAGE)
_overlap("around_another", "Mapping around a range", BASE, 12 * PAGE)
_overlap("with_the_same_start_as_another", "Mapping a shorter piece of a range", BASE + 4 * PAGE, PAGE)
_overlap("with_the_same_end_as_another", "Mapping up to a range's end", BASE + 6 * PAGE, 2 * PAGE)


@case(MAP)
def range_around_several_others_is_refused(t: Context) -> None:
    """Mapping over several ranges at once fails with EEXIST."""
    for number in (1, 3, 5):
        t.client.dma_map(BASE + number * PAGE, PAGE)
    t.refused(t.client, wire.DMA_MAP, _map(BASE, 8 * PAGE), EXISTS)


@case(MAP)
def neighbours_are_mapped(t: Context) -> None:
    """Ranges that touch do not overlap."""
    t.client.dma_map(BASE + PAGE, PAGE)
    t.client.dma_map(BASE, PAGE)
    t.client.dma_map(BASE + 2 * PAGE, PAGE)


@case(MAP)
def address_zero_is_mapped(t: Context) -> None:
    """0 is an address like any other: guest RAM starts there."""
    t.client.dma_map(0, 16 * PAGE, fd=_memory(t, 16 * PAGE).fd)


@case(MAP, silent=True)
def last_page_of_the_address_space_does_no_harm(t: Context) -> None:
    """A range that ends at 2^64 is mapped or refused."""
    t.tolerated(t.client, wire.DMA_MAP, _map((1 << 64) - PAGE, PAGE))


@case(MAP, silent=True)
def high_addresses_are_mapped(t: Context) -> None:
    """All 64 bits of an address count: a vIOMMU uses high ones."""
    high = 0xFFFF_FFFF_0110_0000
    t.client.dma_map(high, PAGE)
    t.check(not _is_mapped(t, t.client, high & 0xFFFFFFFF), "the upper half of the address was lost")
    t.client.dma_unmap(high, PAGE)


@case(MAP)
def empty_range_is_refused(t: Context) -> None:
    """A size of 0 is no range."""
    t.refused(t.client, wire.DMA_MAP, _map(BASE, 0), INVALID)


@case(MAP)
def range_that_wraps_around_is_refused(t: Context) -> None:
    """address + size must not exceed 2^64."""
    t.refused(t.client, wire.DMA_MAP, _map((1 << 64) - PAGE, 2 * PAGE), OUT_OF_RANGE)
    t.refused(t.client, wire.DMA_MAP, _map(PAGE, (1 << 64) - PAGE + 1), OUT_OF_RANGE)


@case(MAP)
def too_small_map_argsz_is_refused(t: Context) -> None:
    """argsz is the size of the request: less is refused."""
    for argsz in (0, 31):
        t.refused(t.client, wire.DMA_MAP, _map(BASE, PAGE, argsz=argsz), INVALID | MALFORMED)


@case(MAP)
def short_map_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 16, 31):
        t.refused(t.client, wire.DMA_MAP, _map(BASE, PAGE)[:length], INVALID | MALFORMED)


@case(MAP, silent=True)
def unaligned_range_does_no_harm(t: Context) -> None:
    """A range that is not made of pages is refused or mapped."""
    t.tolerated(t.client, wire.DMA_MAP, _map(BASE + 1, PAGE))
    t.tolerated(t.client, wire.DMA_MAP, _map(BASE + 0x10000, 100))


@case(MAP, silent=True)
def enormous_range_without_a_descriptor_does_no_harm(t: Context) -> None:
    """A range of 2^60 bytes is mapped or refused, at once."""
    t.tolerated(t.client, wire.DMA_MAP, _map(0, 1 << 60))


@case(MAP)
def refused_map_leaves_nothing(t: Context) -> None:
    """A range that was refused is not mapped."""
    t.client.dma_map(BASE, PAGE)
    t.refused(t.client, wire.DMA_MAP, _map(BASE - PAGE, 3 * PAGE), EXISTS)
    for address in (BASE - PAGE, BASE + PAGE):
        t.check(not _is_mapped(t, t.client, address), f"{address:#x} of the refused range is mapped")


# Descriptors of mappings.


@case(MAP)
def two_descriptors_are_not_both_kept(t: Context) -> None:
    """A range has one descriptor; a second is refused, or at least closed."""
    memory = _memory(t, PAGE)
    with t.witness() as (fd, closed):
        t.tolerated(t.client, wire.DMA_MAP, _map(BASE, PAGE), [memory.fd, fd])
        closed()


@case(MAP)
def descriptor_that_cannot_be_mapped_is_refused(t: Context) -> None:
    """A pipe cannot be mapped: refused, and closed."""
    with t.witness() as (fd, closed):
        t.refused(t.client, wire.DMA_MAP, _map(BASE, PAGE), BAD_DESCRIPTOR, [fd])
        closed()
    t.check(not _is_mapped(t, t.client, BASE), "the refused range is mapped")


@case(MAP)
def descriptor_of_a_refused_map_is_closed(t: Context) -> None:
    """A range that is refused for another reason does not keep its descriptor."""
    t.client.dma_map(BASE, PAGE)
    with t.witness() as (fd, closed):
        t.refused(t.client, wire.DMA_MAP, _map(BASE, PAGE), EXISTS | BAD_DESCRIPTOR, [fd])
        closed()


@case(MAP)
def read_only_descriptor_of_a_readable_range_is_mapped(t: Context) -> None:
    """A file that is open for reading serves a range that may be read."""
    t.client.dma_map(BASE, PAGE, flags=READ, fd=_read_only(t, _memory(t, PAGE)))


@case(MAP, silent=True)
def read_only_descriptor_of_a_writable_range_is_refused(t: Context) -> None:
    """A file that is open for reading cannot serve a range that may be written."""
    fd = _read_only(t, _memory(t, PAGE))
    t.refused(t.client, wire.DMA_MAP, _map(BASE, PAGE), BAD_DESCRIPTOR, [fd])


def _read_only(t: Context, memory: Memory) -> int:
    fd = os.open(f"/proc/self/fd/{memory.fd}", os.O_RDONLY | os.O_CLOEXEC)
    t.finally_(lambda: os.close(fd))
    return fd


@case(MAP, silent=True)
def range_beyond_the_files_end_does_no_harm(t: Context) -> None:
    """A range that is larger than its file is refused, or at least never touched behind the end."""
    memory = _memory(t, PAGE)
    for offset, size in ((0, 2 * PAGE), (PAGE, PAGE), (1 << 40, PAGE)):
        t.tolerated(t.client, wire.DMA_MAP, _map(BASE + (offset << 8), size, offset=offset), [memory.fd])


@case(MAP, silent=True)
def offset_that_wraps_around_is_refused(t: Context) -> None:
    """offset + size must not exceed 2^64."""
    body = _map(BASE, 2 * PAGE, offset=(1 << 64) - PAGE)
    t.refused(t.client, wire.DMA_MAP, body, OUT_OF_RANGE | BAD_DESCRIPTOR, [_memory(t, PAGE).fd])


@case(MAP, silent=True)
def unaligned_offset_does_no_harm(t: Context) -> None:
    """An offset that is not a multiple of the page size is refused or served."""
    t.tolerated(t.client, wire.DMA_MAP, _map(BASE, PAGE, offset=100), [_memory(t, 4 * PAGE).fd])


@case(MAP)
def mapping_is_independent_of_the_clients_descriptor(t: Context) -> None:
    """The client may close its descriptor once the range is mapped."""
    device = t.device()
    memory = Memory(PAGE, "client memory")
    view = memory.view
    t.client.dma_map(BASE, PAGE, fd=memory.fd)
    view[:5] = b"alive"
    memory.close()
    t.equal(device.read_memory(BASE, 5), b"alive", "what the device reads")


# Many.


@case(MAP)
def two_thousand_ranges_are_mapped_and_unmapped(t: Context) -> None:
    """A vIOMMU makes thousands of small ranges, in no order, all over one file."""
    memory = _memory(t, 64 * PAGE)
    order = list(range(2000))
    random.Random(1).shuffle(order)
    ids = []
    for number in order:
        body = _map(BASE + 2 * number * PAGE, PAGE, offset=number % 64 * PAGE)
        ids.append(t.client.send(wire.DMA_MAP, body, [memory.fd]))
    for message_id in ids:
        t.client.wait(message_id)
    ids = [t.client.send(wire.DMA_UNMAP, _unmap(BASE + 2 * number * PAGE, PAGE)) for number in reversed(order)]
    for message_id in ids:
        t.client.wait(message_id)
    t.check(not _is_mapped(t, t.client, BASE, 4000 * PAGE), "a range is mapped although all were unmapped")


@case("VFIO_USER_VERSION", slow=True)
def as_many_ranges_as_were_agreed_are_mapped(t: Context) -> None:
    """max_dma_maps ranges are valid at once; one more is refused."""
    limit = int(t.client.server_capabilities.get("max_dma_maps", wire.MAX_DMA_MAPS))
    ids = [t.client.send(wire.DMA_MAP, _map(BASE + number * PAGE, PAGE)) for number in range(min(limit, 65535))]
    for message_id in ids:
        t.client.wait(message_id, timeout=20)
    if limit > 65535:
        t.skip(f"the server takes {limit} ranges: more than this case tries")
    t.refused(t.client, wire.DMA_MAP, _map(0, PAGE), TOO_MANY)
    t.client.dma_unmap(BASE, PAGE)
    t.client.dma_map(0, PAGE)


# Unmapping.


@case(UNMAP)
def unmapped_range_is_gone(t: Context) -> None:
    """A range that was unmapped can be mapped again."""
    for _ in range(3):
        t.client.dma_map(BASE, 4 * PAGE, fd=_memory(t, 4 * PAGE).fd)
        t.client.dma_unmap(BASE, 4 * PAGE)
    t.check(not _is_mapped(t, t.client, BASE, 4 * PAGE), "the range is still mapped")


@case(UNMAP)
def unmap_reply_has_the_range(t: Context) -> None:
    """The reply has the range that was unmapped."""
    t.client.dma_map(BASE, 4 * PAGE)
    reply = t.accepted(t.client, wire.DMA_UNMAP, _unmap(BASE, 4 * PAGE))
    t.equal(len(reply.body), wire.DMA_UNMAP_BODY.size, "the payload's size")
    _, _, address, size = wire.DMA_UNMAP_BODY.unpack(reply.body)
    t.equal((address, size), (BASE, 4 * PAGE), "address and size in the reply")


@case(UNMAP)
def unmap_of_nothing_is_refused(t: Context) -> None:
    """A range must have been mapped."""
    t.refused(t.client, wire.DMA_UNMAP, _unmap(BASE, PAGE), NOT_MAPPED)


@case(UNMAP)
def second_unmap_is_refused(t: Context) -> None:
    """A range can be unmapped once."""
    t.client.dma_map(BASE, PAGE)
    t.client.dma_unmap(BASE, PAGE)
    t.refused(t.client, wire.DMA_UNMAP, _unmap(BASE, PAGE), NOT_MAPPED)


def _partial(name: str, address: int, size: int) -> None:
    def check(t: Context) -> None:
        t.client.dma_map(BASE, 4 * PAGE)
        t.refused(t.client, wire.DMA_UNMAP, _unmap(address, size), NOT_MAPPED)
        for number in range(4):
            t.check(_is_mapped(t, t.client, BASE + number * PAGE), f"page {number} of the range is gone")

    check.__name__ = f"unmap_of_{name}_is_refused"
    check.__doc__ = "Address and size must match a mapping exactly; a part is not unmapped."
    case(UNMAP)(check)


_partial("the_first_pages_of_a_range", BASE, 2 * PAGE)
_partial("the_last_pages_of_a_range", BASE + 2 * PAGE, 2 * PAGE)
_partial("the_middle_of_a_range", BASE + PAGE, 2 * PAGE)
_partial("an_overlapping_range", BASE - PAGE, 2 * PAGE)


@case(UNMAP, silent=True)
def unmap_of_more_than_a_range_is_all_or_nothing(t: Context) -> None:
    """A range that holds one mapping and more is refused, or unmaps it; nothing in between."""
    t.client.dma_map(BASE + PAGE, PAGE)
    _all_or_nothing(t, BASE, 4 * PAGE, [BASE + PAGE])


@case(UNMAP, silent=True)
def unmap_over_several_ranges_is_all_or_nothing(t: Context) -> None:
    """A range that is made of several mappings is refused, or unmaps them all."""
    for number in range(3):
        t.client.dma_map(BASE + number * PAGE, PAGE)
    _all_or_nothing(t, BASE, 3 * PAGE, [BASE + number * PAGE for number in range(3)])


@case(UNMAP, silent=True)
def unmap_that_cuts_a_range_is_all_or_nothing(t: Context) -> None:
    """A range over one whole mapping and half of the next is refused, with both left in place."""
    t.client.dma_map(BASE, 2 * PAGE)
    t.client.dma_map(BASE + 2 * PAGE, 2 * PAGE)
    t.refused(t.client, wire.DMA_UNMAP, _unmap(BASE, 3 * PAGE), NOT_MAPPED)
    for number in range(4):
        t.check(_is_mapped(t, t.client, BASE + number * PAGE), f"page {number} is gone after a refused unmap")


def _all_or_nothing(t: Context, address: int, size: int, pages: list[int]) -> None:
    reply = t.tolerated(t.client, wire.DMA_UNMAP, _unmap(address, size))
    if reply.failed:
        t.is_error(reply, NOT_MAPPED)
    left = [page for page in pages if _is_mapped(t, t.client, page)]
    want = pages if reply.failed else []
    t.equal(
        left, want, "the list of pages still mapped after an unmap that " + ("failed" if reply.failed else "succeeded")
    )


@case(UNMAP)
def empty_unmap_is_refused(t: Context) -> None:
    """A size of 0 matches no mapping."""
    t.client.dma_map(BASE, PAGE)
    t.refused(t.client, wire.DMA_UNMAP, _unmap(BASE, 0), NOT_MAPPED)
    t.check(_is_mapped(t, t.client, BASE), "the range is gone after a refused unmap")


@case(UNMAP)
def unmap_that_wraps_around_is_refused(t: Context) -> None:
    """address + size must not exceed 2^64."""
    t.client.dma_map(0, PAGE)
    t.refused(t.client, wire.DMA_UNMAP, _unmap((1 << 64) - PAGE, 2 * PAGE), NOT_MAPPED | OUT_OF_RANGE)
    t.check(_is_mapped(t, t.client, 0), "the range at 0 is gone after a refused unmap")


@case(UNMAP)
def too_small_unmap_argsz_is_refused(t: Context) -> None:
    """argsz must have room for the reply."""
    t.client.dma_map(BASE, PAGE)
    for argsz in (0, 8, 23):
        t.refused(t.client, wire.DMA_UNMAP, _unmap(BASE, PAGE, argsz=argsz), INVALID | MALFORMED)
    t.check(_is_mapped(t, t.client, BASE), "the range is gone after a refused unmap")


@case(UNMAP)
def short_unmap_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 8, 23):
        t.refused(t.client, wire.DMA_UNMAP, _unmap(BASE, PAGE)[:length], INVALID | MALFORMED)


@case(UNMAP, silent=True)
def undefined_unmap_flags_do_no_harm(t: Context) -> None:
    """Undefined flags are refused, with the range left in place, or ignored."""
    t.client.dma_map(BASE, PAGE)
    reply = t.tolerated(t.client, wire.DMA_UNMAP, _unmap(BASE, PAGE, flags=0x80000000))
    t.equal(_is_mapped(t, t.client, BASE), reply.failed, "whether the range is still mapped")


@case(UNMAP, silent=True)
def unmap_all_unmaps_everything(t: Context) -> None:
    """With VFIO's flag for all (2), which QEMU sends, address and size are 0 and every range goes."""
    pages = [BASE, BASE + 8 * PAGE, 1 << 40]
    for page in pages:
        t.client.dma_map(page, PAGE, fd=_memory(t, PAGE).fd)
    t.client.dma_unmap(0, 0, wire.DMA_UNMAP_ALL)
    left = [page for page in pages if _is_mapped(t, t.client, page)]
    t.equal(left, [], "the list of ranges still mapped")


@case(UNMAP, silent=True)
def unmap_all_of_nothing_is_accepted(t: Context) -> None:
    """Unmapping everything works where nothing is mapped."""
    t.client.dma_unmap(0, 0, wire.DMA_UNMAP_ALL)


@case(UNMAP, silent=True)
def unmap_all_of_a_range_is_refused(t: Context) -> None:
    """Unmapping everything takes no address and no size."""
    t.client.dma_map(BASE, PAGE)
    t.refused(t.client, wire.DMA_UNMAP, _unmap(BASE, PAGE, flags=wire.DMA_UNMAP_ALL), INVALID)
    t.check(_is_mapped(t, t.client, BASE), "the range is gone after a refused unmap")


@case(UNMAP)
def unmapped_ranges_give_their_descriptors_back(t: Context) -> None:
    """Mapping and unmapping for long costs the server no descriptors."""
    t.usable(t.client)
    memory = _memory(t, PAGE)
    for _ in range(2):
        t.client.dma_map(BASE, PAGE, fd=memory.fd)
        t.client.dma_unmap(BASE, PAGE)
    before = t.descriptors()
    for _ in range(200):
        t.client.dma_map(BASE, PAGE, fd=memory.fd)
        t.client.dma_unmap(BASE, PAGE)
    t.no_more_descriptors_than(before)


@case("Client Disconnection")
def ranges_go_with_their_client(t: Context) -> None:
    """The next client starts with nothing mapped."""
    t.client.dma_map(BASE, PAGE, fd=_memory(t, PAGE).fd)
    t.client.dma_map(BASE + PAGE, PAGE)
    t.drop(t.client)
    for address in (BASE, BASE + PAGE):
        t.check(not _is_mapped(t, t.client, address), f"{address:#x} of the previous client is mapped")


@case("VFIO_USER_DEVICE_RESET", silent=True)
def ranges_stay_over_a_reset(t: Context) -> None:
    """A reset is of the device, not of the guest's memory: clients do not map again after it."""
    t.client.dma_map(BASE, PAGE)
    t.client.reset()
    t.check(_is_mapped(t, t.client, BASE), "the range is gone after DEVICE_RESET")


# What the device reaches.


@case(MAP)
def device_reads_mapped_memory(t: Context) -> None:
    """The device reads what the client has in memory that it gave a descriptor of."""
    device = t.device()
    mapping = t.client.map_memory(BASE, 16 * PAGE)
    mapping.at(BASE + 5000, 300)[:] = bytes(range(256)) + bytes(44)
    t.equal(device.read_memory(BASE + 5000, 300), bytes(range(256)) + bytes(44), "what the device reads")


@case(MAP)
def device_writes_mapped_memory(t: Context) -> None:
    """The client sees what the device wrote to memory that it gave a descriptor of."""
    device = t.device()
    mapping = t.client.map_memory(BASE, 16 * PAGE)
    device.write_memory(BASE + 4090, b"over a page's end")
    t.equal(bytes(mapping.at(BASE + 4090, 17)), b"over a page's end", "what the client sees")


@case(MAP)
def mapped_memory_is_reached_without_messages(t: Context) -> None:
    """With a descriptor the server need not ask: no DMA message comes."""
    device = t.device()
    t.client.map_memory(BASE, PAGE)
    asked = t.record_commands(t.client)
    device.read_memory(BASE, 64)
    if device.get(numbers.REG_DMA_DIRECT) != 64:
        t.skip("the server reaches memory by messages only")
    t.equal(len(asked), 0, "the number of DMA messages")


@case(MAP)
def offset_into_the_file_counts(t: Context) -> None:
    """A range starts at its offset in the file."""
    device = t.device()
    memory = _memory(t, 4 * PAGE)
    for page in range(4):
        memory.view[page * PAGE] = 0x10 + page
    for page in (2, 0, 3):
        t.client.dma_map(BASE + page * 0x10000, PAGE, fd=memory.fd, offset=page * PAGE)
    for page in (0, 2, 3):
        t.equal(device.read_memory(BASE + page * 0x10000, 1)[0], 0x10 + page, f"the first byte of page {page}")


@case(MAP)
def access_over_neighbouring_ranges_works(t: Context) -> None:
    """An access may span ranges that touch, each with its own memory."""
    device = t.device()
    first, second = t.client.map_memory(BASE, PAGE), t.client.map_memory(BASE + PAGE, PAGE)
    device.write_memory(BASE + PAGE - 4, b"leftright"[:8])
    t.equal(bytes(first.at(BASE + PAGE - 4, 4)), b"left", "the end of the first range")
    t.equal(bytes(second.at(BASE + PAGE, 4)), b"righ", "the beginning of the second range")


@case("VFIO_USER_DMA_READ")
def access_over_a_mapped_and_a_message_range_works(t: Context) -> None:
    """An access may span a range with a descriptor and one without."""
    device = t.device()
    t.client.map_memory(BASE, PAGE).at(BASE + PAGE - 4, 4)[:] = b"ABCD"
    t.client.map_memory(BASE + PAGE, PAGE, shared=False).at(BASE + PAGE, 4)[:] = b"EFGH"
    t.equal(device.read_memory(BASE + PAGE - 4, 8), b"ABCDEFGH", "what the device reads")


@case(MAP)
def device_does_not_reach_what_is_not_mapped(t: Context) -> None:
    """Addresses that were not announced cannot be reached, and the server sends no message for them."""
    device = t.device()
    t.client.map_memory(BASE, PAGE)
    asked = t.record_commands(t.client)
    for address, length in ((BASE - PAGE, 4), (BASE + PAGE, 4), (BASE + PAGE - 2, 4)):
        t.check(device.dma(numbers.DMA_READ, address, length), f"the device read {address:#x}, which is not mapped")
    t.equal(len(asked), 0, "the number of DMA messages")


@case(MAP)
def device_does_not_write_readable_memory(t: Context) -> None:
    """A range that is only readable is not written."""
    device = t.device()
    for number, shared in enumerate((True, False)):
        address = BASE + number * 0x10000
        mapping = t.client.map_memory(address, PAGE, flags=READ, shared=shared)
        t.client.region_write(numbers.MAPPED, 0, b"\xff" * 4)
        t.check(device.dma(numbers.DMA_WRITE, address, 4), "the device wrote a range that is only readable")
        t.equal(bytes(mapping.at(address, 4)), bytes(4), "the memory")
        t.check(device.may_access(address, 4), "the device may not read a readable range")


@case(MAP)
def device_does_not_read_writable_memory(t: Context) -> None:
    """A range that is only writable is not read."""
    device = t.device()
    mapping = t.client.map_memory(BASE, PAGE, flags=WRITE)
    t.check(not device.may_access(BASE, 4), "the device may read a range that is only writable")
    device.write_memory(BASE, b"once")
    t.equal(bytes(mapping.at(BASE, 4)), b"once", "the memory")


@case(UNMAP)
def device_does_not_reach_unmapped_memory(t: Context) -> None:
    """When the reply to DMA_UNMAP has arrived, the device does not use the memory any more."""
    device = t.device()
    mapping = t.client.map_memory(BASE, PAGE)
    device.read_memory(BASE, 4)
    t.client.dma_unmap(BASE, PAGE)
    t.client.region_write(numbers.MAPPED, 0, b"late")
    t.check(device.dma(numbers.DMA_WRITE, BASE, 4), "the device wrote memory that was unmapped")
    t.equal(bytes(mapping.at(BASE, 4)), bytes(4), "the memory")


@case(UNMAP)
def range_mapped_anew_is_the_new_memory(t: Context) -> None:
    """After unmapping and mapping, the old memory is not seen any more."""
    device = t.device()
    for content in (b"old!", b"new!"):
        mapping = t.client.map_memory(BASE, PAGE)
        mapping.at(BASE, 4)[:] = content
        t.equal(device.read_memory(BASE, 4), content, "what the device reads")
        t.client.unmap_memory(mapping)


@case(MAP)
def maps_sent_back_to_back_keep_their_descriptors(t: Context) -> None:
    """Every range gets the descriptor that came with it, though the messages come in one burst."""
    device = t.device()
    count = 24
    memories = [_memory(t, PAGE) if number % 3 else None for number in range(count)]
    for number, memory in enumerate(memories):
        if memory is not None:
            memory.view[0] = number
    for number, memory in enumerate(memories):
        message = encode(wire.DMA_MAP, _map(BASE + 2 * number * PAGE, PAGE), message_id=number)
        t.client.send_raw(message, [memory.fd] if memory is not None else ())
    for number in range(count):
        if t.reply(t.client, wire.DMA_MAP, number).failed:
            raise Failure(f"DMA_MAP {number} of a burst was refused")
    for number, memory in enumerate(memories):
        if memory is not None:
            got = device.read_memory(BASE + 2 * number * PAGE, 1)[0]
            t.equal(got, number, f"the first byte of range {number}")


@case(MAP)
def small_ranges_of_one_file_are_told_apart(t: Context) -> None:
    """Hundreds of pages of one file, mapped in any order, are each where they belong."""
    device = t.device()
    count = 256
    memory = _memory(t, count * PAGE)
    order = list(range(count))
    random.Random(2).shuffle(order)
    for place, page in enumerate(order):
        memory.view[page * PAGE : page * PAGE + 2] = page.to_bytes(2, "little")
        t.client.dma_map(BASE + place * PAGE, PAGE, fd=memory.fd, offset=page * PAGE)
    for place in (0, 1, count // 2, count - 1):
        got = int.from_bytes(device.read_memory(BASE + place * PAGE, 2), "little")
        t.equal(got, order[place], f"the page of the file at place {place}")
