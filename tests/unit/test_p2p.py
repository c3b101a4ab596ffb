"""Peer-to-peer: what a bus address reaches, through the owner's own rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emulator.card import Card, CardConfig
from emulator.interconnect import AccessFault, Space
from emulator.pci.function import COMMAND
from emulator.testing import FakeTransport

GIB = 1 << 30
PF_BAR0, PF_BAR2 = 0xF000000000, 0xF100000000
VF_BAR0, VF_BAR2 = 0xF300000000, 0xF400000000
_SRIOV = 0x320
_VF_SIZE = 256 << 20


@pytest.fixture
def card() -> Iterator[Card]:
    config = CardConfig.default("xe").override(vfs=2, interconnects=["iov", "p2p", "host_dma"])
    card = Card(config)
    card.start()
    pf = card.functions[0]
    for function in card.functions:
        function.attached(FakeTransport())
        function.config.write(COMMAND, 2, 6)
    for register, address in ((0x10, PF_BAR0), (0x18, PF_BAR2)):
        pf.config.write(register, 4, address & 0xFFFFFFFF)
        pf.config.write(register + 4, 4, address >> 32)
    for register, address in ((0x24, VF_BAR0), (0x2C, VF_BAR2)):
        pf.config.write(_SRIOV + register, 4, address & 0xFFFFFFFF)
        pf.config.write(_SRIOV + register + 4, 4, address >> 32)
    pf.config.write(_SRIOV + 0x10, 2, 2)
    pf.config.write(_SRIOV + 0x08, 2, 0x09)
    card.executor.run_sync(lambda: None)
    yield card
    card.stop()


def test_the_pf_reaches_a_vf_s_memory_by_the_bus_address_of_its_bar2(card: Card) -> None:
    pf, vf2 = card.functions[0], card.functions[2]

    def accesses() -> tuple[bytes, bytes]:
        card.fabric.write(pf, Space.SYSTEM, VF_BAR2 + _VF_SIZE + 0x3000, b"by the bus", "system")
        return (
            card.fabric.read(vf2, Space.DEVICE, 0x3000, 10),
            card.fabric.read(pf, Space.SYSTEM, VF_BAR2 + _VF_SIZE + 0x3000, 10, "system"),
        )

    assert card.executor.run_sync(accesses) == (b"by the bus", b"by the bus")
    entries = {(e.initiator, e.owner, e.interconnect) for e in card.fabric.ledger}
    assert ("pf", "vf2", "p2p") in entries
    region = vf2.regions[2]
    assert region is not None
    assert region.memory is not None
    assert bytes(region.memory.view[0x3000:0x300A]) == b"by the bus"


def test_registers_are_reached_dword_by_dword(card: Card) -> None:
    pf = card.functions[0]
    scratch = 0x190244

    def access() -> bytes:
        card.fabric.write(pf, Space.SYSTEM, VF_BAR0 + scratch, (0x12345678).to_bytes(4, "little"), "system")
        return card.fabric.read(pf, Space.SYSTEM, PF_BAR0 + scratch + 0x400, 4, "system")

    assert card.executor.run_sync(access) == (0x12345678).to_bytes(4, "little")


def test_a_disabled_vf_s_bar_is_not_decoded_and_its_window_is_taken_back(card: Card) -> None:
    pf = card.functions[0]
    address = VF_BAR2 + 0x1000
    window = card.executor.run_sync(lambda: card.fabric.window(pf, Space.SYSTEM, address, 16, write=True))
    pf.config.write(_SRIOV + 0x08, 2, 0)
    card.executor.run_sync(lambda: None)
    assert not window.valid
    with pytest.raises(AccessFault):
        card.executor.run_sync(lambda: card.fabric.read(pf, Space.SYSTEM, address, 4))


def test_guest_memory_is_left_to_the_next_interconnect(card: Card) -> None:
    pf = card.functions[0]
    card.executor.run_sync(lambda: card.fabric.write(pf, Space.SYSTEM, 0x1000, b"ram", "system"))
    assert ("pf", "guest", "host_dma") in {(e.initiator, e.owner, e.interconnect) for e in card.fabric.ledger}
