"""DMA_MAP: ranges that are mapped, and those that are refused."""

from __future__ import annotations

import random

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.dma.ranges import (
    BASE,
    MAP,
    PAGE,
    READ,
    RW,
    WRITE,
    is_mapped,
    map_body,
    memory_of,
    unmap_body,
)
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import EXISTS, INVALID, MALFORMED, OUT_OF_RANGE, TOO_MANY
from vfio_user_xe.emulator.vfio_user import wire


@case(MAP)
def range_with_a_descriptor_is_mapped(t: Context) -> None:
    """Memory that the server can map itself comes with a descriptor."""
    t.client.dma_map(BASE, 16 * PAGE, fd=memory_of(t, 16 * PAGE).fd)
    t.check(is_mapped(t, t.client, BASE), "the range is not mapped afterwards")


@case(MAP)
def range_without_a_descriptor_is_mapped(t: Context) -> None:
    """Memory that the server cannot map comes without a descriptor."""
    t.client.dma_map(BASE, 16 * PAGE)
    t.check(is_mapped(t, t.client, BASE), "the range is not mapped afterwards")


@case(MAP)
def dma_map_reply_has_no_payload(t: Context) -> None:
    """There is no payload in the reply."""
    reply = t.accepted(t.client, wire.DMA_MAP, map_body(BASE, PAGE))
    t.equal(len(reply.body), 0, "the payload's size")


@case(MAP)
def ranges_may_be_readable_or_writable_only(t: Context) -> None:
    """The flags say what the device may do; either one is enough."""
    memory = memory_of(t, PAGE)
    for number, flags in enumerate((READ, WRITE)):
        t.client.dma_map(BASE + 2 * number * PAGE, PAGE, flags=flags)
        t.client.dma_map(BASE + (2 * number + 1) * PAGE, PAGE, flags=flags, fd=memory.fd)


@case(MAP, silent=True)
def range_without_permissions_does_no_harm(t: Context) -> None:
    """A range that is neither readable nor writable is refused, or mapped and of no use."""
    t.tolerated(t.client, wire.DMA_MAP, map_body(BASE, PAGE, flags=0))


@case(MAP, silent=True)
def undefined_map_flags_are_refused(t: Context) -> None:
    """Flags that no specification defines are refused."""
    t.refused(t.client, wire.DMA_MAP, map_body(BASE, PAGE, flags=RW | 0x80000000), INVALID)
    t.check(not is_mapped(t, t.client, BASE), "the refused range is mapped")


@case(MAP)
def same_range_again_is_refused(t: Context) -> None:
    """Mapping over an existing range fails with EEXIST, though it be the same."""
    t.client.dma_map(BASE, PAGE)
    t.refused(t.client, wire.DMA_MAP, map_body(BASE, PAGE), EXISTS)


@case(MAP)
def same_range_with_the_same_descriptor_again_is_refused(t: Context) -> None:
    """Mapping over an existing range fails with EEXIST, though it be the same memory."""
    memory = memory_of(t, PAGE)
    t.client.dma_map(BASE, PAGE, fd=memory.fd)
    t.refused(t.client, wire.DMA_MAP, map_body(BASE, PAGE), EXISTS, [memory.fd])


def _overlap(name: str, rule: str, address: int, size: int) -> None:
    def check(t: Context) -> None:
        t.client.dma_map(BASE + 4 * PAGE, 4 * PAGE)
        t.refused(t.client, wire.DMA_MAP, map_body(address, size), EXISTS)
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
    t.refused(t.client, wire.DMA_MAP, map_body(BASE, 8 * PAGE), EXISTS)


@case(MAP)
def neighbours_are_mapped(t: Context) -> None:
    """Ranges that touch do not overlap."""
    t.client.dma_map(BASE + PAGE, PAGE)
    t.client.dma_map(BASE, PAGE)
    t.client.dma_map(BASE + 2 * PAGE, PAGE)


@case(MAP)
def address_zero_is_mapped(t: Context) -> None:
    """0 is an address like any other: guest RAM starts there."""
    t.client.dma_map(0, 16 * PAGE, fd=memory_of(t, 16 * PAGE).fd)


@case(MAP, silent=True)
def last_page_of_the_address_space_does_no_harm(t: Context) -> None:
    """A range that ends at 2^64 is mapped or refused."""
    t.tolerated(t.client, wire.DMA_MAP, map_body((1 << 64) - PAGE, PAGE))


