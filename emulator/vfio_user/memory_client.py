"""The other end of `memory.sock` (`vfio_user_xe.emulator.vfio_user.memory_server`): another card's memory, by lease.

A thread reads the other card's messages; the caller of a request waits for its answer.
"""

from __future__ import annotations

import array
import itertools
import json
import logging
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from vfio_user_xe.emulator.fabric.peers import Grant, PeerBar, PeerError, PeerListener
from vfio_user_xe.emulator.vfio_user.memory_server import MAX_PACKET

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that an answer may take."""


def dial(folder: str, listener: PeerListener) -> MemoryClient:
    """The card that is served in `folder`.

    Raises:
        PeerError: nobody serves there, or what answers is no card of this protocol.
    """
    return MemoryClient(Path(folder) / "memory.sock", listener)


def receive_packet(connected: socket.socket) -> tuple[bytes, list[int]]:
    """A packet and the descriptor that came with it.

    Raises:
        OSError: the connection broke.
    """
    size = socket.CMSG_SPACE(array.array("i").itemsize)
    packet, ancillary, _, _ = connected.recvmsg(MAX_PACKET, size, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return packet, list(fds)


class MemoryClient:
    """One connection: an `vfio_user_xe.emulator.fabric.peers.Peer`. From any thread; `close` it in the end."""

    def __init__(self, path: Path, listener: PeerListener) -> None:
        """Connect and greet.

        Raises:
            PeerError: No card is served there, or it refuses.

        From any thread.
        """
        self.path = path
        self.alive = True
        self.card = ""
        self.functions: list[str] = []
        self._listener = listener
        self._numbers = itertools.count(1)
        self._asking = threading.Lock()
        self._answers = threading.Condition()
        self._wanted: dict[str, Any] | None = None
        self._answer: dict[str, Any] | Grant | None = None
        self._grants: dict[int, Grant] = {}
        self._bars: list[PeerBar] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise PeerError(f"no card is served at {path} ({error.strerror or error})") from None
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._run, name=f"memory of {path.parent.name}", daemon=True)
        self._thread.start()
        try:
            answer = self._ask({"op": "hello"})
            assert isinstance(answer, dict)
            self.card, self.functions = str(answer["card"]), list(answer["functions"])
        except PeerError:
            self.close()
            raise

    @property
    def asked(self) -> bool:
        return self._wanted is not None

    def bars(self) -> list[PeerBar]:
        return self._bars

    def open(self, function: str, address: int, length: int, bar: int | None = None) -> Grant:
        request = {"op": "open", "function": function, "address": address, "length": length}
        grant = self._ask(request if bar is None else {**request, "bar": bar})
        assert isinstance(grant, Grant)
        return grant

    def release(self, grant: Grant) -> None:
        self._grants.pop(grant.number, None)
        grant.valid = False
        with suppress(OSError):
            self._socket.send(json.dumps({"op": "close", "lease": grant.number}).encode(), socket.MSG_NOSIGNAL)

    def read(self, function: str, bar: int, offset: int, length: int) -> bytes:
        answer = self._ask({"op": "read", "function": function, "bar": bar, "offset": offset, "length": length})
        assert isinstance(answer, dict)
        return bytes.fromhex(answer["data"])

    def write(self, function: str, bar: int, offset: int, data: bytes) -> None:
        self._ask({"op": "write", "function": function, "bar": bar, "offset": offset, "data": data.hex()})

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | Grant:
        """Send a request and wait for its answer; one at a time."""
        with self._asking, self._answers:
            if not self.alive:
                raise PeerError(f"{self._who()} is gone")
            self._wanted, self._answer = {"id": next(self._numbers), **request}, None
            try:
                self._socket.send(json.dumps(self._wanted).encode(), socket.MSG_NOSIGNAL)
            except OSError as error:
                raise PeerError(f"{self._who()} is gone ({error.strerror})") from None
            self._answers.wait_for(lambda: self._answer is not None or not self.alive, PATIENCE)
            answer, self._wanted, self._answer = self._answer, None, None
        if answer is None:
            raise PeerError(f"{self._who()} is gone" if not self.alive else f"{self._who()} did not answer")
        if isinstance(answer, dict) and "error" in answer:
            raise PeerError(str(answer["error"]), str(answer.get("code", "")))
        return answer

    def _who(self) -> str:
        return f"the card {self.card or 'at ' + str(self.path)}"

    # The reading thread.

    def _run(self) -> None:
        try:
            while True:
                packet, fds = receive_packet(self._socket)
                if not packet:
                    break
                self._take(json.loads(packet), fds)
        except OSError:
            pass  # it is gone
        except Exception:
            log.exception("%s is not understood, and left", self._who())
        finally:
            self._end()

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        event = message.get("event")
        if event is None:
            self._answered(message, fds)
        elif event == "revoked":
            grant = self._grants.pop(message["lease"], None)
            if grant is not None:
                self._revoke(grant, message["reason"])
            self._socket.send(json.dumps({"op": "ack", "lease": message["lease"]}).encode(), socket.MSG_NOSIGNAL)
        elif event == "bars":
            self._bars = [PeerBar(*bar) for bar in message["bars"]]
        elif self.card:
            self._listener.noted(message)

    def _answered(self, message: dict[str, Any], fds: list[int]) -> None:
        with self._answers:
            wanted = self._wanted
            if wanted is None or message.get("id") != wanted["id"]:
                # An answer that came too late: its memory is not used.
                for fd in fds:
                    os.close(fd)
                if "lease" in message:
                    self._socket.send(json.dumps({"op": "close", "lease": message["lease"]}).encode())
                return
            if "lease" in message:
                self._answer = grant = Grant(
                    message["lease"],
                    wanted["function"],
                    wanted.get("bar"),
                    wanted["address"],
                    message["length"],
                    message["owner"],
                    fds[0],
                    message["offset"],
                )
                self._grants[grant.number] = grant
            else:
                if "bars" in message:
                    self._bars = [PeerBar(*bar) for bar in message["bars"]]
                self._answer = message
            self._answers.notify_all()

    def _revoke(self, grant: Grant, reason: str) -> None:
        grant.valid = False
        self._listener.revoked(grant, reason)

    def _end(self) -> None:
        with self._answers:
            self.alive = False
            self._bars = []
            self._answers.notify_all()
        grants, self._grants = list(self._grants.values()), {}
        for grant in grants:
            self._revoke(grant, f"{self._who()} is gone")
        self._listener.gone()
        self._socket.close()
