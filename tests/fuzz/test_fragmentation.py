"""Whatever lies between client and server may cut the stream anywhere: the replies must be the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.messages import PAGE, SCRATCH, Sent, conversations, numbered, pieces
from tests.support.served import ServedCard
from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user.client import Client, Message


def _converse(card: ServedCard, conversation: Sequence[Sent], parts: Sequence[tuple[bytes, bool]]) -> list[Message]:
    """The replies to `parts`, on a new connection to a device in a known state."""
    with ExitStack() as stack:
        client = stack.enter_context(Client(card.socket))
        memory = Memory(4 * PAGE, "fuzz")
        stack.callback(memory.close)
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        stack.callback(os.close, event)
        client.region_write(device.SCRATCH, 0, bytes(2 * SCRATCH))
        bring_event = [sent.data[2] == 8 for sent in conversation if sent.with_fd]
        for data, with_fd in parts:
            fds = [event if bring_event.pop(0) else memory.fd] if with_fd else []
            client.send_raw(data, fds)
        return [client.recv_message() for sent in conversation if sent.answered]


@given(conversation=conversations, cuts=st.lists(st.integers(0, 1 << 16), max_size=40))
def test_any_fragmentation_gets_the_same_replies(card: ServedCard, conversation: list[Sent], cuts: list[int]) -> None:
    conversation = numbered(conversation)
    whole = _converse(card, conversation, [(sent.data, sent.with_fd) for sent in conversation])
    assert [reply.id for reply in whole] == [number for number, sent in enumerate(conversation, 1) if sent.answered]
    assert _converse(card, conversation, pieces(conversation, cuts)) == whole


@given(conversation=conversations)
def test_single_bytes_get_the_same_replies(card: ServedCard, conversation: list[Sent]) -> None:
    conversation = numbered(conversation[:4])
    whole = _converse(card, conversation, [(sent.data, sent.with_fd) for sent in conversation])
    every = range(sum(len(sent.data) for sent in conversation))
    assert _converse(card, conversation, pieces(conversation, every)) == whole