@case(MAP, silent=True)
def high_addresses_are_mapped(t: Context) -> None:
    """All 64 bits of an address count: a vIOMMU uses high ones."""
    high = 0xFFFF_FFFF_0110_0000
    t.client.dma_map(high, PAGE)
    t.check(not is_mapped(t, t.client, high & 0xFFFFFFFF), "the upper half of the address was lost")
    t.client.dma_unmap(high, PAGE)


@case(MAP)
def empty_range_is_refused(t: Context) -> None:
    """A size of 0 is no range."""
    t.refused(t.client, wire.DMA_MAP, map_body(BASE, 0), INVALID)


@case(MAP)
def range_that_wraps_around_is_refused(t: Context) -> None:
    """address + size must not exceed 2^64."""
    t.refused(t.client, wire.DMA_MAP, map_body((1 << 64) - PAGE, 2 * PAGE), OUT_OF_RANGE)
    t.refused(t.client, wire.DMA_MAP, map_body(PAGE, (1 << 64) - PAGE + 1), OUT_OF_RANGE)


@case(MAP)
def too_small_map_argsz_is_refused(t: Context) -> None:
    """argsz is the size of the request: less is refused."""
    for argsz in (0, 31):
        t.refused(t.client, wire.DMA_MAP, map_body(BASE, PAGE, argsz=argsz), INVALID | MALFORMED)


@case(MAP)
def short_map_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 16, 31):
        t.refused(t.client, wire.DMA_MAP, map_body(BASE, PAGE)[:length], INVALID | MALFORMED)


@case(MAP, silent=True)
def unaligned_range_does_no_harm(t: Context) -> None:
    """A range that is not made of pages is refused or mapped."""
    t.tolerated(t.client, wire.DMA_MAP, map_body(BASE + 1, PAGE))
    t.tolerated(t.client, wire.DMA_MAP, map_body(BASE + 0x10000, 100))


@case(MAP, silent=True)
def enormous_range_without_a_descriptor_does_no_harm(t: Context) -> None:
    """A range of 2^60 bytes is mapped or refused, at once."""
    t.tolerated(t.client, wire.DMA_MAP, map_body(0, 1 << 60))


@case(MAP)
def refused_map_leaves_nothing(t: Context) -> None:
    """A range that was refused is not mapped."""
    t.client.dma_map(BASE, PAGE)
    t.refused(t.client, wire.DMA_MAP, map_body(BASE - PAGE, 3 * PAGE), EXISTS)
    for address in (BASE - PAGE, BASE + PAGE):
        t.check(not is_mapped(t, t.client, address), f"{address:#x} of the refused range is mapped")


# Many.


@case(MAP)
def two_thousand_ranges_are_mapped_and_unmapped(t: Context) -> None:
    """A vIOMMU makes thousands of small ranges, in no order, all over one file."""
    memory = memory_of(t, 64 * PAGE)
    order = list(range(2000))
    random.Random(1).shuffle(order)
    ids = []
    for number in order:
        body = map_body(BASE + 2 * number * PAGE, PAGE, offset=number % 64 * PAGE)
        ids.append(t.client.send(wire.DMA_MAP, body, [memory.fd]))
    for message_id in ids:
        t.client.wait(message_id)
    ids = [t.client.send(wire.DMA_UNMAP, unmap_body(BASE + 2 * number * PAGE, PAGE)) for number in reversed(order)]
    for message_id in ids:
        t.client.wait(message_id)
    t.check(not is_mapped(t, t.client, BASE, 4000 * PAGE), "a range is mapped although all were unmapped")


@case("VFIO_USER_VERSION", slow=True)
def as_many_ranges_as_were_agreed_are_mapped(t: Context) -> None:
    """max_dma_maps ranges are valid at once; one more is refused."""
    limit = int(t.client.server_capabilities.get("max_dma_maps", wire.MAX_DMA_MAPS))
    ids = [t.client.send(wire.DMA_MAP, map_body(BASE + number * PAGE, PAGE)) for number in range(min(limit, 65535))]
    for message_id in ids:
        t.client.wait(message_id, timeout=20)
    if limit > 65535:
        t.skip(f"the server takes {limit} ranges: more than this case tries")
    t.refused(t.client, wire.DMA_MAP, map_body(0, PAGE), TOO_MANY)
    t.client.dma_unmap(BASE, PAGE)
    t.client.dma_map(0, PAGE)
