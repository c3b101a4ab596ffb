"""The peer of QEMU's qtest socket, against something that answers as QEMU does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.wait import eventually
from vfio_user_xe.emulator.pci.ecam import AccessError
from vfio_user_xe.emulator.vfio_user import qtest
from vfio_user_xe.emulator.vfio_user.qtest import QtestPeer


class FakeQemu:
    """Connects as `-qtest unix:PATH` does and executes what it is told on a machine."""

    def __init__(self, path: str, machine: Any) -> None:
        self.machine = machine
        self.lines: list[str] = []
        self.answer: Callable[[str], str | None] = self.execute
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def execute(self, line: str) -> str:
        words = line.split()
        numbers = [int(word, 16) for word in words[1:]]
        if words[0] == "readl":
            return f"OK 0x{self.machine.read_physical(numbers[0]):016x}\n"
        if words[0] in ("writew", "writel"):
            self.machine.write_physical(numbers[0], 2 if words[0] == "writew" else 4, numbers[1])
            return "OK\n"
        return f"FAIL Unknown command '{words[0]}'\n"

    def _run(self) -> None:
        with self.socket, self.socket.makefile("r", encoding="ascii") as stream:
            try:
                for line in stream:
                    self.lines.append(line.strip())
                    answer = self.answer(line)
                    if answer is not None:
                        self.socket.sendall(answer.encode())
            except (OSError, ValueError):
                return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[QtestPeer]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "qtest.sock"))
    listener.listen()
    peer = QtestPeer(listener)
    peer.start()
    yield peer
    peer.close()


@pytest.fixture
def connect(peer: QtestPeer, new_machine: type) -> Iterator[Callable[..., FakeQemu]]:
    made: list[FakeQemu] = []

    def make(machine: Any = None) -> FakeQemu:
        before = len(peer.open())
        qemu = FakeQemu(peer.path, machine or new_machine())
        made.append(qemu)
        eventually(lambda: len(peer.open()) > before)
        return qemu

    yield make
    for qemu in made:
        if qemu.thread.is_alive():
            qemu.close()


def test_reads_and_writes_are_done_in_order(peer: QtestPeer, connect: Callable[..., FakeQemu]) -> None:
    qemu = connect()
    (access,) = peer.open()
    assert access.read([0xB0000000, 0xB0000060, 0xB0000004]) == [0x29C08086, 0xB0000001, 0]
    access.write([(0xB0100010, 4, 0xD0000000), (0xB0100004, 2, 2)])
    assert qemu.lines == [
        "readl 0xb0000000",
        "readl 0xb0000060",
        "readl 0xb0000004",
        "writel 0xb0100010 0xd0000000",
        "writew 0xb0100004 0x2",
    ]


def test_more_lines_than_one_batch_are_answered_in_order(peer: QtestPeer, connect: Callable[..., FakeQemu]) -> None:
    qemu = connect()
    qemu.answer = lambda line: f"OK {line.split()[1]}\n"
    (access,) = peer.open()
    assert access.read(range(1000)) == list(range(1000))


def test_nobody_is_there_before_a_qemu_connects_and_after_it_left(
    peer: QtestPeer, connect: Callable[..., FakeQemu]
) -> None:
    assert peer.open() == []
    qemu = connect()
    assert len(peer.open()) == 1
    qemu.close()
    eventually(lambda: peer.open() == [])


def test_the_latest_qemu_comes_first(peer: QtestPeer, connect: Callable[..., FakeQemu]) -> None:
    first, second = connect(), connect()
    accesses = peer.open()
    accesses[0].read([0])
    assert (first.lines, second.lines) == ([], ["readl 0x0"])


@pytest.mark.parametrize("answer", ["FAIL Unknown command\n", "ERR no\n", "OK\n", "OK zero\n", "\n"])
def test_an_answer_that_is_not_the_value_is_an_error(
    peer: QtestPeer, connect: Callable[..., FakeQemu], answer: str
) -> None:
    connect().answer = lambda line: answer
    with pytest.raises(AccessError, match="answered"):
        peer.open()[0].read([0])


def test_interrupt_notifications_are_passed_over(peer: QtestPeer, connect: Callable[..., FakeQemu]) -> None:
    connect().answer = lambda line: "IRQ raise 4\nOK 0x7\nIRQ lower 4\n"
    (access,) = peer.open()
    assert access.read([0, 0]) == [7, 7]


def test_a_qemu_that_dies_while_it_is_waited_for_is_an_error(peer: QtestPeer, connect: Callable[..., FakeQemu]) -> None:
    qemu = connect()

    def die(line: str) -> str | None:
        qemu.socket.shutdown(socket.SHUT_RDWR)
        return None

    qemu.answer = die
    with pytest.raises(AccessError, match=r"closed the connection|broke"):
        peer.open()[0].read([0])


def test_closing_the_peer_wakes_who_waits(peer: QtestPeer, connect: Callable[..., FakeQemu]) -> None:
    qemu = connect()
    asked = threading.Event()
    qemu.answer = lambda line: asked.set()
    (access,) = peer.open()
    errors: list[str] = []

    def wait() -> None:
        try:
            access.read([0])
        except AccessError as exc:
            errors.append(str(exc))

    thread = threading.Thread(target=wait)
    thread.start()
    assert asked.wait(60)
    peer.close()
    thread.join(60)
    assert len(errors) == 1
    assert access.fileno() == -1


def test_answers_that_came_too_late_are_not_taken_for_the_next_ones(
    peer: QtestPeer, connect: Callable[..., FakeQemu], monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = connect()
    go = threading.Event()

    def late(line: str) -> str:
        go.wait(60)
        return f"OK {line.split()[1]}\n"

    qemu.answer = late
    (access,) = peer.open()
    monkeypatch.setattr(qtest, "TIMEOUT", 0.01)
    with pytest.raises(AccessError, match="no answer within"):
        access.read([1, 2])
    monkeypatch.setattr(qtest, "TIMEOUT", 10.0)
    go.set()
    assert access.read([3]) == [3]


def test_a_peer_that_speaks_something_else_is_an_error(peer: QtestPeer, connect: Callable[..., FakeQemu]) -> None:
    connect().answer = lambda line: "x" * 10000
    with pytest.raises(AccessError, match="does not speak qtest"):
        peer.open()[0].read([0])


def test_after_closing_nothing_is_left(tmp_path: Path, new_machine: type) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "qtest.sock"))
    listener.listen()
    peer = QtestPeer(listener)
    peer.start()
    qemu = FakeQemu(peer.path, new_machine())
    eventually(lambda: len(peer.open()) == 1)
    (connection,) = peer.open()
    peer.close()
    qemu.thread.join(60)
    assert not qemu.thread.is_alive()
    assert (listener.fileno(), connection.fileno()) == (-1, -1)
    assert "qtest" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(ConnectionRefusedError):
        socket.socket(socket.AF_UNIX).connect(peer.path)


def test_a_peer_that_was_never_started_can_be_closed(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "qtest.sock"))
    QtestPeer(listener).close()
    assert listener.fileno() == -1


def test_vf_bars_are_programmed_through_the_right_one_of_two_qemus(
    peer: QtestPeer, connect: Callable[..., FakeQemu], plug: Callable[..., Any], new_machine: type
) -> None:
    plugged = plug(24)
    plugged.machine.iommu = True
    plugged.sriov.programming.prefer(peer)
    connect(plugged.machine)
    connect(new_machine())
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(24)
    plugged.settle()
    status = plugged.sriov.programming.status
    assert (status.state, status.vfs) == ("done", 24)
    assert status.method.startswith("qtest of process ")
    assert "pf is on none of its buses" in status.tried[0]
    assert plugged.device(24).mapped() == {bar: plugged.sriov.bar_address(bar, 24) for bar in (0, 2)}


def test_a_qemu_that_dies_while_vf_bars_are_programmed_is_reported_by_the_next_run(
    peer: QtestPeer, connect: Callable[..., FakeQemu], plug: Callable[..., Any]
) -> None:
    plugged = plug(4)
    plugged.machine.iommu = True
    plugged.sriov.programming.prefer(peer)
    qemu = connect(plugged.machine)

    def die_at_the_first_write(line: str) -> str | None:
        if line.startswith("write"):
            qemu.socket.shutdown(socket.SHUT_RDWR)
            return None
        return qemu.execute(line)

    qemu.answer = die_at_the_first_write
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(4)
    plugged.settle()
    status = plugged.sriov.programming.status
    assert status.state == "failed"
    assert f"start QEMU with '-qtest unix:{peer.path}" in status.error
