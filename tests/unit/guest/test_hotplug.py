"""Cards plugged in and taken out over QMP, with a QEMU that is played."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vfio_user_xe.emulator.guest.errors import GuestError, NotUsable, QmpError
from vfio_user_xe.emulator.guest.hotplug import QmpClient, plug, unplug

DEVICES = [{"driver": "vfio-user-pci", "id": name} for name in ("port-pf", "port-vf1", "port-vf2")]


class Qemu:
    """Answers one connection: what it was asked, what it refuses, and which devices the guest gives up."""

    def __init__(self, path: Path) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.refused = ""
        self.ends_at = ""
        self.gives_up: list[str] = []
        self.greeting: dict[str, Any] = {"QMP": {}}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, connection.makefile("rwb", buffering=0) as stream:
            stream.write(json.dumps(self.greeting).encode() + b"\n")
            for line in stream:
                request = json.loads(line)
                command, arguments = request["execute"], request["arguments"]
                self.asked.append((command, arguments.get("id")))
                if command == self.ends_at:
                    return
                if command == "device_add" and arguments["id"] == self.refused:
                    answer: dict[str, Any] = {"error": {"desc": "slot 0 function 0 already occupied"}}
                else:
                    answer = {"return": {}}
                gone = self.gives_up if command == "device_del" else []
                events = [{"event": "DEVICE_DELETED", "data": {"device": name}} for name in gone]
                # Events come when they will: the first one before the answer, the others after it.
                for message in (*events[:1], answer, *events[1:]):
                    stream.write(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qmp"


@pytest.fixture
def qemu(path: Path) -> Iterator[Qemu]:
    made = Qemu(path)
    yield made
    made.close()


def test_function_0_is_plugged_in_last(qemu: Qemu, path: Path) -> None:
    with QmpClient.at(path) as client:
        plug(client, DEVICES)
    assert qemu.asked == [
        ("qmp_capabilities", None),
        ("device_add", "port-vf1"),
        ("device_add", "port-vf2"),
        ("device_add", "port-pf"),
    ]


def test_a_card_that_is_refused_leaves_no_function_behind(qemu: Qemu, path: Path) -> None:
    qemu.refused = "port-pf"
    with QmpClient.at(path) as client, pytest.raises(QmpError, match="already occupied"):
        plug(client, DEVICES)
    assert qemu.asked[-2:] == [("device_del", "port-vf1"), ("device_del", "port-vf2")]


def test_a_card_is_out_when_the_guest_has_given_all_of_it_up(qemu: Qemu, path: Path) -> None:
    qemu.gives_up = ["port-vf2", "port-vf1", "port-pf"]
    with QmpClient.at(path) as client:
        unplug(client, DEVICES, 60)
    assert qemu.asked[-1] == ("device_del", "port-pf")


def test_a_guest_that_keeps_a_function_is_told(qemu: Qemu, path: Path) -> None:
    qemu.gives_up = ["port-vf2"]
    with QmpClient.at(path) as client, pytest.raises(GuestError, match="has given up 1 of 3 functions"):
        unplug(client, DEVICES, 0.2)


def test_an_emulator_that_ends_is_not_taken_for_a_guest_that_keeps_its_card(qemu: Qemu, path: Path) -> None:
    qemu.gives_up, qemu.ends_at = ["port-vf2"], "quit"
    with QmpClient.at(path) as client:
        client.execute("device_del", {"id": "port-pf"})
        with pytest.raises(QmpError, match="connection is gone"):
            client.execute("quit")
        with pytest.raises(QmpError, match="connection is gone"):
            client.wait_deleted(3, 60)


def test_why_a_card_is_refused_is_told_also_when_it_cannot_be_taken_out(qemu: Qemu, path: Path) -> None:
    qemu.refused, qemu.ends_at = "port-pf", "device_del"
    with QmpClient.at(path) as client, pytest.raises(QmpError, match="already occupied"):
        plug(client, DEVICES)


def test_what_does_not_speak_qmp_is_told(qemu: Qemu, path: Path) -> None:
    qemu.greeting = {"hello": 1}
    with pytest.raises(QmpError, match="does not speak QMP"), QmpClient.at(path):
        pass


def test_a_socket_that_nobody_has_is_told(path: Path) -> None:
    with pytest.raises(NotUsable, match="guest run --qmp"), QmpClient.at(path):
        pass
