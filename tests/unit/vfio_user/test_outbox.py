"""What a socket does not take at once: kept, in order, up to a bound."""

from __future__ import annotations

import array
import logging
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support import logs
from tests.support.processes import descriptors, no_descriptors_left
from vfio_user_xe.emulator.vfio_user import outbox as module
from vfio_user_xe.emulator.vfio_user.outbox import Backlog, Outbox


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=["stream", "packets"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[Outbox, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, request.param)
    theirs.settimeout(30)
    outbox = Outbox(ours, "vf1")
    yield outbox, theirs
    ours.shutdown(socket.SHUT_RDWR)
    outbox.close()
    ours.close()
    theirs.close()


@pytest.fixture
def stream() -> Iterator[tuple[Outbox, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    outbox = Outbox(ours, "vf1")
    yield outbox, theirs
    ours.shutdown(socket.SHUT_RDWR)
    outbox.close()
    ours.close()
    theirs.close()


def threads() -> list[threading.Thread]:
    """Those of this test: an outbox that is closed has ended its own."""
    return [thread for thread in threading.enumerate() if thread.name == "vf1 replies"]


def fill(outbox: Outbox) -> int:
    """Send short messages, each its number, until one is kept; how many were sent."""
    send, count = outbox.small_sender(), 0
    while not outbox.kept:
        send(memoryview(count.to_bytes(4, "little")))
        count += 1
    return count


def receive(theirs: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length and (data := theirs.recv(length - len(received))):
        received += data
    return received


def test_what_the_socket_takes_is_sent_at_once_and_by_the_caller(ends: tuple[Outbox, socket.socket]) -> None:
    outbox, theirs = ends
    outbox.small_sender()(memoryview(b"short"))
    assert theirs.recv(100, socket.MSG_DONTWAIT) == b"short"
    outbox.send([b"two ", b"pieces"])
    assert theirs.recv(100, socket.MSG_DONTWAIT) == b"two pieces"
    assert outbox.kept == 0
    assert not threads()


def test_messages_beyond_the_socket_s_buffer_come_in_order_when_they_are_read(
    ends: tuple[Outbox, socket.socket],
) -> None:
    outbox, theirs = ends
    count = fill(outbox)
    buffer = bytearray(4)
    send = outbox.small_sender()
    for number in range(count, count + 2000):
        # As on the access path: the buffer is used again at once. By turns, as a reply that is no access.
        buffer[:] = number.to_bytes(4, "little")
        if number % 2:
            send(memoryview(buffer))
        else:
            outbox.send([memoryview(buffer)[:2], memoryview(buffer)[2:]])
    numbers = [int.from_bytes(receive(theirs, 4), "little") for _ in range(count + 2000)]
    assert numbers == list(range(count + 2000))
    for thread in threads():
        thread.join(30)
    assert not threads(), "the thread is there only while something is kept"
    outbox.small_sender()(memoryview(b"more"))
    assert theirs.recv(4) == b"more"


def test_a_message_larger_than_the_socket_s_buffer_comes_whole_and_before_the_next(
    stream: tuple[Outbox, socket.socket],
) -> None:
    outbox, theirs = stream
    large = os.urandom(1 << 20)
    outbox.send([b"head", memoryview(large)])
    outbox.send([b"next"])
    assert receive(theirs, 4 + len(large) + 4) == b"head" + large + b"next"


def test_descriptors_come_with_their_message(ends: tuple[Outbox, socket.socket]) -> None:
    outbox, theirs = ends
    count = fill(outbox)
    read_end, write_end = os.pipe()
    outbox.send([b"pipe"], [write_end])
    os.close(write_end)  # it stays the caller's, who may close it
    receive(theirs, 0)
    for _ in range(count):
        assert len(theirs.recv(4)) == 4
    data, ancillary, _, _ = theirs.recvmsg(4, socket.CMSG_SPACE(4))
    assert data == b"pipe"
    fd = array.array("i", ancillary[0][2])[0]
    os.write(fd, b"x")
    os.close(fd)
    assert os.read(read_end, 2) == b"x"
    for thread in threads():
        thread.join(30)
    assert os.read(read_end, 1) == b"", "no copy of the descriptor is left"
    os.close(read_end)


def test_who_reads_too_little_is_disconnected_and_the_log_says_so(
    ends: tuple[Outbox, socket.socket], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outbox, theirs = ends
    monkeypatch.setattr(module, "MAX_KEPT", 100_000)
    fill(outbox)

    def send_without_end() -> None:
        while True:
            outbox.send([bytes(1000)])
            sent.append(outbox.kept)

    sent: list[int] = []
    with caplog.at_level(logging.WARNING), pytest.raises(Backlog):
        send_without_end()
    kept = 1 + len(sent)
    assert kept == 1 + (100_000 - 4 - module.MESSAGE_COST) // (1000 + module.MESSAGE_COST)
    (line,) = logs.messages(caplog, module.log)
    assert line.startswith(f"vf1: disconnected, because it does not read what is sent to it: {kept} messages (")
    assert line.endswith("at most 100000 bytes and 64 descriptors may")
    while theirs.recv(1 << 16):
        pass  # what the socket had taken, then the end
    with pytest.raises(BrokenPipeError):
        outbox.send([b"late"])


def test_descriptors_that_wait_are_bounded(stream: tuple[Outbox, socket.socket]) -> None:
    outbox, _ = stream
    fill(outbox)
    with no_descriptors_left():
        before = descriptors()
        for _ in range(module.MAX_KEPT_FDS // 16):
            outbox.send([b"fds"], [0] * 16)
        assert len(descriptors() - before) == module.MAX_KEPT_FDS
        with pytest.raises(Backlog):
            outbox.send([b"fd"], [0])


def test_a_client_that_goes_leaves_nothing_behind(ends: tuple[Outbox, socket.socket]) -> None:
    outbox, theirs = ends
    fill(outbox)
    outbox.send([b"fd"], [0])
    theirs.close()
    for thread in threads():
        thread.join(30)
    assert not threads()
    assert outbox.kept == 0
    with pytest.raises(OSError, match=r"Broken pipe|ended|reset"):
        outbox.send([b"late"])
