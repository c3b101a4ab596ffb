"""One function behind a context of libvfio-user: the library speaks to the client, this answers the library.

The library is not thread-safe, so one thread per context (`Context.run`) makes nearly all calls. The two things that other
threads want are handled so: DMA by messages is queued to that thread, which does it between two requests; an interrupt is
raised right away, under `_inside`, the lock that the thread holds whenever it is in the library and not in a callback.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.pci.transport import CONFIG_REGION, MSI, MSIX, DmaError, Region, Served, name_at
from vfio_user_xe.emulator.vfio_user.guest_memory import GuestMemory, MapError
from vfio_user_xe.emulator.vfio_user.libvfio_user import library as lvu
from vfio_user_xe.emulator.vfio_user.libvfio_user.client_memory import Transfer, carry_out, own_view
from vfio_user_xe.emulator.vfio_user.libvfio_user.library import Library
from vfio_user_xe.emulator.vfio_user.region_access import RegionAccess
from vfio_user_xe.emulator.vfio_user.wire import DMA_WRITABLE, MAX_DMA_MAPS

log = logging.getLogger(__name__)

MAX_CHUNK = 64 * 1024
"""Bytes of a DMA message: a reply must fit into a socket's buffer, because QEMU takes a partial send for a complete one."""
REPLY_TIMEOUT = 10
"""Seconds that the library may wait for a client to read a reply: it sends by itself, and blocks when the socket is full."""
_SHORT = (1, 2, 4, 8)
_TIMEVAL = struct.Struct("@ll")


