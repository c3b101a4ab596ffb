"""What the device reaches by DMA through the ranges that there are."""

from __future__ import annotations

import random

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.dma.ranges import BASE, MAP, PAGE, READ, UNMAP, WRITE, map_body, memory_of
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.outcomes import Failure
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import encode


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
    memory = memory_of(t, 4 * PAGE)
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
    memories = [memory_of(t, PAGE) if number % 3 else None for number in range(count)]
    for number, memory in enumerate(memories):
        if memory is not None:
            memory.view[0] = number
    for number, memory in enumerate(memories):
        message = encode(wire.DMA_MAP, map_body(BASE + 2 * number * PAGE, PAGE), message_id=number)
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
    memory = memory_of(t, count * PAGE)
    order = list(range(count))
    random.Random(2).shuffle(order)
    for place, page in enumerate(order):
        memory.view[page * PAGE : page * PAGE + 2] = page.to_bytes(2, "little")
        t.client.dma_map(BASE + place * PAGE, PAGE, fd=memory.fd, offset=page * PAGE)
    for place in (0, 1, count // 2, count - 1):
        got = int.from_bytes(device.read_memory(BASE + place * PAGE, 2), "little")
        t.equal(got, order[place], f"the page of the file at place {place}")
