"""Commands off the access path: what they answer, what they refuse, and what the function is told, and when."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Any
from unittest.mock import call

import pytest

from tests.support import logs
from tests.unit.vfio_user.conftest import (
    PAGE,
    TIMEOUT,
    Connect,
    Connection,
    Peer,
    Storage,
    make_function,
)
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.pci.transport import DmaError, Region
from vfio_user_xe.emulator.vfio_user import session, wire

BASE = 0x1_0000_0000


# VERSION


def version_body(data: bytes, major: int = wire.MAJOR, minor: int = wire.MINOR) -> bytes:
    return wire.VERSION_BODY.pack(major, minor) + data


def test_only_capabilities_that_were_asked_for_are_offered(connect: Connect) -> None:
    peer = connect(negotiate=False).peer
    reply = peer.negotiate({"max_dma_maps": 5, "pgsizes": 4096, "nobody_knows": [1]})
    assert wire.VERSION_BODY.unpack_from(reply.body) == (0, 1)
    assert reply.body[4:] == b'{"capabilities":{"max_dma_maps":65535,"pgsizes":4096}}\0'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        version_body(b"", major=1),
        version_body(b"{}"),
        version_body(b"{}\0{}\0"),
        version_body(b"{\0"),
        version_body(b"\xff\xff\0"),
        version_body(b"[]\0"),
        version_body(b"[" * 100_000 + b"\0"),
        version_body(b'{"capabilities": 1}\0'),
        version_body(b'{"capabilities": {"max_data_xfer_size": -1}}\0'),
        version_body(b'{"capabilities": {"max_msg_fds": true}}\0'),
        version_body(b'{"capabilities": {"pgsizes": "4096"}}\0'),
        version_body(b'{"capabilities": {"twin_socket": true}}\0'),
        version_body(b'{"capabilities": {"twin_socket": {"supported": 1}}}\0'),
    ],
)
def test_a_version_that_makes_no_sense_is_refused_and_another_may_follow(connect: Connect, body: bytes) -> None:
    connection = connect(negotiate=False)
    assert connection.peer.refused(wire.VERSION, body) == "EINVAL"
    connection.function.attached.assert_not_called()
    assert connection.peer.refused(wire.VERSION, version_body(b"", minor=7)) == ""


def test_nothing_but_version_comes_first_and_version_comes_once(connect: Connect) -> None:
    peer = connect(negotiate=False).peer
    assert peer.refused(wire.DEVICE_RESET) == "EINVAL"
    assert peer.map(BASE, PAGE) == "EINVAL"
    assert peer.negotiate().errno == 0
    assert peer.refused(wire.VERSION, version_body(b"")) == "EINVAL"
    assert peer.refused(wire.DEVICE_RESET) == ""


def test_a_twin_socket_carries_the_session_s_own_commands(connect: Connect) -> None:
    connection = connect(negotiate=False)
    reply = connection.peer.negotiate({"twin_socket": {"supported": True}})
    assert reply.body[4:] == b'{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}\0'
    (fd,) = reply.fds
    twin = Peer(socket.socket(fileno=fd))
    answers: list[bytes] = []
    reader = threading.Thread(target=lambda: answers.append(connection.session.read(BASE, 4)))
    assert connection.peer.map(BASE, PAGE) == "", "the session has taken up the twin when it serves the next command"
    reader.start()
    command = twin.receive()
    assert (command.command, command.body) == (wire.DMA_READ, wire.DMA_ACCESS.pack(BASE, 4))
    body = command.body + b"data"
    twin.sock.sendall(Peer.pack(wire.DMA_READ, body, message_id=command.message_id, flags=wire.TYPE_REPLY))
    reader.join(TIMEOUT)
    assert answers == [b"data"]
    connection.end()
    with pytest.raises(EOFError):
        twin.receive()
    twin.sock.close()


# Information


def region_info(peer: Peer, index: int, argsz: int = 4096) -> tuple[Any, bytes, list[int]]:
    reply = peer.request(wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(argsz, 0, index, 0, 0, 0))
    assert reply.errno == 0
    return wire.REGION_INFO.unpack_from(reply.body), reply.body[wire.REGION_INFO.size :], reply.fds


def test_a_device_has_nine_regions_and_five_interrupts_and_can_be_reset(peer: Peer) -> None:
    reply = peer.request(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0))
    flags = wire.DEVICE_FLAG_RESET | wire.DEVICE_FLAG_PCI
    assert reply.body == wire.DEVICE_INFO.pack(16, flags, wire.NUM_REGIONS, wire.NUM_IRQS)
    assert peer.request(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(64, 0, 0, 0)).body == reply.body, "room for more"
    assert peer.refused(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(15, 0, 0, 0)) == "EINVAL"
    assert peer.refused(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 1, 0, 0)) == "EINVAL"


def test_a_region_says_how_it_can_be_accessed(peer: Peer) -> None:
    size = wire.REGION_INFO.size
    assert region_info(peer, 0) == ((size, wire.REGION_FLAG_READ | wire.REGION_FLAG_WRITE, 0, 0, PAGE, 0), b"", [])
    assert region_info(peer, 1)[0][1] == wire.REGION_FLAG_READ
    assert region_info(peer, 2)[0][1] == wire.REGION_FLAG_WRITE
    assert region_info(peer, 8) == ((size, 0, 8, 0, 0, 0), b"", []), "one that the device has not"
    assert peer.refused(wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(size, 0, 9, 0, 0, 0)) == "EINVAL"
    assert peer.refused(wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(size - 1, 0, 0, 0, 0, 0)) == "EINVAL"


def test_the_parts_of_a_region_that_can_be_mapped_come_with_their_descriptor(
    connect: Connect, storage: Storage, ram: Memory
) -> None:
    areas = [(0, PAGE), (4 * PAGE, 2 * PAGE)]
    sparse = Region(8 * PAGE, handler=storage, memory=ram, memory_offset=2 * PAGE, areas=areas)
    whole = Region(4 * PAGE, memory=ram, areas=[(0, 4 * PAGE)])
    peer = connect(make_function([sparse, whole])).peer
    mapped = wire.REGION_FLAG_READ | wire.REGION_FLAG_WRITE | wire.REGION_FLAG_MMAP
    needed = wire.REGION_INFO.size + wire.CAPABILITY.size + wire.SPARSE_MMAP.size + 2 * wire.SPARSE_AREA.size

    info, capability, fds = region_info(peer, 0, argsz=wire.REGION_INFO.size)
    assert info == (needed, mapped | wire.REGION_FLAG_CAPS, 0, wire.REGION_INFO.size, 8 * PAGE, 2 * PAGE)
    assert (capability, fds) == (b"", []), "there was no room: the client asks again"

    info, capability, (fd,) = region_info(peer, 0, argsz=needed)
    assert info[0] == needed
    assert capability == (
        wire.CAPABILITY.pack(wire.CAP_SPARSE_MMAP, 1, 0)
        + wire.SPARSE_MMAP.pack(2, 0)
        + b"".join(wire.SPARSE_AREA.pack(*area) for area in areas)
    )
    assert os.path.sameopenfile(fd, ram.fd)
    os.close(fd)

    info, capability, (fd,) = region_info(peer, 1, argsz=wire.REGION_INFO.size)
    assert (info[1], capability) == (mapped, b""), "a region that can be mapped throughout needs no list of areas"
    os.close(fd)


def test_a_refusal_is_logged_with_what_is_allowed(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=session.log.name):
        assert peer.refused(wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(32, 0, 9, 0, 0, 0)) == "EINVAL"
        assert peer.refused(wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, 5, 0)) == "EINVAL"
    first, second = logs.messages(caplog, session.log)
    assert first.endswith("region 9: the device has 0 to 8")
    assert second.endswith("interrupt index 5: the device has 0 to 4")


def test_no_region_has_descriptors_for_its_doorbells(peer: Peer) -> None:
    reply = peer.request(wire.DEVICE_GET_REGION_IO_FDS, wire.REGION_IO_FDS.pack(16, 0, 0, 0))
    assert (reply.body, reply.fds) == (wire.REGION_IO_FDS.pack(16, 0, 0, 0), [])
    for body in ((15, 0, 0, 0), (16, 1, 0, 0), (16, 0, 8, 0), (16, 0, 9, 0), (16, 0, 0, 1)):
        assert peer.refused(wire.DEVICE_GET_REGION_IO_FDS, wire.REGION_IO_FDS.pack(*body)) == "EINVAL"


# Interrupts


def set_irqs(peer: Peer, flags: int, start: int, count: int, fds: list[int], data: bytes = b"", index: int = 1) -> str:
    body = wire.IRQ_SET.pack(wire.IRQ_SET.size + len(data), flags, index, start, count) + data
    return peer.refused(wire.DEVICE_SET_IRQS, body, fds=fds)


def test_an_interrupt_tells_how_many_vectors_it_has(peer: Peer) -> None:
    reply = peer.request(wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, 1, 0))
    assert reply.body == wire.IRQ_INFO.pack(16, wire.IRQ_FLAG_EVENTFD, 1, 2)
    reply = peer.request(wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, 0, 0))
    assert reply.body == wire.IRQ_INFO.pack(16, 0, 0, 0)
    for body in ((15, 0, 1, 0), (16, 1, 1, 0), (16, 0, 5, 0), (16, 0, 1, 1)):
        assert peer.refused(wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(*body)) == "EINVAL"


def test_a_vector_signals_the_eventfd_it_was_given_until_it_is_taken_back(connection: Connection) -> None:
    assign = wire.IRQ_SET_DATA_EVENTFD | wire.IRQ_SET_ACTION_TRIGGER
    event = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        assert not connection.session.trigger(1, 1)
        assert set_irqs(connection.peer, assign, 1, 1, [event]) == ""
        assert connection.function.wired.mock_calls == [call(1, 1, 1)]
        assert connection.session.trigger(1, 1)
        assert os.eventfd_read(event) == 1
        assert not connection.session.trigger(1, 0)
        # The client may signal, too; the function need not know.
        assert set_irqs(connection.peer, wire.IRQ_SET_DATA_BOOL | wire.IRQ_SET_ACTION_TRIGGER, 0, 2, [], b"\0\1") == ""
        assert os.eventfd_read(event) == 1
        assert connection.function.wired.call_count == 1
        assert set_irqs(connection.peer, wire.IRQ_SET_DATA_NONE | wire.IRQ_SET_ACTION_TRIGGER, 0, 0, []) == ""
        assert connection.function.wired.mock_calls[-1] == call(1, 0, 2), "count 0 is all of them"
        assert not connection.session.trigger(1, 1)
    finally:
        os.close(event)


def test_interrupts_that_cannot_be_set_are_refused_and_the_function_is_not_told(connection: Connection) -> None:
    assign = wire.IRQ_SET_DATA_EVENTFD | wire.IRQ_SET_ACTION_TRIGGER
    peer = connection.peer
    event = os.eventfd(0)
    try:
        assert set_irqs(peer, assign, 1, 2, [event, event]) == "EINVAL", "past the last vector"
        assert set_irqs(peer, assign, 0, 2, [event]) == "EINVAL", "one descriptor for two"
        assert set_irqs(peer, assign, 0, 1, [event], index=5) == "EINVAL"
        assert set_irqs(peer, wire.IRQ_SET_DATA_NONE | wire.IRQ_SET_ACTION_MASK, 0, 1, []) == "EINVAL"
        assert peer.refused(wire.DEVICE_SET_IRQS, wire.IRQ_SET.pack(19, assign, 1, 0, 1), fds=[event]) == "EINVAL"
    finally:
        os.close(event)
    connection.function.wired.assert_not_called()
    assert not connection.session.trigger(1, 0)


# Regions


def test_accesses_of_any_length_are_cut_into_aligned_ones(peer: Peer, storage: Storage) -> None:
    data = bytes(range(1, 14))
    assert peer.write(0, 3, data).body == wire.REGION_ACCESS.pack(3, 0, 13)
    assert peer.read(0, 3, 13).body == wire.REGION_ACCESS.pack(3, 0, 13) + data
    pieces = [(3, 1), (4, 4), (8, 4), (12, 4)]
    assert storage.accesses == [("write", *piece) for piece in pieces] + [("read", *piece) for piece in pieces]


@pytest.mark.parametrize(
    ("region", "offset", "count", "read_error", "write_error"),
    [
        (0, 0, 0, "EINVAL", "EINVAL"),
        (0, PAGE - 3, 4, "EINVAL", "EINVAL"),
        (0, PAGE, 1, "EINVAL", "EINVAL"),
        (0, (1 << 64) - 4, 4, "EINVAL", "EINVAL"),
        (3, 0, 4, "EINVAL", "EINVAL"),
        (9, 0, 4, "EINVAL", "EINVAL"),
        (1, 0, 4, "", "EPERM"),
        (2, 0, 4, "EPERM", ""),
    ],
)
def test_accesses_that_a_region_does_not_take_are_refused(
    peer: Peer, storage: Storage, region: int, offset: int, count: int, read_error: str, write_error: str
) -> None:
    access = wire.REGION_ACCESS.pack(offset, region, count)
    assert peer.refused(wire.REGION_READ, access) == read_error
    assert peer.refused(wire.REGION_WRITE, access + bytes(count)) == write_error
    assert len(storage.accesses) == [read_error, write_error].count("")


def test_an_access_with_more_or_less_data_than_it_says_is_refused(peer: Peer, storage: Storage) -> None:
    access = wire.REGION_ACCESS.pack(0, 0, 4)
    for body in (access + bytes(3), access + bytes(5), access, access[:-1]):
        assert peer.refused(wire.REGION_WRITE, body) == "EINVAL"
    assert peer.refused(wire.REGION_READ, access + bytes(4)) == "EINVAL"
    assert storage.accesses == []


def write_multi(*writes: tuple[int, int, int, bytes], count: int | None = None) -> bytes:
    head = wire.WRITE_MULTI.pack(len(writes) if count is None else count)
    return head + b"".join(wire.WRITE_MULTI_ENTRY.pack(*write) for write in writes)


def test_several_writes_in_a_message_are_done_in_order(peer: Peer, storage: Storage) -> None:
    reply = peer.request(
        wire.REGION_WRITE_MULTI, write_multi((8, 0, 4, b"abcd"), (0, 2, 8, b"12345678"), (8, 0, 1, b"x"))
    )
    assert reply.body == wire.WRITE_MULTI.pack(3)
    assert bytes(storage.data[:12]) == b"12345678xbcd"


@pytest.mark.parametrize(
    "body",
    [
        write_multi((0, 0, 4, b"abcd"), count=2),
        write_multi((0, 0, 4, b"abcd"), (4, 0, 9, b"")),
        write_multi((0, 0, 4, b"abcd"), (4, 0, 0, b"")),
        write_multi((0, 0, 4, b"abcd"), (PAGE - 2, 0, 4, b"")),
        write_multi((0, 0, 4, b"abcd"), (0, 7, 4, b"")),
    ],
)
def test_one_wrong_write_of_several_refuses_them_all(peer: Peer, storage: Storage, body: bytes) -> None:
    assert peer.refused(wire.REGION_WRITE_MULTI, body) == "EINVAL"
    assert storage.accesses == []


# Others


def test_a_reset_gives_up_dma_that_waits_for_the_client_before_it_resets_the_function(connection: Connection) -> None:
    errors: list[str] = []
    given_up = threading.Event()

    def read() -> None:
        try:
            connection.session.read(BASE, 4)
        except DmaError as error:
            errors.append(str(error))
        given_up.set()

    connection.function.reset.side_effect = lambda: errors.append("reset" if given_up.wait(TIMEOUT) else "too early")
    reader = threading.Thread(target=read)
    reader.start()
    assert connection.peer.receive().command == wire.DMA_READ
    assert connection.peer.refused(wire.DEVICE_RESET) == ""
    reader.join(TIMEOUT)
    assert errors == ["DMA_READ at 0x100000000: given up, the device was reset", "reset"]
    assert connection.peer.refused(wire.DEVICE_RESET, b"x") == "EINVAL"
    connection.function.reset.assert_called_once_with()


@pytest.mark.parametrize(
    ("command", "body", "error"),
    [
        (wire.DMA_READ, bytes(16), "EINVAL"),
        (wire.DMA_WRITE, bytes(16), "EINVAL"),
        (wire.MIG_DATA_READ, bytes(8), "EINVAL"),
        (wire.MIG_DATA_WRITE, bytes(8), "EINVAL"),
        (19, b"", "ENOTSUP"),
        (0, b"", "ENOTSUP"),
    ],
)
def test_commands_that_no_client_sends_or_nobody_knows_are_refused(
    peer: Peer, command: int, body: bytes, error: str
) -> None:
    assert peer.refused(command, body) == error
    assert peer.refused(wire.DEVICE_RESET) == "", "the session goes on"
