"""Clients that die anywhere and clients that send rubbish: the next one is served, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import time

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.messages import PAGE, Sent, conversations, numbered, pieces, strange_messages
from tests.support.served import ServedCard
from tests.support.wait import eventually
from vfio_user_xe.emulator.conformance.context import open_descriptors
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, Connection, Disconnected, encode

VERSION = Sent(encode(wire.VERSION, wire.VERSION_BODY.pack(0, 0) + b'{"capabilities":{"max_msg_fds":8}}\0'))


def _next_client_is_served(card: ServedCard, descriptors: int | None) -> None:
    with Client(card.socket) as client:
        assert client.device_info()[0] & wire.DEVICE_FLAG_PCI
    assert descriptors is not None

    def still_open() -> int:
        return open_descriptors(card.pid) or 0

    eventually(
        lambda: still_open() <= descriptors,
        lambda: f"{still_open()} descriptors are open, {descriptors} before",
        interval=0.002,
    )


def _idle_descriptors(card: ServedCard) -> int | None:
    """How many descriptors the server has open without a client."""
    lowest = None
    with Client(card.socket):
        pass
    for _ in range(100):
        now = open_descriptors(card.pid)
        if lowest is not None and now == lowest:
            return now
        lowest = now
        time.sleep(0.005)
    return lowest


@given(conversation=conversations, death=st.integers(0, 1 << 16), cuts=st.lists(st.integers(0, 1 << 16), max_size=10))
def test_client_that_dies_at_any_byte_is_replaced(
    card: ServedCard, conversation: list[Sent], death: int, cuts: list[int]
) -> None:
    before = _idle_descriptors(card)
    memory = Memory(4 * PAGE, "fuzz")
    connection = Connection.connect(card.socket)
    try:
        everything = [VERSION, *numbered(conversation)]
        left = death % sum(len(sent.data) for sent in everything)
        for data, with_fd in pieces(everything, cuts):
            piece, left = data[:left], left - len(data)
            with contextlib.suppress(Disconnected):
                connection.send(piece, [memory.fd] if with_fd and piece else [])
            if left <= 0:
                break
    finally:
        connection.close()
        memory.close()
    _next_client_is_served(card, before)


@given(messages=st.lists(strange_messages, min_size=1, max_size=12), negotiated=st.booleans(), data=st.data())
def test_strange_messages_are_survived(
    card: ServedCard, messages: list[bytes], negotiated: bool, data: st.DataObject
) -> None:
    before = _idle_descriptors(card)
    reader, writer = os.pipe()
    connection = Connection.connect(card.socket)
    try:
        with contextlib.suppress(Disconnected):
            if negotiated:
                connection.send(VERSION.data)
                connection.receive(60).close_fds()
            for message in messages:
                connection.send(message, [writer] * data.draw(st.sampled_from([0, 0, 0, 1, 2, 20])))
    finally:
        connection.close()
        os.close(reader)
        os.close(writer)
    _next_client_is_served(card, before)


@given(garbage=st.binary(min_size=1, max_size=300))
def test_garbage_is_survived(card: ServedCard, garbage: bytes) -> None:
    before = _idle_descriptors(card)
    connection = Connection.connect(card.socket)
    with contextlib.suppress(Disconnected):
        connection.send(garbage)
    connection.close()
    _next_client_is_served(card, before)
