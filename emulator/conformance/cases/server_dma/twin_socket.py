"""The second socket, for the server's commands."""

from __future__ import annotations

import threading

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.server_dma.memory import BASE, TWIN, by_messages, expected
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.outcomes import fail
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, Message, encode


def _twin(t: Context) -> Client:
    client = t.connect(twin_socket=True)
    if not client.has_twin_socket:
        t.skip("the server has no twin sockets (they are optional)")
    return client


@case(TWIN)
def twin_socket_carries_the_servers_commands(t: Context) -> None:
    """With twin sockets, DMA messages come over the second socket, and only there."""
    client = _twin(t)
    device = t.device(client)
    mapping = by_messages(client)
    threads: set[str] = set()

    def answer(message: Message) -> bytes:
        threads.add(threading.current_thread().name)
        return client.answer_dma(message)

    client.dma_handler = answer
    t.check(device.read_memory(BASE, 4096) == expected(BASE, 4096), "the device read something else")
    device.write_memory(BASE, b"through the twin")
    t.equal(bytes(mapping.at(BASE, 16)), b"through the twin", "the memory")
    t.equal(threads, {"vfio-user-twin"}, "the set of sockets that the commands came over")


@case(TWIN)
def large_dma_goes_over_the_twin_socket(t: Context) -> None:
    """A mebibyte in each direction."""
    client = _twin(t)
    device = t.device(client)
    mapping = by_messages(client)
    t.check(device.read_memory(BASE, 1 << 20) == expected(BASE, 1 << 20), "the device read something else")
    device.write_memory(BASE, bytes(1 << 20))
    t.check(bytes(mapping.at(BASE, 1 << 20)) == bytes(1 << 20), "the device wrote something else")


@case(TWIN, silent=True)
def closed_twin_socket_leaves_the_session(t: Context) -> None:
    """A client that closes the twin socket loses DMA by messages, and nothing else; or its connection."""
    client = _twin(t)
    device = t.device(client)
    by_messages(client)
    if client.twin is None:
        fail("no twin socket")
    client.twin.close()
    t.check(device.dma(numbers.DMA_READ, BASE, 64), "the device takes the access for a success")
    t.usable(client)


@case(TWIN, silent=True)
def rubbish_on_the_twin_socket_does_no_harm(t: Context) -> None:
    """An unexpected message is dropped, or ends the connection; the server goes on serving."""
    client = _twin(t)
    assert client.twin is not None
    client.twin.send(encode(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0), message_id=3))
    client.twin.send(b"\xff" * 64)
    t.drop(client)
    t.serves_next_client()
