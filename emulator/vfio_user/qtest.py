"""The peer of QEMU's qtest socket: guest-physical reads and writes by QEMU itself, past every IOMMU.

    qemu-system-x86_64 ... -qtest unix:PATH -qtest-log none

QEMU connects when it starts and stays connected; the protocol is a line a command, a line an answer (QEMU,
docs/devel/testing/qtest.rst). It works beside any accelerator. The server listens, so it must be there before QEMU is, as
with the functions' own sockets; any number of QEMUs may be connected, and who uses an access finds out whose it is.
QEMU executes the lines in its main loop: never wait for an answer inside an access.
"""

from __future__ import annotations

import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from vfio_user_xe.emulator.pci.ecam import AccessError

log = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds that QEMU may take to answer: a guest that floods its main loop delays it, a stopped one does not."""
_BATCH = 64
"""Lines sent before their answers are read; they must fit into the socket's buffer."""
_LONGEST_LINE = 4096
_WRITE = {1: "writeb", 2: "writew", 4: "writel", 8: "writeq"}


class QtestPeer:
    """Takes the qtest connections of QEMUs at a listening socket; a `Route` to guest-physical memory.

    `start` begins to accept, `close` ends everything: the thread, the connections, the listening socket (its path
    stays the owner's).
    """

    name = "qtest"

    def __init__(self, listener: socket.socket) -> None:
        """`listener` is a listening UNIX stream socket, from now on owned by this object."""
        self._listener = listener
        self.path = str(listener.getsockname())
        self._connections: list[QtestConnection] = []
        self._lock = threading.Lock()
        self._wake, self._woken = socket.socketpair()
        self._thread: threading.Thread | None = None

    @property
    def cure(self) -> str:
        return f"start QEMU with '-qtest unix:{self.path} -qtest-log none'"

    def start(self) -> None:
        """Accept from now on."""
        self._thread = threading.Thread(target=self._run, name="qtest", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop accepting and drop every connection; who waits for an answer gets an `AccessError`."""
        self._wake.close()
        if self._thread is not None:
            self._thread.join()
        else:
            self._woken.close()
        self._listener.close()
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    def open(self) -> Sequence[QtestConnection]:
        """The QEMUs that are connected, the latest first."""
        with self._lock:
            return self._connections[::-1]

    def _run(self) -> None:
        # Data on a connection is its user's to read; here only its end is of interest.
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == self._woken.fileno():
                    self._woken.close()
                    return
                if fd == self._listener.fileno():
                    self._accept(poller)
                else:
                    self._drop(poller, fd)

    def _accept(self, poller: select.poll) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError as exc:
            log.warning("qtest: cannot accept a connection: %s", exc)
            time.sleep(0.1)
            return
        connection = QtestConnection(accepted)
        log.info("%s connected", connection.name)
        with self._lock:
            self._connections.append(connection)
        poller.register(accepted, select.POLLRDHUP)

    def _drop(self, poller: select.poll, fd: int) -> None:
        poller.unregister(fd)
        with self._lock:
            gone = [connection for connection in self._connections if connection.fileno() == fd]
            self._connections = [connection for connection in self._connections if connection not in gone]
        for connection in gone:
            log.info("%s is gone", connection.name)
            connection.close()


class QtestConnection:
    """One QEMU: a `PhysicalAccess`. Commands of several threads take turns."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._buffer = b""
        self._owed = 0
        """Answers to commands whose sender stopped waiting: they are read and dropped before the next."""
        self.name = f"qtest of process {peer_process(sock)}"

    def fileno(self) -> int:
        """Of the socket; -1 when closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Drop the connection; who waits for an answer gets an `AccessError`."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._socket.close()

    def read(self, addresses: Sequence[int]) -> list[int]:
        answers = self._commands([f"readl {address:#x}\n" for address in addresses])
        try:
            return [int(answer.split()[1], 16) for answer in answers]
        except (IndexError, ValueError):
            raise AccessError(f"qtest answered readl with {answers!r}") from None

    def write(self, writes: Sequence[tuple[int, int, int]]) -> None:
        self._commands([f"{_WRITE[size]} {address:#x} {value:#x}\n" for address, size, value in writes])

    def _commands(self, lines: Sequence[str]) -> list[str]:
        """Send `lines`, return the answers.

        Raises:
            AccessError: the connection broke, or QEMU refuses a line or does not answer within `TIMEOUT`.
        """
        answers: list[str] = []
        with self._lock:
            deadline = time.monotonic() + TIMEOUT
            try:
                while self._owed:
                    self._answer(deadline)
                for first in range(0, len(lines), _BATCH):
                    batch = lines[first : first + _BATCH]
                    self._owed += len(batch)
                    self._socket.settimeout(TIMEOUT)
                    self._socket.sendall("".join(batch).encode())
                    answers += [self._answer(deadline) for _ in batch]
            except TimeoutError:
                raise AccessError(f"no answer within {TIMEOUT:g} s") from None
            except OSError as exc:
                raise AccessError(f"the connection broke: {exc}") from exc
        for line, answer in zip(lines, answers, strict=True):
            if answer != "OK" and not answer.startswith("OK "):
                raise AccessError(f"QEMU answered {line.strip()!r} with {answer!r}")
        return answers

    def _answer(self, deadline: float) -> str:
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                # Interrupt notifications come unasked (qtest.rst, "IRQ management").
                if line.startswith(b"IRQ "):
                    continue
                self._owed -= 1
                return line.decode("ascii", "replace").strip()
            if len(self._buffer) > _LONGEST_LINE:
                raise AccessError(f"the peer does not speak qtest: {self._buffer[:40]!r}...")
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._socket.recv(65536)
            if not data:
                raise AccessError("QEMU closed the connection")
            self._buffer += data


def peer_process(sock: socket.socket) -> int:
    """The process at the other end (Linux, unix(7), SO_PEERCRED)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
