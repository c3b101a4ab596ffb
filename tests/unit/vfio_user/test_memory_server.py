"""`memory.sock` against clients that do what they should not."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from tests.support import logs
from tests.support.processes import no_descriptors_left
from tests.support.wait import eventually
from vfio_user_xe.emulator.fabric import leases
from vfio_user_xe.emulator.fabric.dma_buf import make_dma_buf
from vfio_user_xe.emulator.fabric.leases import LeaseRefused
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport
from vfio_user_xe.emulator.vfio_user import export, outbox
from vfio_user_xe.emulator.vfio_user.memory_client import MemoryClient
from vfio_user_xe.emulator.vfio_user.memory_server import MemoryServer

MIB = 1 << 20
BAR0 = 0xF000000000


@pytest.fixture
def card() -> Iterator[Card]:
    made = Card(CardConfig.default("xe").override(vfs=1, settings=["vram=1GiB", "vf_bar2=16MiB"]))
    made.start()
    pf = made.functions[0]
    pf.attached(FakeTransport())
    pf.config.write(0x10, 4, BAR0 & 0xFFFFFFFF)
    pf.config.write(0x14, 4, BAR0 >> 32)
    pf.config.write(COMMAND, 2, 6)
    pf.config.write(0x330, 2, 1)
    pf.config.write(0x328, 2, 9)
    made.executor.run_sync(lambda: None)
    yield made
    made.stop()


@pytest.fixture
def server(card: Card, tmp_path: Path) -> Iterator[MemoryServer]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "memory.sock"))
    listener.listen()
    made = MemoryServer(card, listener)
    made.start()
    yield made
    made.close()


@pytest.fixture
def client(server: MemoryServer, tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.settimeout(60)
        made.connect(str(tmp_path / "memory.sock"))
        yield made


def ask(client: socket.socket, **request: Any) -> tuple[dict[str, Any], list[int]]:
    client.send(json.dumps(request).encode())
    packet, fds, _, _ = socket.recv_fds(client, 65536, 4)
    return json.loads(packet), fds


class Deaf:
    """A listener that is told nothing of interest."""

    def revoked(self, grant: Any, reason: str) -> None:
        pass

    def noted(self, event: dict[str, Any]) -> None:
        pass

    def gone(self) -> None:
        pass


@pytest.mark.parametrize(
    "packet",
    [b"not json", b"[]", b"7", b'{"id": 1}', b"\xff\xfe", b"[" * 60000, b'{"op": {"a": 1}, "id": 1, "lease": []}'],
)
def test_a_packet_that_is_no_request_costs_its_sender_at_most_the_connection(
    client: socket.socket, tmp_path: Path, packet: bytes
) -> None:
    client.send(packet)
    answer = client.recv(65536)
    if b'"op"' in packet:
        assert "there is no request" in json.loads(answer)["error"]
    else:
        assert answer == b"", "the connection is closed"
    other = MemoryClient(tmp_path / "memory.sock", Deaf())
    assert other.open("vf1", 0, MIB).length == MIB
    other.close()


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"op": "open", "function": "vf1", "address": 0}, "the request needs 'length'"),
        ({"op": "open", "address": 0, "length": 4096}, "the request needs 'function'"),
        ({"op": "open", "function": "vf7", "address": 0, "length": 4096}, 'there is no function "vf7"'),
        ({"op": "open", "function": "vf1", "address": 1, "length": 4096}, "not made of whole pages"),
        ({"op": "open", "function": "vf1", "address": 0, "length": 0}, "not made of whole pages"),
        ({"op": "open", "function": "vf1", "address": -4096, "length": 4096}, "not made of whole pages"),
        ({"op": "open", "function": "vf1", "address": 1 << 80, "length": 4096}, "LMTT gives vf1 nothing there"),
        ({"op": "open", "function": "pf", "address": 1 << 30, "length": 4096}, "outside of the card's memory"),
        ({"op": "open", "function": "vf1", "address": "x", "length": 4096}, "invalid literal"),
        ({"op": "open", "function": "vf1", "address": None, "length": 4096}, "NoneType"),
        ({"op": "open", "function": "vf1", "address": 0, "length": 4096, "bar": 5}, "vf1's BAR5 is not decoded"),
        ({"op": "open", "function": "pf", "address": 0, "length": 4096, "bar": 0}, "are trapped"),
        ({"op": "open", "function": "pf", "address": 16 * MIB, "length": 4096, "bar": 0}, "outside of pf's BAR0"),
        ({"op": "read", "function": "pf", "bar": 0, "offset": 0, "length": 1 << 20}, "no registers at"),
        ({"op": "read", "function": "pf", "bar": 0, "offset": 8 * MIB, "length": 4}, "no registers at"),
        ({"op": "read", "function": "pf", "bar": 0, "offset": 16 * MIB - 2, "length": 4}, "no registers at"),
        ({"op": "write", "function": "pf", "bar": 0, "offset": 0, "data": "xy"}, "hexadecimal"),
        ({"op": "steal"}, 'there is no request "steal"'),
    ],
)
def test_a_request_that_cannot_be_done_is_answered_with_the_reason(
    client: socket.socket, request_: dict[str, Any], error: str
) -> None:
    answer, fds = ask(client, id=9, **request_)
    assert answer["id"] == 9
    assert error in answer["error"]
    assert fds == []


def test_a_model_that_exits_costs_the_client_that_asked_at_most_the_connection(
    card: Card, client: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> None:
        raise SystemExit(3)

    with monkeypatch.context() as patched:
        patched.setattr(card.device_memory, "share", leave)
        client.send(json.dumps({"id": 1, "op": "open", "function": "vf1", "address": 0, "length": MIB}).encode())
        assert client.recv(65536) == b"", "the connection is closed"
    other = MemoryClient(tmp_path / "memory.sock", Deaf())
    assert other.open("vf1", 0, MIB).length == MIB
    other.close()


def test_a_client_that_does_not_read_is_dropped_and_the_card_goes_on(
    card: Card, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_KEPT", 64 << 10)
    answer, fds = ask(client, id=1, op="open", function="vf1", address=0, length=MIB)
    assert answer["lease"]
    ownership = card.fabric.ledger.ownership
    for _ in range(5000):
        ownership.reset_began("vf9")
        ownership.reset_ended("vf9")
        if not list(card.leases):
            break
    eventually(lambda: list(card.leases) == [])
    os.close(fds[0])


def test_a_client_is_told_what_is_decoded_last_however_often_it_changes(
    card: Card, server: MemoryServer, tmp_path: Path
) -> None:
    peer = MemoryClient(tmp_path / "memory.sock", Deaf())
    assert BAR0 in {bar.base for bar in peer.bars()}
    for _ in range(1000):
        card.functions[0].config.write(COMMAND, 2, 4)
        card.functions[0].config.write(COMMAND, 2, 6)
    card.functions[0].config.write(0x14, 4, 0xE0)
    eventually(lambda: 0xE000000000 in {bar.base for bar in peer.bars()})
    assert peer.alive
    peer.close()


def test_memory_is_handed_on_when_its_holder_has_acknowledged_that_it_is_taken_back(
    card: Card, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "PATIENCE", 60.0)
    _, fds = ask(client, id=1, op="open", function="vf1", address=0, length=MIB)
    card.functions[0].config.write(0x328, 2, 0)
    while json.loads(client.recv(65536)).get("event") != "revoked":
        pass
    assert [lease.number for lease in card.leases] == [1], "the card waits for the holder"
    client.send(json.dumps({"op": "ack", "lease": 1}).encode())
    assert card.executor.run_sync(lambda: list(card.leases), 10) == []
    os.close(fds[0])


def test_what_is_not_acknowledged_holds_the_card_up_for_a_moment_only(card: Card, client: socket.socket) -> None:
    _, fds = ask(client, id=1, op="open", function="vf1", address=0, length=MIB)
    card.functions[0].config.write(0x328, 2, 0)
    assert card.executor.run_sync(lambda: list(card.leases), 10) == []
    event: dict[str, Any] = {}
    while event.get("event") != "revoked":
        event = json.loads(client.recv(65536))
    assert event["lease"] == 1
    os.close(fds[0])


def test_a_client_that_goes_in_the_middle_of_everything_leaves_nothing(card: Card, tmp_path: Path, server: Any) -> None:
    with no_descriptors_left():
        for _ in range(20):
            one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            one.connect(str(tmp_path / "memory.sock"))
            one.send(json.dumps({"id": 1, "op": "open", "function": "vf1", "address": 0, "length": MIB}).encode())
            one.close()
        # The server takes connections in their order: it has seen all of them when it answers the last.
        last = MemoryClient(tmp_path / "memory.sock", Deaf())
        assert last.open("vf1", 0, MIB).length == MIB
        last.close()
        eventually(lambda: list(card.leases) == [])


def test_no_lease_is_given_while_the_owner_is_reset(card: Card) -> None:
    vf, ownership = card.functions[1], card.fabric.ledger.ownership
    told: list[str | None] = []
    lease = card.leases.open(vf, 0, MIB, lambda lease: told.append(lease.reason))
    lease.released.set()
    ownership.reset_began("vf1")
    assert told == ["vf1 is being reset"]
    with pytest.raises(LeaseRefused, match="vf1 is being reset"):
        card.leases.open(vf, 0, MIB, lambda lease: None)
    with pytest.raises(LeaseRefused, match="vf1 is being reset"):
        card.leases.open(card.functions[0], (1 << 30) - 16 * MIB, MIB, lambda lease: None)
    card.leases.open(card.functions[0], 0, MIB, lambda lease: None)
    ownership.reset_ended("vf1")
    card.leases.open(vf, 0, MIB, lambda lease: None)


def test_a_lease_outlives_what_does_not_concern_it(card: Card) -> None:
    lease = card.leases.open(card.functions[1], 0, MIB, lambda lease: None)
    pf = card.leases.open(card.functions[0], 0, MIB, lambda lease: None)
    card.fabric.revoke()
    card.functions[0].config.write(COMMAND, 2, 4)
    card.functions[0].drop_windows(0, 1 << 20)
    assert (lease.reason, pf.reason) == (None, None)
    assert {one.number for one in card.leases} == {lease.number, pf.number}


def test_where_the_host_can_an_export_is_a_dma_buf_of_just_that_range(
    server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def made(memfd: int, offset: int, length: int) -> int:
        asked.append((offset, length))
        return os.dup(memfd)

    monkeypatch.setattr(export, "make_dma_buf", made)
    exporter = export.Exporter(tmp_path, "vf1", 2 * MIB, MIB)
    try:
        assert asked == [(2 * MIB, MIB)]
        assert (exporter.description["kind"], exporter.description["offset"]) == ("dma-buf", 0)
    finally:
        exporter.close()
    plain = export.Exporter(tmp_path, "vf1", 2 * MIB, MIB, dma_buf=False)
    assert (plain.description["kind"], plain.description["offset"]) == ("memfd", 2 * MIB)
    plain.close()


def test_an_export_outlives_a_lack_of_descriptors_and_serves_the_program_later(
    server: MemoryServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = export.Exporter(tmp_path, "vf1", 2 * MIB, MIB, dma_buf=False)
    exporter.listen(tmp_path / "export.sock")
    listener = exporter._listener
    assert listener is not None
    refusals = iter([OSError(errno.EMFILE, "Too many open files"), OSError(errno.ECONNABORTED, "gone")])

    def accept() -> tuple[socket.socket, object]:
        for refusal in refusals:
            raise refusal
        return listener.accept()

    scarce = create_autospec(socket.socket, instance=True)
    scarce.fileno.return_value, scarce.accept.side_effect = listener.fileno(), accept
    exporter._listener = scarce
    serving = threading.Thread(target=exporter.serve)
    serving.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as program:
        program.settimeout(30)
        program.connect(str(tmp_path / "export.sock"))
        assert json.loads(program.recv(65536))["function"] == "vf1"
        assert logs.messages(caplog, export.log) == [
            "cannot accept a program: Too many open files",
            "cannot accept a program: gone",
        ]
    exporter.stop()
    serving.join(30)
    assert not serving.is_alive()
    listener.close()
    exporter.close()


def test_a_dma_buf_is_asked_for_as_udmabuf_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "udmabuf"
    device.touch()
    calls: list[tuple[int, bytes]] = []
    monkeypatch.setattr(fcntl, "ioctl", lambda fd, request, argument, mutate: calls.append((request, argument)) or 7)
    with no_descriptors_left():
        assert make_dma_buf(3, 0x200000, 0x100000, device) == 7
    # include/uapi/linux/udmabuf.h: _IOW('u', 0x42, struct udmabuf_create); UDMABUF_FLAGS_CLOEXEC
    assert calls == [(0x40187542, struct.pack("=IIQQ", 3, 1, 0x200000, 0x100000))]
    with pytest.raises(OSError, match="No such file"):
        make_dma_buf(3, 0, 4096, tmp_path / "absent")


def test_leases_and_what_is_revoked_are_traced(card: Card, client: socket.socket, tmp_path: Path) -> None:
    card.tracer.start(["fabric"], str(tmp_path / "trace.txt"))
    window = card.executor.run_sync(lambda: card.fabric.window(card.functions[1], "device", 0, 64, write=True))
    _, fds = ask(client, id=1, op="open", function="vf1", address=0, length=MIB)
    (lease,) = card.leases
    assert lease.holder == f"process {os.getpid()}"
    client.send(json.dumps({"op": "close", "lease": 1}).encode())
    eventually(lambda: list(card.leases) == [])
    card.leases.open(card.functions[1], 0, MIB, lambda lease: lease.released.set())
    card.functions[0].config.write(0x328, 2, 0)
    card.executor.run_sync(lambda: None)
    card.tracer.stop()
    assert not window.valid
    lines = (tmp_path / "trace.txt").read_text().splitlines()
    assert sum("vf1" in line and " lease " in line for line in lines) >= 2
    assert any(" lease revoked " in line and "LMTT gives vf1 nothing there" in line for line in lines)
    assert any(" revoked " in line and "iov" in line and "lease" not in line for line in lines)
    os.close(fds[0])


def test_a_client_that_sends_2000_requests_before_it_reads_gets_every_answer(client: socket.socket) -> None:
    for number in range(2000):
        client.send(json.dumps({"id": number, "op": "hello"}).encode())
    answers = [json.loads(client.recv(65536)) for _ in range(2000)]
    assert [answer["id"] for answer in answers] == list(range(2000))


def test_a_client_that_never_reads_is_disconnected_and_the_others_are_served(
    client: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "MAX_KEPT", 64 << 10)

    def send_without_end() -> None:
        for number in range(60_000):
            client.send(json.dumps({"id": number, "op": "hello"}).encode())

    with pytest.raises(ConnectionError):
        send_without_end()
    (line,) = logs.messages(caplog, outbox.log)
    assert line.startswith(f"memory: process {os.getpid()}: disconnected, because it does not read what is sent to it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.settimeout(60)
        other.connect(str(tmp_path / "memory.sock"))
        assert ask(other, id=1, op="hello")[0]["id"] == 1
