"""DMA_READ and DMA_WRITE as the server sends them: sizes, limits, and that all of the data arrives."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.server_dma.memory import (
    BASE,
    LIMITS,
    PATTERN,
    READ,
    SIZE,
    WRITE,
    by_messages,
    expected,
)
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Message


@case(READ)
def device_reads_by_message(t: Context) -> None:
    """Memory without a descriptor is read by DMA_READ."""
    device = t.device()
    by_messages(t.client)
    commands = t.record_commands(t.client)
    t.check(device.read_memory(BASE + 100, 64) == expected(BASE + 100, 64), "the device read something else")
    t.equal({message.command for message in commands}, {wire.DMA_READ}, "the set of commands that came")


@case(WRITE)
def device_writes_by_message(t: Context) -> None:
    """Memory without a descriptor is written by DMA_WRITE."""
    device = t.device()
    mapping = by_messages(t.client)
    commands = t.record_commands(t.client)
    device.write_memory(BASE + 8190, b"over a page's end")
    t.equal(bytes(mapping.at(BASE + 8190, 17)), b"over a page's end", "the memory")
    t.equal({message.command for message in commands}, {wire.DMA_WRITE}, "the set of commands that came")


@case(READ)
def sizes_from_1_byte_to_1_mib_are_read(t: Context) -> None:
    """DMA of any size and alignment brings the right bytes."""
    device = t.device()
    by_messages(t.client)
    for offset, length in ((0, 1), (1, 2), (3, 7), (4095, 2), (5, 4096), (0, 65536), (7, 65537), (4096, 1 << 20)):
        got = device.read_memory(BASE + offset, length)
        t.check(got == expected(BASE + offset, length), f"{length} bytes at +{offset:#x} are not what is there")


@case(WRITE)
def sizes_from_1_byte_to_1_mib_are_written(t: Context) -> None:
    """DMA of any size and alignment writes its bytes, and no others."""
    device = t.device()
    mapping = by_messages(t.client)
    for offset, length in ((1, 1), (3, 7), (4095, 2), (5, 4096), (7, 65537), (4096, 1 << 20)):
        data = bytes(length)
        device.write_memory(BASE + offset, data)
        t.check(bytes(mapping.at(BASE + offset, length)) == data, f"{length} bytes at +{offset:#x} are not as written")
        t.check(
            mapping.at(BASE + offset + length, 1)[0] == expected(BASE + offset + length, 1)[0], "too much was written"
        )
        mapping.at(BASE, SIZE)[:] = PATTERN * (SIZE // len(PATTERN))


def _well_formed(t: Context, commands: list[Message], address: int, length: int, limit: int) -> None:
    """The commands cover `[address, address + length)` exactly once, none with more than `limit` bytes."""
    pieces = []
    for message in commands:
        t.check(not message.flags & ~wire.FLAG_NO_REPLY, f"a command came with flags {message.flags:#x}")
        t.equal(message.error, 0, "the error field of a command")
        at, count = wire.DMA_ACCESS.unpack_from(message.body)
        data = count if message.command == wire.DMA_WRITE else 0
        t.equal(len(message.body), wire.DMA_ACCESS.size + data, f"the payload's size for a count of {count}")
        t.check(0 < count <= limit, f"a count of {count}, the limit is {limit}")
        pieces.append((at, count))
    for at, count in sorted(pieces):
        t.equal(at, address, "the address of the next piece")
        address, length = at + count, length - count
    t.equal(length, 0, "the number of bytes that no command asked for")


@case(LIMITS)
def dma_reads_keep_the_clients_limit(t: Context) -> None:
    """count must not exceed the client's max_data_xfer_size: more is requested in pieces."""
    for limit in (4096, 512):
        client = t.connect(max_data_xfer_size=limit)
        device = t.device(client)
        by_messages(client)
        commands = t.record_commands(client)
        t.check(device.read_memory(BASE + 3, 20000) == expected(BASE + 3, 20000), "the device read something else")
        _well_formed(t, commands, BASE + 3, 20000, limit)
        t.drop(client)


@case(LIMITS)
def dma_writes_keep_the_clients_limit(t: Context) -> None:
    """count must not exceed the client's max_data_xfer_size: more is written in pieces."""
    client = t.connect(max_data_xfer_size=4096)
    device = t.device(client)
    by_messages(client)
    commands = t.record_commands(client)
    device.write_memory(BASE + 3, bytes(20000))
    _well_formed(t, commands, BASE + 3, 20000, 4096)


@case(LIMITS)
def large_dma_is_complete(t: Context) -> None:
    """A mebibyte is requested completely and once."""
    device = t.device()
    by_messages(t.client)
    commands = t.record_commands(t.client)
    device.read_memory(BASE, 1 << 20)
    _well_formed(t, commands, BASE, 1 << 20, wire.DEFAULT_MAX_DATA_XFER)


@case(READ, silent=True)
def replies_are_small_enough_for_a_socket_buffer(t: Context) -> None:
    """A reply that exceeds the usual socket buffer (212992 bytes) breaks QEMU's stream: servers ask for less."""
    device = t.device()
    by_messages(t.client)
    commands = t.record_commands(t.client)
    device.read_memory(BASE, 1 << 20)
    largest = max(wire.DMA_ACCESS.unpack_from(message.body)[1] for message in commands)
    t.check(largest < 212992 - 64, f"the server asks for {largest} bytes at once")


@case(READ)
def dma_by_message_works_beside_a_descriptor(t: Context) -> None:
    """Messages must work for memory with a descriptor, too."""
    device = t.device()
    mapping = t.client.map_memory(BASE, 0x10000)
    mapping.at(BASE, 8)[:] = b"both way"
    t.equal(device.read_memory(BASE, 8, by_message=True), b"both way", "what the device reads by message")