class Context:
    """A function's `Transport` while a client is attached, and what serves its clients one after the other."""

    def __init__(self, library: Library, function: Served, path: Path) -> None:
        """Listen at `path`, which must not exist.

        Raises:
            BackendError: the library makes no context.
        """
        self.function = function
        self.memory = GuestMemory(MAX_DMA_MAPS)
        self._library = library
        self._ffi = library.ffi
        self._calls = library.calls
        self._inside = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._queue: deque[Transfer] = deque()
        self._thread: threading.Thread | None = None
        self._attached = False
        self._resetting = False
        self._stopping = False
        self._accessed = False
        """Whether the request that is being served is an access."""
        self._transferring = False
        self._gone: list[tuple[int, int]] = []
        """Ranges that went in the middle of a DMA message, whose sender could not be told while it waited."""
        self._kept: list[Any] = []
        """Callbacks and memory that the library points to."""
        self._segment = self._ffi.new("char[]", library.calls.dma_sg_size())
        self._context = self._calls.vfu_create_ctx(
            lvu.TRANSPORT_SOCKET, os.fsencode(path), lvu.NON_BLOCKING, self._ffi.NULL, lvu.DEVICE_PCI
        )
        try:
            if self._context == self._ffi.NULL:
                raise library.error(f"vfu_create_ctx({path})")
            path.chmod(0o600)
            self._set_up()
        except BaseException:
            self.close()
            raise

    # Set-up.

    def _set_up(self) -> None:
        calls, context = self._calls, self._context
        level = lvu.LOG_INFO if log.isEnabledFor(logging.INFO) else lvu.LOG_ERROR
        self._check("vfu_setup_log", context, self._callback("log_callback", self._logged, None), level)
        self._check("vfu_pci_init", context, lvu.PCI_EXPRESS, 0, 0)
        for index, region in enumerate(self.function.regions):
            if region is not None and region.size:
                self._set_up_region(index, region)
        self._check("vfu_setup_device_reset_cb", context, self._callback("reset_callback", self._reset, -1))
        # The device is always quiet when it is asked to be: its messages are sent by this very thread.
        calls.vfu_setup_device_quiesce_cb(context, self._callback("quiesce_callback", lambda context: 0, -1))
        for index, count in enumerate(self.function.interrupts):
            self._check("vfu_setup_device_nr_irqs", context, index, count)
        added = self._callback("dma_callback", self._mapped, None)
        removed = self._callback("dma_callback", self._unmapped, None)
        if self._library.setup_dma(context, MAX_DMA_MAPS, added, removed) != 0:
            raise self._library.error("vfu_setup_device_dma")
        self._check("vfu_realize_ctx", context)

    def _set_up_region(self, index: int, region: Region) -> None:
        flags = (lvu.REGION_READ if region.readable else 0) | (lvu.REGION_WRITE if region.writable else 0)
        flags |= lvu.REGION_ALWAYS_CALLED if index == CONFIG_REGION else lvu.REGION_MEMORY
        areas, count, fd, offset = self._ffi.NULL, 0, -1, 0
        if region.memory is not None and region.areas:
            fd, offset = region.memory.fd, region.memory_offset
            if region.areas != [(0, region.size)]:
                areas, count = self._ffi.new("struct span[]", len(region.areas)), len(region.areas)
                for area, (start, length) in zip(areas, region.areas, strict=True):
                    area.start, area.length = self._ffi.cast("void *", start), length
        access = self._callback("access_callback", self._accessor(region), -1)
        self._check(
            "vfu_setup_region", self._context, index, region.size, access, flags, areas, count, fd, offset, what=index
        )

    def _check(self, call: str, *arguments: Any, what: object = "") -> None:
        if getattr(self._calls, call)(*arguments) != 0:
            raise self._library.error(f"{call}({what})")

    def _callback(self, kind: str, function: Callable[..., Any], failed: Any) -> Any:
        """`function` for the library to call; `failed` is what it gets back when that raises."""

        def report(kind: type[BaseException], exc: BaseException, traceback: Any) -> None:
            log.error("%s: a callback failed", self.function.name, exc_info=(kind, exc, traceback))
            self._ffi.errno = errno.EIO

        result = None if failed is None else {"error": failed}
        made = self._ffi.callback(kind, function, onerror=report, **(result or {}))
        self._kept.append(made)
        return made

    # Transport, for the function.

    def view(self, address: int, length: int, write: bool) -> memoryview | None:
        return self.memory.view(address, length, write)

    def mapped(self, address: int, length: int, write: bool) -> bool:
        return self.memory.mapped(address, length, write)

    def read(self, address: int, length: int) -> bytes:
        buffer = bytearray(length)
        self._transfer(address, memoryview(buffer), write=False)
        return bytes(buffer)

    def write(self, address: int, data: bytes | memoryview) -> None:
        self._transfer(address, memoryview(data).cast("B"), write=True)

    def trigger(self, index: int, vector: int) -> bool:
        # The library has one set of descriptors for INTx, MSI and MSI-X: only one of them is on at a time.
        if not self._attached:
            return False
        with self._inside if threading.current_thread() is not self._thread else contextlib.nullcontext():
            return self._attached and bool(self._calls.vfu_irq_trigger(self._context, vector) == 0)

    def _transfer(self, address: int, data: memoryview, *, write: bool) -> None:
        name = "DMA_WRITE" if write else "DMA_READ"
        if threading.current_thread() is self._thread:
            raise DmaError(
                "DMA by messages inside an access would wait for itself: queue it to the executor", errno.EDEADLK
            )
        for position in range(0, len(data), MAX_CHUNK):
            piece = data[position : position + MAX_CHUNK]
            transfer = Transfer(address + position, piece, write)
            if not self._attached:
                raise DmaError("no client has negotiated", errno.ENOTCONN)
            self._queue.append(transfer)
            os.eventfd_write(self._wake, 1)
            if not self._attached or self._resetting:
                self._give_up(errno.ENOTCONN if not self._attached else errno.ECANCELED)
            transfer.done.wait()
            if transfer.error:
                text = f"{name} of {len(piece)} bytes at {transfer.address:#x}: {os.strerror(transfer.error)}"
                raise DmaError(text, transfer.error)

    # Life.

    def run(self) -> None:
        """Serve clients until `stop`. Never raises for what a client does."""
        self._thread = threading.current_thread()
        while not self._stopping:
            if self._attach():
                log.info("%s: client connected", self.function.name)
                try:
                    self._serve()
                finally:
                    self._detach()
                log.info("%s: client gone", self.function.name)

    def stop(self) -> None:
        """Make `run` return; from any thread. See `hang_up` for a client that the library waits for."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def hang_up(self) -> None:
        """Cut the connection, because the library waits for the client without an end (for its VERSION, for a reply)."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._poll_fd())) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give everything back; after `run` has returned."""
        if self._context != self._ffi.NULL:
            self._thread = threading.current_thread()
            with self._inside:
                self._calls.vfu_destroy_ctx(self._context)
            self._context = self._ffi.NULL
            self._detach()
        self._kept.clear()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def _poll_fd(self) -> int:
        return int(self._calls.vfu_get_poll_fd(self._context))

    def _attach(self) -> bool:
        """Wait for a client and negotiate with it; False when there is none, or no more to wait for."""
        if not any(fd != self._wake for fd in self._wait()) or self._stopping:
            return False
        with self._inside:
            failed = self._calls.vfu_attach_ctx(self._context) != 0
        if failed:
            log.info("%s: no client: %s", self.function.name, os.strerror(self._ffi.errno))
            return False
        with socket.socket(fileno=os.dup(self._poll_fd())) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(REPLY_TIMEOUT, 0))
        self._attached = True
        self.function.attached(self)
        return True

    def _wait(self) -> list[int]:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._poll_fd(), select.POLLIN)
        return [fd for fd, _ in poll.poll()]

    def _serve(self) -> None:
        """One client, until it goes."""
        context, inside, wake, run = self._context, self._inside, self._wake, self._calls.vfu_run_ctx
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(self._poll_fd(), select.POLLIN)
        poll = poller.poll
        while True:
            for fd, _ in poll():
                if fd == wake:
                    if self._woken():
                        return
                    continue
                self._accessed = False
                with inside:
                    served = run(context)
                if served < 0:
                    number = self._ffi.errno
                    if number != errno.ENOTCONN:
                        reason = os.strerror(number)
                        if number == errno.EAGAIN:
                            reason = f"the client has not read a reply for {REPLY_TIMEOUT} s"
                        log.warning("%s: libvfio-user: %s; hanging up", self.function.name, reason)
                        self.hang_up()
                        continue
                    return
                if served and not self._accessed:
                    self._wired()

    def _detach(self) -> None:
        if not self._attached:
            return
        self._attached = False
        self._give_up(errno.ENOTCONN)
        self.function.detached()
        self.memory.unmap_all()

    # Between requests.

    def _woken(self) -> bool:
        """Do what other threads queued; True when it is time to end."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._queue and not self._stopping:
            transfer = self._queue.popleft()
            self._transferring = True
            try:
                with self._inside:
                    found = self.memory.find(transfer.address)
                    mapped = found is not None and found.view is not None
                    transfer.error = carry_out(self._library, self._context, self._segment, transfer, mapped)
            finally:
                self._transferring = False
                transfer.done.set()
            while self._gone:
                self.function.drop_windows(*self._gone.pop())
        return self._stopping

    def _give_up(self, error: int) -> None:
        """Callers that wait for a DMA message get the reason why there will be none."""
        while True:
            try:
                transfer = self._queue.popleft()
            except IndexError:
                return
            transfer.error = error
            transfer.done.set()

    def _wired(self) -> None:
        # The library tells nobody when a client wires a vector: it may have been done by any request that is no access.
        for index in (MSI, MSIX):
            count = self.function.interrupts[index]
            if count:
                self.function.wired(index, 0, count)

    # What the library calls.

    @contextlib.contextmanager
    def _outside(self) -> Iterator[None]:
        """In a callback, while it may take long: others may raise interrupts."""
        self._inside.release()
        try:
            yield
        finally:
            self._inside.acquire()

    def _accessor(self, region: Region) -> Callable[[Any, Any, int, int, bool], int]:
        access, ffi, inside = RegionAccess(region), self._ffi, self._inside
        read, write, buffer, size = access.read, access.write, ffi.buffer, region.size
        readable, writable = region.readable, region.writable

        def accessed(context: Any, data: Any, count: int, offset: int, is_write: bool) -> int:
            self._accessed = True
            if offset + count > size or not (writable if is_write else readable):
                ffi.errno = errno.EPERM
                return -1
            inside.release()
            try:
                bytes_of = buffer(data, count)
                short = count in _SHORT and not offset & (count - 1)
                if is_write:
                    if short:
                        write(offset, count, int.from_bytes(bytes_of, "little"))
                    else:
                        access.write_block(offset, memoryview(bytes_of))
                elif short:
                    bytes_of[:] = read(offset, count).to_bytes(count, "little")
                else:
                    bytes_of[:] = access.read_block(offset, count)
            except MISTAKES:
                name = name_at(region.handler, offset)
                log.exception("%s: access at %#x%s failed", self.function.name, offset, name and f", {name},")
                ffi.errno = errno.EIO
                return -1
            finally:
                inside.acquire()
            return count

        return accessed

    def _reset(self, context: Any, kind: int) -> int:
        """The client resets the device. (Other kinds: it is gone, which `run` sees.)"""
        if kind == lvu.RESET_DEVICE:
            self._resetting = True
            self._give_up(errno.ECANCELED)
            try:
                with self._outside():
                    self.function.reset()
            finally:
                self._resetting = False
        return 0

    def _mapped(self, context: Any, info: Any) -> None:
        address, size = self._range(info)
        flags = int(info.protection) & 3
        view = None
        if info.mapped_at != self._ffi.NULL:
            try:
                view = own_view(self._library, info, size)
            except OSError as exc:
                log.warning("%s: guest memory cannot be mapped: %s", self.function.name, exc.strerror)
            if view is not None and not flags & DMA_WRITABLE:
                view = view.toreadonly()
        # The same range again is accepted by the library, which keeps the first.
        with contextlib.suppress(MapError):
            self.memory.add(address, size, flags, view)

    def _unmapped(self, context: Any, info: Any) -> None:
        address, size = self._range(info)
        with contextlib.suppress(MapError):
            self.memory.unmap(address, size)
        if self._transferring:
            self._gone.append((address, size))
            return
        with self._outside():
            self.function.drop_windows(address, size)

    def _range(self, info: Any) -> tuple[int, int]:
        return int(self._ffi.cast("uintptr_t", info.addresses.start)), int(info.addresses.length)

    def _logged(self, context: Any, level: int, text: Any) -> None:
        log.info("%s: libvfio-user: %s", self.function.name, self._ffi.string(text).decode(errors="replace"))
