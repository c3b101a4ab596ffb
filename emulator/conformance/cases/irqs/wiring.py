"""DEVICE_SET_IRQS: vectors are wired, triggered and disabled."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.irqs.bodies import (
    EVENTFD,
    NONE,
    SET_IRQS,
    TRIGGER,
    eventfds,
    set_body,
    signals,
)
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire


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
        t.equal(signals(events), want, f"the signals of interrupt {index} after its last vector was triggered")
        t.client.disable_irqs(index)


@case(SET_IRQS)
def trigger_without_data_signals_the_whole_range(t: Context) -> None:
    """DATA_NONE acts on every vector of the range, and on no other."""
    irq = t.vectors(t.client, 4)
    events = t.client.enable_irqs(irq.index, 4)
    t.client.trigger_irqs(irq.index, 1, 2)
    t.equal(signals(events), [0, 1, 1, 0], "the signals of vectors 0 to 3")


@case(SET_IRQS)
def trigger_with_booleans_signals_the_true_ones(t: Context) -> None:
    """DATA_BOOL acts on the vectors whose byte is true."""
    irq = t.vectors(t.client, 4)
    events = t.client.enable_irqs(irq.index, 4)
    t.client.trigger_irqs(irq.index, 1, [True, False, True])
    t.equal(signals(events), [0, 1, 0, 1], "the signals of vectors 0 to 3")


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
    t.equal(signals(events), [1, 1], "the signals of vectors 2 and 3")


@case(SET_IRQS)
def several_eventfds_come_in_one_message(t: Context) -> None:
    """One message wires as many vectors as the server takes descriptors at once."""
    count = min(t.client.max_msg_fds, t.vectors(t.client, 2).count)
    irq = t.vectors(t.client, count)
    events = eventfds(t, count)
    t.client.set_irqs(irq.index, EVENTFD | TRIGGER, 0, count, fds=[event.fd for event in events])
    t.client.trigger_irqs(irq.index, 0, count)
    t.equal(signals(events), [1] * count, "the signals")


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
    (event,) = eventfds(t, 1)
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
    t.equal(signals(events), [1, 0, 1], "the signals after vector 1 was de-assigned")


@case(SET_IRQS)
def count_of_zero_without_data_disables_all(t: Context) -> None:
    """DATA_NONE with start and count 0 disables every vector of the type."""
    irq = t.vectors(t.client, 2)
    events = t.client.enable_irqs(irq.index, 2)
    t.client.disable_irqs(irq.index)
    t.client.trigger_irqs(irq.index, 0, 2)
    t.equal(signals(events), [0, 0], "the signals after all were disabled")


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
        t.equal(signals(events), [1, 1], "the signals")
        t.client.disable_irqs(irq.index)


@case(SET_IRQS, silent=True)
def trigger_of_an_unwired_vector_is_harmless(t: Context) -> None:
    """A vector without an eventfd may be triggered; nothing happens."""
    irq = t.vectors(t.client, 2)
    (event,) = t.client.enable_irqs(irq.index, 1)
    t.tolerated(t.client, wire.DEVICE_SET_IRQS, set_body(NONE | TRIGGER, irq.index, 1, 1))
    t.equal(event.pending(), 0, "the number of signals of another vector")


@case(SET_IRQS)
def set_irqs_reply_has_no_payload(t: Context) -> None:
    """There is no payload in the reply."""
    irq = t.vectors(t.client, 1)
    reply = t.accepted(t.client, wire.DEVICE_SET_IRQS, set_body(NONE | TRIGGER, irq.index, 0, 0))
    t.equal(len(reply.body), 0, "the payload's size")
