"""`memory.sock`: leases on a card's memory, with file descriptors, for other cards' servers and for other programs.

A SOCK_SEQPACKET socket of mode 0600; a packet is one JSON object. Requests have an "id", which the answer repeats:

    {"id": 1, "op": "hello"}                                                 -> {"id": 1, "card": "b580",
                                                                                "functions": [...], "bars": [...]}
    {"id": 2, "op": "open", "function": "vf1", "address": 0, "length": n}     -> {"id": 2, "lease": 7, "owner": "vf1",
        (with "bar": 2: an offset in that BAR)                                   "length": n, "offset": 0} and a descriptor
    {"id": 3, "op": "read", "function": "vf1", "bar": 0, "offset": 0, "length": 4}  -> {"id": 3, "data": "00000000"}
    {"id": 4, "op": "write", ..., "data": "00000000"}                        -> {"id": 4}
    {"op": "close", "lease": 7}                                              no answer
    {"op": "ack", "lease": 7}                                                no answer

A request that is refused is answered with {"id": n, "error": "why", "code": ...}. Unasked come

    {"event": "revoked", "lease": 7, "reason": "vf1 is being reset"}          to be answered with "ack"
    {"event": "bars", "bars": [[base, size, function, bar], ...]}             whenever it changes what is decoded
    {"event": "reset_began", "owner": "vf1"}                                  or "reset_ended"
    {"event": "changed"}                                                      who was refused with code "hole" may ask again
"""

from __future__ import annotations

import array
import json
import logging
import select
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from vfio_user_xe.emulator.fabric.leases import Lease, LeaseRefused
from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.pci.bars import read_registers, write_registers
from vfio_user_xe.emulator.pci.function import Function
from vfio_user_xe.emulator.vfio_user.outbox import Outbox
from vfio_user_xe.emulator.vfio_user.qtest import peer_process

if TYPE_CHECKING:
    from vfio_user_xe.emulator.model.card import Card

log = logging.getLogger(__name__)

MAX_PACKET = 64 << 10
MAX_ACCESS = 4096
"""Bytes of registers that one request reads or writes."""


class MemoryServer:
    """Takes clients at a listening socket; a thread answers them all.

    `start` begins, `close` ends everything: leases, connections, the listening socket (its path stays the owner's).
    """

    def __init__(self, card: Card, listener: socket.socket) -> None:
        """`listener` is a listening UNIX SOCK_SEQPACKET socket, from now on owned by this object."""
        self.card = card
        self._listener = listener
        self._connections: dict[int, Connection] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._wake, self._woken = socket.socketpair()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Accept from now on."""
        self._wake.setblocking(False)
        self.card.leases.decoder.on_change.append(self._wake_up)
        self.card.fabric.on_revoke.append(self._revoked)
        self.card.fabric.ledger.ownership.on_event.append(self._noted)
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Drop every client: the end of its connection tells it that nothing holds any more."""
        if self._thread is not None:
            self.card.leases.decoder.on_change.remove(self._wake_up)
            self.card.fabric.on_revoke.remove(self._revoked)
            self.card.fabric.ledger.ownership.on_event.remove(self._noted)
            self._closing = True
            self._wake_up()
            self._thread.join()
        self._wake.close()
        self._woken.close()
        self._listener.close()
        for connection in self._everybody():
            self._drop(connection)

    def greet(self, connection: Connection, number: int) -> None:
        """Answer "hello"."""
        names = [function.name for function in self.card.functions]
        connection.bars = self._bars()
        connection.send({"id": number, "card": self.card.name, "functions": names, "bars": connection.bars})

    def _bars(self) -> list[tuple[int, int, str, int]]:
        decoded = self.card.leases.decoder.decoded()
        return [(d.base, d.end - d.base, d.function.name, d.number) for d in decoded]

    def _tell_bars(self) -> None:
        """On the server's thread, once for many changes: a kernel that sizes BARs makes hundreds."""
        bars = self._bars()
        for connection in self._everybody():
            if connection.bars is not None and connection.bars != bars:
                connection.bars = bars
                connection.send({"event": "bars", "bars": bars})

    def _wake_up(self) -> None:
        with suppress(BlockingIOError):  # then it will wake up all the same
            self._wake.send(b".")

    def _revoked(self) -> None:
        for connection in self._everybody():
            if connection.missed:
                connection.missed = False
                connection.send({"event": "changed"})

    def _noted(self, event: dict[str, Any]) -> None:
        for connection in self._everybody():
            connection.send(event)

    def _everybody(self) -> list[Connection]:
        with self._lock:
            return list(self._connections.values())

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == self._woken.fileno():
                    self._woken.recv(4096)
                    if self._closing:
                        return
                    self._tell_bars()
                elif fd == self._listener.fileno():
                    self._accept(poller)
                elif not self._served(self._connections[fd]):
                    poller.unregister(fd)
                    self._drop(self._connections[fd])

    @staticmethod
    def _served(connection: Connection) -> bool:
        try:
            return connection.serve()
        except MISTAKES:  # whatever one client has sent, the others must not lose their memory for it
            log.exception("memory: a request failed, its client is dropped")
            return False

    def _accept(self, poller: select.poll) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError as error:
            log.warning("memory: cannot accept a client: %s", error)
            # The client waits in the queue and would wake this thread for ever: give descriptors a chance to be freed.
            woken = select.poll()
            woken.register(self._woken, select.POLLIN)
            woken.poll(100)
            return
        connection = Connection(self, accepted)
        with self._lock:
            self._connections[accepted.fileno()] = connection
        poller.register(accepted, select.POLLIN)

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._connections.pop(connection.fd, None)
        connection.close()


