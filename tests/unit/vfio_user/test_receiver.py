"""Messages out of a stream: whatever the pieces, a message is whole and has its own descriptors."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator

import pytest

from tests.unit.vfio_user.conftest import TIMEOUT, Peer
from vfio_user_xe.emulator.guest.serve_options import Polling
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.receiver import Receiver, close_all

CAPACITY = 4096
MAP = wire.DMA_MAP
PLAIN = wire.DEVICE_RESET


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def sender(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    return pair[1]


@pytest.fixture
def receiver(pair: tuple[socket.socket, socket.socket]) -> Iterator[Receiver]:
    receiver = Receiver(pair[0], CAPACITY)
    yield receiver
    receiver.close()


class Files:
    """Pipes to send the writing ends of; a reading end is at its end when nobody has the other any more."""

    def __init__(self) -> None:
        self.readers: list[int] = []

    def make(self) -> int:
        """The number of a new pipe."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self.readers.append(reader)
        self.writer = writer
        return len(self.readers) - 1

    def send(self, sock: socket.socket, data: bytes, count: int = 1) -> list[int]:
        """Send `data` with the ends of `count` new pipes; their numbers."""
        numbers, writers = [], []
        for _ in range(count):
            numbers.append(self.make())
            writers.append(self.writer)
        sent = sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", writers))])
        assert sent == len(data)
        close_all(writers)
        return numbers

    def names(self, fds: list[int]) -> list[int]:
        """Which pipes descriptors are ends of; closes them."""
        found = []
        for fd in list(fds):
            inode = os.fstat(fd).st_ino
            found.append(next(n for n, reader in enumerate(self.readers) if os.fstat(reader).st_ino == inode))
        close_all(fds)
        return found

    def is_closed(self, number: int) -> bool:
        try:
            return os.read(self.readers[number], 1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files()
    yield files
    close_all(files.readers)


def message(command: int, body: bytes = b"", message_id: int = 1) -> bytes:
    return Peer.pack(command, body, message_id=message_id)


def take(receiver: Receiver) -> tuple[int, bytes, list[int]] | None:
    """The message at the front and its descriptors, as a session takes them; None when it is not whole yet."""
    if receiver.end - receiver.start < wire.HEADER_SIZE:
        return None
    message_id, _, size, _, _ = wire.HEADER.unpack_from(receiver.view, receiver.start)
    if receiver.end - receiver.start < size:
        return None
    fds = receiver.take_fds()
    body = bytes(receiver.view[receiver.start + wire.HEADER_SIZE : receiver.start + size])
    receiver.start += size
    return message_id, body, fds


def test_a_message_that_comes_byte_by_byte_is_assembled(receiver: Receiver, sender: socket.socket) -> None:
    data = message(PLAIN, b"body")
    for at in range(len(data)):
        assert take(receiver) is None
        sender.send(data[at : at + 1])
        assert receiver.fill()
    assert take(receiver) == (1, b"body", [])
    assert take(receiver) is None


def test_several_messages_of_one_chunk_are_told_apart(receiver: Receiver, sender: socket.socket) -> None:
    sender.sendall(b"".join(message(PLAIN, bytes([n]) * n, n) for n in range(4)) + message(PLAIN, b"part")[:-1])
    assert receiver.fill()
    assert [take(receiver) for _ in range(5)] == [*((n, bytes([n]) * n, []) for n in range(4)), None]
    receiver.compact()
    sender.sendall(b"t")
    assert receiver.fill()
    assert take(receiver) == (1, b"part", [])


@pytest.mark.parametrize(("consumed", "left_at"), [(16, 16), (CAPACITY // 4, CAPACITY // 4), (CAPACITY // 4 + 1, 0)])
def test_the_largest_message_fits_behind_what_was_consumed_which_is_moved_away_from_time_to_time(
    receiver: Receiver, sender: socket.socket, consumed: int, left_at: int
) -> None:
    body = os.urandom(CAPACITY - wire.HEADER_SIZE)
    before = bytes(consumed - wire.HEADER_SIZE)
    sender.sendall(message(PLAIN, before) + message(PLAIN, body)[:100])
    while (got := take(receiver)) is None:
        assert receiver.fill()
    assert got == (1, before, [])
    while receiver.end - receiver.start < 100:
        assert receiver.fill()
    receiver.compact()
    assert (receiver.start, receiver.end) == (left_at, left_at + 100)
    sender.sendall(message(PLAIN, body)[100:])
    while (got := take(receiver)) is None:
        assert receiver.fill()
    assert got == (1, body, [])


def test_the_end_of_the_stream_is_told(receiver: Receiver, sender: socket.socket) -> None:
    sender.sendall(b"x")
    sender.close()
    assert receiver.fill()
    assert not receiver.fill()


def test_polling_before_sleeping_receives_the_same(pair: tuple[socket.socket, socket.socket]) -> None:
    receiver = Receiver(pair[0], CAPACITY, Polling(0.001))
    for n in range(50):
        pair[1].sendall(message(PLAIN, message_id=n))
        assert receiver.fill()
        assert take(receiver) == (n, b"", [])
        receiver.compact()
    pair[1].close()
    assert not receiver.fill()


def test_descriptors_belong_to_the_message_they_were_sent_with(
    receiver: Receiver, sender: socket.socket, files: Files
) -> None:
    sender.sendall(message(PLAIN, b"first"))
    numbers = files.send(sender, message(MAP, b"second", 2), 3)
    sender.sendall(message(MAP, b"third", 3))
    got: list[tuple[int, list[int]]] = []
    while len(got) < 3:
        assert receiver.fill()
        while (taken := take(receiver)) is not None:
            got.append((taken[0], files.names(taken[2])))
    assert got == [(1, []), (2, numbers), (3, [])]


def test_messages_of_one_chunk_have_their_own_descriptors_in_order(
    receiver: Receiver, sender: socket.socket, files: Files
) -> None:
    sent = {n: files.send(sender, message(MAP, bytes(8 * n), n), n) for n in range(1, 4)}
    got: dict[int, list[int]] = {}
    while len(got) < 3:
        assert receiver.fill()
        while (taken := take(receiver)) is not None:
            got[taken[0]] = files.names(taken[2])
    assert got == sent


def test_descriptors_of_a_chunk_go_to_its_message_that_takes_some(
    receiver: Receiver, sender: socket.socket, files: Files
) -> None:
    numbers = files.send(sender, message(PLAIN) + message(MAP, message_id=2) + message(PLAIN, message_id=3))
    assert receiver.fill()
    taken = [take(receiver) for _ in range(3)]
    assert [(got[0], files.names(got[2])) for got in taken if got is not None] == [(1, []), (2, numbers), (3, [])]


@pytest.mark.parametrize("cut", [1, wire.HEADER_SIZE - 1, wire.HEADER_SIZE, wire.HEADER_SIZE + 5])
def test_descriptors_that_came_with_the_first_piece_wait_for_the_rest(
    receiver: Receiver, sender: socket.socket, files: Files, cut: int
) -> None:
    data = message(MAP, b"whole body", 2)
    numbers = files.send(sender, message(PLAIN) + data[:cut])
    assert receiver.fill()
    assert take(receiver) == (1, b"", [])
    receiver.compact()
    assert take(receiver) is None
    sender.sendall(data[cut:])
    assert receiver.fill()
    taken = take(receiver)
    assert taken is not None
    assert taken[:2] == (2, b"whole body")
    assert files.names(taken[2]) == numbers


def test_descriptors_of_a_message_that_takes_none_come_with_it_and_go_to_no_other(
    receiver: Receiver, sender: socket.socket, files: Files
) -> None:
    (number,) = files.send(sender, message(PLAIN))
    assert receiver.fill()
    assert wire.HEADER.unpack_from(receiver.view)[1] == PLAIN
    receiver.start += wire.HEADER_SIZE  # served without a look at descriptors, as accesses are
    sender.sendall(message(MAP, message_id=2))
    assert receiver.fill()
    assert take(receiver) == (2, b"", [])
    assert files.is_closed(number)


def test_descriptors_are_taken_once(receiver: Receiver, sender: socket.socket, files: Files) -> None:
    numbers = files.send(sender, message(MAP))
    assert receiver.fill()
    assert files.names(receiver.take_fds()) == numbers
    assert receiver.take_fds() == []


def test_more_descriptors_than_a_message_may_have_are_all_seen(
    receiver: Receiver, sender: socket.socket, files: Files
) -> None:
    numbers = files.send(sender, message(MAP), wire.MAX_MSG_FDS + 1)
    assert receiver.fill()
    assert files.names(receiver.take_fds()) == numbers


def test_closing_closes_what_no_message_has_taken(receiver: Receiver, sender: socket.socket, files: Files) -> None:
    (served,) = files.send(sender, message(PLAIN, bytes(CAPACITY - 200)) + message(MAP))
    (partial,) = files.send(sender, message(MAP, b"body")[:-1])
    assert receiver.fill()
    while receiver.end < CAPACITY - 200 + 3 * wire.HEADER_SIZE + 3:
        assert receiver.fill()
    assert not files.is_closed(served)
    receiver.close()
    assert files.is_closed(served)
    assert files.is_closed(partial)


def test_what_is_skipped_of_a_message_that_is_too_large_owns_no_descriptors(
    receiver: Receiver, sender: socket.socket, files: Files
) -> None:
    receiver.skipping = 100
    numbers = files.send(sender, message(MAP, b"x" * 8)[:5].ljust(100, b"\xff") + message(MAP, message_id=2))
    assert receiver.fill()
    receiver.start += 100
    receiver.skipping = 0
    taken = take(receiver)
    assert taken is not None
    assert taken[0] == 2
    assert files.names(taken[2]) == numbers
