"""Clients that come, go, and die."""

from __future__ import annotations

import contextlib
import socket

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, Connection, Disconnected, encode

GONE = "Client Disconnection"
SOCKET = "Socket"
INFO = wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, 0, 0, 0)
VERSION = encode(wire.VERSION, wire.VERSION_BODY.pack(0, 0) + b'{"capabilities":{"max_msg_fds":8}}\0')


@case(GONE)
def client_that_says_nothing_is_replaced(t: Context) -> None:
    """A client that connects and goes leaves the server ready."""
    for _ in range(20):
        t.drop(t.raw())
    t.serves_next_client()


@case(GONE)
def client_that_dies_at_any_byte_of_version_is_replaced(t: Context) -> None:
    """Wherever VERSION is cut off, the next client is served."""
    for cut in range(1, len(VERSION) + 1):
        client = t.raw()
        client.send_raw(VERSION[:cut])
        t.drop(client)
        if cut % 10 == 0:
            t.serves_next_client()
    t.serves_next_client()


@case(GONE)
def client_that_dies_at_any_byte_of_a_map_is_replaced(t: Context) -> None:
    """Wherever a DMA_MAP with a descriptor is cut off, the next client is served."""
    memory = Memory(4096, "client memory")
    t.finally_(memory.close)
    message = encode(wire.DMA_MAP, wire.DMA_MAP_BODY.pack(32, 3, 0, 0x10000, 0x1000))
    for cut in range(1, len(message) + 1):
        client = t.connect()
        client.send_raw(message[:cut], [memory.fd])
        t.drop(client)
    t.serves_next_client()


@case(GONE)
def client_that_dies_in_a_large_write_is_replaced(t: Context) -> None:
    """A client may die with most of a mebibyte unsent."""
    size = t.client.max_data_xfer_size
    body = wire.REGION_ACCESS.pack(0, wire.CONFIG, size)
    for part in (0, 1, 40_000, size // 2):
        client = t.connect() if t.client.connection.fileno() < 0 else t.client
        header = wire.HEADER.pack(1, wire.REGION_WRITE, wire.HEADER_SIZE + len(body) + size, 0, 0)
        client.send_raw(header + body + bytes(part))
        t.drop(client)
    t.serves_next_client()


@case(GONE)
def client_that_dies_with_unread_replies_is_replaced(t: Context) -> None:
    """A server that cannot get rid of its replies notices that the client is gone."""
    size = min(64 << 10, t.client.max_data_xfer_size)
    scratch = t.scratch(size)
    message = encode(wire.REGION_READ, wire.REGION_ACCESS.pack(scratch.offset, scratch.region, size))
    t.client.send_raw(message * 100)
    t.drop(t.client)
    t.serves_next_client()


@case(GONE, silent=True)
def client_that_stops_sending_gets_its_replies(t: Context) -> None:
    """A client that closes its sending half is answered, or disconnected; the server goes on."""
    t.client.send_raw(encode(wire.DEVICE_GET_INFO, INFO, message_id=6))
    t.client.connection.socket.shutdown(socket.SHUT_WR)
    with contextlib.suppress(Disconnected):
        t.reply(t.client, wire.DEVICE_GET_INFO, 6)
    t.drop(t.client)
    t.serves_next_client()


@case(GONE)
def fifty_clients_in_a_row_are_served(t: Context) -> None:
    """Clients come and go, each with mappings and eventfds."""
    memory = Memory(4096, "client memory")
    t.finally_(memory.close)
    for _ in range(50):
        client = t.connect()
        client.dma_map(0x10000, 4096, fd=memory.fd)
        client.region_read(wire.CONFIG, 0, 4)
        t.drop(client)


@case(GONE)
def device_state_outlives_its_client(t: Context) -> None:
    """Apart from mappings and interrupts, the device state should be retained when a client goes."""
    t.device().set(numbers.REG_SCRATCH, 0x5EED)
    t.drop(t.client)
    t.equal(t.device().get(numbers.REG_SCRATCH), 0x5EED, "the scratch register for the next client")


@case(SOCKET)
def second_client_does_not_disturb_the_first(t: Context) -> None:
    """While a client is connected, another one is served, kept waiting or turned away; the first notices nothing."""
    scratch = t.scratch(64)
    t.client.write(scratch.region, scratch.offset, 4, 0x1111)
    second = _second(t)
    for _ in range(10):
        t.equal(t.client.read(scratch.region, scratch.offset, 4), 0x1111, "what the first client wrote")
    t.usable(t.client)
    if second is not None:
        second.close()
    t.usable(t.client)


@case(SOCKET)
def second_client_that_dies_waiting_is_forgotten(t: Context) -> None:
    """A client that gave up before it was served leaves the server ready."""
    t.usable(t.client)
    for _ in range(3):
        second = _second(t)
        if second is not None:
            second.close()
    t.drop(t.client)
    t.serves_next_client()


@case(SOCKET)
def next_client_is_served_when_the_first_is_gone(t: Context) -> None:
    """A client that was kept waiting, or a new one, is served."""
    t.usable(t.client)
    second = _second(t)
    t.drop(t.client)
    if second is not None:
        second.close()
    t.serves_next_client()


def _second(t: Context) -> Connection | None:
    """A second connection whose VERSION is in flight; None where it is refused."""
    try:
        connection = Connection.connect(t.path, 0.5)
    except Disconnected:
        return None
    t.finally_(connection.close)
    try:
        connection.send(VERSION)
        connection.receive(0.1).close_fds()
    except TimeoutError:
        pass
    except Disconnected:
        connection.close()
        return None
    return connection


@case(GONE)
def replies_for_one_client_do_not_reach_the_next(t: Context) -> None:
    """The first message that a new client gets is the answer to its own."""
    for _ in range(10):
        client: Client = t.connect()
        client.send_raw(encode(wire.DEVICE_GET_INFO, INFO, message_id=0x0DEA) * 50)
        t.drop(client)
        fresh = t.raw()
        reply = t.exchange(fresh, wire.VERSION, wire.VERSION_BODY.pack(0, 0), message_id=0x0A11)
        t.check(not reply.failed, "VERSION was refused")
        t.drop(fresh)
