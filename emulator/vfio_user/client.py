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

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from errno import EFAULT, EINVAL, EPERM, errorcode
from typing import Any

from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client_connection import Connection, Disconnected, Message, ProtocolError, encode
from vfio_user_xe.emulator.vfio_user.client_resources import (
    DmaMapping,
    EventFd,
    IoFd,
    IoFds,
    IrqInfo,
    Owner,
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

READ_WRITE = wire.DMA_READABLE | wire.DMA_WRITABLE
LARGEST_REPLY = 1 << 24
"""Bytes: the largest region info reply that is requested when the server says that it needs more."""


class RequestError(Exception):
    """The server answered a command with an error. `errno` is 0 where it did not say which."""

    def __init__(self, errno: int, command: int) -> None:
        name = errorcode.get(errno, str(errno))
        text = f"{name} ({os.strerror(errno)})" if errno else "an error without a number"
        super().__init__(f"{wire.COMMAND_NAMES.get(command, command)} was refused: {text}")
        self.errno = errno
        self.command = command


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


class Client(Owner):
    """A connection to one vfio-user device.

    `capabilities` is what VERSION proposes (`default_capabilities()` unless given); after it, `version` and
    `server_capabilities` are what the server answered. With `negotiate` off nothing is sent: call `negotiate`, or use
    the raw methods. `timeout` is in seconds and holds for every wait.

    Raises `Disconnected`, `RequestError`, `ProtocolError` and TimeoutError from nearly every method.
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
        self.connection = Connection.connect(path, timeout)
        self.connection.on_blocked = self._receive_while_blocked
        self.connection.send_timeout = timeout
        self.timeout = timeout
        self.version = (0, 0)
        self.server_capabilities: dict[str, Any] = {}
        self.mappings: list[DmaMapping] = []
        self.dma_handler: Callable[[Message], bytes | None] = self.answer_dma
        """Called with every command of the server; returns the whole reply message, or None to send none (yet)."""
        self.unexpected: list[Message] = []
        """Replies that nothing was waiting for."""
        self.twin: Connection | None = None
        """The socket that the commands of the server come over, where twin sockets were negotiated."""
        self._twin_thread: threading.Thread | None = None
        self._thread: threading.Thread | None = None
        self._owned: list[Owner] = []
        self._next_id = 0
        self._waiting: set[int] = set()
        self._replies: dict[int, Message] = {}
        self._turn = threading.Condition()
        self._receiving = False
        self._handled = 0
        self._failure: Exception | None = None
        if negotiate:
            try:
                wanted = default_capabilities(twin_socket=twin_socket) if capabilities is None else capabilities
                self.negotiate(wanted)
            except BaseException:
                self.close()
                raise

    # Life.

    def negotiate(
        self, capabilities: Mapping[str, Any] | None, version: tuple[int, int] = (wire.MAJOR, wire.MINOR)
    ) -> None:
        """Send VERSION (without JSON if `capabilities` is None) and take over what the server answers.

        The twin socket is set up here if the server opened one.
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

    def close(self) -> None:
        """Disconnect, end the threads, close every descriptor and unmap every region this client gave out."""
        self.connection.close()
        if self.twin is not None:
            self.twin.close()
        for thread in (self._thread, self._twin_thread):
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        with self._turn:
            for message in [*self._replies.values(), *self.unexpected]:
                message.close_fds()
        for owned in [*self._owned, *self.mappings]:
            owned.close()
        self._owned.clear()
        self.mappings.clear()

    @property
    def max_data_xfer_size(self) -> int:
        """Bytes that the server takes in one REGION_READ or REGION_WRITE."""
        return int(self.server_capabilities.get("max_data_xfer_size", wire.DEFAULT_MAX_DATA_XFER))

    @property
    def max_msg_fds(self) -> int:
        """Descriptors that the server takes with one message."""
        return int(self.server_capabilities.get("max_msg_fds", wire.DEFAULT_MAX_MSG_FDS))

    @property
    def has_twin_socket(self) -> bool:
        """Whether the server's commands come over a socket of their own."""
        return self.twin is not None

    # Raw access, for what the methods below would not send.

    def send_raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes as they are; `fds` go with the first of them."""
        self.connection.send(data, fds)

    def recv_message(self, timeout: float | None = None) -> Message:
        """The next message of the server, whatever it is; nothing is answered. Not while others wait for replies."""
        return self.connection.receive(self.timeout if timeout is None else timeout)

    # Commands and replies.

    def send(self, command: int, body: bytes = b"", fds: Sequence[int] = (), *, flags: int = 0) -> int:
        """Send a command without waiting; returns the id to `wait` for. With `wire.FLAG_NO_REPLY` there is no reply."""
        with self._turn:
            message_id = self._next_id
            while message_id in self._waiting:
                message_id = (message_id + 1) & 0xFFFF
            self._next_id = (message_id + 1) & 0xFFFF
            if not flags & wire.FLAG_NO_REPLY:
                self._waiting.add(message_id)
        try:
            self.connection.send(encode(command, body, message_id=message_id, flags=flags), fds)
        except BaseException:
            self._waiting.discard(message_id)
            raise
        return message_id

    def wait(self, message_id: int, timeout: float | None = None) -> Message:
        """The reply to a command that was sent; replies may be waited for in any order. The caller owns its `fds`.

        Raises:
            RequestError: the reply carries the error flag.
        """
        limit = self.timeout if timeout is None else timeout
        self._receive_until(lambda: message_id in self._replies, limit, f"reply {message_id:#x}")
        with self._turn:
            reply = self._replies.pop(message_id)
        if reply.failed:
            reply.close_fds()
            raise RequestError(reply.error, reply.command)
        return reply

    def request(
        self, command: int, body: bytes = b"", fds: Sequence[int] = (), timeout: float | None = None
    ) -> Message:
        """Send a command and wait for its reply. Raises `RequestError`."""
        return self.wait(self.send(command, body, fds), timeout)

    def serve(self, until: Callable[[], bool], timeout: float | None = None, what: str = "what is waited for") -> None:
        """Answer the server's commands until `until()` is true. Raises TimeoutError; `what` names it there.

        `until` is asked after every command and every few milliseconds, and may use the client itself.
        """
        limit = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        pause = 0.0005
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come within {limit} s")
            self.idle(pause)
            pause = min(2 * pause, 0.01)

    def idle(self, seconds: float) -> None:
        """Answer the server's commands: the first that comes, or none after `seconds`."""
        handled = self._handled
        with contextlib.suppress(TimeoutError):
            self._receive_until(lambda: self._handled != handled, seconds, "a command")

    def serve_in_background(self) -> None:
        """From now on until `close`, answer the server's commands from a thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve_for_ever, name="vfio-user-client", daemon=True)
            self._thread.start()

    # The device.

    def device_info(self) -> tuple[int, int, int]:
        """Flags (`wire.DEVICE_FLAG_*`), number of regions, number of interrupt types."""
        reply = self._fixed(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, 0, 0, 0))
        _, flags, regions, irqs = self._unpack(reply, wire.DEVICE_INFO)
        return flags, regions, irqs

    def reset(self) -> None:
        """DEVICE_RESET."""
        self._fixed(wire.DEVICE_RESET, b"")

    # Regions.

    def region_info(self, index: int) -> RegionInfo:
        """A region's description, its mappable areas, and its descriptor if it has one. Closed with the client."""
        reply = self._ask_region(index, wire.REGION_INFO.size)
        needed = wire.REGION_INFO.unpack_from(reply.body)[0]
        if wire.REGION_INFO.size < needed <= LARGEST_REPLY:
            reply.close_fds()
            reply = self._ask_region(index, needed)
        try:
            info = self._parse_region(reply)
        finally:
            reply.close_fds()
        self._owned.append(info)
        return info

    def map_region(self, index: int) -> RegionMap:
        """Map the areas of a region. Raises ValueError when nothing of it can be mapped. Closed with the client."""
        mapped = self.region_info(index).map()
        self._owned.append(mapped)
        return mapped

    def region_io_fds(self, index: int) -> IoFds:
        """The descriptors by which parts of a region are accessed. Closed with the client."""
        size = wire.REGION_IO_FDS.size
        while True:
            reply = self.request(wire.DEVICE_GET_REGION_IO_FDS, wire.REGION_IO_FDS.pack(size, 0, index, 0))
            argsz, _, _, count = self._unpack(reply, wire.REGION_IO_FDS)
            if argsz <= size or argsz > LARGEST_REPLY:
                break
            reply.close_fds()
            size = argsz
        entries = []
        stride = (argsz - wire.REGION_IO_FDS.size) // count if count else 0
        for number in range(count if stride >= wire.IO_FD.size else 0):
            at = wire.REGION_IO_FDS.size + number * stride
            if at + wire.IO_FD.size > len(reply.body):
                break
            offset, length, fd_index, kind, flags, _, match = wire.IO_FD.unpack_from(reply.body, at)
            fd = reply.fds[fd_index] if fd_index < len(reply.fds) else -1
            entries.append(IoFd(offset, length, fd, kind, flags, match))
        found = IoFds(argsz, count, entries, reply.fds)
        self._owned.append(found)
        return found

    def region_read(self, region: int, offset: int, count: int) -> bytes:
        """`count` bytes of a region, by as many messages as the server's limit requires."""
        limit = self.max_data_xfer_size
        parts = []
        while True:
            chunk = min(count, limit)
            reply = self._fixed(wire.REGION_READ, wire.REGION_ACCESS.pack(offset, region, chunk))
            _, _, returned = self._unpack(reply, wire.REGION_ACCESS)
            data = reply.body[wire.REGION_ACCESS.size :]
            if returned != chunk or len(data) != chunk:
                raise ProtocolError(f"REGION_READ of {chunk} bytes: count {returned}, {len(data)} bytes of data")
            parts.append(data)
            offset += chunk
            count -= chunk
            if count <= 0:
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def region_write(self, region: int, offset: int, data: bytes | memoryview, *, posted: bool = False) -> None:
        """Write to a region. `posted` requests no reply, so errors are not seen either."""
        limit = self.max_data_xfer_size
        rest = memoryview(data)
        while True:
            chunk, rest = rest[:limit], rest[limit:]
            body = wire.REGION_ACCESS.pack(offset, region, len(chunk)) + chunk
            if posted:
                self.send(wire.REGION_WRITE, body, flags=wire.FLAG_NO_REPLY)
            else:
                self._fixed(wire.REGION_WRITE, body)
            offset += len(chunk)
            if not rest:
                return

    def read(self, region: int, offset: int, size: int) -> int:
        """A little-endian value of `size` bytes."""
        return int.from_bytes(self.region_read(region, offset, size), "little")

    def write(self, region: int, offset: int, size: int, value: int, *, posted: bool = False) -> None:
        """Write a little-endian value of `size` bytes."""
        self.region_write(region, offset, value.to_bytes(size, "little"), posted=posted)

    def write_multi(self, writes: Iterable[tuple[int, int, bytes]], *, posted: bool = False) -> int:
        """Several writes of at most 8 bytes, as (region, offset, data), in one message; returns how many were done."""
        entries = [
            wire.WRITE_MULTI_ENTRY.pack(offset, region, len(data), data.ljust(8, b"\0"))
            for region, offset, data in writes
        ]
        body = wire.WRITE_MULTI.pack(len(entries)) + b"".join(entries)
        if posted:
            self.send(wire.REGION_WRITE_MULTI, body, flags=wire.FLAG_NO_REPLY)
            return len(entries)
        return int(self._unpack(self._fixed(wire.REGION_WRITE_MULTI, body), wire.WRITE_MULTI)[0])

    # Interrupts.

    def irq_info(self, index: int) -> IrqInfo:
        """An interrupt type's description."""
        reply = self._fixed(wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(wire.IRQ_INFO.size, 0, index, 0))
        argsz, flags, got, count = self._unpack(reply, wire.IRQ_INFO)
        return IrqInfo(got, flags, count, argsz)

    def set_irqs(
        self, index: int, flags: int, start: int, count: int, *, data: bytes = b"", fds: Sequence[int] = ()
    ) -> None:
        """One SET_IRQS; `flags` are one of `wire.IRQ_SET_DATA_*` and one of `wire.IRQ_SET_ACTION_*`."""
        body = wire.IRQ_SET.pack(wire.IRQ_SET.size + len(data), flags, index, start, count) + data
        self._fixed(wire.DEVICE_SET_IRQS, body, fds)

    def enable_irqs(self, index: int, count: int, start: int = 0) -> list[EventFd]:
        """Give the server an eventfd for each of `count` vectors. Closed with the client."""
        events = [EventFd() for _ in range(count)]
        self._owned.extend(events)
        step = max(1, self.max_msg_fds)
        for at in range(0, count, step):
            fds = [event.fd for event in events[at : at + step]]
            self.set_irqs(index, wire.IRQ_SET_DATA_EVENTFD | wire.IRQ_SET_ACTION_TRIGGER, start + at, len(fds), fds=fds)
        return events

    def disable_irqs(self, index: int) -> None:
        """Take all eventfds of an interrupt type back."""
        self.set_irqs(index, wire.IRQ_SET_DATA_NONE | wire.IRQ_SET_ACTION_TRIGGER, 0, 0)

    def trigger_irqs(self, index: int, start: int, wanted: Sequence[bool] | int) -> None:
        """Have the server signal vectors: `wanted` is how many from `start` on, or a boolean for each."""
        if isinstance(wanted, int):
            self.set_irqs(index, wire.IRQ_SET_DATA_NONE | wire.IRQ_SET_ACTION_TRIGGER, start, wanted)
        else:
            flags = wire.IRQ_SET_DATA_BOOL | wire.IRQ_SET_ACTION_TRIGGER
            self.set_irqs(index, flags, start, len(wanted), data=bytes(wanted))

    # DMA.

    def map_memory(
        self, address: int, size: int, *, flags: int = READ_WRITE, shared: bool = True, memory: Memory | None = None
    ) -> DmaMapping:
        """Offer `size` bytes of memory at DMA address `address`; its content is the result's `view`.

        `shared` gives the server the descriptor; otherwise it has to ask by messages, which this client answers.
        Without `memory` it is made here, and given back when the client closes.
        """
        backing = memory or Memory(size, "client memory")
        mapping = DmaMapping(address, size, flags, backing.view[:size], shared, None if memory else backing)
        # Known before the server is told: a request for it may come before the reply does.
        self.mappings.append(mapping)
        try:
            self.dma_map(address, size, flags=flags, fd=backing.fd if shared else None)
        except BaseException:
            self.mappings.remove(mapping)
            mapping.close()
            raise
        return mapping

    def unmap_memory(self, mapping: DmaMapping) -> None:
        """Take back what `map_memory` offered."""
        self.dma_unmap(mapping.address, mapping.size)
        self.mappings.remove(mapping)
        mapping.close()

    def dma_map(
        self, address: int, size: int, *, flags: int = READ_WRITE, fd: int | None = None, offset: int = 0
    ) -> None:
        """Announce `[address, address + size)`, with or without a descriptor, and nothing else."""
        body = wire.DMA_MAP_BODY.pack(wire.DMA_MAP_BODY.size, flags, offset, address, size)
        self._fixed(wire.DMA_MAP, body, () if fd is None else (fd,))

    def dma_unmap(self, address: int, size: int, flags: int = 0) -> None:
        """Take a range back. `wire.DMA_UNMAP_ALL` in `flags`, with address and size 0, means everything."""
        body = wire.DMA_UNMAP_BODY.pack(wire.DMA_UNMAP_BODY.size, flags, address, size)
        self._fixed(wire.DMA_UNMAP, body)

    def answer_dma(self, message: Message) -> bytes:
        """The reply message to one DMA_READ or DMA_WRITE of the server, from what `map_memory` offered."""
        try:
            body = self._dma_body(message)
        except RequestError as exc:
            flags = wire.TYPE_REPLY | wire.FLAG_ERROR
            return encode(message.command, message_id=message.id, flags=flags, error=exc.errno)
        return encode(message.command, body, message_id=message.id, flags=wire.TYPE_REPLY)

    def _dma_body(self, message: Message) -> bytes:
        command, header = message.command, wire.DMA_ACCESS
        if command not in (wire.DMA_READ, wire.DMA_WRITE) or len(message.body) < header.size:
            raise RequestError(EINVAL, command)
        address, count = header.unpack_from(message.body)
        data = message.body[header.size :]
        if len(data) != (count if command == wire.DMA_WRITE else 0):
            raise RequestError(EINVAL, command)
        for mapping in list(self.mappings):
            if mapping.contains(address, count) and mapping.view is not None:
                break
        else:
            raise RequestError(EFAULT, command)
        if command == wire.DMA_READ:
            if not mapping.flags & wire.DMA_READABLE:
                raise RequestError(EPERM, command)
            return header.pack(address, count) + mapping.at(address, count)
        if not mapping.flags & wire.DMA_WRITABLE:
            raise RequestError(EPERM, command)
        mapping.at(address, count)[:] = data
        return header.pack(address, count)

    # Features and migration.

    def device_feature(self, flags: int, data: bytes = b"", argsz: int | None = None) -> bytes:
        """DEVICE_FEATURE with `flags` (feature number and `wire.FEATURE_*`); returns the reply's data."""
        size = wire.DEVICE_FEATURE_BODY.size + len(data) if argsz is None else argsz
        reply = self._fixed(wire.DEVICE_FEATURE, wire.DEVICE_FEATURE_BODY.pack(size, flags) + data)
        self._unpack(reply, wire.DEVICE_FEATURE_BODY)
        return reply.body[wire.DEVICE_FEATURE_BODY.size :]

    def has_feature(self, number: int, operations: int = 0) -> bool:
        """Whether the server has a feature, and all of `operations` (`wire.FEATURE_GET`, `FEATURE_SET`) of it."""
        try:
            self.device_feature(wire.FEATURE_PROBE | operations | number)
        except RequestError:
            return False
        return True

    def set_migration_state(self, state: int) -> None:
        """Ask for a migration state (`VFIO_DEVICE_STATE_*` of <linux/vfio.h>)."""
        self.device_feature(wire.FEATURE_SET | wire.FEATURE_MIG_DEVICE_STATE, wire.MIG_STATE.pack(state, 0))

    def mig_data_read(self, size: int) -> bytes:
        """The next bytes of migration data, at most `size`; fewer mean that this was all."""
        reply = self._fixed(wire.MIG_DATA_READ, wire.MIG_DATA.pack(wire.MIG_DATA.size + size, size))
        _, got = self._unpack(reply, wire.MIG_DATA)
        return reply.body[wire.MIG_DATA.size : wire.MIG_DATA.size + got]

    def mig_data_write(self, data: bytes) -> None:
        """Give the server migration data."""
        size = wire.MIG_DATA.size + len(data)
        self._fixed(wire.MIG_DATA_WRITE, wire.MIG_DATA.pack(size, len(data)) + data)

    def start_dma_logging(self, page_size: int, ranges: Sequence[tuple[int, int]] = ()) -> None:
        """Start to log DMA writes to `ranges` of (address, length); to everything without."""
        data = wire.DMA_LOGGING_CONTROL.pack(page_size, len(ranges), 0)
        data += b"".join(wire.DMA_LOGGING_RANGE.pack(*piece) for piece in ranges)
        self.device_feature(wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_START, data)

    def stop_dma_logging(self) -> None:
        """Stop logging."""
        self.device_feature(wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_STOP)

    def dma_logging_report(self, address: int, length: int, page_size: int) -> bytes:
        """The dirty bitmap of a range, one bit a page, in whole 64-bit words."""
        data = wire.DMA_LOGGING_REPORT.pack(address, length, page_size)
        words = -(-length // page_size // 64) if page_size else 0
        argsz = wire.DEVICE_FEATURE_BODY.size + len(data) + 8 * max(1, words)
        return self.device_feature(wire.FEATURE_GET | wire.FEATURE_DMA_LOGGING_REPORT, data, argsz)[len(data) :]

    # Inside.

    def _fixed(self, command: int, body: bytes, fds: Sequence[int] = ()) -> Message:
        """A request whose reply carries no descriptors."""
        reply = self.request(command, body, fds)
        if reply.fds:
            count = len(reply.fds)
            reply.close_fds()
            raise ProtocolError(
                f"{count} descriptors came with the reply to {wire.COMMAND_NAMES.get(command, command)}"
            )
        return reply

    @staticmethod
    def _unpack(reply: Message, layout: Any) -> Any:
        if len(reply.body) < layout.size:
            reply.close_fds()
            name = wire.COMMAND_NAMES.get(reply.command, reply.command)
            raise ProtocolError(f"the {name} reply has {len(reply.body)} bytes, at least {layout.size} are defined")
        return layout.unpack_from(reply.body)

    def _ask_region(self, index: int, argsz: int) -> Message:
        reply = self.request(wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(argsz, 0, index, 0, 0, 0))
        self._unpack(reply, wire.REGION_INFO)
        return reply

    @staticmethod
    def _parse_region(reply: Message) -> RegionInfo:
        argsz, flags, index, at, size, offset = wire.REGION_INFO.unpack_from(reply.body)
        info = RegionInfo(index, flags, size, offset, argsz)
        sparse = False
        seen = set()
        while flags & wire.REGION_FLAG_CAPS and at:
            if at in seen or at + wire.CAPABILITY.size > len(reply.body):
                raise ProtocolError(f"region {index}: capability at {at:#x} is outside of the reply, or in a loop")
            seen.add(at)
            kind, _, following = wire.CAPABILITY.unpack_from(reply.body, at)
            if kind == wire.CAP_SPARSE_MMAP:
                sparse = True
                start = at + wire.CAPABILITY.size
                count = wire.SPARSE_MMAP.unpack_from(reply.body, start)[0]
                start += wire.SPARSE_MMAP.size
                if start + count * wire.SPARSE_AREA.size > len(reply.body):
                    raise ProtocolError(f"region {index}: {count} mappable areas do not fit in the reply")
                areas = reply.body[start : start + count * wire.SPARSE_AREA.size]
                info.areas.extend(wire.SPARSE_AREA.iter_unpack(areas))
            at = following
        if info.mappable and not sparse:
            info.areas.append((0, size))
        if reply.fds:
            info.fd = reply.fds.pop(0)
        return info

    def _start_twin(self, fd: int) -> None:
        self.twin = Connection(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd))
        self._twin_thread = threading.Thread(target=self._serve_twin, name="vfio-user-twin", daemon=True)
        self._twin_thread.start()

    def _serve_twin(self) -> None:
        assert self.twin is not None
        with contextlib.suppress(Disconnected, ProtocolError):
            while True:
                self._answer(self.twin, self.twin.receive())

    def _serve_for_ever(self) -> None:
        with contextlib.suppress(Disconnected, ProtocolError):
            while True:
                with contextlib.suppress(TimeoutError):
                    self._receive_until(lambda: False, 3600.0, "the end")

    def _answer(self, connection: Connection, message: Message) -> None:
        message.close_fds()
        reply = self.dma_handler(message)
        if reply is not None and not message.flags & wire.FLAG_NO_REPLY:
            connection.post(reply)

    def _receive_until(self, done: Callable[[], bool], timeout: float, what: str) -> None:
        """Receive and dispatch until `done()`. One thread at a time receives; the others wait for what it gets."""
        deadline = time.monotonic() + timeout
        while True:
            with self._turn:
                if done():
                    return
                if self._failure is not None:
                    raise type(self._failure)(*self._failure.args)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{what} did not come within {timeout} s")
                if self._receiving:
                    self._turn.wait(left)
                    continue
                self._receiving = True
            self._receive_one(left)

    def _receive_one(self, timeout: float) -> bool:
        """Receive one message and handle it; the caller has set `_receiving`."""
        message = None
        try:
            message = self.connection.receive(timeout)
        except TimeoutError:
            pass
        except (Disconnected, ProtocolError) as exc:
            self._failure = exc
        finally:
            with self._turn:
                self._receiving = False
                if message is not None and message.is_reply:
                    self._keep_reply(message)
                self._turn.notify_all()
        if message is not None and not message.is_reply:
            self._answer(self.connection, message)
            with self._turn:
                self._handled += 1
                self._turn.notify_all()
        return message is not None

    def _keep_reply(self, message: Message) -> None:
        if message.id in self._waiting:
            self._waiting.discard(message.id)
            self._replies[message.id] = message
        else:
            self.unexpected.append(message)

    def _receive_while_blocked(self) -> bool:
        """The server does not read: it may be waiting for us to read. False when another thread is reading already."""
        with self._turn:
            if self._receiving or self._failure is not None:
                return False
            self._receiving = True
        return self._receive_one(0.01)
