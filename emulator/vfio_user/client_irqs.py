"""Interrupts, as a client sees them: what the device has, which eventfds it signals."""

from __future__ import annotations

from collections.abc import Sequence

from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client_requests import Requests
from vfio_user_xe.emulator.vfio_user.client_resources import EventFd, IrqInfo


class Irqs(Requests):
    """The part of `Client` that wires interrupts."""

    @property
    def max_msg_fds(self) -> int:
        """Descriptors that the server takes with one message."""
        return int(self.server_capabilities.get("max_msg_fds", wire.DEFAULT_MAX_MSG_FDS))

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
