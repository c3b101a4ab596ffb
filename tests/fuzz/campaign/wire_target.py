"""The wire: messages in their thousands over one connection, well framed with anything inside, and now and then framed badly."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from contextlib import ExitStack, suppress
from random import Random
from typing import ClassVar

from tests.fuzz.campaign.target import Target, dword
from tests.fuzz.messages import PAGE
from tests.support.served import ServedCard, served
from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.conformance.context import open_descriptors
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, Connection, Disconnected, encode

_VERSION = encode(wire.VERSION, wire.VERSION_BODY.pack(0, 0) + b'{"capabilities":{"max_msg_fds":8}}\0')
_SYNC = 0xFFFE
_BURST = 2000
_COMMANDS = tuple(sorted(wire.COMMAND_NAMES))
_REGIONS = (device.REGISTERS, device.SCRATCH, device.MAPPED, device.SPARSE, wire.CONFIG)
_SPECIAL = ((device.REG_DMA_ADDRESS, device.REG_DMA_ERRNO), (device.REG_BROKEN, device.REG_BROKEN + 4))
_SETTLED = 400
"""Looks at the server's descriptors until they must be what they were."""


class Wire(Target):
    """One server with the conformance device; a connection a case."""

    name, unit, fresh = "wire", "messages", 200
    seconds: ClassVar[float] = 180.0

    def open(self) -> None:
        self._stack = ExitStack()
        self.card: ServedCard = self._stack.enter_context(served())
        self._memory = Memory(16 * PAGE, "fuzz")
        self._stack.callback(self._memory.close)
        with Client(self.card.socket):
            pass
        self._idle = self._lowest()

    def close(self) -> None:
        log = self.card.log.read_text()
        self._stack.close()
        assert "Traceback" not in log, log[-2000:]

    def case(self, random: Random) -> int:
        connection = Connection.connect(self.card.socket)
        connection.socket.settimeout(60)
        try:
            with suppress(Disconnected, OSError):
                if random.random() < 0.95:
                    connection.send(_VERSION)
                    connection.receive(60).close_fds()
                count = self._converse(connection.socket, random)
        finally:
            connection.close()
        with Client(self.card.socket) as client:
            assert client.device_info()[0] & wire.DEVICE_FLAG_PCI
        if random.random() < 0.1:
            now = self._lowest()
            assert now <= self._idle, f"{now} descriptors are open, {self._idle} before"
        return count

    def _converse(self, sock: socket.socket, random: Random) -> int:
        """Send messages, read what is answered; how many the server has taken."""
        fds = [self._memory.fd]
        for _ in range(random.randrange(0, 12)):
            # Messages with descriptors go one by one.
            body = random.choice((self._map, self._irqs))(random)
            socket.send_fds(sock, [body], fds * random.choice((1, 1, 1, 2, 9)))
        blob = b"".join(_message(random) for _ in range(_BURST))
        bad = random.random() < 0.1
        if bad:
            blob += random.randbytes(random.randrange(1, 40))
        else:
            blob += encode(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0), message_id=_SYNC)
        return _exchange(sock, blob, wait=not bad)

    @staticmethod
    def _map(random: Random) -> bytes:
        flags = random.choice((1, 2, 3, 3, 3, 7, 11, 12, dword(random)))
        offset, at = random.choice((0, PAGE, dword(random))), random.randrange(32) * PAGE
        body = wire.DMA_MAP_BODY.pack(32, flags, offset, at, random.choice((PAGE, 2 * PAGE, dword(random))))
        return encode(wire.DMA_MAP, body)

    @staticmethod
    def _irqs(random: Random) -> bytes:
        flags = random.choice((wire.IRQ_SET_DATA_EVENTFD | wire.IRQ_SET_ACTION_TRIGGER, dword(random)))
        return encode(wire.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, flags, random.randrange(6), random.randrange(20), 1))

    def _lowest(self) -> int:
        """How many descriptors the server has open when it is idle."""
        lowest = open_descriptors(self.card.pid) or 0
        for _ in range(_SETTLED):
            now = open_descriptors(self.card.pid) or 0
            if now == lowest and now <= getattr(self, "_idle", now):
                break
            lowest = min(lowest, now)
            time.sleep(0.01)
        return lowest


def _message(random: Random) -> bytes:
    """One message whose size is right."""
    kind = random.random()
    if kind < 0.5:
        body = _access(random)
        command = wire.REGION_READ if len(body) == wire.REGION_ACCESS.size else wire.REGION_WRITE
    elif kind < 0.9:
        command = random.choice(_COMMANDS)
        body = struct.pack("<8I", *(dword(random) for _ in range(8)))[: random.choice((0, 8, 16, 20, 24, 32))]
    else:
        command, body = random.getrandbits(16), random.randbytes(random.randrange(0, 60))
    flags = random.choice((0, 0, 0, 0, 0, 0, 0, wire.FLAG_NO_REPLY, 1, 0x21))
    # VERSION again, and commands of a server, are refused; so are flags that are none.
    return encode(command, body, message_id=random.randrange(_SYNC), flags=flags)


def _access(random: Random) -> bytes:
    region = random.choice(_REGIONS)
    offset = random.randrange(0, 0x1000, random.choice((1, 4))) if random.random() < 0.9 else random.getrandbits(64)
    count = random.choice((1, 2, 4, 4, 8, 8, 3, 16, 64))
    if region == device.REGISTERS and _touches(offset, count):
        # DMA by message waits for the client, which does not answer; REG_BROKEN fails inside on purpose, with a traceback.
        offset, count = device.REG_SCRATCH, 4
    head = wire.REGION_ACCESS.pack(offset, region, count)
    return head if random.random() < 0.5 else head + random.randbytes(count if random.random() < 0.95 else count + 1)


def _touches(offset: int, count: int) -> bool:
    return any(offset < end and start < offset + count for start, end in _SPECIAL)


def _exchange(sock: socket.socket, blob: bytes, *, wait: bool) -> int:
    """Send all of it while replies are read, up to the reply to the last message; how many messages were taken."""
    view, received, sock_fd = memoryview(blob), bytearray(), sock.fileno()
    sock.setblocking(False)
    replies, synced, poller = 0, False, select.poll()
    poller.register(sock_fd, select.POLLIN)
    while not synced:
        poller.modify(sock_fd, select.POLLIN | (select.POLLOUT if view else 0))
        ready = poller.poll(60_000)
        assert ready, "the server neither reads nor answers"
        ((_, events),) = ready
        if events & select.POLLOUT:
            try:
                view = view[sock.send(view[: 1 << 16]) :]
            except BlockingIOError:
                pass
            except OSError:
                return replies
        if events & ~select.POLLOUT:
            try:
                data, fds, _, _ = socket.recv_fds(sock, 1 << 17, 16)
            except BlockingIOError:
                continue
            except OSError:
                return replies
            for fd in fds:
                os.close(fd)
            if not data:
                return replies
            received += data
            replies, synced, received = _count(received, replies)
        if not view and not wait:
            return replies
    return _BURST


def _count(received: bytearray, replies: int) -> tuple[int, bool, bytearray]:
    """How many whole replies there are, whether the last of all is among them, and what is left."""
    at, synced = 0, False
    while len(received) - at >= wire.HEADER_SIZE:
        message_id, _, size, _, _ = wire.HEADER.unpack_from(received, at)
        assert size >= wire.HEADER_SIZE, "a reply whose size is less than its header's"
        if len(received) - at < size:
            break
        at += size
        replies += 1
        synced |= message_id == _SYNC
    return replies, synced, received[at:]
