"""A card behind sockets: one listening socket a function, one blocking thread a client, and the control plane in trio.

A function serves one client at a time. The next one waits in the socket's queue until the first is gone, so a restarted QEMU
finds its device as soon as the dead one's connection is closed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from vfio_user_xe.emulator.guest.serve_options import SLEEPING, Polling
from vfio_user_xe.emulator.observe.tap import Tap
from vfio_user_xe.emulator.pci.transport import Served
from vfio_user_xe.emulator.vfio_user.session import Session

log = logging.getLogger(__name__)

SWITCH_INTERVAL = 50e-6
"""Seconds a thread may keep the interpreter while another wants it: an access must not wait for 5 ms (the default)."""
_MAX_SOCKET_PATH = 107
_BACKLOG = 8
_LONGEST_NAME = "control"


class ServerError(Exception):
    """The sockets cannot be made; the text says which and why."""


@dataclass(frozen=True, slots=True)
class SocketFolder:
    """The folder that a server owns: its sockets, and a lock that tells a live server from a dead one's left-overs."""

    path: Path

    def socket_path(self, name: str) -> Path:
        """Where the socket called `name` is.

        Raises:
            ServerError: The path is longer than sockets allow.

        From any thread.
        """
        path = self.path / f"{name}.sock"
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
            raise ServerError(f"{path} is longer than {_MAX_SOCKET_PATH} bytes: choose a shorter --socket-dir")
        return path

    def cleared_path(self, name: str) -> Path:
        """Where the socket called `name` will be, after what a dead server left there.

        Raises:
            ServerError: Something else than a socket is there.

        From any thread.
        """
        path = self.socket_path(name)
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ServerError(f"{path} exists and is not a socket: remove it, or choose another --socket-dir")
            path.unlink()
        return path

    def listen(self, name: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A listening UNIX socket of mode 0600, replacing what a dead server left.

        Raises:
            ServerError: The socket cannot be made.

        From any thread.
        """
        path = self.cleared_path(name)
        listener = socket.socket(socket.AF_UNIX, kind)
        try:
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(_BACKLOG)
        except OSError as exc:
            listener.close()
            raise ServerError(f"cannot listen on {path}: {exc.strerror}") from exc
        return listener


@asynccontextmanager
async def socket_folder(path: Path) -> AsyncIterator[SocketFolder]:
    """Make (mode 0700) and own the folder at `path`; its sockets are removed in the end.

    Raises:
        ServerError: The folder is another server's or another user's, or cannot be used.

    In the trio thread.
    """
    # Before anything is made.
    SocketFolder(path).socket_path(_LONGEST_NAME)
    made = False
    try:
        try:
            path.mkdir(mode=0o700, parents=True)
            made = True
        except FileExistsError:
            if not path.is_dir():
                raise ServerError(f"--socket-dir {path} is not a folder") from None
            if path.stat().st_uid != os.getuid():
                raise ServerError(f"--socket-dir {path} belongs to another user") from None
            if path.stat().st_mode & 0o077:
                path.chmod(0o700)
        lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ServerError(f"cannot use --socket-dir {path}: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"another server uses --socket-dir {path}: stop it, or choose another folder") from None
        try:
            yield SocketFolder(path)
        finally:
            remove_left_overs(path, made=made)
    finally:
        os.close(lock)


def remove_left_overs(path: Path, *, made: bool) -> None:
    """Remove a server's sockets from the folder at `path`, and the folder itself where the server `made` it."""
    for left in (*path.glob("*.sock"), path / "lock"):
        left.unlink(missing_ok=True)
    if made:
        with suppress(OSError):
            path.rmdir()


async def serve_function(
    function: Served, listener: socket.socket, polling: Polling = SLEEPING, tap: Tap | None = None
) -> None:
    """Serve clients of one function, one after the other, until cancelled; `tap` is told of their messages."""
    async_listener = trio.socket.from_stdlib_socket(listener)
    limiter = trio.CapacityLimiter(1)
    try:
        while True:
            try:
                connection, _ = await async_listener.accept()
            except OSError as exc:
                # Out of descriptors: the client sees its connection fail, the server goes on.
                log.warning("%s: cannot accept a client: %s", function.name, exc)
                await trio.sleep(0.1)
                continue
            session = Session(function, _blocking(connection), polling, tap)
            await _serve_client(session, limiter)
    finally:
        async_listener.close()


async def _serve_client(session: Session, limiter: trio.CapacityLimiter) -> None:
    name = session.function.name
    log.info("%s: client connected", name)
    async with trio.open_nursery() as nursery:

        async def stop_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                session.stop()

        nursery.start_soon(stop_when_cancelled)
        await trio.to_thread.run_sync(session.run, limiter=limiter, thread_name=f"{name} access")
        nursery.cancel_scope.cancel()
    log.info("%s: client gone", name)


def _blocking(connection: trio.socket.SocketType) -> socket.socket:
    """The same connection as a blocking socket for a thread."""
    plain = socket.socket(fileno=os.dup(connection.fileno()))
    connection.close()
    plain.setblocking(True)
    return plain


async def serve_functions(
    functions: Sequence[Served],
    folder: SocketFolder,
    ready: Callable[[dict[str, str]], None] | None = None,
    polling: Polling = SLEEPING,
    tap: Tap | None = None,
) -> None:
    """Serve every function of a card on `<name>.sock` in `folder`, until cancelled.

    `ready` is called with the sockets' paths by function name when clients may connect. `polling` is how an
    access thread waits for the next message. `tap` is told of clients' messages.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    listeners: list[tuple[Served, socket.socket]] = []
    try:
        for function in functions:
            listeners.append((function, folder.listen(function.name)))
    except BaseException:
        for _, listener in listeners:
            listener.close()
        raise
    async with trio.open_nursery() as nursery:
        for function, listener in listeners:
            nursery.start_soon(serve_function, function, listener, polling, tap)
        if ready is not None:
            ready({function.name: str(folder.socket_path(function.name)) for function in functions})
