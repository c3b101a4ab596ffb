"""DMA_UNMAP, and what else ends a range."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.dma.ranges import BASE, PAGE, UNMAP, is_mapped, memory_of, unmap_body
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import INVALID, MALFORMED, NOT_MAPPED, OUT_OF_RANGE
from vfio_user_xe.emulator.vfio_user import wire


@case(UNMAP)
def unmapped_range_is_gone(t: Context) -> None:
    """A range that was unmapped can be mapped again."""
    for _ in range(3):
        t.client.dma_map(BASE, 4 * PAGE, fd=memory_of(t, 4 * PAGE).fd)
        t.client.dma_unmap(BASE, 4 * PAGE)
    t.check(not is_mapped(t, t.client, BASE, 4 * PAGE), "the range is still mapped")


@case(UNMAP)
def unmap_reply_has_the_range(t: Context) -> None:
    """The reply has the range that was unmapped."""
    t.client.dma_map(BASE, 4 * PAGE)
    reply = t.accepted(t.client, wire.DMA_UNMAP, unmap_body(BASE, 4 * PAGE))
    t.equal(len(reply.body), wire.DMA_UNMAP_BODY.size, "the payload's size")
    _, _, address, size = wire.DMA_UNMAP_BODY.unpack(reply.body)
    t.equal((address, size), (BASE, 4 * PAGE), "address and size in the reply")


@case(UNMAP)
def unmap_of_nothing_is_refused(t: Context) -> None:
    """A range must have been mapped."""
    t.refused(t.client, wire.DMA_UNMAP, unmap_body(BASE, PAGE), NOT_MAPPED)


@case(UNMAP)
def second_unmap_is_refused(t: Context) -> None:
    """A range can be unmapped once."""
    t.client.dma_map(BASE, PAGE)
    t.client.dma_unmap(BASE, PAGE)
    t.refused(t.client, wire.DMA_UNMAP, unmap_body(BASE, PAGE), NOT_MAPPED)


def _partial(name: str, address: int, size: int) -> None:
    def check(t: Context) -> None:
        t.client.dma_map(BASE, 4 * PAGE)
        t.refused(t.client, wire.DMA_UNMAP, unmap_body(address, size), NOT_MAPPED)
        for number in range(4):
            t.check(is_mapped(t, t.client, BASE + number * PAGE), f"page {number} of the range is gone")

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
    t.refused(t.client, wire.DMA_UNMAP, unmap_body(BASE, 3 * PAGE), NOT_MAPPED)
    for number in range(4):
        t.check(is_mapped(t, t.client, BASE + number * PAGE), f"page {number} is gone after a refused unmap")


def _all_or_nothing(t: Context, address: int, size: int, pages: list[int]) -> None:
    reply = t.tolerated(t.client, wire.DMA_UNMAP, unmap_body(address, size))
    if reply.failed:
        t.is_error(reply, NOT_MAPPED)
    left = [page for page in pages if is_mapped(t, t.client, page)]
    want = pages if reply.failed else []
    t.equal(
        left, want, "the list of pages still mapped after an unmap that " + ("failed" if reply.failed else "succeeded")
    )


@case(UNMAP)
def empty_unmap_is_refused(t: Context) -> None:
    """A size of 0 matches no mapping."""
    t.client.dma_map(BASE, PAGE)
    t.refused(t.client, wire.DMA_UNMAP, unmap_body(BASE, 0), NOT_MAPPED)
    t.check(is_mapped(t, t.client, BASE), "the range is gone after a refused unmap")


@case(UNMAP)
def unmap_that_wraps_around_is_refused(t: Context) -> None:
    """address + size must not exceed 2^64."""
    t.client.dma_map(0, PAGE)
    t.refused(t.client, wire.DMA_UNMAP, unmap_body((1 << 64) - PAGE, 2 * PAGE), NOT_MAPPED | OUT_OF_RANGE)
    t.check(is_mapped(t, t.client, 0), "the range at 0 is gone after a refused unmap")


@case(UNMAP)
def too_small_unmap_argsz_is_refused(t: Context) -> None:
    """argsz must have room for the reply."""
    t.client.dma_map(BASE, PAGE)
    for argsz in (0, 8, 23):
        t.refused(t.client, wire.DMA_UNMAP, unmap_body(BASE, PAGE, argsz=argsz), INVALID | MALFORMED)
    t.check(is_mapped(t, t.client, BASE), "the range is gone after a refused unmap")


@case(UNMAP)
def short_unmap_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 8, 23):
        t.refused(t.client, wire.DMA_UNMAP, unmap_body(BASE, PAGE)[:length], INVALID | MALFORMED)


@case(UNMAP, silent=True)
def undefined_unmap_flags_do_no_harm(t: Context) -> None:
    """Undefined flags are refused, with the range left in place, or ignored."""
    t.client.dma_map(BASE, PAGE)
    reply = t.tolerated(t.client, wire.DMA_UNMAP, unmap_body(BASE, PAGE, flags=0x80000000))
    t.equal(is_mapped(t, t.client, BASE), reply.failed, "whether the range is still mapped")


@case(UNMAP, silent=True)
def unmap_all_unmaps_everything(t: Context) -> None:
    """With VFIO's flag for all (2), which QEMU sends, address and size are 0 and every range goes."""
    pages = [BASE, BASE + 8 * PAGE, 1 << 40]
    for page in pages:
        t.client.dma_map(page, PAGE, fd=memory_of(t, PAGE).fd)
    t.client.dma_unmap(0, 0, wire.DMA_UNMAP_ALL)
    left = [page for page in pages if is_mapped(t, t.client, page)]
    t.equal(left, [], "the list of ranges still mapped")


@case(UNMAP, silent=True)
def unmap_all_of_nothing_is_accepted(t: Context) -> None:
    """Unmapping everything works where nothing is mapped."""
    t.client.dma_unmap(0, 0, wire.DMA_UNMAP_ALL)


@case(UNMAP, silent=True)
def unmap_all_of_a_range_is_refused(t: Context) -> None:
    """Unmapping everything takes no address and no size."""
    t.client.dma_map(BASE, PAGE)
    t.refused(t.client, wire.DMA_UNMAP, unmap_body(BASE, PAGE, flags=wire.DMA_UNMAP_ALL), INVALID)
    t.check(is_mapped(t, t.client, BASE), "the range is gone after a refused unmap")


@case(UNMAP)
def unmapped_ranges_give_their_descriptors_back(t: Context) -> None:
    """Mapping and unmapping for long costs the server no descriptors."""
    t.usable(t.client)
    memory = memory_of(t, PAGE)
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
    t.client.dma_map(BASE, PAGE, fd=memory_of(t, PAGE).fd)
    t.client.dma_map(BASE + PAGE, PAGE)
    t.drop(t.client)
    for address in (BASE, BASE + PAGE):
        t.check(not is_mapped(t, t.client, address), f"{address:#x} of the previous client is mapped")


@case("VFIO_USER_DEVICE_RESET", silent=True)
def ranges_stay_over_a_reset(t: Context) -> None:
    """A reset is of the device, not of the guest's memory: clients do not map again after it."""
    t.client.dma_map(BASE, PAGE)
    t.client.reset()
    t.check(is_mapped(t, t.client, BASE), "the range is gone after DEVICE_RESET")
