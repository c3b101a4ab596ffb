"""Peer-to-peer: what a bus address reaches, through the owner's own rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.fabric.ledger import UNSHARED
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport

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


def test_a_vf_past_num_vfs_answers_no_peer(card: Card) -> None:
    pf = card.functions[0]
    pf.config.write(_SRIOV + 0x08, 2, 0)
    pf.config.write(_SRIOV + 0x10, 2, 1)
    pf.config.write(_SRIOV + 0x08, 2, 0x09)
    card.executor.run_sync(lambda: None)
    card.executor.run_sync(lambda: card.fabric.read(pf, Space.SYSTEM, VF_BAR2, 4))
    with pytest.raises(AccessFault, match="no interconnect reaches it"):
        card.executor.run_sync(lambda: card.fabric.read(pf, Space.SYSTEM, VF_BAR2 + _VF_SIZE, 4))


def test_a_vf_s_own_memory_without_a_descriptor_is_foreign_to_nobody(card: Card) -> None:
    vf = card.functions[1]
    vf.attached(FakeTransport(shared=0))
    card.executor.run_sync(lambda: None)
    vf.config.write(COMMAND, 2, 6)
    card.executor.run_sync(lambda: card.fabric.write(vf, Space.SYSTEM, 0x1000, b"ram", "system"))
    verdicts = card.fabric.ledger.verdicts([function.name for function in card.functions])
    assert [(p["initiator"], p["owner"]) for p in verdicts["paths"]] == [("vf1", UNSHARED)]
    assert verdicts["foreign"] == []


def test_guest_memory_is_left_to_the_next_interconnect(card: Card) -> None:
    pf = card.functions[0]
    card.executor.run_sync(lambda: card.fabric.write(pf, Space.SYSTEM, 0x1000, b"ram", "system"))
    assert ("pf", "guest", "host_dma") in {(e.initiator, e.owner, e.interconnect) for e in card.fabric.ledger}


def test_a_function_in_d3hot_answers_no_peer(card: Card) -> None:
    vf = card.functions[1]
    address = PF_BAR2 + 0x1000
    window = card.executor.run_sync(lambda: card.fabric.window(vf, Space.SYSTEM, address, 16, write=True))
    card.functions[0].config.write(0xD0 + 4, 2, 3)
    card.executor.run_sync(lambda: None)
    assert not window.valid
    with pytest.raises(AccessFault, match="no interconnect reaches it"):
        card.executor.run_sync(lambda: card.fabric.read(vf, Space.SYSTEM, address, 4))
    card.functions[0].config.write(0xD0 + 4, 2, 0)
    card.executor.run_sync(lambda: None)
    card.functions[0].config.write(COMMAND, 2, 6)
    card.executor.run_sync(lambda: card.fabric.read(vf, Space.SYSTEM, address, 4))


def test_a_vf_that_is_reset_gives_its_windows_back_and_is_reached_again(card: Card) -> None:
    pf, vf = card.functions[0], card.functions[1]
    window = card.executor.run_sync(lambda: card.fabric.window(pf, Space.SYSTEM, VF_BAR2, 16, write=True))
    vf.function_level_reset()
    card.executor.run_sync(lambda: None)
    assert not window.valid
    # VF MSE is the PF's: it is decoded as before.
    card.executor.run_sync(lambda: card.fabric.read(pf, Space.SYSTEM, VF_BAR2, 4))


def test_with_acs_redirect_every_peer_request_goes_to_the_root_complex(card: Card) -> None:
    pf = card.functions[0]
    redirected = card.make_interconnect("p2p", {"acs_redirect": True})
    card.fabric.interconnects = [redirected, card.fabric.interconnects[-1]]
    with pytest.raises(AccessFault, match="no interconnect reaches it"):
        card.executor.run_sync(lambda: card.fabric.read(pf, Space.SYSTEM, VF_BAR2, 4))
    card.executor.run_sync(lambda: card.fabric.write(pf, Space.SYSTEM, 0x1000, b"ram", "system"))
    transport = pf.transport
    assert isinstance(transport, FakeTransport)
    assert bytes(transport.memory[0x1000:0x1003]) == b"ram"


def test_bars_that_move_are_decoded_where_they_are(card: Card) -> None:
    pf, vf = card.functions[0], card.functions[1]
    card.executor.run_sync(lambda: card.fabric.write(vf, Space.SYSTEM, PF_BAR2, b"moved"))
    pf.config.write(0x1C, 4, (PF_BAR2 + (1 << 39)) >> 32)
    with pytest.raises(AccessFault):
        card.executor.run_sync(lambda: card.fabric.read(vf, Space.SYSTEM, PF_BAR2, 4))
    assert card.executor.run_sync(lambda: card.fabric.read(vf, Space.SYSTEM, PF_BAR2 + (1 << 39), 5)) == b"moved"


@pytest.mark.parametrize("wrapper", ["delay", "fault", "deny", "record"])
def test_every_wrapper_composes_with_every_link(card: Card, wrapper: str, tmp_path: Path) -> None:
    pf = card.functions[0]
    options: dict[str, Any] = {
        "delay": {"latency_us": 0.0},
        "fault": {"armed": False},
        "deny": {"initiator": "nobody"},
        "record": {"file": str(tmp_path / "accesses")},
    }[wrapper]
    links = ("iov", "p2p", "host_dma")
    points = [{"point": f"over.{link}"} if wrapper == "fault" else {} for link in links]
    card.fabric.interconnects = [
        card.make_interconnect(wrapper, {**options, **point, "inner": link})
        for link, point in zip(links, points, strict=True)
    ]
    places = {
        "iov": (Space.DEVICE, (1 << 32) - 0x2000),
        "p2p": (Space.SYSTEM, VF_BAR2 + 0x3000),
        "host_dma": (Space.SYSTEM, 0x4000),
    }
    for link, (space, address) in places.items():
        data = link.encode() * 100

        def through(space: str = space, address: int = address, data: bytes = data) -> bytes:
            card.fabric.write(pf, space, address, data, "kind")
            return card.fabric.read(pf, space, address, len(data), "kind")

        assert card.executor.run_sync(through) == data
        (row,) = [row for row in card.fabric.ledger if row.interconnect == link]
        assert (row.bytes_written, row.bytes_read, row.writes, row.reads) == (len(data), len(data), 1, 1)
        if wrapper == "fault":
            card.faults[f"over.{link}"].arm()
            with pytest.raises(AccessFault, match="injected"):
                card.executor.run_sync(through)


def test_a_window_that_a_wrapper_is_around_is_revoked_with_what_is_inside(card: Card) -> None:
    pf = card.functions[0]
    card.fabric.interconnects = [card.make_interconnect("delay", {"inner": "p2p", "latency_us": 0.0})]
    window = card.executor.run_sync(lambda: card.fabric.window(pf, Space.SYSTEM, VF_BAR2, 16, write=True))
    pf.config.write(_SRIOV + 0x08, 2, 0)
    card.executor.run_sync(lambda: None)
    assert not window.valid
