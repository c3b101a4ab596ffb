"""Functions of a served card plugged into a running QEMU and taken out of it, over a QMP socket."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vfio_user_xe.emulator.guest.errors import GuestError, NotUsable, QmpError


class QmpClient:
    """A connection to a QMP socket; not for use by several threads at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self.deleted: list[str] = []
        """Devices that QEMU has told are gone."""

    @staticmethod
    @contextlib.contextmanager
    def at(path: Path, timeout: float = 20) -> Iterator[QmpClient]:
        """Connect; `timeout` in seconds is for every answer.

        Raises:
            NotUsable: nobody listens there.
            QmpError: it is no QMP, or does not answer.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(str(path))
            except OSError as error:
                raise NotUsable(
                    f"{path}: {error.strerror}; it is the socket of a running 'guest run --qmp {path}'"
                ) from error
            client = QmpClient(connection)
            with client._lines:
                if "QMP" not in client._message():
                    raise QmpError(f"{path}: what listens there does not speak QMP")
                client.execute("qmp_capabilities")
                yield client

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a command; returns its `return` value.

        Raises:
            QmpError: QEMU refuses it, does not answer, or is gone.
        """
        request = json.dumps({"execute": command, "arguments": arguments or {}})
        try:
            self._connection.sendall(request.encode() + b"\n")
        except OSError as error:
            raise QmpError("the QMP connection is gone") from error
        while True:
            message = self._message()
            if "error" in message:
                raise QmpError(f"QMP command {command} failed: {message['error'].get('desc')}")
            if "return" in message:
                return message["return"]

    def wait_deleted(self, count: int, timeout: float) -> bool:
        """Wait until so many devices are gone; False if they are not within `timeout` seconds.

        Raises:
            QmpError: the connection is gone.
        """
        until = time.monotonic() + timeout
        while len(self.deleted) < count:
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._connection.settimeout(left)
            try:
                self._message()
            except QmpError as error:
                if isinstance(error.__cause__, TimeoutError):
                    return False
                raise
        return True

    def _message(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
            message: dict[str, Any] = json.loads(line)
        except TimeoutError as error:
            raise QmpError("QEMU does not answer over QMP; is another program connected to the socket?") from error
        except (OSError, ValueError) as error:
            raise QmpError("the QMP connection is gone, or is none") from error
        if message.get("event") == "DEVICE_DELETED" and "device" in message["data"]:
            self.deleted.append(message["data"]["device"])
        return message


def plug(client: QmpClient, devices: Sequence[dict[str, Any]]) -> None:
    """Add functions of one card (`qemu_arguments.device_properties`) to the port that they name.

    Function 0 comes last: with it the slot tells the guest that there is a card (hw/pci/pcie.c:pcie_cap_slot_plug_cb).

    Raises:
        QmpError: QEMU refuses one: there is no such port, the slot is taken, the card is not served; those before are taken out.
    """
    added = []
    try:
        for device in (*devices[1:], *devices[:1]):
            client.execute("device_add", device)
            added.append(device["id"])
    except QmpError:
        for name in added:
            with contextlib.suppress(QmpError):  # the first one says why
                client.execute("device_del", {"id": name})
        raise


def unplug(client: QmpClient, devices: Sequence[dict[str, Any]], timeout: float) -> None:
    """Press the attention button of the card's slot, and wait until the guest has given all its functions up.

    Raises:
        QmpError: QEMU knows no such device, or is gone.
        GuestError: the guest has not given it up within `timeout` seconds.
    """
    client.execute("device_del", {"id": devices[0]["id"]})
    if not client.wait_deleted(len(devices), timeout):
        raise GuestError(
            f"the guest has given up {len(client.deleted)} of {len(devices)} functions within {timeout:g} s; "
            "its kernel needs CONFIG_HOTPLUG_PCI_PCIE, and no program may use the card"
        )
