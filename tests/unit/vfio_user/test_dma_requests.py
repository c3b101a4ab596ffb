"""DMA_MAP, DMA_UNMAP and the log of dirty pages: what they change, and that the function is told before the client is."""

from __future__ import annotations

import threading
from struct import Struct
from unittest.mock import call

import pytest

from tests.unit.vfio_user.conftest import (
    PAGE,
    READ_WRITE,
    TIMEOUT,
    Connection,
    Peer,
    unmap_body,
)
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire

BASE = 0x1_0000_0000
EVERYTHING = call(0, 1 << 64)


# DMA_MAP


def test_what_is_mapped_with_a_descriptor_is_the_session_s_to_view(connection: Connection, ram: Memory) -> None:
    assert connection.peer.map(BASE, 2 * PAGE, ram.fd, offset=3 * PAGE) == ""
    view = connection.session.view(BASE + PAGE, 16, True)
    assert view is not None
    assert view[0] == 5
    assert connection.peer.map(BASE + 2 * PAGE, PAGE) == ""
    assert connection.session.view(BASE + 2 * PAGE, 16, False) is None
    assert connection.session.mapped(BASE, 3 * PAGE, True)


@pytest.mark.parametrize(
    ("body", "descriptors", "error"),
    [
        (wire.DMA_MAP_BODY.pack(31, READ_WRITE, 0, BASE, PAGE), 0, "EINVAL"),
        (wire.DMA_MAP_BODY.pack(32, READ_WRITE, 0, BASE, PAGE)[:-1], 0, "EINVAL"),
        (wire.DMA_MAP_BODY.pack(32, READ_WRITE, 0, BASE, PAGE), 2, "EINVAL"),
        (wire.DMA_MAP_BODY.pack(32, 0x10, 0, BASE, PAGE), 1, "EINVAL"),
        (wire.DMA_MAP_BODY.pack(32, READ_WRITE, 0, BASE, 17 * PAGE), 1, "EINVAL"),
        (wire.DMA_MAP_BODY.pack(32, READ_WRITE, 0, 0, PAGE), 0, "EEXIST"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(
    connection: Connection, ram: Memory, body: bytes, descriptors: int, error: str
) -> None:
    assert connection.peer.map(0, PAGE) == ""
    assert connection.peer.refused(wire.DMA_MAP, body, fds=[ram.fd] * descriptors) == error
    assert [(found.start, found.end) for found in connection.session.memory.ranges()] == [(0, PAGE)]


# DMA_UNMAP


def test_the_function_is_told_of_an_unmapping_when_the_range_is_gone_and_before_the_client_is(
    connection: Connection, ram: Memory
) -> None:
    seen: list[tuple[int, int, bool, bool]] = []

    def drop_windows(address: int, length: int) -> None:
        mapped = connection.session.view(BASE, 1, False) is not None
        seen.append((address, length, mapped, connection.peer.has_message(0.05)))

    connection.function.drop_windows.side_effect = drop_windows
    assert connection.peer.map(BASE, 2 * PAGE, ram.fd) == ""
    reply = connection.peer.unmap(BASE, 2 * PAGE)
    assert reply.body == unmap_body(BASE, 2 * PAGE)
    assert seen == [(BASE, 2 * PAGE, False, False)]


def test_the_function_is_told_when_all_is_unmapped(connection: Connection, ram: Memory) -> None:
    gone: list[bool] = []
    connection.function.drop_windows.side_effect = lambda address, length: gone.append(
        not connection.session.memory.ranges() and not connection.peer.has_message(0.05)
    )
    assert connection.peer.map(BASE, PAGE, ram.fd) == ""
    assert connection.peer.map(0, 2 * PAGE) == ""
    assert connection.peer.unmap(0, 0, wire.DMA_UNMAP_ALL).body == unmap_body(0, 3 * PAGE, wire.DMA_UNMAP_ALL)
    assert connection.function.drop_windows.mock_calls == [EVERYTHING]
    assert gone == [True]


def test_the_reply_says_how_much_was_unmapped(connection: Connection) -> None:
    for page in (0, 2, 5):
        assert connection.peer.map(BASE + page * PAGE, PAGE) == ""
    assert connection.peer.unmap(BASE, 5 * PAGE).body == unmap_body(BASE, 2 * PAGE)
    assert connection.function.drop_windows.mock_calls == [call(BASE, 5 * PAGE)], "windows may be on all of it"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (unmap_body(BASE, PAGE), "EINVAL"),  # cuts the mapping
        (unmap_body(0, PAGE), "ENOENT"),
        (unmap_body(BASE, 0), "EINVAL"),
        (unmap_body(BASE, 2 * PAGE)[:-1], "EINVAL"),
        (wire.DMA_UNMAP_BODY.pack(23, 0, BASE, 2 * PAGE), "EINVAL"),
        (unmap_body(BASE, 2 * PAGE, 4), "EINVAL"),
        (unmap_body(0, 0, 3), "EINVAL"),
        (unmap_body(BASE, 0, wire.DMA_UNMAP_ALL), "EINVAL"),
        (unmap_body(0, PAGE, wire.DMA_UNMAP_ALL), "EINVAL"),
        (unmap_body(BASE, 2 * PAGE, wire.DMA_UNMAP_GET_DIRTY) + wire.DIRTY_BITMAP.pack(PAGE, 8), "EINVAL"),  # no log
    ],
)
def test_an_unmapping_that_is_refused_changes_nothing(connection: Connection, body: bytes, error: str) -> None:
    assert connection.peer.map(BASE, 2 * PAGE) == ""
    assert connection.peer.refused(wire.DMA_UNMAP, body) == error
    assert connection.session.mapped(BASE, 2 * PAGE, True)
    connection.function.drop_windows.assert_not_called()


def test_a_window_on_guest_memory_is_invalid_once_its_unmapping_was_answered(
    card: Card, dma_connection: Connection, ram: Memory
) -> None:
    edu, executor, fabric = card.functions[0], card.executor, card.fabric
    assert dma_connection.peer.map(BASE, 2 * PAGE, ram.fd) == ""
    assert dma_connection.peer.map(BASE + 2 * PAGE, PAGE, ram.fd, offset=2 * PAGE) == ""
    gone, kept = executor.run_sync(
        lambda: [fabric.window(edu, Space.SYSTEM, BASE + at * PAGE, 16, write=True) for at in (1, 2)]
    )
    assert dma_connection.peer.unmap(BASE, 2 * PAGE).errno == 0
    assert (gone.valid, kept.valid) == (False, True)
    with pytest.raises(AccessFault, match="was revoked"):
        gone.write(0, b"late")
    with pytest.raises(AccessFault, match="no interconnect reaches it"):
        executor.run_sync(lambda: fabric.read(edu, Space.SYSTEM, BASE + PAGE, 4))
    assert dma_connection.peer.unmap(0, 0, wire.DMA_UNMAP_ALL).errno == 0
    assert not kept.valid


def test_an_unmapping_is_answered_when_the_copy_in_flight_has_ended(
    card: Card, dma_connection: Connection, ram: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vfio_user_xe.emulator.pci.function._SETTLE_SECONDS", TIMEOUT)
    edu, fabric = card.functions[0], card.fabric
    begun, revoked, finish, ended = (threading.Event() for _ in range(4))

    def copy() -> None:
        window = fabric.window(edu, Space.SYSTEM, BASE, PAGE, write=True)
        view = window.view
        assert view is not None
        begun.set()
        while window.valid and not finish.is_set():
            view[:8] = b"mid copy"
        revoked.set()
        finish.wait(TIMEOUT)
        view[:8] = b"the last"  # of the span that it was in the middle of
        ended.set()

    assert dma_connection.peer.map(BASE, PAGE, ram.fd) == ""
    card.executor.submit(copy)
    assert begun.wait(TIMEOUT)
    dma_connection.peer.send(wire.DMA_UNMAP, unmap_body(BASE, PAGE))
    try:
        assert revoked.wait(TIMEOUT)
        # Once it is answered, the client may use the memory for something else.
        assert not dma_connection.peer.has_message(0.1)
    finally:
        finish.set()
    assert dma_connection.peer.receive().errno == 0
    assert ended.is_set()
    assert bytes(ram.view[:8]) == b"the last"


def test_an_unmapping_does_not_wait_for_a_job_that_waits_for_this_client(
    card: Card, dma_connection: Connection, ram: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vfio_user_xe.emulator.pci.function._SETTLE_SECONDS", 0.01)
    edu, fabric, peer = card.functions[0], card.fabric, dma_connection.peer
    assert peer.map(BASE, PAGE, ram.fd) == ""
    assert peer.map(0, PAGE) == ""
    read: list[bytes] = []
    card.executor.submit(lambda: read.append(fabric.read(edu, Space.SYSTEM, 0, 4)))
    command = peer.receive()
    assert command.command == wire.DMA_READ
    assert peer.unmap(BASE, PAGE).errno == 0, "a busy client answers requests in the order in which it reads them"
    body = command.body + b"data"
    peer.sock.sendall(Peer.pack(wire.DMA_READ, body, message_id=command.message_id, flags=wire.TYPE_REPLY))
    card.executor.run_sync(lambda: None, TIMEOUT)
    assert read == [b"data"]


# Dirty pages


def dirty_unmap_body(address: int, size: int, page_size: int = PAGE, bitmap: int = 8) -> bytes:
    return unmap_body(address, size, wire.DMA_UNMAP_GET_DIRTY) + wire.DIRTY_BITMAP.pack(page_size, bitmap)


def start_logging(peer: Peer, *ranges: tuple[int, int]) -> str:
    body = wire.DMA_LOGGING_CONTROL.pack(PAGE, len(ranges), 0)
    body += b"".join(wire.DMA_LOGGING_RANGE.pack(*logged) for logged in ranges)
    return feature(peer, wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_START, body)


def feature(peer: Peer, flags: int, data: bytes = b"", argsz: int = 4096) -> str:
    return peer.refused(wire.DEVICE_FEATURE, wire.DEVICE_FEATURE_BODY.pack(argsz, flags) + data)


def report(peer: Peer, address: int, length: int, page_size: int = PAGE) -> bytes:
    flags = wire.FEATURE_GET | wire.FEATURE_DMA_LOGGING_REPORT
    body = wire.DEVICE_FEATURE_BODY.pack(4096, flags) + wire.DMA_LOGGING_REPORT.pack(address, length, page_size)
    reply = peer.request(wire.DEVICE_FEATURE, body)
    assert reply.errno == 0
    return reply.body[wire.DEVICE_FEATURE_BODY.size + wire.DMA_LOGGING_REPORT.size :]


def test_an_unmapping_tells_which_pages_were_written_and_drops_windows_before_it_looks(
    connection: Connection, ram: Memory
) -> None:
    session, peer = connection.session, connection.peer
    assert peer.map(BASE, 8 * PAGE, ram.fd) == ""
    assert start_logging(peer) == ""
    connection.function.drop_windows.reset_mock()
    session.view(BASE, 1, False)
    session.view(BASE + 2 * PAGE, 2, True)
    # A device may ask for a view until it is told that they go.
    connection.function.drop_windows.side_effect = lambda address, length: session.view(BASE + 5 * PAGE, 1, True)
    reply = peer.request(wire.DMA_UNMAP, dirty_unmap_body(BASE, 8 * PAGE))
    assert reply.errno == 0
    assert reply.body[-8:] == (1 << 2 | 1 << 5).to_bytes(8, "little")
    assert connection.function.drop_windows.mock_calls[-1] == call(BASE, 8 * PAGE)
    assert session.memory.find(BASE) is None


@pytest.mark.parametrize(("pages", "bitmap"), [(1, 8), (63, 8), (64, 8), (65, 16), (128, 16), (129, 24)])
def test_a_bitmap_has_a_bit_for_each_page_in_whole_qwords(connection: Connection, pages: int, bitmap: int) -> None:
    peer = connection.peer
    assert peer.map(BASE, pages * PAGE) == ""
    assert start_logging(peer) == ""
    for wrong in (bitmap - 8, bitmap + 8):
        assert peer.refused(wire.DMA_UNMAP, dirty_unmap_body(BASE, pages * PAGE, PAGE, wrong)) == "EINVAL"
    reply = peer.request(wire.DMA_UNMAP, dirty_unmap_body(BASE, pages * PAGE, PAGE, bitmap))
    assert reply.body[wire.DMA_UNMAP_BODY.size :] == wire.DIRTY_BITMAP.pack(PAGE, bitmap) + bytes(bitmap)
    assert reply.body[: wire.DMA_UNMAP_BODY.size][-8:] == (pages * PAGE).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("page_size", "taken"), [(PAGE, PAGE), (2 * PAGE, 2 * PAGE), (1 << 21, 1 << 21), (512, PAGE), (5000, PAGE)]
)
def test_logging_tells_the_page_size_that_it_takes(connection: Connection, page_size: int, taken: int) -> None:
    head = wire.DEVICE_FEATURE_BODY.pack(4096, wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_START)
    logged = wire.DMA_LOGGING_RANGE.pack(BASE, 8 * PAGE)
    reply = connection.peer.request(wire.DEVICE_FEATURE, head + wire.DMA_LOGGING_CONTROL.pack(page_size, 1, 0) + logged)
    assert reply.errno == 0
    assert reply.body[wire.DEVICE_FEATURE_BODY.size :] == wire.DMA_LOGGING_CONTROL.pack(taken, 1, 0) + logged


def test_a_report_is_in_pages_of_the_size_that_is_asked_for(connection: Connection, ram: Memory) -> None:
    assert connection.peer.map(BASE, 8 * PAGE, ram.fd) == ""
    assert start_logging(connection.peer) == ""
    for page_size, bits in ((PAGE, 0b1010_0000), (2 * PAGE, 0b1100), (4 * PAGE, 0b10)):
        connection.session.view(BASE + 5 * PAGE, 1, True)
        connection.session.view(BASE + 7 * PAGE, 1, True)
        assert report(connection.peer, BASE, 8 * PAGE, page_size) == bits.to_bytes(8, "little")


@pytest.mark.parametrize(("page_size", "bitmap"), [(PAGE, 16), (PAGE, 0), (PAGE // 2, 8), (PAGE + 1, 8), (0, 8)])
def test_an_unmapping_with_a_bitmap_that_does_not_fit_is_refused(
    connection: Connection, page_size: int, bitmap: int
) -> None:
    assert connection.peer.map(BASE, 8 * PAGE) == ""
    assert start_logging(connection.peer) == ""
    body = dirty_unmap_body(BASE, 8 * PAGE, page_size, bitmap)
    assert connection.peer.refused(wire.DMA_UNMAP, body) == "EINVAL"
    assert connection.session.mapped(BASE, 8 * PAGE, True)


def test_logging_reports_each_written_page_once_and_takes_views_back_first(connection: Connection, ram: Memory) -> None:
    session, peer, function = connection.session, connection.peer, connection.function
    assert peer.map(BASE, 8 * PAGE, ram.fd) == ""
    session.view(BASE, PAGE, True)
    assert start_logging(peer) == ""
    assert function.drop_windows.mock_calls == [EVERYTHING], "views from before would be written unseen"
    session.view(BASE + PAGE, PAGE + 1, True)
    session.view(BASE + 4 * PAGE, 1, False)
    assert report(peer, BASE, 8 * PAGE) == (0b110).to_bytes(8, "little")
    assert function.drop_windows.mock_calls[-1] == call(BASE, 8 * PAGE)
    assert report(peer, BASE, 8 * PAGE) == bytes(8)
    session.view(BASE, 1, True)
    assert feature(peer, wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_STOP) == ""
    assert start_logging(peer) == ""
    assert report(peer, BASE, 8 * PAGE) == bytes(8), "stopping forgets"


def test_only_ranges_that_are_logged_are_reported(connection: Connection, ram: Memory) -> None:
    assert connection.peer.map(BASE, 8 * PAGE, ram.fd) == ""
    assert start_logging(connection.peer, (BASE + 2 * PAGE, 2 * PAGE)) == ""
    connection.session.view(BASE, 8 * PAGE, True)
    assert report(connection.peer, BASE, 8 * PAGE) == (0b1100).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("flags", "data", "argsz", "error"),
    [
        (wire.FEATURE_DMA_LOGGING_STOP, b"", 8, "EINVAL"),  # no method
        (wire.FEATURE_GET | wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_STOP, b"", 8, "EINVAL"),
        (wire.FEATURE_GET | wire.FEATURE_DMA_LOGGING_STOP, b"", 8, "EINVAL"),
        (wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_REPORT, b"", 8, "EINVAL"),
        (wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_STOP | 1 << 20, b"", 8, "EINVAL"),
        (wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_STOP, b"", 7, "EINVAL"),
        (wire.FEATURE_GET | wire.FEATURE_MIGRATION, b"", 8, "ENOTTY"),
        (wire.FEATURE_GET | wire.FEATURE_SET | wire.FEATURE_MIGRATION, b"", 8, "EINVAL"),
        (wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_START, wire.DMA_LOGGING_CONTROL.pack(PAGE, 1, 0), 64, "EINVAL"),
        (wire.FEATURE_GET | wire.FEATURE_DMA_LOGGING_REPORT, wire.DMA_LOGGING_REPORT.pack(0, PAGE, PAGE), 64, "EINVAL"),
        (wire.FEATURE_PROBE | wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_START, b"", 8, ""),
        (wire.FEATURE_PROBE | wire.FEATURE_SET | wire.FEATURE_MIG_DEVICE_STATE, b"", 8, "ENOTTY"),
    ],
)
def test_features_that_are_not_there_or_asked_for_wrongly_are_refused(
    connection: Connection, flags: int, data: bytes, argsz: int, error: str
) -> None:
    assert feature(connection.peer, flags, data, argsz) == error
    assert not connection.session.dirty.active
    connection.function.drop_windows.assert_not_called()


@pytest.mark.parametrize(
    ("address", "length", "page_size", "argsz"),
    [
        (0, 0, PAGE, 4096),
        (0, PAGE, 5000, 4096),
        (0, PAGE, PAGE // 2, 4096),
        (0, PAGE, 0, 4096),
        (0, PAGE, PAGE, 32),
        (0, 1 << 60, PAGE, 4096),
    ],
)
def test_a_report_that_cannot_be_given_is_refused(
    peer: Peer, address: int, length: int, page_size: int, argsz: int
) -> None:
    assert start_logging(peer) == ""
    data = wire.DMA_LOGGING_REPORT.pack(address, length, page_size)
    assert feature(peer, wire.FEATURE_GET | wire.FEATURE_DMA_LOGGING_REPORT, data, argsz) == "EINVAL"


def test_logging_does_not_start_twice(peer: Peer) -> None:
    assert start_logging(peer) == ""
    assert start_logging(peer) == "EINVAL"


def test_dirty_pages_of_older_specifications_are_logged_too(connection: Connection, ram: Memory) -> None:
    peer, head, area = connection.peer, Struct("<II"), Struct("<QQQQ")
    get = head.pack(40, 4) + area.pack(BASE, 8 * PAGE, PAGE, 8)
    assert peer.refused(wire.DIRTY_PAGES, get) == "EINVAL"
    assert peer.map(BASE, 8 * PAGE, ram.fd) == ""
    assert peer.refused(wire.DIRTY_PAGES, head.pack(8, 1)) == ""
    assert connection.function.drop_windows.mock_calls == [EVERYTHING]
    connection.session.view(BASE + 3 * PAGE, 1, True)
    reply = peer.request(wire.DIRTY_PAGES, get)
    assert reply.body[-8:] == (1 << 3).to_bytes(8, "little")
    assert peer.refused(wire.DIRTY_PAGES, head.pack(8, 2)) == ""
    assert peer.refused(wire.DIRTY_PAGES, get) == "EINVAL"
    for flags in (0, 3, 8):
        assert peer.refused(wire.DIRTY_PAGES, head.pack(8, flags)) == "EINVAL"
    too_much = 8 * wire.DEFAULT_MAX_DATA_XFER * PAGE + PAGE
    assert peer.refused(wire.DIRTY_PAGES, head.pack(8, 1)) == ""
    for address, size, page_size, bitmap in (
        (BASE, 0, PAGE, 0),
        (BASE, too_much, PAGE, 8),
        (BASE, 8 * PAGE, PAGE, 16),
        (BASE, 8 * PAGE, PAGE // 2, 8),
    ):
        body = head.pack(40, 4) + area.pack(address, size, page_size, bitmap)
        assert peer.refused(wire.DIRTY_PAGES, body) == "EINVAL"
    assert peer.refused(wire.DIRTY_PAGES, get[:-1]) == "EINVAL"
    reply = peer.request(wire.DIRTY_PAGES, get + bytes(8))  # room for the reply
    assert reply.body == head.pack(48, 4) + area.pack(BASE, 8 * PAGE, PAGE, 8) + bytes(8)
