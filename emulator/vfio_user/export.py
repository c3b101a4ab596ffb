"""A function's memory for other programs of the host: its descriptor is given to every program that connects to a UNIX socket.

The socket is SOCK_SEQPACKET. A program that connects gets one packet, a JSON object, with a file descriptor:

    {"card": "b580", "function": "vf1", "owner": "vf1", "address": 0,
     "kind": "memfd", "offset": 0, "length": 8388608}          the memory is [offset, offset + length) of the descriptor

with "surface" in it, where the exporter was told what the memory shows,

and, when the card takes the memory back, {"event": "revoked", "reason": "..."} and the end of the connection. An end
without it means the same.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vfio_user_xe.emulator.fabric.dma_buf import make_dma_buf
from vfio_user_xe.emulator.fabric.peers import Grant, PeerError
from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.vfio_user.memory_client import MemoryClient, dial
from vfio_user_xe.emulator.vfio_user.memory_server import send_packet

log = logging.getLogger(__name__)

AS_FAR_AS_IT_GOES = 1 << 46
_ACCEPT_AGAIN_SECONDS = 0.1


class ExportError(Exception):
    """What cannot be exported, and why."""


class Exporter:
    """An export: `serve` runs it, `close` ends it and removes the socket."""

    def __init__(
        self,
        folder: Path,
        function: str,
        address: int,
        length: int,
        *,
        read_only: bool = False,
        dma_buf: bool = True,
        surface: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a lease on `[address, +length)` of `function`'s device addresses; length 0: as far as it is in one piece.

        With `dma_buf` it is made a dma-buf where the host can. `surface` is passed on to programs as it is.

        Raises:
            ExportError: The memory is not there, or cannot be exported.

        From any thread.
        """
        self.reason: str | None = None
        """The reason of the revocation."""
        self._stopped = False
        self._lock = threading.Lock()
        self._programs: list[socket.socket] = []
        self._path: Path | None = None
        self._listener: socket.socket | None = None
        self._wake, self._woken = socket.socketpair()
        self._fd = -1
        self._peer: MemoryClient | None = None
        try:
            self._peer = dial(str(folder), self)
            self.grant = self._lease(self._peer, function, address, length)
            self._fd, kind, offset = self._descriptor(self.grant, read_only, dma_buf and not read_only)
        except PeerError as error:
            self.close()
            hint = _no_memory(folder, function) if error.code == "hole" else ""
            raise ExportError(f"{error}{hint}") from None
        except OSError as error:
            self.close()
            raise ExportError(str(error)) from None
        except ExportError:
            self.close()
            raise
        self.description: dict[str, Any] = {
            "card": self._peer.card,
            "function": function,
            "owner": self.grant.owner,
            "address": address,
            "kind": kind,
            "offset": offset,
            "length": self.grant.length,
            **({"surface": dict(surface)} if surface else {}),
        }

    @staticmethod
    def _lease(peer: MemoryClient, function: str, address: int, length: int) -> Grant:
        grant = peer.open(function, address, length or AS_FAR_AS_IT_GOES)
        if grant.length < length:
            raise ExportError(
                f"only {grant.length:#x} of {length:#x} bytes at {address:#x} of {function} are in one piece"
                f" (memory of {grant.owner}): export them apart"
            )
        return grant

    @staticmethod
    def _descriptor(grant: Grant, read_only: bool, dma_buf: bool) -> tuple[int, str, int]:
        """The descriptor to hand out, its kind, and where in it the memory begins."""
        if dma_buf:
            with suppress(OSError):
                return make_dma_buf(grant.fd, grant.offset, grant.length), "dma-buf", 0
        if read_only:
            return os.open(f"/proc/self/fd/{grant.fd}", os.O_RDONLY | os.O_CLOEXEC), "memfd", grant.offset
        return os.dup(grant.fd), "memfd", grant.offset

    def listen(self, path: Path) -> None:
        """Make the socket.

        Raises:
            ExportError: The socket cannot be made.

        From any thread.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            _remove_dead(path)
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen()
        except OSError as error:
            listener.close()
            raise ExportError(f"cannot listen on {path}: {error.strerror or error}") from None
        self._listener, self._path = listener, path

    def serve(self, once: bool = False, ready: Callable[[], None] | None = None) -> str | None:
        """Hand the descriptor out until the memory is taken back (returns why), `stop`, or, `once`, the first program's end."""
        assert self._listener is not None
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        if ready is not None:
            ready()
        while self.reason is None and not self._stopped:
            for fd, _ in poller.poll():
                if fd == self._listener.fileno():
                    self._accept(poller)
                elif fd != self._woken.fileno():
                    self._drop(fd, poller)
                    if once:
                        return None
        return self.reason

    def stop(self) -> None:
        """Let `serve` return. For signal handlers: an exception in the middle of handing out would leave a program untold."""
        self._stopped = True
        with suppress(OSError):
            self._wake.send(b".")

    def close(self) -> None:
        """Hand out nothing more, give the lease back."""
        self._tell("the export was ended")
        if self._peer is not None:
            self._peer.close()
        if self._listener is not None:
            self._listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for program in self._programs:
            program.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._wake.close()
        self._woken.close()

    def _accept(self, poller: select.poll) -> None:
        """Hand the descriptor to the next program; one that does not get it is told by the end of its connection."""
        assert self._listener is not None
        try:
            program, _ = self._listener.accept()
        except OSError as error:
            # Out of descriptors, or the program has gone already. One that is still there waits in the queue and would
            # wake this loop for ever: give descriptors a chance to be freed.
            log.warning("cannot accept a program: %s", error.strerror)
            woken = select.poll()
            woken.register(self._woken, select.POLLIN)
            woken.poll(_ACCEPT_AGAIN_SECONDS * 1000)
            return
        with self._lock:
            # Not after it was taken back, and nobody in between who would not be told.
            if self.reason is None:
                try:
                    send_packet(program, self.description, self._fd)
                except OSError as error:
                    log.warning("a program did not get the descriptor: %s", error.strerror)
                else:
                    self._programs.append(program)
                    poller.register(program, 0)
                    return
        program.close()

    def _drop(self, fd: int, poller: select.poll) -> None:
        """Forget the program at `fd`, whose connection broke."""
        poller.unregister(fd)
        with self._lock:
            for program in [p for p in self._programs if p.fileno() == fd]:
                self._programs.remove(program)
                program.close()

    # What the card tells.

    def revoked(self, grant: Grant, reason: str) -> None:
        self._tell(reason)
        with suppress(OSError):
            self._wake.send(b".")

    def _tell(self, reason: str) -> None:
        """Tell every program that the memory is not to be used any more."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
            for program in self._programs:
                with suppress(OSError):
                    send_packet(program, {"event": "revoked", "reason": reason})

    def noted(self, event: dict[str, Any]) -> None:
        pass

    def gone(self) -> None:
        pass


def whole_pages(value: int, what: str) -> int:
    """`value`, in bytes, which must be whole pages.

    Raises:
        ExportError: They are not whole pages.

    From any thread.
    """
    if value % PAGE_SIZE:
        raise ExportError(f"{what} {value:#x} is not a multiple of {PAGE_SIZE:#x}")
    return value


def _no_memory(folder: Path, function: str) -> str:
    """What to do about device addresses of `function` that have no memory now."""
    return (
        f". A VF has device memory from when the guest's PF driver enables VFs (sriov_numvfs) until it disables them."
        f" 'vfio-user-xe vram-map --socket-dir {folder}' shows what {function} has now"
    )


def _remove_dead(path: Path) -> None:
    """Remove a socket at which no server listens any more."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass  # its server ended meanwhile
