"""Which bus addresses a card's functions answer at, as the registers of PF and SR-IOV capability say."""

from __future__ import annotations

from typing import Any

import pytest

from vfio_user_xe.emulator.pci.decoding import BusDecoder

PF_BAR2 = 0x3700_0000_0000
MIDDLE = 0x1000


@pytest.fixture
def decoder(plugged: Any) -> BusDecoder:
    """Of a PF and seven VFs; no BAR has an address, no VF is enabled."""
    return BusDecoder([plugged.pf, *plugged.vfs])


def found(decoder: BusDecoder, address: int) -> tuple[str, int] | None:
    decoded = decoder.at(address)
    return None if decoded is None else (decoded.function.name, decoded.number)


def test_vfs_up_to_num_vfs_decode_and_those_past_it_do_not(plugged: Any, decoder: BusDecoder) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    at = {vfid: plugged.sriov.bar_address(2, vfid) for vfid in range(1, 8)}
    assert [found(decoder, at[vfid] + MIDDLE) for vfid in range(1, 8)] == [("vf1", 2), ("vf2", 2), *[None] * 5]
    plugged.guest.disable()
    plugged.guest.enable(3)
    assert found(decoder, at[3] + MIDDLE) == ("vf3", 2)


def test_a_bar_ends_where_the_next_vf_s_begins(plugged: Any, decoder: BusDecoder) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    end = plugged.sriov.bar_address(0, 3)
    assert found(decoder, plugged.sriov.bar_address(0, 2) - 1) == ("vf1", 0)
    assert found(decoder, plugged.sriov.bar_address(0, 2)) == ("vf2", 0)
    assert found(decoder, end - 1) == ("vf2", 0)
    assert found(decoder, end) is None
    assert found(decoder, plugged.sriov.bar_address(0, 1) - 1) is None


def test_vfs_need_vf_memory_space_enable(plugged: Any, decoder: BusDecoder) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(1)
    address = plugged.sriov.bar_address(0, 1)
    plugged.guest.write(0x08, 2, 0x01)
    assert found(decoder, address) is None
    plugged.guest.write(0x08, 2, 0x09)
    assert found(decoder, address) == ("vf1", 0)


def test_a_bar_without_an_address_is_not_decoded(plugged: Any, decoder: BusDecoder) -> None:
    plugged.pf.config.write(0x04, 2, 2)
    assert decoder.decoded() == []


def test_the_pf_s_bars_need_its_memory_enable(plugged: Any, decoder: BusDecoder) -> None:
    plugged.pf.config.write(0x1C, 4, PF_BAR2 >> 32)
    plugged.pf.config.write(0x04, 2, 2)
    assert found(decoder, PF_BAR2) == ("pf", 2)
    assert found(decoder, PF_BAR2 + (1 << 28)) is None
    plugged.pf.config.write(0x04, 2, 0)
    assert found(decoder, PF_BAR2) is None


def test_every_change_is_announced(plugged: Any, decoder: BusDecoder) -> None:
    changes: list[list[tuple[str, int]]] = []
    decoder.on_change.append(lambda: changes.append([(d.function.name, d.number) for d in decoder.decoded()]))
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(1)
    assert changes[-1] == [("vf1", 0), ("vf1", 2)]
    plugged.guest.disable()
    assert changes[-1] == []
