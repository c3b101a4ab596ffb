"""DEVICE_RESET."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire

RESET = "VFIO_USER_DEVICE_RESET"


def _needs_reset(t: Context) -> None:
    if not t.client.device_info()[0] & wire.DEVICE_FLAG_RESET:
        t.skip("the device says that it has no reset")


@case(RESET)
def reset_is_answered_without_payload(t: Context) -> None:
    """Neither request nor reply have a payload."""
    _needs_reset(t)
    t.equal(len(t.accepted(t.client, wire.DEVICE_RESET).body), 0, "the payload's size")


@case(RESET)
def session_goes_on_after_a_reset(t: Context) -> None:
    """A reset is of the device, not of the connection."""
    _needs_reset(t)
    for _ in range(3):
        t.client.reset()
        t.usable(t.client)


@case(RESET, silent=True)
def reset_with_a_payload_does_no_harm(t: Context) -> None:
    """A reset with a payload is refused, or done."""
    _needs_reset(t)
    t.tolerated(t.client, wire.DEVICE_RESET, bytes(8))


@case(RESET)
def reset_resets_the_device(t: Context) -> None:
    """When the reply comes, registers have their reset values."""
    device = t.device()
    before = device.get(numbers.REG_RESETS)
    device.set(numbers.REG_SCRATCH, 0xABCD)
    t.client.reset()
    t.equal(device.get(numbers.REG_SCRATCH), 0, "the scratch register after a reset")
    t.equal(device.get(numbers.REG_RESETS) - before, 1, "the number of resets that the device saw")


@case(RESET, silent=True)
def reset_clears_the_command_register(t: Context) -> None:
    """PCI's memory enable bit is 0 after a reset."""
    _needs_reset(t)
    t.client.write(wire.CONFIG, 4, 2, t.client.read(wire.CONFIG, 4, 2) | 2)
    t.client.reset()
    t.equal(t.client.read(wire.CONFIG, 4, 2) & 2, 0, "memory enable in the command register")


@case(RESET, silent=True)
def reset_during_dma_is_survived(t: Context) -> None:
    """A reset while the device waits for a DMA reply neither hangs nor hurts."""
    device = t.device()
    t.client.map_memory(0x10000, 0x10000, shared=False)
    device.start_dma(numbers.DMA_READ, 0x10000, 0x10000)
    t.client.reset()
    t.client.serve_in_background()
    t.equal(device.get(numbers.REG_MAGIC), numbers.MAGIC, "the magic number after the reset")
