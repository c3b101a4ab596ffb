"""Masking, eventfds that are none or full, and interrupts of the device itself."""

from __future__ import annotations

import os

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.irqs.bodies import (
    EVENTFD,
    MASK,
    NONE,
    SET_IRQS,
    TRIGGER,
    UNMASK,
    eventfds,
    set_body,
    signals,
)
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import BAD_DESCRIPTOR
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Message


@case("VFIO_USER_DEVICE_GET_IRQ_INFO")
def masking_works_where_it_is_announced(t: Context) -> None:
    """A type with the maskable flag takes MASK and UNMASK; a masked vector is not signalled before it is unmasked."""
    _, _, count = t.client.device_info()
    for index in range(count):
        irq = t.client.irq_info(index)
        if irq.count and irq.flags & wire.IRQ_FLAG_MASKABLE:
            t.client.set_irqs(index, NONE | MASK, 0, 1)
            t.client.set_irqs(index, NONE | UNMASK, 0, 1)
            return
    t.skip("no interrupt type is maskable")


@case(SET_IRQS, silent=True)
def masking_does_no_harm_where_it_is_not_announced(t: Context) -> None:
    """MASK and UNMASK of a type without the maskable flag are refused or ignored; the wiring stays."""
    irq = t.vectors(t.client, 1)
    if irq.flags & wire.IRQ_FLAG_MASKABLE:
        t.skip("the interrupt type is maskable")
    (event,) = t.client.enable_irqs(irq.index, 1)
    for action in (MASK, UNMASK):
        t.tolerated(t.client, wire.DEVICE_SET_IRQS, set_body(NONE | action, irq.index, 0, 1))
    t.client.trigger_irqs(irq.index, 0, 1)
    t.equal(event.pending(), 1, "the number of signals")


# Strange descriptors.


def _not_refused_or_signalled(t: Context, reply: Message, index: int) -> None:
    if reply.failed:
        t.is_error(reply, BAD_DESCRIPTOR)
        return
    # Accepted: then a trigger must not hurt.
    t.tolerated(t.client, wire.DEVICE_SET_IRQS, set_body(NONE | TRIGGER, index, 0, 1))


@case(SET_IRQS, silent=True)
def descriptor_that_is_no_eventfd_does_no_harm(t: Context) -> None:
    """Something else than an eventfd is refused, or a trigger of its vector fails harmlessly."""
    irq = t.vectors(t.client, 1)
    with t.witness() as (fd, _):
        reply = t.tolerated(t.client, wire.DEVICE_SET_IRQS, set_body(EVENTFD | TRIGGER, irq.index, 0, 1), [fd])
        _not_refused_or_signalled(t, reply, irq.index)
    read_only = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    t.finally_(lambda: os.close(read_only))
    reply = t.tolerated(t.client, wire.DEVICE_SET_IRQS, set_body(EVENTFD | TRIGGER, irq.index, 0, 1), [read_only])
    _not_refused_or_signalled(t, reply, irq.index)


@case(SET_IRQS, silent=True)
def eventfd_that_is_full_does_not_stall_the_server(t: Context) -> None:
    """An eventfd that cannot count any further (and blocks) must not stop the server."""
    irq = t.vectors(t.client, 1)
    full = os.eventfd(0, os.EFD_CLOEXEC)
    os.eventfd_write(full, 0xFFFFFFFFFFFFFFFE)
    t.finally_(lambda: os.close(full))
    t.client.set_irqs(irq.index, EVENTFD | TRIGGER, 0, 1, fds=[full])
    try:
        t.tolerated(t.client, wire.DEVICE_SET_IRQS, set_body(NONE | TRIGGER, irq.index, 0, 1))
    finally:
        os.eventfd_read(full)


# Interrupts of the device itself.


@case(SET_IRQS)
def device_signals_a_wired_vector(t: Context) -> None:
    """An interrupt that the device raises reaches its eventfd, and only that."""
    device = t.device()
    irq = t.vectors(t.client, 4)
    events = t.client.enable_irqs(irq.index, 4)
    t.check(device.trigger(irq.index, 2), "the device says that vector 2 is not wired")
    t.check(events[2].wait(5.0), "no signal")
    t.equal(signals(events), [0, 0, 0, 0], "the signals of the other vectors")


@case(SET_IRQS)
def device_signals_no_vector_that_is_not_wired(t: Context) -> None:
    """An interrupt of a vector without eventfd goes nowhere."""
    device = t.device()
    irq = t.vectors(t.client, 2)
    (event,) = t.client.enable_irqs(irq.index, 1)
    t.check(not device.trigger(irq.index, 1), "the device says that vector 1 is wired")
    t.equal(event.pending(), 0, "the number of signals of vector 0")


@case(SET_IRQS)
def device_signals_nothing_after_disabling(t: Context) -> None:
    """An interrupt raised after all vectors were disabled goes nowhere."""
    device = t.device()
    irq = t.vectors(t.client, 1)
    (event,) = t.client.enable_irqs(irq.index, 1)
    t.client.disable_irqs(irq.index)
    t.check(not device.trigger(irq.index, 0), "the device says that vector 0 is wired")
    t.equal(event.pending(), 0, "the number of signals")


@case("Client Disconnection")
def next_client_does_not_signal_the_previous_ones_eventfds(t: Context) -> None:
    """Eventfds go with their client."""
    irq = t.vectors(t.client, 1)
    (event,) = eventfds(t, 1)
    t.client.set_irqs(irq.index, EVENTFD | TRIGGER, 0, 1, fds=[event.fd])
    t.drop(t.client)
    t.tolerated(t.client, wire.DEVICE_SET_IRQS, set_body(NONE | TRIGGER, irq.index, 0, 1))
    t.equal(event.pending(), 0, "the number of signals of the previous client's eventfd")
