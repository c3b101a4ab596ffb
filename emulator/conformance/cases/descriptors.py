"""Descriptors: each belongs to the message it came with, and none is kept that is not needed."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Disconnected, EventFd, encode

DESCRIPTORS = "Socket"
GONE = "Client Disconnection"

PAGE = 4096
BASE = 0x5000_0000
INFO = wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, 0, 0, 0)
CONFIG_READ = wire.REGION_ACCESS.pack(0, wire.CONFIG, 4)


def _map(address: int = BASE, size: int = PAGE) -> bytes:
    return wire.DMA_MAP_BODY.pack(wire.DMA_MAP_BODY.size, 3, 0, address, size)


def _taking_none(name: str, command: int, body: bytes) -> None:
    def check(t: Context) -> None:
        with t.witness() as (fd, closed):
            t.tolerated(t.client, command, body, [fd])
            closed()

    check.__name__ = f"descriptor_with_{name}_is_closed"
    check.__doc__ = f"{name.upper()} takes no descriptors: one that comes with it is closed."
    case(DESCRIPTORS, silent=True)(check)


_taking_none("device_get_info", wire.DEVICE_GET_INFO, INFO)
_taking_none("device_get_region_info", wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(32, 0, 7, 0, 0, 0))
_taking_none("device_get_irq_info", wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, 1, 0))
_taking_none("region_read", wire.REGION_READ, CONFIG_READ)
_taking_none("region_write", wire.REGION_WRITE, wire.REGION_ACCESS.pack(0x3C, wire.CONFIG, 1) + b"\0")
_taking_none("dma_unmap", wire.DMA_UNMAP, wire.DMA_UNMAP_BODY.pack(24, 0, BASE, PAGE))
_taking_none("device_reset", wire.DEVICE_RESET, b"")
_taking_none("device_feature", wire.DEVICE_FEATURE, wire.DEVICE_FEATURE_BODY.pack(8, wire.FEATURE_PROBE | 1))
_taking_none("an_unknown_command", 0x4242, bytes(16))


@case(DESCRIPTORS, silent=True)
def descriptor_with_a_posted_write_is_closed(t: Context) -> None:
    """Also where there is no reply."""
    body = wire.REGION_ACCESS.pack(0x3C, wire.CONFIG, 1) + b"\0"
    with t.witness() as (fd, closed):
        t.client.send_raw(encode(wire.REGION_WRITE, body, flags=wire.FLAG_NO_REPLY), [fd])
        t.usable(t.client)
        closed()


@case(DESCRIPTORS, silent=True)
def descriptor_with_an_unexpected_reply_is_closed(t: Context) -> None:
    """Also where the message is not a command."""
    with t.witness() as (fd, closed):
        t.client.send_raw(encode(wire.DMA_READ, bytes(16), flags=wire.TYPE_REPLY), [fd])
        closed_by = t.client.connection.closed_by_server(0.1)
        if not closed_by:
            t.usable(t.client)
        closed()


@case(DESCRIPTORS)
def descriptor_of_an_access_does_not_become_the_next_maps(t: Context) -> None:
    """A descriptor that came with a read is not used for the DMA_MAP behind it, which has none."""
    with t.witness() as (fd, closed):
        t.client.send_raw(encode(wire.REGION_READ, CONFIG_READ, message_id=1), [fd])
        t.reply(t.client, wire.REGION_READ, 1)
        # The pipe could not be mapped: if it were taken, this would be refused.
        t.accepted(t.client, wire.DMA_MAP, _map())
        closed()


@case(DESCRIPTORS)
def descriptor_of_a_posted_write_does_not_become_the_next_maps(t: Context) -> None:
    """The same where both messages come in one burst."""
    body = wire.REGION_ACCESS.pack(0x3C, wire.CONFIG, 1) + b"\0"
    with t.witness() as (fd, closed):
        t.client.send_raw(encode(wire.REGION_WRITE, body, flags=wire.FLAG_NO_REPLY), [fd])
        t.client.send_raw(encode(wire.DMA_MAP, _map(), message_id=2))
        t.check(not t.reply(t.client, wire.DMA_MAP, 2).failed, "DMA_MAP without a descriptor was refused")
        closed()


@case(DESCRIPTORS)
def map_without_a_descriptor_does_not_get_the_next_ones(t: Context) -> None:
    """Of two maps in one burst, the one with the descriptor gets it."""
    with t.witness() as (fd, closed):
        t.client.send_raw(encode(wire.DMA_MAP, _map(BASE), message_id=1))
        t.client.send_raw(encode(wire.DMA_MAP, _map(BASE + PAGE), message_id=2), [fd])
        t.check(not t.reply(t.client, wire.DMA_MAP, 1).failed, "the map without a descriptor was refused")
        t.check(t.reply(t.client, wire.DMA_MAP, 2).failed, "the map of a pipe was accepted")
        closed()


@case(DESCRIPTORS)
def descriptor_is_found_behind_a_burst_of_accesses(t: Context) -> None:
    """A map with a descriptor behind posted writes gets it, however the kernel cuts the stream."""
    memory = Memory(PAGE, "client memory")
    t.finally_(memory.close)
    write = wire.REGION_ACCESS.pack(0x3C, wire.CONFIG, 1) + b"\0"
    burst = encode(wire.REGION_WRITE, write, flags=wire.FLAG_NO_REPLY)
    for number in range(20):
        t.client.send_raw(burst * number)
        t.client.send_raw(encode(wire.DMA_MAP, _map(BASE + number * PAGE), message_id=number), [memory.fd])
        t.client.send_raw(burst)
    for number in range(20):
        t.check(not t.reply(t.client, wire.DMA_MAP, number).failed, f"map {number} was refused")


@case(DESCRIPTORS)
def eventfds_and_maps_in_one_burst_keep_their_descriptors(t: Context) -> None:
    """Commands of different kinds with descriptors do not exchange them."""
    irq = t.vectors(t.client, 1)
    memory = Memory(PAGE, "client memory")
    t.finally_(memory.close)
    events = []
    set_irqs = wire.IRQ_SET.pack(20, wire.IRQ_SET_DATA_EVENTFD | wire.IRQ_SET_ACTION_TRIGGER, irq.index, 0, 1)
    for number in range(10):
        event = EventFd()
        events.append(event)
        t.finally_(event.close)
        t.client.send_raw(encode(wire.DMA_MAP, _map(BASE + number * PAGE), message_id=2 * number), [memory.fd])
        t.client.send_raw(encode(wire.DEVICE_SET_IRQS, set_irqs, message_id=2 * number + 1), [event.fd])
    for number in range(10):
        t.check(not t.reply(t.client, wire.DMA_MAP, 2 * number).failed, f"map {number} was refused")
        t.check(not t.reply(t.client, wire.DEVICE_SET_IRQS, 2 * number + 1).failed, f"eventfd {number} was refused")
    t.client.trigger_irqs(irq.index, 0, 1)
    t.equal([event.pending() for event in events], [0] * 9 + [1], "the signals: the last eventfd is the wired one")


def _too_many(count: int) -> None:
    def check(t: Context) -> None:
        for command, body in ((wire.DMA_MAP, _map()), (wire.DEVICE_GET_INFO, INFO)):
            with t.witness() as (fd, closed):
                try:
                    t.exchange(t.client, command, body, [fd] * count)
                    t.usable(t.client)
                except Disconnected:
                    t.drop(t.client)
                closed()

    check.__name__ = f"{count}_descriptors_are_not_kept"
    check.__doc__ = "More descriptors than were agreed cost the connection at most, and are closed."
    case("VFIO_USER_VERSION", silent=True)(check)


_too_many(17)
_too_many(100)
_too_many(253)


@case(DESCRIPTORS, silent=True)
def descriptor_with_a_later_piece_is_not_lost(t: Context) -> None:
    """A descriptor may come with any piece of a message; it is used or closed, never kept."""
    for cut in (1, 8, 16, 20, 47):
        client = t.connect()
        message = encode(wire.DMA_MAP, _map(), message_id=5)
        with t.witness() as (fd, closed):
            client.send_raw(message[:cut])
            client.send_raw(message[cut:], [fd])
            # The pipe cannot be mapped, so the map is refused if the descriptor was found; either is well.
            t.reply(client, wire.DMA_MAP, 5)
            t.usable(client)
            t.drop(client)
            closed()


@case(DESCRIPTORS, silent=True)
def descriptor_with_a_small_size_is_closed(t: Context) -> None:
    """A message with an impossible size does not keep its descriptor."""
    with t.witness() as (fd, closed):
        t.client.send_raw(wire.HEADER.pack(1, wire.DMA_MAP, 3, 0, 0), [fd])
        t.client.connection.closed_by_server(0.1)
        t.drop(t.client)
        closed()


@case(GONE)
def descriptor_of_half_a_message_is_closed(t: Context) -> None:
    """A client that dies in the middle of a message leaves no descriptor behind."""
    message = encode(wire.DMA_MAP, _map())
    for cut in (1, 15, 16, 30, 47):
        client = t.connect()
        with t.witness() as (fd, closed):
            client.send_raw(message[:cut], [fd])
            t.drop(client)
            closed()


@case(GONE)
def descriptors_go_with_their_client(t: Context) -> None:
    """All memory is unmapped and all eventfds are closed when the client goes."""
    t.usable(t.client)
    t.drop(t.client)
    before = t.descriptors()
    memory = Memory(16 * PAGE, "client memory")
    t.finally_(memory.close)
    irq = t.vectors(t.client, 1)
    t.client.enable_irqs(irq.index, irq.count)
    for number in range(16):
        t.client.dma_map(BASE + 2 * number * PAGE, PAGE, fd=memory.fd, offset=number * PAGE)
    t.drop(t.client)
    t.no_more_descriptors_than(before)


@case(GONE)
def mapped_memory_goes_with_its_client(t: Context) -> None:
    """The server's own mappings of the client's memory are undone, too."""
    name = "conformance-witness"
    memory = Memory(16 * PAGE, name)
    t.finally_(memory.close)
    t.client.dma_map(BASE, 16 * PAGE, fd=memory.fd)
    _mappings(t, name)
    t.drop(t.client)
    t.serves_next_client()
    for _ in range(100):
        left = _mappings(t, name)
        if not left:
            return
        t.pause(0.02)
    t.check(False, f"the server still maps the memory of the client that is gone ({left} mappings)")


def _mappings(t: Context, name: str) -> int:
    try:
        with open(f"/proc/{t.profile.pid}/maps") as file:
            return sum(name in line for line in file)
    except OSError:
        t.skip(f"the memory of process {t.profile.pid} cannot be seen")
