"""Every command that is not on the access path: checked against the specification, carried out, answered.

`handle` raises `RequestError` with the errno that the client gets; what it returns is the body of the reply.
Descriptors that a handler takes leave the list it was given; the session closes the rest. Dirty-page logging is in
`dirty_logging.py`.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
from collections.abc import Callable
from typing import Any

from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.model.states import StateError
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.dirty_logging import device_feature, dirty_bitmap, dirty_pages
from vfio_user_xe.emulator.vfio_user.guest_memory import MapError
from vfio_user_xe.emulator.vfio_user.interrupts import IrqError
from vfio_user_xe.emulator.vfio_user.request import Answer, Request, RequestError
from vfio_user_xe.emulator.vfio_user.session_state import SessionState
from vfio_user_xe.emulator.vfio_user.session_view import SessionView

log = logging.getLogger(__name__)

_NEGOTIATING, _RUNNING = SessionState.NEGOTIATING, SessionState.RUNNING


def handle(session: SessionView, command: int, body: memoryview, fds: list[int]) -> Answer:
    """Carry out one command.

    Raises:
        RequestError: The command is refused; `errno` is what the client is told.

    On the access thread of the function.
    """
    handler = _HANDLERS.get(command)
    if handler is None:
        raise RequestError(errno.ENOTSUP, f"unknown command {command}")
    wanted = _NEGOTIATING if command == wire.VERSION else _RUNNING
    if session.state.state is not wanted:
        try:
            session.state.require(wanted)
        except StateError as exc:
            raise RequestError(errno.EINVAL, str(exc)) from exc
    try:
        return handler(Request(session, body, fds))
    except (MapError, IrqError) as exc:
        raise RequestError(exc.errno, str(exc)) from exc


def _version(request: Request) -> Answer:
    major, minor = request.fixed(wire.VERSION_BODY)
    if major != wire.MAJOR:
        raise RequestError(errno.EINVAL, f"version {major}.{minor}: this server speaks {wire.MAJOR}.{wire.MINOR}")
    wanted = _parse_capabilities(bytes(request.body[wire.VERSION_BODY.size :]))
    fds: list[int] = []
    offered: dict[str, Any] = {
        "max_msg_fds": wire.MAX_MSG_FDS,
        "max_data_xfer_size": wire.DEFAULT_MAX_DATA_XFER,
        "max_dma_maps": request.session.memory.max_ranges,
        "pgsizes": PAGE_SIZE,
        "write_multiple": True,
    }
    ours = {key: value for key, value in offered.items() if key in wanted}
    twin: socket.socket | None = None
    theirs: socket.socket | None = None
    if wanted.get("twin_socket", {}).get("supported"):
        twin, theirs = socket.socketpair()
        fds.append(theirs.fileno())
        ours["twin_socket"] = {"supported": True, "fd_index": 0}
    # QEMU takes no reply longer than its request: no blanks.
    text = json.dumps({"capabilities": ours}, separators=(",", ":")).encode() + b"\0"
    body = wire.VERSION_BODY.pack(wire.MAJOR, min(minor, wire.MINOR)) + text
    session = request.session
    limit = int(wanted.get("max_data_xfer_size", wire.DEFAULT_MAX_DATA_XFER))

    def after() -> None:
        if theirs is not None:
            theirs.close()
        session.negotiation_done(limit, twin)

    return Answer([body], fds, after)


def _parse_capabilities(data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    if data[-1] != 0 or 0 in data[:-1]:
        raise RequestError(errno.EINVAL, "version data must be one string that ends with a NUL byte")
    try:
        parsed = json.loads(data[:-1].decode())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise RequestError(errno.EINVAL, f"version data is not JSON: {exc}") from exc
    capabilities = parsed.get("capabilities", {}) if isinstance(parsed, dict) else None
    if not isinstance(capabilities, dict):
        raise RequestError(errno.EINVAL, "version data must be an object whose 'capabilities' is an object")
    for key in ("max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes"):
        value = capabilities.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise RequestError(errno.EINVAL, f"capability {key!r} must be a number of 0 or more, not {value!r}")
    twin = capabilities.get("twin_socket", {})
    if not isinstance(twin, dict) or not isinstance(twin.get("supported", False), bool):
        raise RequestError(errno.EINVAL, "capability 'twin_socket' must be an object whose 'supported' is a boolean")
    return capabilities


def _dma_map(request: Request) -> Answer:
    argsz, flags, offset, address, size = request.fixed(wire.DMA_MAP_BODY)
    if argsz < wire.DMA_MAP_BODY.size:
        raise RequestError(errno.EINVAL, f"argsz {argsz}, want {wire.DMA_MAP_BODY.size}")
    if len(request.fds) > 1:
        raise RequestError(errno.EINVAL, f"{len(request.fds)} descriptors, want one or none")
    fd = request.fds[0] if request.fds else None
    request.session.memory.map(address, size, flags, fd, offset)
    return Answer()


def _dma_unmap(request: Request) -> Answer:
    argsz, flags, address, size = request.fixed(wire.DMA_UNMAP_BODY)
    if argsz < wire.DMA_UNMAP_BODY.size:
        raise RequestError(errno.EINVAL, f"argsz {argsz}, want {wire.DMA_UNMAP_BODY.size} or more")
    if flags & ~(wire.DMA_UNMAP_GET_DIRTY | wire.DMA_UNMAP_ALL) or flags == 3:
        raise RequestError(errno.EINVAL, f"flags {flags:#x}: want 0, 1 (dirty bitmap) or 2 (all)")
    session = request.session
    if flags & wire.DMA_UNMAP_ALL:
        if address or size:
            raise RequestError(errno.EINVAL, "unmapping all wants address and size 0")
        size = session.memory.unmap_all()
        session.function.drop_windows(0, 1 << 64)
        return Answer([wire.DMA_UNMAP_BODY.pack(argsz, flags, address, size)])
    pieces = [wire.DMA_UNMAP_BODY.pack(wire.DMA_UNMAP_BODY.size, flags, address, size)]
    if flags & wire.DMA_UNMAP_GET_DIRTY:
        if not session.dirty.active:
            raise RequestError(errno.EINVAL, "dirty pages are not being logged")
        _, _, _, _, page_size, bitmap_size = request.fixed(wire.DMA_UNMAP_DIRTY_BODY)
        pieces.append(dirty_bitmap(session, address, size, page_size, bitmap_size))
    removed = session.memory.unmap(address, size)
    session.function.drop_windows(address, size)
    pieces[0] = wire.DMA_UNMAP_BODY.pack(argsz, flags, address, removed)
    return Answer(pieces)


def _get_info(request: Request) -> Answer:
    argsz, flags, regions, irqs = request.fixed(wire.DEVICE_INFO)
    if argsz < wire.DEVICE_INFO.size:
        raise RequestError(errno.EINVAL, f"argsz {argsz}, want {wire.DEVICE_INFO.size} or more")
    if flags or regions or irqs:
        raise RequestError(errno.EINVAL, "all fields but argsz must be 0")
    flags = wire.DEVICE_FLAG_RESET | wire.DEVICE_FLAG_PCI
    return Answer([wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, flags, wire.NUM_REGIONS, wire.NUM_IRQS)])


def _get_region_info(request: Request) -> Answer:
    argsz, _, index, _, _, _ = request.fixed(wire.REGION_INFO)
    if argsz < wire.REGION_INFO.size:
        raise RequestError(errno.EINVAL, f"argsz {argsz}, want {wire.REGION_INFO.size} or more")
    if index >= wire.NUM_REGIONS:
        raise RequestError(errno.EINVAL, f"region {index}: the device has 0 to {wire.NUM_REGIONS - 1}")
    regions = request.session.regions
    region = regions[index] if index < len(regions) else None
    if region is None or region.size == 0:
        return Answer([wire.REGION_INFO.pack(wire.REGION_INFO.size, 0, index, 0, 0, 0)])
    flags = (wire.REGION_FLAG_READ if region.readable else 0) | (wire.REGION_FLAG_WRITE if region.writable else 0)
    if region.memory is None or not region.areas:
        return Answer([wire.REGION_INFO.pack(wire.REGION_INFO.size, flags, index, 0, region.size, 0)])
    flags |= wire.REGION_FLAG_MMAP
    capability = b""
    if region.areas != [(0, region.size)]:
        flags |= wire.REGION_FLAG_CAPS
        capability = wire.CAPABILITY.pack(wire.CAP_SPARSE_MMAP, 1, 0) + wire.SPARSE_MMAP.pack(len(region.areas), 0)
        capability += b"".join(wire.SPARSE_AREA.pack(*area) for area in region.areas)
    needed = wire.REGION_INFO.size + len(capability)
    # Also where it does not fit: QEMU refuses CAPS with an offset below the structure's size.
    offset = wire.REGION_INFO.size if capability else 0
    info = wire.REGION_INFO.pack(needed, flags, index, offset, region.size, region.memory_offset)
    if argsz < needed:
        # The client asks again with room for the areas; the descriptor comes then.
        return Answer([info])
    return Answer([info + capability], [region.memory.fd])


def _get_region_io_fds(request: Request) -> Answer:
    argsz, flags, index, count = request.fixed(wire.REGION_IO_FDS)
    if argsz < wire.REGION_IO_FDS.size or flags or count:
        raise RequestError(errno.EINVAL, f"argsz must be {wire.REGION_IO_FDS.size} or more, flags and count 0")
    regions = request.session.regions
    if index >= wire.NUM_REGIONS or index >= len(regions) or regions[index] is None:
        raise RequestError(errno.EINVAL, f"region {index} does not exist")
    # No region has doorbells that an ioeventfd could carry: the write's value always matters.
    return Answer([wire.REGION_IO_FDS.pack(wire.REGION_IO_FDS.size, 0, index, 0)])


def _get_irq_info(request: Request) -> Answer:
    argsz, flags, index, count = request.fixed(wire.IRQ_INFO)
    if argsz < wire.IRQ_INFO.size:
        raise RequestError(errno.EINVAL, f"argsz {argsz}, want {wire.IRQ_INFO.size} or more")
    if flags or count:
        raise RequestError(errno.EINVAL, "flags and count must be 0")
    counts = request.session.interrupts.counts
    if index >= len(counts):
        raise RequestError(errno.EINVAL, f"interrupt index {index}: the device has 0 to {len(counts) - 1}")
    flags = wire.IRQ_FLAG_EVENTFD if counts[index] else 0
    return Answer([wire.IRQ_INFO.pack(wire.IRQ_INFO.size, flags, index, counts[index])])


def _set_irqs(request: Request) -> Answer:
    argsz, flags, index, start, count = request.fixed(wire.IRQ_SET)
    if argsz < wire.IRQ_SET.size:
        raise RequestError(errno.EINVAL, f"argsz {argsz}, want {wire.IRQ_SET.size} or more")
    data = bytes(request.body[wire.IRQ_SET.size :])
    session = request.session
    session.interrupts.set(flags, index, start, count, data, request.fds)
    if flags & wire.IRQ_SET_DATA_EVENTFD or count == 0:
        session.function.wired(index, start, count or session.interrupts.counts[index])
    return Answer()


def _checked_access(request: Request, write: bool) -> tuple[Any, int, int, int]:
    """The region and range of a REGION_READ or REGION_WRITE that did not take the short way."""
    offset, index, count = request.fixed(wire.REGION_ACCESS)
    session = request.session
    access = session.access[index] if index < len(session.access) else None
    if access is None:
        raise RequestError(errno.EINVAL, f"region {index} does not exist")
    if count == 0 or count > wire.DEFAULT_MAX_DATA_XFER:
        raise RequestError(errno.EINVAL, f"count {count}: want 1 to {wire.DEFAULT_MAX_DATA_XFER}")
    if offset + count > access.size:
        raise RequestError(errno.EINVAL, f"[{offset:#x}, +{count:#x}) is outside region {index} of {access.size:#x}")
    if not (access.region.writable if write else access.region.readable):
        raise RequestError(errno.EPERM, f"region {index} is not {'writable' if write else 'readable'}")
    return access, offset, index, count


def _region_read(request: Request) -> Answer:
    access, offset, index, count = _checked_access(request, write=False)
    if len(request.body) != wire.REGION_ACCESS.size:
        raise RequestError(errno.EINVAL, f"body of {len(request.body)} bytes, want {wire.REGION_ACCESS.size}")
    return Answer([wire.REGION_ACCESS.pack(offset, index, count), access.read_block(offset, count)])


def _region_write(request: Request) -> Answer:
    access, offset, index, count = _checked_access(request, write=True)
    data = request.body[wire.REGION_ACCESS.size :]
    if len(data) != count:
        raise RequestError(errno.EINVAL, f"{len(data)} bytes of data for a count of {count}")
    access.write_block(offset, data)
    return Answer([wire.REGION_ACCESS.pack(offset, index, count)])


def _write_multi(request: Request) -> Answer:
    (count,) = request.fixed(wire.WRITE_MULTI)
    entries = request.body[wire.WRITE_MULTI.size :]
    if len(entries) != count * wire.WRITE_MULTI_ENTRY.size:
        raise RequestError(
            errno.EINVAL, f"{len(entries)} bytes for {count} writes of {wire.WRITE_MULTI_ENTRY.size} bytes"
        )
    writes = list(wire.WRITE_MULTI_ENTRY.iter_unpack(entries))
    for offset, index, size, _ in writes:
        if not 1 <= size <= 8:
            raise RequestError(errno.EINVAL, f"count {size} of a write: want 1 to 8")
        _checked_access(Request(request.session, memoryview(wire.REGION_ACCESS.pack(offset, index, size))), write=True)
    for offset, index, size, data in writes:
        access = request.session.access[index]
        assert access is not None
        access.write_block(offset, memoryview(data)[:size])
    return Answer([wire.WRITE_MULTI.pack(count)])


def _reset(request: Request) -> Answer:
    if len(request.body):
        raise RequestError(errno.EINVAL, f"body of {len(request.body)} bytes, want none")
    if request.session.messages is not None:
        request.session.messages.abort()
    request.session.function.reset()
    return Answer()


def _server_command(request: Request) -> Answer:
    raise RequestError(errno.EINVAL, "only a server sends this command")


def _migration_data(request: Request) -> Answer:
    request.fixed(wire.MIG_DATA)
    raise RequestError(errno.EINVAL, "the device is in no state that moves migration data (it cannot migrate)")


_HANDLERS: dict[int, Callable[[Request], Answer]] = {
    wire.VERSION: _version,
    wire.DMA_MAP: _dma_map,
    wire.DMA_UNMAP: _dma_unmap,
    wire.DEVICE_GET_INFO: _get_info,
    wire.DEVICE_GET_REGION_INFO: _get_region_info,
    wire.DEVICE_GET_REGION_IO_FDS: _get_region_io_fds,
    wire.DEVICE_GET_IRQ_INFO: _get_irq_info,
    wire.DEVICE_SET_IRQS: _set_irqs,
    wire.REGION_READ: _region_read,
    wire.REGION_WRITE: _region_write,
    wire.REGION_WRITE_MULTI: _write_multi,
    wire.DMA_READ: _server_command,
    wire.DMA_WRITE: _server_command,
    wire.DEVICE_RESET: _reset,
    wire.DIRTY_PAGES: dirty_pages,
    wire.DEVICE_FEATURE: device_feature,
    wire.MIG_DATA_READ: _migration_data,
    wire.MIG_DATA_WRITE: _migration_data,
}