def send_packet(connected: socket.socket, message: dict[str, Any], fd: int | None = None) -> None:
    """Send `message`, with a descriptor, without waiting.

    Raises:
        BlockingIOError: the peer does not read.
        OSError: the connection broke.
    """
    # Not socket.send_fds(): it takes flags and does not pass them on (CPython, Lib/socket.py).
    rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    connected.sendmsg([json.dumps(message).encode()], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class Connection:
    """One client and its leases."""

    def __init__(self, server: MemoryServer, connected: socket.socket) -> None:
        self.fd = connected.fileno()
        self._server = server
        self._card = server.card
        self._socket = connected
        self.name = f"process {peer_process(connected)}"
        self._outbox = Outbox(connected, f"memory: {self.name}")
        self._lock = threading.Lock()
        self._leases: dict[int, Lease] = {}
        self.bars: list[tuple[int, int, str, int]] | None = None
        """What it was told of the BARs; None before it has greeted."""
        self.missed = False
        """Whether it asked for memory where there was none."""

    def serve(self) -> bool:
        """Answer a packet; whether the client is still there."""
        try:
            packet = self._socket.recv(MAX_PACKET, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not packet:
            return False
        try:
            request = json.loads(packet)
            number, op = request.get("id"), request["op"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            log.warning("memory: a client sent a packet that is no request: %r", packet[:80])
            return False
        if op in ("ack", "close"):
            self._done(request.get("lease"))
            return True
        try:
            if op == "hello":
                self._server.greet(self, number)
            elif op == "open":
                self._open(number, request)
            elif op in ("read", "write"):
                self.send({"id": number, **self._access(op, request)})
            else:
                raise ValueError(f'there is no request "{op}" (allowed: hello, open, read, write, close, ack)')
        except LeaseRefused as refused:
            self.send({"id": number, "error": str(refused), "code": refused.code})
        except KeyError as error:
            self.send({"id": number, "error": f"the request needs {error}"})
        except (ValueError, TypeError, OverflowError) as error:
            self.send({"id": number, "error": str(error)})
        return True

    def _function(self, request: dict[str, Any]) -> Function:
        try:
            return self._card.function(str(request["function"]))
        except KeyError as error:
            if "function" not in request:
                raise
            raise LeaseRefused(str(error.args[0])) from None

    def _open(self, number: int, request: dict[str, Any]) -> None:
        bar = request.get("bar")
        missed, self.missed = self.missed, True  # before the look: what changes after it is told
        lease = self._card.leases.open(
            self._function(request),
            int(request["address"]),
            int(request["length"]),
            self.told,
            None if bar is None else int(bar),
            self.name,
        )
        answer = {
            "id": number,
            "lease": lease.number,
            "owner": lease.owner,
            "length": lease.length,
            "offset": lease.offset,
        }
        self.missed = missed
        with self._lock:
            # Taken back before the client has heard of it: then it never does.
            if lease.reason is None:
                self._leases[lease.number] = lease
                self._send(answer, lease.memory.fd)
                return
        self._card.leases.close(lease)
        raise LeaseRefused(lease.reason)

    def _access(self, op: str, request: dict[str, Any]) -> dict[str, Any]:
        """Registers behind a BAR, as a switch would route it there: it must be decoded."""
        function, index, offset = self._function(request), int(request["bar"]), int(request["offset"])
        data = bytes.fromhex(request["data"]) if op == "write" else b""
        length = len(data) if op == "write" else int(request["length"])
        decoded = self._card.leases.decoder.decoded()
        if not any(d.function is function and d.number == index for d in decoded):
            raise LeaseRefused(f"{function.name}'s BAR{index} is not decoded", "not decoded")
        bar, region = function.bars[index], function.regions[index]
        mapped = any(offset < at + size and at < offset + length for at, size in region.areas) if region else False
        if bar.handler is None or mapped or not 0 < length <= MAX_ACCESS or not 0 <= offset <= bar.size - length:
            raise LeaseRefused(f"no registers at [{offset:#x}, +{length:#x}) of {function.name}'s BAR{index}")
        if op == "write":
            write_registers(bar.handler, offset, data)
            return {}
        return {"data": read_registers(bar.handler, offset, length).hex()}

    def told(self, lease: Lease) -> None:
        """The card takes a lease back."""
        with self._lock:
            if lease.number in self._leases:
                self._send({"event": "revoked", "lease": lease.number, "reason": lease.reason})
            else:
                lease.released.set()

    def send(self, message: dict[str, Any]) -> None:
        """Send a packet. The card does not wait for the client to read: see `vfio_user_xe.emulator.vfio_user.outbox`."""
        with self._lock:
            self._send(message)

    def _send(self, message: dict[str, Any], fd: int | None = None) -> None:
        # When the connection has broken or was ended, the thread that serves it sees that too.
        with suppress(OSError):
            self._outbox.send([json.dumps(message).encode()], [] if fd is None else [fd])

    def _done(self, number: Any) -> None:
        with self._lock:
            lease = self._leases.pop(number, None) if isinstance(number, int) else None
        if lease is not None:
            self._card.leases.close(lease)

    def close(self) -> None:
        """End the connection and give its leases back."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._outbox.close()
            self._socket.close()
            leases, self._leases = list(self._leases.values()), {}
        for lease in leases:
            self._card.leases.close(lease)
