"""Clients that send and do not read: the server goes on reading, and never waits for them."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from struct import pack
from typing import Any

import pytest

from tests.support import logs
from tests.support.processes import no_descriptors_left, no_threads_left
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.pci.transport import DmaError
from vfio_user_xe.emulator.vfio_user import dma_messages, outbox, wire
from vfio_user_xe.emulator.vfio_user.client_connection import Connection, Disconnected, encode
from vfio_user_xe.emulator.vfio_user.session import Session


@pytest.fixture
def card() -> Iterator[Card]:
    made = Card(CardConfig.default("conformance"))
    made.start()
    yield made
    made.stop()


class Served:
    """A function's session on a thread, and the client's end of it."""

    def __init__(self, card: Card) -> None:
        ours, theirs = socket.socketpair()
        self.session = Session(card.served[0], ours)
        self.client = Connection(theirs)
        self.thread = threading.Thread(target=self.session.run)
        self.thread.start()
        self.twin: socket.socket | None = None

    def negotiate(self, **capabilities: Any) -> None:
        text = json.dumps({"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1 << 20, **capabilities}})
        self.client.send(encode(wire.VERSION, pack("<HH", 0, 1) + text.encode() + b"\0"))
        reply = self.client.receive(60)
        assert not reply.failed
        if reply.fds:
            self.twin = socket.socket(fileno=reply.fds[0])
        # Its answer comes after the session is ready.
        self.client.send(encode(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0)))
        assert not self.client.receive(60).failed

    def close(self) -> None:
        self.client.close()
        self.thread.join(30)
        assert not self.thread.is_alive()
        if self.twin is not None:
            self.twin.close()


@pytest.fixture
def served(card: Card) -> Iterator[Served]:
    made = Served(card)
    yield made
    made.close()


def dma_map(number: int) -> bytes:
    body = wire.DMA_MAP_BODY.pack(wire.DMA_MAP_BODY.size, 3, 0, number * PAGE_SIZE, PAGE_SIZE)
    return encode(wire.DMA_MAP, body, message_id=number)


def test_a_client_that_sends_2000_dma_maps_before_it_reads_gets_every_reply(served: Served) -> None:
    served.negotiate()
    for number in range(2000):
        served.client.send(dma_map(number))
    replies = [served.client.receive(60) for _ in range(2000)]
    assert [reply.id for reply in replies] == list(range(2000))
    assert not any(reply.failed for reply in replies)


def test_replies_with_descriptors_come_with_them_however_late_they_are_read(served: Served) -> None:
    served.negotiate()
    region = next(index for index, found in enumerate(served.session.regions) if found and found.memory and found.areas)
    body = wire.REGION_INFO.pack(4096, 0, region, 0, 0, 0)
    for number in range(2000):
        served.client.send(dma_map(number))
    for number in range(20):
        served.client.send(encode(wire.DEVICE_GET_REGION_INFO, body, message_id=number))
    replies = [served.client.receive(60) for _ in range(2020)]
    assert [len(reply.fds) for reply in replies] == [0] * 2000 + [1] * 20
    for reply in replies:
        reply.close_fds()


def small_reads(number: int) -> bytes:
    return encode(wire.REGION_READ, wire.REGION_ACCESS.pack(0, wire.CONFIG, 4), message_id=number & 0xFFFF)


def block_reads(number: int) -> bytes:
    return encode(wire.REGION_READ, wire.REGION_ACCESS.pack(0, wire.CONFIG, 256), message_id=number & 0xFFFF)


def refused(number: int) -> bytes:
    return encode(99, message_id=number & 0xFFFF)


@pytest.mark.parametrize("message", [dma_map, small_reads, block_reads, refused])
def test_a_client_that_never_reads_is_disconnected_by_whatever_reply_is_too_much(
    served: Served,
    message: Callable[[int], bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    served.negotiate()
    monkeypatch.setattr(outbox, "MAX_KEPT", 64 << 10)

    def send_without_end() -> None:
        for number in range(60_000):
            served.client.send(message(number))

    with caplog.at_level(logging.WARNING), pytest.raises(Disconnected):
        send_without_end()
    served.thread.join(30)
    assert not served.thread.is_alive()
    (line,) = logs.messages(caplog, outbox.log)
    assert f"{served.session.function.name}: disconnected, because it does not read what is sent to it" in line


def test_a_twin_socket_that_nobody_reads_does_not_block_who_sends_dma_messages(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.negotiate(twin_socket={"supported": True})
    assert served.twin is not None
    monkeypatch.setattr(dma_messages, "TIMEOUT", 0.01)
    for _ in range(50):
        with pytest.raises(DmaError, match="no answer within"):
            served.session.write(0x1000, bytes(64 << 10))
    served.client.send(encode(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0)))
    assert not served.client.receive(60).failed


def test_a_session_ends_while_replies_wait(card: Card) -> None:
    with no_descriptors_left(), no_threads_left():
        served = Served(card)
        served.negotiate()
        for number in range(2000):
            served.client.send(dma_map(number))
        served.session.stop()
        served.close()
