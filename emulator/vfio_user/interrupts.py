"""The eventfds by which a function's interrupts reach its client (vfio-user spec, DEVICE_SET_IRQS)."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import threading
from collections.abc import Sequence

from vfio_user_xe.emulator.vfio_user import wire

log = logging.getLogger(__name__)

_DATA_KINDS = (wire.IRQ_SET_DATA_NONE, wire.IRQ_SET_DATA_BOOL, wire.IRQ_SET_DATA_EVENTFD)
_ACTIONS = (wire.IRQ_SET_ACTION_MASK, wire.IRQ_SET_ACTION_UNMASK, wire.IRQ_SET_ACTION_TRIGGER)


class IrqError(Exception):
    """A SET_IRQS that cannot be carried out; `errno` is what the client is told."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


class Interrupts:
    """Eventfds by interrupt index and vector. `trigger` may be called from any thread."""

    def __init__(self, counts: Sequence[int]) -> None:
        """`counts`: vectors by interrupt index."""
        self.counts = counts
        self._lock = threading.Lock()
        self._fds: list[list[int]] = [[-1] * count for count in counts]
        self._may_block: set[int] = set()

    def trigger(self, index: int, vector: int) -> bool:
        """Signal a vector; False when the client has not given an eventfd for it. Never waits."""
        with self._lock:
            vectors = self._fds[index]
            fd = vectors[vector] if vector < len(vectors) else -1
            if fd < 0:
                return False
            try:
                # A full eventfd has more signals than the client will ever look at: one more makes no difference.
                if fd not in self._may_block or _is_writable(fd):
                    os.eventfd_write(fd, 1)
            except BlockingIOError:
                pass
            except OSError as exc:
                log.warning("vector %d of interrupt %d: its descriptor is no eventfd: %s", vector, index, exc.strerror)
                return False
            return True

    def set(self, flags: int, index: int, start: int, count: int, data: bytes, fds: list[int]) -> None:
        """Carry out one SET_IRQS. Takes the descriptors it uses out of `fds`.

        Raises:
            IrqError: The request is none that the device can carry out; `errno` is for the client.

        On the access thread of the function.
        """
        kind, action = self._check(flags, index, start, count, data, fds)
        if action != wire.IRQ_SET_ACTION_TRIGGER:
            # INTx is the only kind that could be masked, and no function has it (PCI interrupt pin 0).
            raise IrqError(errno.EINVAL, "masking is not supported: no interrupt of the device is maskable")
        if kind == wire.IRQ_SET_DATA_NONE and count == 0:
            self._assign(index, 0, [-1] * self.counts[index])
        elif kind == wire.IRQ_SET_DATA_EVENTFD:
            taken = fds[:count]
            del fds[:count]
            self._assign(index, start, taken or [-1] * count)
        else:
            for vector in range(count):
                if kind == wire.IRQ_SET_DATA_NONE or data[vector]:
                    self.trigger(index, start + vector)

    def close(self) -> None:
        """Close every eventfd."""
        for index, count in enumerate(self.counts):
            self._assign(index, 0, [-1] * count)

    def _assign(self, index: int, start: int, fds: list[int]) -> None:
        with self._lock:
            vectors = self._fds[index]
            old = vectors[start : start + len(fds)]
            vectors[start : start + len(fds)] = fds
            self._may_block.difference_update(old)
            self._may_block.update(fd for fd in fds if fd >= 0 and not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)
        for fd in old:
            if fd >= 0:
                os.close(fd)

    def _check(self, flags: int, index: int, start: int, count: int, data: bytes, fds: list[int]) -> tuple[int, int]:
        kind, action = flags & wire.IRQ_SET_DATA_MASK, flags & wire.IRQ_SET_ACTIONS
        if kind not in _DATA_KINDS or action not in _ACTIONS or flags & ~(kind | action):
            raise IrqError(
                errno.EINVAL, f"flags {flags:#x}: want exactly one data kind (1, 2, 4) and one action (8, 16, 32)"
            )
        if index >= len(self.counts):
            raise IrqError(errno.EINVAL, f"interrupt index {index}: the device has 0 to {len(self.counts) - 1}")
        if start + count > self.counts[index]:
            raise IrqError(errno.EINVAL, f"vectors [{start}, {start + count}) of {self.counts[index]} of index {index}")
        if count == 0 and (kind != wire.IRQ_SET_DATA_NONE or start != 0):
            raise IrqError(errno.EINVAL, "a count of 0 means 'disable all' and wants start 0 and no data")
        if kind == wire.IRQ_SET_DATA_BOOL and len(data) != count:
            raise IrqError(errno.EINVAL, f"{len(data)} booleans for {count} vectors")
        if kind == wire.IRQ_SET_DATA_EVENTFD:
            if fds and len(fds) != count:
                raise IrqError(errno.EINVAL, f"{len(fds)} descriptors for {count} vectors (want as many, or none)")
        elif fds:
            raise IrqError(errno.EINVAL, f"{len(fds)} descriptors with data kind {kind} that takes none")
        return kind, action


def _is_writable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))
