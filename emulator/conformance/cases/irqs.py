"""DEVICE_SET_IRQS: wiring vectors to eventfds, and everything that must be refused."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import (
    BAD_DESCRIPTOR,
    INVALID,
    MALFORMED,
    NO_SUCH_INDEX,
    OUT_OF_RANGE,
    TOO_MANY,
)
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import EventFd, Message

SET_IRQS = "VFIO_USER_DEVICE_SET_IRQS"

NONE = wire.IRQ_SET_DATA_NONE
BOOL = wire.IRQ_SET_DATA_BOOL
EVENTFD = wire.IRQ_SET_DATA_EVENTFD
MASK = wire.IRQ_SET_ACTION_MASK
UNMASK = wire.IRQ_SET_ACTION_UNMASK
TRIGGER = wire.IRQ_SET_ACTION_TRIGGER


def _body(flags: int, index: int, start: int, count: int, data: bytes = b"", argsz: int | None = None) -> bytes:
    size = wire.IRQ_SET.size + len(data) if argsz is None else argsz
    return wire.IRQ_SET.pack(size, flags, index, start, count) + data


def _eventfds(t: Context, count: int) -> list[EventFd]:
    events = [EventFd() for _ in range(count)]
    for event in events:
        t.finally_(event.close)
    return events


def _refused(
    t: Context, flags: int, index: int, start: int, count: int, data: bytes = b"", fds: Sequence[int] = ()
) -> None:
    t.refused(t.client, wire.DEVICE_SET_IRQS, _body(flags, index, start, count, data), OUT_OF_RANGE | TOO_MANY, fds)


def _signals(events: Sequence[EventFd]) -> list[int]:
    return [event.pending() for event in events]


# What must work.


@case(SET_IRQS)
def wired_vector_is_signalled_by_a_trigger(t: Context) -> None:
    """A client gives an eventfd for a vector, triggers the vector, and the eventfd is signalled."""
    irq = t.vectors(t.client, 1)
    (event,) = t.client.enable_irqs(irq.index, 1)
    t.client.trigger_irqs(irq.index, 0, 1)
    t.equal(event.pending(), 1, "the number of signals")


@case(SET_IRQS)
def every_vector_can_be_wired(t: Context) -> None:
    """All vectors of every interrupt type take an eventfd, each its own."""
    _, _, count = t.client.device_info()
    for index in range(count):
        irq = t.client.irq_info(index)
        if not irq.count or not irq.flags & wire.IRQ_FLAG_EVENTFD:
            continue
        events = t.client.enable_irqs(index, irq.count)
        t.client.trigger_irqs(index, irq.count - 1, 1)
        want = [0] * (irq.count - 1) + [1]
        t.equal(_signals(events), want, f"the signals of interrupt {index} after its last vector was triggered")
        t.client.disable_irqs(index)


@case(SET_IRQS)
def trigger_without_data_signals_the_whole_range(t: Context) -> None:
    """DATA_NONE acts on every vector of the range, and on no other."""
    irq = t.vectors(t.client, 4)
    events = t.client.enable_irqs(irq.index, 4)
    t.client.trigger_irqs(irq.index, 1, 2)
    t.equal(_signals(events), [0, 1, 1, 0], "the signals of vectors 0 to 3")


@case(SET_IRQS)
def trigger_with_booleans_signals_the_true_ones(t: Context) -> None:
    """DATA_BOOL acts on the vectors whose byte is true."""
    irq = t.vectors(t.client, 4)
    events = t.client.enable_irqs(irq.index, 4)
    t.client.trigger_irqs(irq.index, 1, [True, False, True])
    t.equal(_signals(events), [0, 1, 0, 1], "the signals of vectors 0 to 3")


@case(SET_IRQS)
def triggers_add_up(t: Context) -> None:
    """Every trigger signals once more."""
    irq = t.vectors(t.client, 1)
    (event,) = t.client.enable_irqs(irq.index, 1)
    for _ in range(5):
        t.client.trigger_irqs(irq.index, 0, 1)
    t.equal(event.pending(), 5, "the number of signals")


@case(SET_IRQS)
def vectors_can_be_wired_from_the_middle(t: Context) -> None:
    """start says which vector the first eventfd is for."""
    irq = t.vectors(t.client, 4)
    events = t.client.enable_irqs(irq.index, 2, start=2)
    t.client.trigger_irqs(irq.index, 0, 4)
    t.equal(_signals(events), [1, 1], "the signals of vectors 2 and 3")


@case(SET_IRQS)
def several_eventfds_come_in_one_message(t: Context) -> None:
    """One message wires as many vectors as the server takes descriptors at once."""
    count = min(t.client.max_msg_fds, t.vectors(t.client, 2).count)
    irq = t.vectors(t.client, count)
    events = _eventfds(t, count)
    t.client.set_irqs(irq.index, EVENTFD | TRIGGER, 0, count, fds=[event.fd for event in events])
    t.client.trigger_irqs(irq.index, 0, count)
    t.equal(_signals(events), [1] * count, "the signals")


@case(SET_IRQS)
def new_eventfd_replaces_the_old_one(t: Context) -> None:
    """Wiring a wired vector again leaves only the new eventfd."""
    irq = t.vectors(t.client, 1)
    (old,) = t.client.enable_irqs(irq.index, 1)
    (new,) = t.client.enable_irqs(irq.index, 1)
    t.client.trigger_irqs(irq.index, 0, 1)
    t.equal((old.pending(), new.pending()), (0, 1), "the signals of the old and the new eventfd")


@case(SET_IRQS)
def one_eventfd_serves_two_vectors(t: Context) -> None:
    """The same eventfd may be given for several vectors."""
    irq = t.vectors(t.client, 2)
    (event,) = _eventfds(t, 1)
    for vector in (0, 1):
        t.client.set_irqs(irq.index, EVENTFD | TRIGGER, vector, 1, fds=[event.fd])
    t.client.trigger_irqs(irq.index, 0, 2)
    t.equal(event.pending(), 2, "the number of signals")


@case(SET_IRQS)
def eventfd_data_without_descriptors_takes_them_back(t: Context) -> None:
    """DATA_EVENTFD with a count and no descriptors de-assigns those vectors."""
    irq = t.vectors(t.client, 3)
    events = t.client.enable_irqs(irq.index, 3)
    t.client.set_irqs(irq.index, EVENTFD | TRIGGER, 1, 1)
    t.client.trigger_irqs(irq.index, 0, 3)
    t.equal(_signals(events), [1, 0, 1], "the signals after vector 1 was de-assigned")


@case(SET_IRQS)
def count_of_zero_without_data_disables_all(t: Context) -> None:
    """DATA_NONE with start and count 0 disables every vector of the type."""
    irq = t.vectors(t.client, 2)
    events = t.client.enable_irqs(irq.index, 2)
    t.client.disable_irqs(irq.index)
    t.client.trigger_irqs(irq.index, 0, 2)
    t.equal(_signals(events), [0, 0], "the signals after all were disabled")


@case(SET_IRQS)
def disabling_one_type_leaves_the_others(t: Context) -> None:
    """Interrupt types are independent."""
    _, _, count = t.client.device_info()
    usable = [i for i in (t.client.irq_info(index) for index in range(count)) if i.count and i.flags & 1]
    if len(usable) < 2:
        t.skip("the device has only one interrupt type with vectors")
    first, second = (t.client.enable_irqs(irq.index, 1)[0] for irq in usable[:2])
    t.client.disable_irqs(usable[0].index)
    for irq in usable[:2]:
        t.client.trigger_irqs(irq.index, 0, 1)
    t.equal((first.pending(), second.pending()), (0, 1), "the signals of the disabled and the other type")


@case(SET_IRQS)
def disabled_vectors_can_be_wired_again(t: Context) -> None:
    """After disabling, everything is as at the start."""
    irq = t.vectors(t.client, 2)
    for _ in range(3):
        events = t.client.enable_irqs(irq.index, 2)
        t.client.trigger_irqs(irq.index, 0, 2)
        t.equal(_signals(events), [1, 1], "the signals")
        t.client.disable_irqs(irq.index)


@case(SET_IRQS, silent=True)
def trigger_of_an_unwired_vector_is_harmless(t: Context) -> None:
    """A vector without an eventfd may be triggered; nothing happens."""
    irq = t.vectors(t.client, 2)
    (event,) = t.client.enable_irqs(irq.index, 1)
    t.tolerated(t.client, wire.DEVICE_SET_IRQS, _body(NONE | TRIGGER, irq.index, 1, 1))
    t.equal(event.pending(), 0, "the number of signals of another vector")


@case(SET_IRQS)
def set_irqs_reply_has_no_payload(t: Context) -> None:
    """There is no payload in the reply."""
    irq = t.vectors(t.client, 1)
    reply = t.accepted(t.client, wire.DEVICE_SET_IRQS, _body(NONE | TRIGGER, irq.index, 0, 0))
    t.equal(len(reply.body), 0, "the payload's size")


# What must be refused.


@case(SET_IRQS)
def missing_interrupt_index_is_refused(t: Context) -> None:
    """Indices that DEVICE_GET_INFO does not count do not exist."""
    _, _, count = t.client.device_info()
    for index in (count, 0xFFFFFFFF):
        t.refused(t.client, wire.DEVICE_SET_IRQS, _body(NONE | TRIGGER, index, 0, 0), NO_SUCH_INDEX)


@case(SET_IRQS)
def vector_of_an_empty_type_is_refused(t: Context) -> None:
    """An interrupt type without vectors has none to set."""
    _, _, count = t.client.device_info()
    empty = next((index for index in range(count) if not t.client.irq_info(index).count), None)
    if empty is None:
        t.skip("every interrupt type has vectors")
    _refused(t, NONE | TRIGGER, empty, 0, 1)


@case(SET_IRQS)
def start_behind_the_last_vector_is_refused(t: Context) -> None:
    """start must be the number of a vector."""
    irq = t.vectors(t.client, 1)
    _refused(t, NONE | TRIGGER, irq.index, irq.count, 1)


@case(SET_IRQS)
def range_over_the_last_vector_is_refused(t: Context) -> None:
    """start + count must not exceed the number of vectors, and nothing of the range is done."""
    irq = t.vectors(t.client, 1)
    (event,) = t.client.enable_irqs(irq.index, 1, start=irq.count - 1)
    _refused(t, NONE | TRIGGER, irq.index, irq.count - 1, 2)
    t.equal(event.pending(), 0, "the number of signals of the vector in range")


@case(SET_IRQS)
def range_that_wraps_around_is_refused(t: Context) -> None:
    """start + count must not overflow 32 bits into something valid."""
    irq = t.vectors(t.client, 2)
    _refused(t, NONE | TRIGGER, irq.index, 1, 0xFFFFFFFF)
    _refused(t, EVENTFD | TRIGGER, irq.index, 0xFFFFFFFF, 2)


@case(SET_IRQS)
def enormous_count_is_refused(t: Context) -> None:
    """A count of 2^32 - 1 is refused, at once."""
    irq = t.vectors(t.client, 1)
    _refused(t, NONE | TRIGGER, irq.index, 0, 0xFFFFFFFF)


@case(SET_IRQS)
def count_of_zero_with_a_start_is_refused(t: Context) -> None:
    """A count of 0 means all vectors, and only with a start of 0."""
    irq = t.vectors(t.client, 2)
    _refused(t, NONE | TRIGGER, irq.index, 1, 0)


@case(SET_IRQS)
def count_of_zero_with_data_is_refused(t: Context) -> None:
    """A count of 0 is for DATA_NONE only."""
    irq = t.vectors(t.client, 1)
    for kind in (BOOL, EVENTFD):
        _refused(t, kind | TRIGGER, irq.index, 0, 0)


def _bad_flags(name: str, rule: str, flags: int) -> None:
    def check(t: Context) -> None:
        irq = t.vectors(t.client, 1)
        data = b"\1" if flags & BOOL else b""
        _refused(t, flags, irq.index, 0, 1, data)

    check.__name__ = name
    check.__doc__ = rule
    case(SET_IRQS)(check)


_bad_flags("no_data_flag_is_refused", "Exactly one data flag must be set.", TRIGGER)
_bad_flags("no_action_flag_is_refused", "Exactly one action flag must be set.", NONE)
_bad_flags("no_flags_are_refused", "A data and an action flag must be set.", 0)
_bad_flags("two_data_flags_are_refused", "Data flags are mutually exclusive.", NONE | BOOL | TRIGGER)
_bad_flags("all_data_flags_are_refused", "Data flags are mutually exclusive.", NONE | BOOL | EVENTFD | TRIGGER)
_bad_flags("two_action_flags_are_refused", "Action flags are mutually exclusive.", NONE | MASK | UNMASK)
_bad_flags("all_action_flags_are_refused", "Action flags are mutually exclusive.", NONE | MASK | UNMASK | TRIGGER)


@case(SET_IRQS, silent=True)
def undefined_irq_flags_do_no_harm(t: Context) -> None:
    """Undefined flag bits are refused or ignored."""
    irq = t.vectors(t.client, 1)
    t.tolerated(t.client, wire.DEVICE_SET_IRQS, _body(NONE | TRIGGER | 0x80000040, irq.index, 0, 1))


@case(SET_IRQS)
def fewer_eventfds_than_vectors_are_refused(t: Context) -> None:
    """There must be a descriptor for every vector of the range, or none at all; the old wiring stays."""
    irq = t.vectors(t.client, 3)
    (old,) = t.client.enable_irqs(irq.index, 1)
    events = _eventfds(t, 2)
    _refused(t, EVENTFD | TRIGGER, irq.index, 0, 3, fds=[event.fd for event in events])
    t.client.trigger_irqs(irq.index, 0, 1)
    t.equal((old.pending(), events[0].pending()), (1, 0), "the signals of the old and the refused eventfd")


@case(SET_IRQS)
def more_eventfds_than_vectors_are_refused(t: Context) -> None:
    """There must be a descriptor for every vector of the range, and not more."""
    irq = t.vectors(t.client, 3)
    events = _eventfds(t, 3)
    _refused(t, EVENTFD | TRIGGER, irq.index, 0, 2, fds=[event.fd for event in events])


def _stray_descriptors(name: str, kind: int, data: bytes) -> None:
    def check(t: Context) -> None:
        irq = t.vectors(t.client, 1)
        with t.witness() as (fd, closed):
            t.tolerated(t.client, wire.DEVICE_SET_IRQS, _body(kind | TRIGGER, irq.index, 0, 1, data), [fd])
            closed()

    check.__name__ = f"descriptor_with_{name}_data_is_not_kept"
    check.__doc__ = f"Only DATA_EVENTFD takes descriptors; one that comes with {name} data is closed."
    case(SET_IRQS, silent=True)(check)


_stray_descriptors("no", NONE, b"")
_stray_descriptors("boolean", BOOL, b"\1")


@case(SET_IRQS)
def fewer_booleans_than_vectors_are_refused(t: Context) -> None:
    """There must be a boolean for every vector of the range; nothing is signalled otherwise."""
    irq = t.vectors(t.client, 3)
    events = t.client.enable_irqs(irq.index, 3)
    _refused(t, BOOL | TRIGGER, irq.index, 0, 3, data=b"\1\1")
    t.equal(_signals(events), [0, 0, 0], "the signals")


@case(SET_IRQS, silent=True)
def more_booleans_than_vectors_do_no_harm(t: Context) -> None:
    """Booleans beyond the range are refused or ignored."""
    irq = t.vectors(t.client, 3)
    events = t.client.enable_irqs(irq.index, 3)
    t.tolerated(t.client, wire.DEVICE_SET_IRQS, _body(BOOL | TRIGGER, irq.index, 0, 2, b"\0\0\1"))
    t.equal(_signals(events), [0, 0, 0], "the signals")


@case(SET_IRQS)
def too_small_irq_set_argsz_is_refused(t: Context) -> None:
    """argsz is the size of the request: less than its fixed part is refused."""
    irq = t.vectors(t.client, 1)
    for argsz in (0, 3, 19):
        body = _body(NONE | TRIGGER, irq.index, 0, 0, argsz=argsz)
        t.refused(t.client, wire.DEVICE_SET_IRQS, body, INVALID | MALFORMED)


@case(SET_IRQS)
def short_irq_set_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    irq = t.vectors(t.client, 1)
    for length in (0, 8, 19):
        body = _body(NONE | TRIGGER, irq.index, 0, 0)[:length]
        t.refused(t.client, wire.DEVICE_SET_IRQS, body, INVALID | MALFORMED)


@case(SET_IRQS)
def refused_request_leaves_the_wiring(t: Context) -> None:
    """A refused request changes nothing."""
    irq = t.vectors(t.client, 2)
    events = t.client.enable_irqs(irq.index, 2)
    _refused(t, NONE | BOOL | TRIGGER, irq.index, 0, 1, data=b"\1")
    _refused(t, NONE | TRIGGER, irq.index, irq.count, 1)
    t.client.trigger_irqs(irq.index, 0, 2)
    t.equal(_signals(events), [1, 1], "the signals")


# Masking.


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
        t.tolerated(t.client, wire.DEVICE_SET_IRQS, _body(NONE | action, irq.index, 0, 1))
    t.client.trigger_irqs(irq.index, 0, 1)
    t.equal(event.pending(), 1, "the number of signals")


# Strange descriptors.


def _not_refused_or_signalled(t: Context, reply: Message, index: int) -> None:
    if reply.failed:
        t.is_error(reply, BAD_DESCRIPTOR)
        return
    # Accepted: then a trigger must not hurt.
    t.tolerated(t.client, wire.DEVICE_SET_IRQS, _body(NONE | TRIGGER, index, 0, 1))


@case(SET_IRQS, silent=True)
def descriptor_that_is_no_eventfd_does_no_harm(t: Context) -> None:
    """Something else than an eventfd is refused, or a trigger of its vector fails harmlessly."""
    irq = t.vectors(t.client, 1)
    with t.witness() as (fd, _):
        reply = t.tolerated(t.client, wire.DEVICE_SET_IRQS, _body(EVENTFD | TRIGGER, irq.index, 0, 1), [fd])
        _not_refused_or_signalled(t, reply, irq.index)
    read_only = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    t.finally_(lambda: os.close(read_only))
    reply = t.tolerated(t.client, wire.DEVICE_SET_IRQS, _body(EVENTFD | TRIGGER, irq.index, 0, 1), [read_only])
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
        t.tolerated(t.client, wire.DEVICE_SET_IRQS, _body(NONE | TRIGGER, irq.index, 0, 1))
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
    t.check(events[2].wait(2.0), "no signal")
    t.equal(_signals(events), [0, 0, 0, 0], "the signals of the other vectors")


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
    (event,) = _eventfds(t, 1)
    t.client.set_irqs(irq.index, EVENTFD | TRIGGER, 0, 1, fds=[event.fd])
    t.drop(t.client)
    t.tolerated(t.client, wire.DEVICE_SET_IRQS, _body(NONE | TRIGGER, irq.index, 0, 1))
    t.equal(event.pending(), 0, "the number of signals of the previous client's eventfd")
