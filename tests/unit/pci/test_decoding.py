"""Which bus addresses a card's functions answer at, as the registers of PF and SR-IOV capability say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import NonCallableMock

import pytest

from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.decoding import BusDecoder
from vfio_user_xe.emulator.pci.function import Function
from vfio_user_xe.emulator.pci.transport import AccessHandler

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


@pytest.mark.parametrize("number", [0, 2, 4, 5])
def test_a_bar_that_moves_is_decoded_where_it_is_now(make_pf: Callable[..., Function], number: int) -> None:
    """Also the last ones, and a BAR of 32 bits: what its neighbour has is not a part of its address."""
    handler = NonCallableMock(spec=AccessHandler)
    bars = {index: Bar(1 << 24, handler, prefetchable=True) for index in (0, 2)}
    bars |= {4: Bar(1 << 16, handler, is_64bit=False), 5: Bar(1 << 12, handler, is_64bit=False)}
    pf = make_pf(bars=bars)
    decoder = BusDecoder([pf])
    announced: list[int] = []
    decoder.on_change.append(lambda: announced.append(len(decoder.decoded())))
    pf.config.write(0x04, 2, 2)
    register = 0x10 + 4 * number
    for address in (0x4000_0000, 0x5000_0000):
        before = len(announced)
        pf.config.write(register, 4, address)
        assert len(announced) > before
        assert [(d.base, d.number) for d in decoder.decoded()] == [(address, number)]
        assert found(decoder, address - 1) is None
        assert found(decoder, address + bars[number].size - 1) == ("pf", number)
        assert found(decoder, address + bars[number].size) is None
    pf.config.write(0x04, 2, 5)
    assert decoder.decoded() == []


def test_bars_are_found_among_several_in_any_order(plugged: Any, decoder: BusDecoder) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(7)
    for bar in (0, 2):
        for vfid in range(1, 8):
            assert found(decoder, plugged.sriov.bar_address(bar, vfid)) == (f"vf{vfid}", bar)
    bases = [decoded.base for decoded in decoder.decoded()]
    assert bases == sorted(bases)
    assert found(decoder, 0) is None
    assert found(decoder, 1 << 63) is None


def test_a_decoder_that_has_seen_no_change_decodes_what_is_there() -> None:
    assert BusDecoder([]).decoded() == []
    assert BusDecoder([]).at(0) is None


@pytest.mark.parametrize("changes", [1, 2, 3])
def test_what_is_decoded_is_looked_for_anew_after_the_first_change_too(
    make_pf: Callable[..., Function], changes: int
) -> None:
    pf = make_pf()
    pf.config.write(0x1C, 4, PF_BAR2 >> 32)
    decoder = BusDecoder([pf])
    for _ in range(changes - 1):
        pf.config.write(0x1C, 4, PF_BAR2 >> 32)
    pf.config.write(0x04, 2, 2)
    assert [(decoded.base, decoded.number) for decoded in decoder.decoded()] == [(PF_BAR2, 2)]
