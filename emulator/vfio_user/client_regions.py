"""Regions, as a client sees them: what they are, how they are mapped, read and written."""

from __future__ import annotations

from collections.abc import Iterable

from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client_connection import Message, ProtocolError
from vfio_user_xe.emulator.vfio_user.client_requests import Requests
from vfio_user_xe.emulator.vfio_user.client_resources import IoFd, IoFds, RegionInfo, RegionMap

LARGEST_REPLY = 1 << 24
"""Bytes: how large a region info reply is asked for when the server says it needs more."""


class Regions(Requests):
    """The part of `Client` that reads, writes and maps regions."""

    @property
    def max_data_xfer_size(self) -> int:
        """Bytes that the server takes in one REGION_READ or REGION_WRITE."""
        return int(self.server_capabilities.get("max_data_xfer_size", wire.DEFAULT_MAX_DATA_XFER))

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
        """Map the areas of a region. Closed with the client.

        Raises:
            ValueError: Nothing of it can be mapped.
            RequestError: The server refuses.

        From any thread.
        """
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
        """`count` bytes of a region, by as many messages as the server's limit asks for.

        Raises:
            RequestError: The server refuses.
            ProtocolError: It returned another number of bytes.
            Disconnected: The server is gone.
            TimeoutError: No answer came in time.

        From any thread.
        """
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
        """Write to a region. `posted` asks for no reply, so an error is not seen either."""
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

    # Inside.

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
