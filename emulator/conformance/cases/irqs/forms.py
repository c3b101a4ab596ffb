"""DEVICE_SET_IRQS: every form of data with every action."""

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
    set_body,
    signals,
)
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire

_DATA = {"no_data": (NONE, b""), "booleans": (BOOL, b"\1\0"), "eventfds": (EVENTFD, b"")}
_ACTIONS = {"mask": MASK, "unmask": UNMASK}


def _form(data: str, action: str) -> None:
    def check(t: Context) -> None:
        irq = t.vectors(t.client, 2)
        events = t.client.enable_irqs(irq.index, 2)
        kind, body = _DATA[data]
        given = eventfds(t, 2) if kind == EVENTFD else []
        flags = kind | _ACTIONS[action]
        t.tolerated(
            t.client, wire.DEVICE_SET_IRQS, set_body(flags, irq.index, 0, 2, body), [event.fd for event in given]
        )
        # Whatever it did: unmasked vectors are wired as they were, and nothing was signalled.
        if irq.flags & wire.IRQ_FLAG_MASKABLE:
            t.client.set_irqs(irq.index, NONE | UNMASK, 0, 2)
        t.equal(signals(given), [0] * len(given), "the signals of the eventfds that came with the action")
        t.equal(signals(events), [0, 0], "the signals before a trigger")
        t.client.trigger_irqs(irq.index, 0, 2)
        t.equal(signals(events), [1, 1], "the signals after a trigger")

    check.__name__ = f"{action}_with_{data}_leaves_the_wiring"
    check.__doc__ = "Masking is done or refused, by any form of data; the vectors stay wired, and none is signalled."
    case(SET_IRQS, silent=True)(check)


for _data in _DATA:
    for _action in _ACTIONS:
        _form(_data, _action)


@case(SET_IRQS)
def booleans_that_are_all_false_signal_nothing(t: Context) -> None:
    """A trigger with booleans signals the true ones: here none."""
    irq = t.vectors(t.client, 3)
    events = t.client.enable_irqs(irq.index, 3)
    t.client.set_irqs(irq.index, BOOL | TRIGGER, 0, 3, data=bytes(3))
    t.equal(signals(events), [0, 0, 0], "the signals")


@case(SET_IRQS, silent=True)
def any_nonzero_byte_is_a_true_boolean(t: Context) -> None:
    """A boolean is a byte; every value but 0 is true, as to Linux' VFIO (`vfio_pci_set_msi_trigger`)."""
    irq = t.vectors(t.client, 2)
    events = t.client.enable_irqs(irq.index, 2)
    t.client.set_irqs(irq.index, BOOL | TRIGGER, 0, 2, data=b"\x80\xff")
    t.equal(signals(events), [1, 1], "the signals")


@case(SET_IRQS)
def wiring_of_a_smaller_range_leaves_the_other_vectors(t: Context) -> None:
    """Eventfds for some vectors change those, and no others."""
    irq = t.vectors(t.client, 3)
    events = t.client.enable_irqs(irq.index, 3)
    (middle,) = eventfds(t, 1)
    t.client.set_irqs(irq.index, EVENTFD | TRIGGER, 1, 1, fds=[middle.fd])
    t.client.trigger_irqs(irq.index, 0, 3)
    t.equal([*signals(events), middle.pending()], [1, 0, 1, 1], "the signals of the old ones and the new one")
