"""DEVICE_SET_IRQS: what must be refused, and leaves the wiring as it is."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.irqs.bodies import (
    BOOL,
    EVENTFD,
    MASK,
    NONE,
    SET_IRQS,
    TRIGGER,
    UNMASK,
    eventfds,
    refused,
    set_body,
    signals,
)
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import INVALID, MALFORMED, NO_SUCH_INDEX
from vfio_user_xe.emulator.vfio_user import wire


@case(SET_IRQS)
def missing_interrupt_index_is_refused(t: Context) -> None:
    """Indices that DEVICE_GET_INFO does not count do not exist."""
    _, _, count = t.client.device_info()
    for index in (count, 0xFFFFFFFF):
        t.refused(t.client, wire.DEVICE_SET_IRQS, set_body(NONE | TRIGGER, index, 0, 0), NO_SUCH_INDEX)


@case(SET_IRQS)
def vector_of_an_empty_type_is_refused(t: Context) -> None:
    """An interrupt type without vectors has none to set."""
    _, _, count = t.client.device_info()
    empty = next((index for index in range(count) if not t.client.irq_info(index).count), None)
    if empty is None:
        t.skip("every interrupt type has vectors")
    refused(t, NONE | TRIGGER, empty, 0, 1)


@case(SET_IRQS)
def start_behind_the_last_vector_is_refused(t: Context) -> None:
    """start must be the number of a vector."""
    irq = t.vectors(t.client, 1)
    refused(t, NONE | TRIGGER, irq.index, irq.count, 1)


@case(SET_IRQS)
def range_over_the_last_vector_is_refused(t: Context) -> None:
    """start + count must not exceed the number of vectors, and nothing of the range is done."""
    irq = t.vectors(t.client, 1)
    (event,) = t.client.enable_irqs(irq.index, 1, start=irq.count - 1)
    refused(t, NONE | TRIGGER, irq.index, irq.count - 1, 2)
    t.equal(event.pending(), 0, "the number of signals of the vector in range")


@case(SET_IRQS)
def range_that_wraps_around_is_refused(t: Context) -> None:
    """start + count must not overflow 32 bits into something valid."""
    irq = t.vectors(t.client, 2)
    refused(t, NONE | TRIGGER, irq.index, 1, 0xFFFFFFFF)
    refused(t, EVENTFD | TRIGGER, irq.index, 0xFFFFFFFF, 2)


@case(SET_IRQS)
def enormous_count_is_refused(t: Context) -> None:
    """A count of 2^32 - 1 is refused, at once."""
    irq = t.vectors(t.client, 1)
    refused(t, NONE | TRIGGER, irq.index, 0, 0xFFFFFFFF)


@case(SET_IRQS)
def count_of_zero_with_a_start_is_refused(t: Context) -> None:
    """A count of 0 means all vectors, and only with a start of 0."""
    irq = t.vectors(t.client, 2)
    refused(t, NONE | TRIGGER, irq.index, 1, 0)


@case(SET_IRQS)
def count_of_zero_with_data_is_refused(t: Context) -> None:
    """A count of 0 is for DATA_NONE only."""
    irq = t.vectors(t.client, 1)
    for kind in (BOOL, EVENTFD):
        refused(t, kind | TRIGGER, irq.index, 0, 0)


def _bad_flags(name: str, rule: str, flags: int) -> None:
    def check(t: Context) -> None:
        irq = t.vectors(t.client, 1)
        data = b"\1" if flags & BOOL else b""
        refused(t, flags, irq.index, 0, 1, data)

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
    t.tolerated(t.client, wire.DEVICE_SET_IRQS, set_body(NONE | TRIGGER | 0x80000040, irq.index, 0, 1))


@case(SET_IRQS)
def fewer_eventfds_than_vectors_are_refused(t: Context) -> None:
    """There must be a descriptor for every vector of the range, or none at all; the old wiring stays."""
    irq = t.vectors(t.client, 3)
    (old,) = t.client.enable_irqs(irq.index, 1)
    events = eventfds(t, 2)
    refused(t, EVENTFD | TRIGGER, irq.index, 0, 3, fds=[event.fd for event in events])
    t.client.trigger_irqs(irq.index, 0, 1)
    t.equal((old.pending(), events[0].pending()), (1, 0), "the signals of the old and the refused eventfd")


@case(SET_IRQS)
def more_eventfds_than_vectors_are_refused(t: Context) -> None:
    """There must be a descriptor for every vector of the range, and not more."""
    irq = t.vectors(t.client, 3)
    events = eventfds(t, 3)
    refused(t, EVENTFD | TRIGGER, irq.index, 0, 2, fds=[event.fd for event in events])


def _stray_descriptors(name: str, kind: int, data: bytes) -> None:
    def check(t: Context) -> None:
        irq = t.vectors(t.client, 1)
        with t.witness() as (fd, closed):
            t.tolerated(t.client, wire.DEVICE_SET_IRQS, set_body(kind | TRIGGER, irq.index, 0, 1, data), [fd])
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
    refused(t, BOOL | TRIGGER, irq.index, 0, 3, data=b"\1\1")
    t.equal(signals(events), [0, 0, 0], "the signals")


@case(SET_IRQS, silent=True)
def more_booleans_than_vectors_do_no_harm(t: Context) -> None:
    """Booleans beyond the range are refused or ignored."""
    irq = t.vectors(t.client, 3)
    events = t.client.enable_irqs(irq.index, 3)
    t.tolerated(t.client, wire.DEVICE_SET_IRQS, set_body(BOOL | TRIGGER, irq.index, 0, 2, b"\0\0\1"))
    t.equal(signals(events), [0, 0, 0], "the signals")


@case(SET_IRQS)
def too_small_irq_set_argsz_is_refused(t: Context) -> None:
    """argsz is the size of the request: less than its fixed part is refused."""
    irq = t.vectors(t.client, 1)
    for argsz in (0, 3, 19):
        body = set_body(NONE | TRIGGER, irq.index, 0, 0, argsz=argsz)
        t.refused(t.client, wire.DEVICE_SET_IRQS, body, INVALID | MALFORMED)


@case(SET_IRQS)
def short_irq_set_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    irq = t.vectors(t.client, 1)
    for length in (0, 8, 19):
        body = set_body(NONE | TRIGGER, irq.index, 0, 0)[:length]
        t.refused(t.client, wire.DEVICE_SET_IRQS, body, INVALID | MALFORMED)


@case(SET_IRQS)
def refused_request_leaves_the_wiring(t: Context) -> None:
    """A refused request changes nothing."""
    irq = t.vectors(t.client, 2)
    events = t.client.enable_irqs(irq.index, 2)
    refused(t, NONE | BOOL | TRIGGER, irq.index, 0, 1, data=b"\1")
    refused(t, NONE | TRIGGER, irq.index, irq.count, 1)
    t.client.trigger_irqs(irq.index, 0, 2)
    t.equal(signals(events), [1, 1], "the signals")
