"""A client's connection from its beginning to its end, and what it may rely on in between."""

from __future__ import annotations

import errno
import gc
import os
import socket
import struct
import sys
import threading
import weakref
from typing import Any
from unittest.mock import call, create_autospec

import pytest

from tests.support import logs
from tests.support.processes import no_descriptors_left
from tests.support.wait import eventually
from tests.unit.vfio_user.conftest import (
    PAGE,
    TIMEOUT,
    Connect,
    Connection,
    Message,
    Peer,
    Storage,
    make_function,
)
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import Register
from vfio_user_xe.emulator.pci.transport import AccessHandler, DmaError, Region
from vfio_user_xe.emulator.vfio_user import session, wire
from vfio_user_xe.emulator.vfio_user.session import CAPACITY, Session

BASE = 0x1_0000_0000
LARGE = wire.DEFAULT_MAX_DATA_XFER
"""Bytes of the largest reply: more than a socket buffer holds."""


def read_message(offset: int, count: int, message_id: int, region: int = 0) -> bytes:
    return Peer.pack(wire.REGION_READ, wire.REGION_ACCESS.pack(offset, region, count), message_id=message_id)


def data_of(message: Message) -> bytes:
    assert message.errno == 0
    return message.body[wire.REGION_ACCESS.size :]


# Beginning and end.


def test_the_function_is_attached_once_the_client_has_negotiated(connect: Connect) -> None:
    connection = connect(negotiate=False)
    connection.function.attached.assert_not_called()
    assert connection.peer.negotiate().errno == 0
    eventually(lambda: connection.function.attached.mock_calls == [call(connection.session)])


def test_a_client_that_goes_takes_mappings_and_interrupts_with_it(connection: Connection, ram: Memory) -> None:
    event = os.eventfd(0)
    body = wire.IRQ_SET.pack(20, wire.IRQ_SET_DATA_EVENTFD | wire.IRQ_SET_ACTION_TRIGGER, 1, 0, 1)
    assert connection.peer.refused(wire.DEVICE_SET_IRQS, body, fds=[event]) == ""
    assert connection.peer.map(BASE, PAGE, ram.fd) == ""
    connection.end()
    connection.function.detached.assert_called_once_with()
    assert connection.session.memory.ranges() == []
    assert not connection.session.trigger(1, 0)
    os.close(event)


