"""Requests of DEVICE_SET_IRQS, eventfds, and how often they were signalled."""

from __future__ import annotations

from collections.abc import Sequence

from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import OUT_OF_RANGE, TOO_MANY
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import EventFd

SET_IRQS = "VFIO_USER_DEVICE_SET_IRQS"

NONE = wire.IRQ_SET_DATA_NONE
BOOL = wire.IRQ_SET_DATA_BOOL
EVENTFD = wire.IRQ_SET_DATA_EVENTFD
MASK = wire.IRQ_SET_ACTION_MASK
UNMASK = wire.IRQ_SET_ACTION_UNMASK
TRIGGER = wire.IRQ_SET_ACTION_TRIGGER


def set_body(flags: int, index: int, start: int, count: int, data: bytes = b"", argsz: int | None = None) -> bytes:
    size = wire.IRQ_SET.size + len(data) if argsz is None else argsz
    return wire.IRQ_SET.pack(size, flags, index, start, count) + data


def eventfds(t: Context, count: int) -> list[EventFd]:
    events = [EventFd() for _ in range(count)]
    for event in events:
        t.finally_(event.close)
    return events


def refused(
    t: Context, flags: int, index: int, start: int, count: int, data: bytes = b"", fds: Sequence[int] = ()
) -> None:
    t.refused(t.client, wire.DEVICE_SET_IRQS, set_body(flags, index, start, count, data), OUT_OF_RANGE | TOO_MANY, fds)


def signals(events: Sequence[EventFd]) -> list[int]:
    return [event.pending() for event in events]
