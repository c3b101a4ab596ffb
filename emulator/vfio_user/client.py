"""A vfio-user client: what QEMU is to a device, as a Python object.

    with Client("/run/card/pf.sock") as client:
        memory = client.map_memory(0x1000_0000, 1 << 20)        # guest RAM that the server maps
        (irq,) = client.enable_irqs(wire.IRQ_MSI, 1)
        client.write(0, 0x1000, 4, 1)                           # BAR0 + 0x1000
        irq.wait(1.0)

Everything blocks, with a timeout. The server's DMA requests are answered whenever the client waits for something; a
driver that computes for long calls `serve_in_background`. Methods may be called from any thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client_connection import Connection, Disconnected, Message, ProtocolError, encode
from vfio_user_xe.emulator.vfio_user.client_dma import Dma
from vfio_user_xe.emulator.vfio_user.client_features import Features
from vfio_user_xe.emulator.vfio_user.client_irqs import Irqs
from vfio_user_xe.emulator.vfio_user.client_regions import Regions
from vfio_user_xe.emulator.vfio_user.client_requests import RequestError
from vfio_user_xe.emulator.vfio_user.client_resources import (
    DmaMapping,
    EventFd,
    IoFd,
    IoFds,
    IrqInfo,
    RegionInfo,
    RegionMap,
)

__all__ = [
    "Client",
    "Connection",
    "Disconnected",
    "DmaMapping",
    "EventFd",
    "IoFd",
    "IoFds",
    "IrqInfo",
    "Message",
    "ProtocolError",
    "RegionInfo",
    "RegionMap",
    "RequestError",
    "default_capabilities",
    "encode",
]


def default_capabilities(*, twin_socket: bool = False) -> dict[str, Any]:
    """What this client proposes in VERSION when it is not told otherwise."""
    capabilities: dict[str, Any] = {
        "max_msg_fds": wire.MAX_MSG_FDS,
        "max_data_xfer_size": wire.DEFAULT_MAX_DATA_XFER,
        "max_dma_maps": wire.MAX_DMA_MAPS,
        "pgsizes": 4096,
        "write_multiple": True,
    }
    if twin_socket:
        capabilities["twin_socket"] = {"supported": True}
    return capabilities


class Client(Regions, Irqs, Dma, Features):
    """A connection to one vfio-user device.

    `capabilities` is what VERSION proposes (`default_capabilities()` unless given); after it, `version` and
    `server_capabilities` are what the server answered. With `negotiate` off nothing is sent: call `negotiate`, or use
    the raw methods. `timeout` is in seconds and holds for every wait. Nearly every method may raise what is listed.

    Raises:
        Disconnected: the server closed the connection.
        RequestError: the server answered with an error.
        ProtocolError: the server sent what the protocol does not allow.
        TimeoutError: no answer came in time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        capabilities: Mapping[str, Any] | None = None,
        twin_socket: bool = False,
        timeout: float = 5.0,
        negotiate: bool = True,
    ) -> None:
        super().__init__(path, timeout)
        if negotiate:
            try:
                wanted = default_capabilities(twin_socket=twin_socket) if capabilities is None else capabilities
                self.negotiate(wanted)
            except BaseException:
                self.close()
                raise

    def negotiate(
        self, capabilities: Mapping[str, Any] | None, version: tuple[int, int] = (wire.MAJOR, wire.MINOR)
    ) -> None:
        """Send VERSION (without JSON if `capabilities` is None) and take over what the server answers.

        The twin socket is set up here if the server opened one.

        Raises:
            RequestError: The server refuses.
            ProtocolError: Its answer is malformed.
            Disconnected: The server is gone.
            TimeoutError: No answer came in time.

        From any thread.
        """
        body = wire.VERSION_BODY.pack(*version)
        if capabilities is not None:
            body += json.dumps({"capabilities": dict(capabilities)}).encode() + b"\0"
        reply = self.request(wire.VERSION, body)
        try:
            major, minor = wire.VERSION_BODY.unpack_from(reply.body)
            text = reply.body[wire.VERSION_BODY.size :]
            if text and text[-1:] != b"\0":
                raise ProtocolError("the JSON of the VERSION reply is not terminated by NUL")
            document = json.loads(text[:-1]) if text else {}
            self.version = (major, minor)
            self.server_capabilities = dict(document.get("capabilities", {}))
            twin = self.server_capabilities.get("twin_socket", {})
            if twin.get("supported"):
                fd = reply.fds[twin["fd_index"]]
                reply.fds.remove(fd)
                self._start_twin(fd)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError) as exc:
            raise ProtocolError(f"the VERSION reply is malformed: {exc!r}") from exc
        finally:
            reply.close_fds()

    @property
    def has_twin_socket(self) -> bool:
        """Whether the server's commands come over a socket of their own."""
        return self.twin is not None

    # The device.

    def device_info(self) -> tuple[int, int, int]:
        """Flags (`wire.DEVICE_FLAG_*`), number of regions, number of interrupt types."""
        reply = self._fixed(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, 0, 0, 0))
        _, flags, regions, irqs = self._unpack(reply, wire.DEVICE_INFO)
        return flags, regions, irqs

    def reset(self) -> None:
        """DEVICE_RESET."""
        self._fixed(wire.DEVICE_RESET, b"")
