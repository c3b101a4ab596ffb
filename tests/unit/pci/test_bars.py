"""BARs: what they are checked for, and how a guest sizes them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.pci.bars import Bar, bar_registers, check_layout
from vfio_user_xe.emulator.pci.config_space import ConfigSpace


class Zeros:
    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        pass


@settings(deadline=None)
@given(st.integers(4, 40), st.booleans(), st.integers(0, (1 << 64) - 1))
def test_a_bar_is_sized_by_ones_and_keeps_an_aligned_address(bits: int, prefetchable: bool, address: int) -> None:
    size = 1 << bits
    bar = Bar(size, Zeros(), prefetchable=prefetchable)
    config = ConfigSpace("test")
    config.add(bar_registers(2, size, bar.type_bits))
    assert config.read(0x18, 4) == 4 | 8 * prefetchable
    for offset in (0x18, 0x1C):
        config.write(offset, 4, 0xFFFFFFFF)
    sized = config.read(0x1C, 4) << 32 | config.read(0x18, 4) & ~0xF
    assert (1 << 64) - sized == size
    config.write(0x18, 4, address & 0xFFFFFFFF)
    config.write(0x1C, 4, address >> 32)
    assert config.read(0x1C, 4) << 32 | config.read(0x18, 4) == address & ~(size - 1) | bar.type_bits


def test_a_32_bit_bar_has_one_register() -> None:
    registers = bar_registers(0, 1 << 20, Bar(1 << 20, Zeros(), is_64bit=False).type_bits)
    assert [(register.offset, register.reset, register.writable) for register in registers] == [(0x10, 0, 0xFFF00000)]


def test_memory_without_areas_is_mapped_whole(page: Memory) -> None:
    region = Bar(1 << 14, memory=page, memory_offset=0x4000).region("BAR2")
    assert (region.areas, region.memory_offset) == ([(0, 1 << 14)], 0x4000)


def test_a_mixed_bar_maps_its_areas_and_traps_the_rest(page: Memory) -> None:
    region = Bar(1 << 15, Zeros(), page, areas=[(0x4000, 0x4000)]).region("BAR0")
    assert region.areas == [(0x4000, 0x4000)]
    assert region.handler is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0x3000}, "power of two"),
        ({"size": 8}, "at least 16"),
        ({"size": 1 << 32, "is_64bit": False}, "needs a 64-bit BAR"),
        ({"size": 1 << 14, "memory_offset": 0x800}, "memory offset 0x800"),
        ({"size": 1 << 14, "memory": None, "areas": [(0, 0x1000)]}, "no memory"),
        ({"size": 1 << 14, "areas": [(0x800, 0x1000)]}, "whole pages"),
        ({"size": 1 << 14, "areas": [(0, 0)]}, "whole pages"),
        ({"size": 1 << 14, "areas": [(0x2000, 0x1000), (0, 0x1000)]}, "not sorted"),
        ({"size": 1 << 14, "areas": [(0, 0x2000), (0x1000, 0x1000)]}, "overlaps"),
        ({"size": 1 << 14, "areas": [(0x3000, 0x2000)]}, "outside of the BAR"),
        ({"size": 1 << 17}, "has only 0x10000 bytes"),
        ({"size": 1 << 14, "areas": [(0, 0x1000)], "handler": None}, "neither handler nor memory"),
        ({"size": 1 << 14, "memory": None, "handler": None}, "neither handler nor memory"),
    ],
)
def test_impossible_bars_are_refused_saying_why(page: Memory, arguments: dict[str, object], message: str) -> None:
    bar = Bar(**{"handler": Zeros(), "memory": page, **arguments})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"vf1: BAR0: .*{message}"):
        bar.region("vf1: BAR0")


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        ({6: Bar(16)}, "BAR6 does not exist, allowed are 0 to 5"),
        ({0: Bar(16), 1: Bar(16)}, "BAR0 is 64-bit and needs BAR1 for its upper half"),
        ({4: Bar(16), 5: Bar(16, is_64bit=False)}, "BAR4 is 64-bit and needs BAR5"),
        ({5: Bar(16)}, "BAR5 is 64-bit and needs BAR6"),
    ],
)
def test_bar_numbers_that_cannot_be_are_refused(bars: dict[int, Bar], message: str) -> None:
    with pytest.raises(ValueError, match=f"pf: {message}"):
        check_layout("pf", bars)


def test_32_bit_bars_follow_each_other_with_a_register_each_up_to_the_last() -> None:
    bars = {index: Bar(1 << 12 + index, Zeros(), is_64bit=False) for index in (0, 1, 5)}
    check_layout("pf", bars)
    config = ConfigSpace("test")
    for index, bar in bars.items():
        config.add(bar_registers(index, bar.size, bar.type_bits))
    for index in bars:
        config.write(0x10 + 4 * index, 4, 0xFFFFFFFF)
    assert [config.read(0x10 + 4 * index, 4) for index in range(6)] == [0xFFFFF000, 0xFFFFE000, 0, 0, 0, 0xFFFE0000]
