"""Loads: what is sent to a server under measurement, by a client in C where there is a compiler, else in Python."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SETUP = struct.Struct("<IIII")
"""What a bare server is told first: request size, reply size, requests a reply, 0."""


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of exchange. `burst` requests without a reply come before each `sync` request, where it is not 0."""

    name: str
    request: bytes
    reply: int
    depth: int = 1
    burst: int = 0
    sync: bytes = b""
    payload: int = 0
    """Bytes of data a request moves, for the rate in bytes; 0 where requests are counted."""

    @property
    def setup(self) -> bytes:
        """How a bare server is told to behave the same."""
        return SETUP.pack(len(self.request), self.reply, self.burst or 1, 0)


class Loader:
    """Runs loads. `binary` is the compiled client, or None for the one in Python."""

    def __init__(self, binary: Path | None) -> None:
        self.binary = binary

    @property
    def name(self) -> str:
        """ "C" or "Python"."""
        return "Python" if self.binary is None else "C"

    def rate(self, sock: socket.socket, load: Load, seconds: float, *, bare: bool) -> float:
        """Requests a second. A bare server counts the requests of a burst itself and needs no `sync` request."""
        sync = b"" if bare else load.sync
        if self.binary is None:
            return _python_rate(sock, load, sync, seconds)
        arguments = [sock.fileno(), load.reply, load.depth, load.burst, len(sync), seconds]
        done = subprocess.run(
            [str(self.binary), "client", *map(str, arguments)],
            input=load.request + sync,
            pass_fds=[sock.fileno()],
            capture_output=True,
            check=True,
        )
        return float(done.stdout)


def _python_rate(sock: socket.socket, load: Load, sync: bytes, seconds: float) -> float:
    view = memoryview(bytearray(1 << 20))
    send, receive, request = sock.sendall, sock.recv_into, load.request

    def wait_for(size: int) -> None:
        while size:
            size -= receive(view[:size]) if size < len(view) else receive(view)

    done = 0
    start = time.perf_counter()
    end = start + seconds
    if load.burst:
        while time.perf_counter() < end:
            for _ in range(load.burst):
                send(request)
            if sync:
                send(sync)
            wait_for(load.reply)
            done += load.burst
        return done / (time.perf_counter() - start)
    for _ in range(load.depth - 1):
        send(request)
    # Receiving into a view of the reply's size is the cheapest a client can do; a long one comes in pieces.
    size = load.reply
    expected = view[: min(size, len(view))]
    while time.perf_counter() < end:
        for _ in range(16):
            send(request)
            missing = size - receive(expected)
            if missing:
                wait_for(missing)
        done += 16
    for _ in range(load.depth - 1):
        wait_for(size)
    return done / (time.perf_counter() - start)


def compiled(folder: Path) -> Path | None:
    """The client and server in C, compiled into `folder`; None without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    binary = folder / "pingpong"
    source = Path(__file__).with_name("pingpong.c")
    subprocess.run([compiler, "-O2", "-Wall", "-o", str(binary), str(source)], check=True)
    return binary


def bare_python(path: str) -> subprocess.Popen[bytes]:
    """A bare server in Python on the socket `path`: blocking, one thread, nothing but the exchange."""
    return subprocess.Popen([sys.executable, str(Path(__file__).with_name("bare.py")), path])


def connected(path: str, timeout: float = 10.0) -> socket.socket:
    """A connection to `path`, as soon as somebody listens there."""
    deadline = time.monotonic() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return sock
