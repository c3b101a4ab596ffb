"""The commands that log which guest pages the device writes: DEVICE_FEATURE with its DMA_LOGGING features, DIRTY_PAGES.

Windows on guest memory are dropped before each report and when logging starts, so that what is written later is marked.
"""

from __future__ import annotations

import errno

from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.request import Answer, Request, RequestError
from vfio_user_xe.emulator.vfio_user.session_view import SessionView

_METHODS = {
    wire.FEATURE_DMA_LOGGING_START: wire.FEATURE_SET,
    wire.FEATURE_DMA_LOGGING_STOP: wire.FEATURE_SET,
    wire.FEATURE_DMA_LOGGING_REPORT: wire.FEATURE_GET,
}


def device_feature(request: Request) -> Answer:
    """VFIO_USER_DEVICE_FEATURE.

    Raises:
        RequestError: the device lacks the feature or method, or logging is not in the state for it.

    On the access thread of the function.
    """
    argsz, flags = request.fixed(wire.DEVICE_FEATURE_BODY)
    methods = flags & (wire.FEATURE_GET | wire.FEATURE_SET)
    probe = flags & wire.FEATURE_PROBE
    feature = flags & wire.FEATURE_MASK
    if argsz < wire.DEVICE_FEATURE_BODY.size:
        raise RequestError(errno.EINVAL, f"argsz {argsz}, want {wire.DEVICE_FEATURE_BODY.size} or more")
    if flags & ~(wire.FEATURE_MASK | methods | probe) or not (methods or probe):
        raise RequestError(errno.EINVAL, f"flags {flags:#x}: want get, set or probe")
    if methods == wire.FEATURE_GET | wire.FEATURE_SET and not probe:
        raise RequestError(errno.EINVAL, "get and set exclude each other")
    supported = _METHODS.get(feature)
    if supported is None:
        raise RequestError(errno.ENOTTY, f"the device has no feature {feature} (it cannot migrate)")
    if methods & ~supported:
        raise RequestError(errno.EINVAL, f"feature {feature} does not have that method")
    head = wire.DEVICE_FEATURE_BODY.pack(argsz, flags)
    if probe:
        return Answer([head])
    data = request.body[wire.DEVICE_FEATURE_BODY.size :]
    dirty = request.session.dirty
    if feature == wire.FEATURE_DMA_LOGGING_STOP:
        dirty.stop()
        return Answer([head])
    if feature == wire.FEATURE_DMA_LOGGING_START:
        return Answer([head, _start_logging(request.session, data)])
    if len(data) < wire.DMA_LOGGING_REPORT.size:
        raise RequestError(errno.EINVAL, f"{len(data)} bytes of data, want {wire.DMA_LOGGING_REPORT.size}")
    address, length, page_size = wire.DMA_LOGGING_REPORT.unpack_from(data)
    if not dirty.active:
        raise RequestError(errno.EINVAL, "dirty pages are not being logged")
    bitmap = _reported(request.session, address, length, page_size)
    total = wire.DEVICE_FEATURE_BODY.size + wire.DMA_LOGGING_REPORT.size + len(bitmap)
    if argsz < total:
        raise RequestError(errno.EINVAL, f"argsz {argsz} has no room for the bitmap, want {total}")
    return Answer([wire.DEVICE_FEATURE_BODY.pack(total, flags), bytes(data[: wire.DMA_LOGGING_REPORT.size]), bitmap])


def _start_logging(session: SessionView, data: memoryview) -> bytes:
    if len(data) < wire.DMA_LOGGING_CONTROL.size:
        raise RequestError(errno.EINVAL, f"{len(data)} bytes of data, want at least {wire.DMA_LOGGING_CONTROL.size}")
    page_size, count, _ = wire.DMA_LOGGING_CONTROL.unpack_from(data)
    ranges = data[wire.DMA_LOGGING_CONTROL.size :]
    if len(ranges) != count * wire.DMA_LOGGING_RANGE.size:
        raise RequestError(
            errno.EINVAL, f"{len(ranges)} bytes for {count} ranges of {wire.DMA_LOGGING_RANGE.size} bytes"
        )
    if session.dirty.active:
        raise RequestError(errno.EINVAL, "dirty pages are being logged already")
    if page_size < PAGE_SIZE or page_size & (page_size - 1):
        page_size = PAGE_SIZE
    session.dirty.start(page_size, list(wire.DMA_LOGGING_RANGE.iter_unpack(ranges)))
    session.function.drop_windows(0, 1 << 64)
    return wire.DMA_LOGGING_CONTROL.pack(page_size, count, 0) + bytes(ranges)