def test_a_command_in_the_wrong_state_is_refused_and_the_log_says_both_states(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    peer = connect(negotiate=False).peer
    with caplog.at_level("INFO"):
        assert peer.request(wire.DEVICE_RESET).errno == errno.EINVAL
        assert "session: is negotiating, not running" in logs.text(caplog, session.log)
        assert peer.negotiate().errno == 0
        assert peer.negotiate().errno == errno.EINVAL
        assert "session: is running, not negotiating" in logs.text(caplog, session.log)


def test_a_client_that_never_negotiated_was_never_there(connect: Connect) -> None:
    connection = connect(negotiate=False)
    connection.end()
    connection.function.attached.assert_not_called()
    connection.function.detached.assert_not_called()


def test_stopping_ends_the_connection_and_whoever_waits_for_the_client(connection: Connection) -> None:
    errors: list[int] = []

    def read() -> None:
        try:
            connection.session.read(BASE, 4)
        except DmaError as error:
            errors.append(error.errno)

    reader = threading.Thread(target=read)
    reader.start()
    assert connection.peer.receive().command == wire.DMA_READ
    connection.session.stop()
    connection.thread.join(TIMEOUT)
    reader.join(TIMEOUT)
    assert errors == [errno.ENOTCONN]
    connection.function.detached.assert_called_once_with()
    with pytest.raises(EOFError):
        connection.peer.receive()


def test_a_client_that_goes_in_the_middle_of_a_message_is_gone(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    part = read_message(0, 4, 1)[:-1]
    connection.peer.sock.sendall(part)
    connection.end()
    connection.function.detached.assert_called_once_with()
    (record,) = logs.records(caplog, session.log)
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"fake: the client (process {os.getpid()}) went away in the middle, as if it was killed;"
        f" lost: {len(part)} bytes of requests that were incomplete or not served"
    )


def test_a_client_that_goes_without_its_replies_or_with_dma_unanswered_is_told_of(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    connection = connect(make_function([Region(PAGE, handler=storage)]))
    connection.peer.sock.sendall(read_message(0, 4, 1))
    assert connection.peer.has_message(TIMEOUT)
    connection.end()
    assert logs.messages(caplog, session.log)[-1].endswith("lost: replies that it had not read")

    connection = connect(make_function([Region(PAGE, handler=storage)]))

    def read() -> None:
        with pytest.raises(DmaError):
            connection.session.read(BASE, 4)

    reader = threading.Thread(target=read)
    reader.start()
    assert connection.peer.receive().command == wire.DMA_READ
    connection.end()
    reader.join(TIMEOUT)
    assert logs.messages(caplog, session.log)[-1].endswith("lost: 1 DMA requests of the device without an answer")


def test_an_orderly_end_of_either_side_is_no_warning(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    served = make_function([Region(PAGE, handler=storage)])
    connection = connect(served)
    assert connection.peer.read(0, 0, 4).errno == 0
    connection.end()
    stopped = connect(make_function([Region(PAGE, handler=storage)]))
    stopped.peer.sock.sendall(read_message(0, 4, 1)[:-1])
    stopped.session.stop()
    stopped.thread.join(TIMEOUT)
    assert not logs.records(caplog, session.log)


def test_a_connection_leaves_no_descriptors_behind(connect: Connect, ram: Memory) -> None:
    with no_descriptors_left():
        connection = connect()
        peer = connection.peer
        event = os.eventfd(0)
        irqs = wire.IRQ_SET.pack(20, wire.IRQ_SET_DATA_EVENTFD | wire.IRQ_SET_ACTION_TRIGGER, 1, 0, 2)
        assert peer.refused(wire.DEVICE_SET_IRQS, irqs, fds=[event, event]) == ""
        assert peer.refused(wire.DEVICE_SET_IRQS, irqs, fds=[event]) == "EINVAL"
        assert peer.map(BASE, PAGE, ram.fd) == ""
        assert peer.map(BASE, PAGE, ram.fd) == "EEXIST"
        assert peer.refused(wire.DEVICE_RESET, fds=[event]) == "", "a command that takes none"
        assert peer.refused(99, fds=[event, event]) == "ENOTSUP"
        os.close(event)
        connection.end()


def test_nothing_keeps_a_session_that_has_ended() -> None:
    """Its buffer is large, and the garbage collector may come hours later."""
    ours, theirs = socket.socketpair()
    function = make_function()
    served = Session(function, ours)
    thread = threading.Thread(target=served.run, daemon=True)
    gc.collect()
    gc.disable()
    try:
        thread.start()
        assert Peer(theirs).negotiate().errno == 0
        theirs.close()
        thread.join(TIMEOUT)
        function.reset_mock()  # it was attached to the session
        kept = weakref.ref(served)
        del served
        assert kept() is None
    finally:
        gc.enable()


def test_a_function_has_no_dma_before_the_client_has_negotiated() -> None:
    ours, theirs = socket.socketpair()
    session = Session(make_function(), ours)
    for access in (lambda: session.read(BASE, 4), lambda: session.write(BASE, b"data")):
        with pytest.raises(DmaError, match="no client has negotiated") as caught:
            access()
        assert caught.value.errno == errno.ENOTCONN
    ours.close()
    theirs.close()


def test_dma_by_messages_inside_an_access_is_refused_and_does_not_wait_for_itself(connect: Connect) -> None:
    errors: list[int] = []

    class Eager(Storage):
        def write(self, offset: int, size: int, value: int) -> None:
            for access in (lambda: connection.session.read(BASE, 4), lambda: connection.session.write(BASE, b"data")):
                try:
                    access()
                except DmaError as error:
                    errors.append(error.errno)

    connection = connect(make_function([Region(PAGE, handler=Eager())]))
    assert connection.peer.write(0, 0, bytes(4)).errno == 0
    assert errors == [errno.EDEADLK] * 2


def test_what_the_function_may_have_written_is_logged_by_either_way(connection: Connection, ram: Memory) -> None:
    session, peer = connection.session, connection.peer
    assert peer.map(BASE, 8 * PAGE, ram.fd) == ""
    session.view(BASE, PAGE, True)
    session.dirty.start(PAGE, [])
    session.view(BASE + 2 * PAGE, 1, True)
    session.view(BASE + 3 * PAGE, 1, False)
    writer = threading.Thread(target=session.write, args=(BASE + 5 * PAGE - 1, b"ab"))
    writer.start()
    command = peer.receive()
    reply = Peer.pack(command.command, command.body[:16], message_id=command.message_id, flags=wire.TYPE_REPLY)
    peer.sock.sendall(reply)
    writer.join(TIMEOUT)
    assert session.dirty.report(BASE, 8 * PAGE, PAGE) == (1 << 2 | 1 << 4 | 1 << 5).to_bytes(8, "little")


# Accesses.


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_an_aligned_access_reaches_the_region_as_one(peer: Peer, storage: Storage, count: int) -> None:
    data = bytes(range(1, count + 1))
    assert peer.write(0, 16, data).body == wire.REGION_ACCESS.pack(16, 0, count)
    assert data_of(peer.read(0, 16, count)) == data
    assert storage.accesses == [("write", 16, count), ("read", 16, count)]


def test_an_access_that_is_not_aligned_reaches_the_region_as_several_that_are(peer: Peer, storage: Storage) -> None:
    assert peer.write(0, 6, b"abcd").errno == 0
    assert data_of(peer.read(0, 6, 4)) == b"abcd"
    assert storage.accesses == [("write", 6, 2), ("write", 8, 2), ("read", 6, 2), ("read", 8, 2)]


def test_the_last_bytes_of_a_region_are_reached_and_none_behind(peer: Peer) -> None:
    assert peer.write(0, PAGE - 4, b"last").errno == 0
    assert data_of(peer.read(0, PAGE - 4, 4)) == b"last"
    assert peer.read(0, PAGE - 4, 8).errno == errno.EINVAL
    assert peer.read(0, PAGE, 4).errno == errno.EINVAL


def test_a_write_that_wants_no_reply_gets_none_also_when_it_fails(peer: Peer, storage: Storage) -> None:
    access = wire.REGION_ACCESS
    for body in (access.pack(4, 0, 4) + b"data", access.pack(9, 0, 3) + b"odd", access.pack(PAGE, 0, 4) + b"past"):
        peer.send(wire.REGION_WRITE, body, flags=wire.FLAG_NO_REPLY)
    assert peer.refused(wire.DEVICE_RESET) == "", "the first reply that comes is this one's"
    storage.fails = True
    peer.send(wire.REGION_WRITE, access.pack(4, 0, 4) + b"fail", flags=wire.FLAG_NO_REPLY)
    assert peer.read(0, 4, 4).errno == errno.EIO
    storage.fails = False
    assert data_of(peer.read(0, 4, 8)) == b"data\0odd"


@pytest.mark.parametrize("count", [4, 3])
def test_a_model_that_fails_fails_the_access_and_not_the_session(
    peer: Peer, storage: Storage, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    storage.fails = True
    assert peer.read(0, 8, count).errno == errno.EIO
    assert peer.write(0, 8, bytes(count)).errno == errno.EIO
    assert [record.levelname for record in logs.records(caplog, session.log)] == ["ERROR"] * 2
    storage.fails = False
    assert peer.read(0, 8, count).errno == 0


@pytest.mark.parametrize("value", ["text", None, 1.5, -1, 1 << 40])
@pytest.mark.parametrize("count", [1, 4])
def test_a_hook_that_returns_no_number_fails_the_access_and_its_register_is_named(
    value: Any, count: int, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    file = RegisterFile("lamp", PAGE)
    file.add([Register("SWITCH", 8, read=lambda: value), Register("LEVEL", 12, reset=3)])
    peer = connect(make_function([Region(PAGE, handler=file)])).peer
    if count == 4 or not isinstance(value, int):
        assert peer.read(0, 8, count).errno == errno.EIO
        assert "REGION_READ at 0x8 of region 0, SWITCH, " in logs.text(caplog, session.log)
    assert data_of(peer.read(0, 12, count)) == (3).to_bytes(count, "little")


class Strange(AccessHandler):
    """Fails, also when it is asked for names; the errors are of a kind that packing has, too."""

    def read(self, offset: int, size: int) -> int:
        return int(struct.unpack("<I", b"")[0])

    def write(self, offset: int, size: int, value: int) -> None:
        struct.unpack("<I", b"")

    def name_of(self, offset: int) -> str:
        sys.exit(5)


def test_telling_a_failure_cannot_end_a_session_and_tells_no_other_one(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    peer = connect(make_function([Region(PAGE, handler=Strange())])).peer
    for _ in range(2):
        assert peer.read(0, 8, 4).errno == errno.EIO
        assert peer.write(0, 8, bytes(4)).errno == errno.EIO
    assert "REGION_READ at 0x8 of region 0 failed" in logs.text(caplog, session.log)
    assert "returned no number" not in logs.text(caplog, session.log)


@pytest.mark.parametrize("count", [4, 3])
def test_a_model_that_wants_to_end_the_process_fails_the_access(connect: Connect, count: int) -> None:
    def leave(*_: object) -> Any:
        sys.exit(7)

    handler = create_autospec(AccessHandler, instance=True)
    handler.read.side_effect = handler.write.side_effect = leave
    peer = connect(make_function([Region(PAGE, handler=handler)])).peer
    assert peer.read(0, 8, count).errno == errno.EIO
    assert peer.write(0, 8, bytes(count)).errno == errno.EIO


def test_before_version_no_access_reaches_a_region(connect: Connect, storage: Storage) -> None:
    peer = connect(make_function([Region(PAGE, handler=storage)]), negotiate=False).peer
    assert peer.read(0, 0, 4).errno == errno.EINVAL
    assert peer.write(0, 0, bytes(4)).errno == errno.EINVAL
    assert storage.accesses == []


def test_mapped_areas_are_read_and_written_as_the_memory_they_are(
    connect: Connect, storage: Storage, ram: Memory
) -> None:
    region = Region(4 * PAGE, handler=storage, memory=ram, memory_offset=PAGE, areas=[(PAGE, PAGE)])
    peer = connect(make_function([region])).peer
    assert data_of(peer.read(0, PAGE, 4)) == b"\3\0\0\0"
    assert peer.write(0, 2 * PAGE - 4, b"area").errno == 0
    assert peer.write(0, PAGE + 1, b"odd").errno == 0
    assert bytes(ram.view[3 * PAGE - 4 : 3 * PAGE]) == b"area"
    assert bytes(ram.view[2 * PAGE : 2 * PAGE + 4]) == b"\3odd"
    assert storage.accesses == []
    assert peer.write(0, 0, b"trap").errno == 0
    assert storage.accesses == [("write", 0, 4)]


# Messages that are none.


@pytest.mark.parametrize("size", [0, wire.HEADER_SIZE - 1])
def test_a_message_that_claims_to_be_smaller_than_its_header_is_refused(peer: Peer, size: int) -> None:
    assert peer.request(wire.DEVICE_RESET, size=size).errno == errno.EINVAL
    assert peer.refused(wire.DEVICE_RESET) == ""


@pytest.mark.parametrize("flags", [2, wire.FLAG_ERROR, 0x40])
def test_flags_that_no_command_has_are_refused(connection: Connection, flags: int) -> None:
    assert connection.peer.refused(wire.DEVICE_RESET, flags=flags) == "EINVAL"
    connection.function.reset.assert_not_called()


def test_a_message_that_is_too_large_is_refused_and_skipped(connection: Connection, ram: Memory) -> None:
    body = bytes(CAPACITY - wire.HEADER_SIZE + 1)
    with no_descriptors_left():
        assert connection.peer.request(wire.DMA_MAP, body, fds=[ram.fd]).errno == errno.E2BIG
        assert connection.peer.refused(wire.DEVICE_RESET) == ""
    largest = wire.REGION_ACCESS.pack(0, 0, LARGE) + bytes(LARGE)
    assert connection.peer.refused(wire.REGION_WRITE, largest) == "EINVAL", "this is not too large for a message"


def test_a_reply_that_nobody_waits_for_is_not_answered(connection: Connection) -> None:
    connection.peer.send(wire.DMA_READ, bytes(20), flags=wire.TYPE_REPLY)
    assert connection.peer.refused(wire.DEVICE_RESET) == ""
    connection.function.reset.assert_called_once_with()


# What is sent: replies of this thread, commands of others.


def test_replies_come_in_the_order_of_the_requests(peer: Peer, storage: Storage) -> None:
    storage.data[:] = os.urandom(PAGE)
    requests = [(n, (1, 4, 8, 100)[n % 4]) for n in range(400)]
    peer.sock.sendall(b"".join(read_message(8 * n, count, n) for n, count in requests))
    for n, count in requests:
        reply = peer.receive()
        assert reply.message_id == n
        assert data_of(reply) == storage.data[8 * n : 8 * n + count]


def test_a_reply_that_no_socket_buffer_holds_comes_whole(connect: Connect) -> None:
    memory = Memory(2 * LARGE, "large")
    data = memory.view[:LARGE] = os.urandom(LARGE)
    peer = connect(make_function([Region(2 * LARGE, memory=memory, areas=[(0, 2 * LARGE)])])).peer
    peer.sock.sendall(read_message(0, LARGE, 1) + read_message(0, 4, 2))
    assert data_of(peer.receive()) == data
    assert data_of(peer.receive()) == data[:4]
    memory.close()


def test_messages_of_several_threads_come_whole_and_each_thread_s_in_order(connect: Connect) -> None:
    memory = Memory(LARGE, "large")
    memory.view[:] = bytes(range(256)) * (LARGE // 256)
    connection = connect(make_function([Region(LARGE, memory=memory, areas=[(0, LARGE)])]))
    peer, rounds = connection.peer, 60

    def send(thread: int) -> None:
        for n in range(rounds):
            body = bytes([thread]) * (1 + 97 * n)
            connection.session.send([wire.HEADER.pack(n, 90 + thread, 16 + len(body), 0, 0), body[:1], body[1:]])

    threads = [threading.Thread(target=send, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    seen: dict[int, list[int]] = {90: [], 91: [], 92: [], wire.REGION_READ: []}
    peer.sock.sendall(b"".join(read_message(0, 4 if n % 2 else 20_000, n) for n in range(rounds)))
    while not all(len(ids) == rounds for ids in seen.values()):
        message = peer.receive()
        seen[message.command].append(message.message_id)
        if message.command == wire.REGION_READ:
            assert data_of(message) == memory.view[: 4 if message.message_id % 2 else 20_000]
        else:
            assert message.body == bytes([message.command - 90]) * (1 + 97 * message.message_id)
    assert all(ids == list(range(rounds)) for ids in seen.values())
    for thread in threads:
        thread.join(TIMEOUT)
    memory.close()


def test_accesses_are_answered_while_dma_waits_for_its_reply(connection: Connection, storage: Storage) -> None:
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(connection.session.read(BASE, 4)))
    reader.start()
    command = connection.peer.receive()
    assert command.command == wire.DMA_READ
    storage.data[:4] = b"regs"
    assert data_of(connection.peer.read(0, 0, 4)) == b"regs"
    body = command.body + b"data"
    connection.peer.sock.sendall(
        Peer.pack(wire.DMA_READ, body, message_id=command.message_id, flags=wire.TYPE_REPLY) + read_message(0, 4, 7)
    )
    assert connection.peer.receive().message_id == 7
    reader.join(TIMEOUT)
    assert read == [b"data"]


def test_descriptors_are_sent_with_their_message_and_stay_the_sender_s(connection: Connection, ram: Memory) -> None:
    with no_descriptors_left():
        for n in range(3):
            connection.session.send([wire.HEADER.pack(n, 90, 16, 0, 0)], [ram.fd])
        connection.session.send([wire.HEADER.pack(3, 90, 16, 0, 0)])
        for n in range(3):
            message = connection.peer.receive()
            assert message.message_id == n
            (fd,) = message.fds
            assert os.path.sameopenfile(fd, ram.fd)
            os.close(fd)
        assert connection.peer.receive().fds == []
    assert os.fstat(ram.fd).st_size == ram.size


def test_a_client_that_goes_while_messages_wait_for_it_leaves_no_descriptors_behind(
    connect: Connect, ram: Memory
) -> None:
    with no_descriptors_left():
        connection = connect()
        session = connection.session

        def flood() -> None:
            try:
                for n in range(64):
                    body = bytes(64 << 10)
                    session.send([wire.HEADER.pack(n, 90, 16 + len(body), 0, 0), body], [ram.fd])
            except OSError:
                pass  # the client is gone

        sender = threading.Thread(target=flood)
        sender.start()
        assert connection.peer.has_message(TIMEOUT)
        connection.end()
        sender.join(TIMEOUT)
        assert not sender.is_alive()