def _reported(session: SessionView, address: int, length: int, page_size: int) -> bytes:
    if page_size < PAGE_SIZE or page_size & (page_size - 1):
        raise RequestError(errno.EINVAL, f"page size {page_size:#x} is no power of two of {PAGE_SIZE:#x} or more")
    if length == 0 or length // page_size > 8 * wire.DEFAULT_MAX_DATA_XFER:
        raise RequestError(errno.EINVAL, f"length {length:#x} is empty or its bitmap is larger than a message")
    session.function.drop_windows(address, length)
    return session.dirty.report(address, length, page_size)


def dirty_pages(request: Request) -> Answer:
    """VFIO_USER_DIRTY_PAGES, which older clients send in place of the feature.

    Raises:
        RequestError: the flags or the range are wrong, or logging is not in the state for it.

    On the access thread of the function.
    """
    argsz, flags = request.fixed(wire.DIRTY_PAGES_BODY)
    dirty = request.session.dirty
    if argsz < wire.DIRTY_PAGES_BODY.size or flags not in (
        wire.DIRTY_PAGES_START,
        wire.DIRTY_PAGES_STOP,
        wire.DIRTY_PAGES_GET,
    ):
        raise RequestError(errno.EINVAL, f"argsz {argsz}, flags {flags:#x}: want 1 (start), 2 (stop) or 4 (get bitmap)")
    if flags == wire.DIRTY_PAGES_START:
        dirty.start(PAGE_SIZE, [])
        request.session.function.drop_windows(0, 1 << 64)
        return Answer([wire.DIRTY_PAGES_BODY.pack(argsz, flags)])
    if not dirty.active:
        raise RequestError(errno.EINVAL, "dirty pages are not being logged")
    if flags == wire.DIRTY_PAGES_STOP:
        dirty.stop()
        return Answer([wire.DIRTY_PAGES_BODY.pack(argsz, flags)])
    ranges = request.body[wire.DIRTY_PAGES_BODY.size :]
    if len(ranges) < wire.DIRTY_PAGES_RANGE.size:
        raise RequestError(errno.EINVAL, f"{len(ranges)} bytes of data, want {wire.DIRTY_PAGES_RANGE.size}")
    address, size, page_size, bitmap_size = wire.DIRTY_PAGES_RANGE.unpack_from(ranges)
    if size == 0 or size // PAGE_SIZE > 8 * wire.DEFAULT_MAX_DATA_XFER:
        raise RequestError(errno.EINVAL, f"size {size:#x} is empty or its bitmap is larger than a message")
    bitmap = dirty_bitmap(request.session, address, size, page_size, bitmap_size)
    total = wire.DIRTY_PAGES_BODY.size + wire.DIRTY_PAGES_REPLY.size + len(bitmap)
    return Answer([wire.DIRTY_PAGES_BODY.pack(total, flags), wire.DIRTY_PAGES_REPLY.pack(address, size), bitmap])


def dirty_bitmap(session: SessionView, address: int, size: int, page_size: int, bitmap_size: int) -> bytes:
    """The header and bitmap of the pages of `[address, +size)` that were written since the last report.

    Raises:
        RequestError: the page size or the size of the bitmap is wrong, or the bitmap larger than a message.

    On the access thread of the function.
    """
    if page_size < PAGE_SIZE or page_size & (page_size - 1):
        raise RequestError(errno.EINVAL, f"page size {page_size:#x} is no power of two of {PAGE_SIZE:#x} or more")
    pages = -(-size // page_size)
    needed = -(-pages // 64) * 8
    if needed > wire.DEFAULT_MAX_DATA_XFER:
        raise RequestError(errno.E2BIG, f"the bitmap of {size:#x} bytes is larger than a message may be")
    if bitmap_size != needed:
        raise RequestError(errno.EINVAL, f"a bitmap of {bitmap_size} bytes, want {needed}")
    session.function.drop_windows(address, size)
    return wire.DIRTY_BITMAP.pack(page_size, needed) + session.dirty.report(address, size, page_size)
