"""Configuration space: masks, write-1-to-clear, watchers, what is taken, and the disguise."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfio_user_xe.emulator.pci.config_space import ConfigRegister, ConfigSpace


@dataclass
class Bit:
    """What one bit of configuration space does: the reference that masks are tested against."""

    value: int = 0
    reset: int = 0
    kind: str = "ro"
    sticky: bool = False

    def write(self, new: int) -> None:
        if self.kind == "rw":
            self.value = new
        elif self.kind == "w1c" and new:
            self.value = 0


SPAN = 32
writes = st.lists(
    st.tuples(st.integers(0, SPAN - 1), st.sampled_from([1, 2, 4, 8]), st.integers(0, (1 << 64) - 1)), max_size=20
)


@st.composite
def register_layouts(draw: st.DrawFn) -> list[ConfigRegister]:
    """Disjoint registers of every size in the first `SPAN` bytes, with holes between them."""
    registers, offset = [], 0
    while offset < SPAN:
        offset += draw(st.integers(0, 3))
        size = draw(st.sampled_from([1, 2, 3, 4, 8]))
        if offset + size > SPAN:
            break
        bits = st.integers(0, (1 << 8 * size) - 1)
        writable = draw(bits)
        registers.append(
            ConfigRegister(
                f"R{offset}", offset, size, draw(bits), writable=writable, w1c=draw(bits) & ~writable, sticky=draw(bits)
            )
        )
        offset += size
    return registers


def reference(registers: list[ConfigRegister]) -> list[Bit]:
    bits = [Bit() for _ in range((SPAN + 8) * 8)]
    for register in registers:
        for number in range(register.size * 8):
            kind = "rw" if register.writable >> number & 1 else "w1c" if register.w1c >> number & 1 else "ro"
            value = register.reset >> number & 1
            bits[register.offset * 8 + number] = Bit(value, value, kind, bool(register.sticky >> number & 1))
    return bits


def value_of(bits: list[Bit], offset: int, size: int) -> int:
    return sum(bit.value << number for number, bit in enumerate(bits[offset * 8 : (offset + size) * 8]))


@settings(deadline=None)
@given(register_layouts(), writes, st.booleans())
def test_every_bit_is_read_only_writable_or_cleared_by_one_whatever_the_access_size(
    registers: list[ConfigRegister], sequence: list[tuple[int, int, int]], sticky: bool
) -> None:
    config = ConfigSpace("test")
    config.add(registers)
    bits = reference(registers)
    for offset, size, value in sequence:
        config.write(offset, size, value)
        for number in range(size * 8):
            bits[offset * 8 + number].write(value >> number & 1)
        assert config.read(offset, size) == value_of(bits, offset, size)
    assert int.from_bytes(config.read_block(0, SPAN), "little") == value_of(bits, 0, SPAN)
    config.reset(keep_sticky=sticky)
    for bit in bits:
        bit.value = bit.value if sticky and bit.sticky else bit.reset
    assert int.from_bytes(config.read_block(0, SPAN), "little") == value_of(bits, 0, SPAN)


@settings(deadline=None)
@given(st.integers(0, 7), st.sampled_from([1, 2, 4, 8]), st.integers(0, (1 << 64) - 1), st.integers(0, 0xFFFFFFFF))
def test_a_watcher_is_told_the_old_value_and_what_was_written_over_it(
    offset: int, size: int, value: int, before: int
) -> None:
    config = ConfigSpace("test")
    seen: list[tuple[int, int]] = []
    config.add([ConfigRegister("R", 4, 4, reset=before, write=lambda old, written: seen.append((old, written)))])
    config.write(offset, size, value)
    touched = [byte for byte in range(offset, offset + size) if 4 <= byte < 8]
    if not touched:
        assert seen == []
        return
    expected = before
    for byte in touched:
        shift = 8 * (byte - 4)
        expected = expected & ~(0xFF << shift) | (value >> 8 * (byte - offset) & 0xFF) << shift
    assert seen == [(before, expected)]


def test_a_watcher_sees_the_register_as_it_is_after_the_write() -> None:
    config = ConfigSpace("test")
    after: list[int] = []
    config.add([ConfigRegister("R", 4, 2, writable=0x0F0F, write=lambda old, written: after.append(config.peek(4, 2)))])
    config.write(4, 2, 0xFFFF)
    assert after == [0x0F0F]


def test_one_write_over_two_watched_registers_calls_each_once() -> None:
    config = ConfigSpace("test")
    calls: list[str] = []
    config.add(
        [
            ConfigRegister("A", 0, 2, write=lambda old, written: calls.append(f"A {written:#x}")),
            ConfigRegister("B", 2, 2, write=lambda old, written: calls.append(f"B {written:#x}")),
        ]
    )
    config.write(0, 4, 0x12345678)
    assert calls == ["A 0x5678", "B 0x1234"]


def test_registers_at_taken_bytes_are_refused_naming_both() -> None:
    config = ConfigSpace("vf3")
    config.add([ConfigRegister("PMCSR", 4, 2)], 0xD0, "PM")
    with pytest.raises(ValueError, match=r"vf3: MSI DATA at \[0xd5, 0xd7\) overlaps PM PMCSR at 0xd5"):
        config.add([ConfigRegister("DATA", 0, 2)], 0xD5, "MSI")


def test_registers_outside_of_the_space_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        ConfigSpace("pf").add([ConfigRegister("R", 4094, 4)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 5}, "size 5"),
        ({"size": 1, "reset": 0x100}, "reset 0x100"),
        ({"size": 2, "writable": 3, "w1c": 2}, "both RW and W1C"),
    ],
)
def test_impossible_registers_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConfigRegister("R", 0, **arguments)


def test_undeclared_bytes_read_zero_and_ignore_writes() -> None:
    config = ConfigSpace("pf")
    config.write(0x800, 4, 0xFFFFFFFF)
    assert config.read(0x800, 4) == 0


def test_the_disguise_is_worn_only_for_a_read_of_the_whole_space() -> None:
    config = ConfigSpace("pf")
    config.add([ConfigRegister("HEADER", 0, 4, reset=0x32010010)], 0x110)
    config.disguise(0x110, 0x000B)
    whole = config.read_block(0, 4096)
    assert whole[0x110:0x114] == (0x3201000B).to_bytes(4, "little")
    assert config.read_block(0x100, 256)[0x10:0x14] == (0x32010010).to_bytes(4, "little")
    assert config.read_block(0, 4095)[0x110:0x112] == b"\x10\x00"
    assert config.read(0x110, 4) == 0x32010010
    assert config.read(0x110, 2) == 0x10
    assert whole[:0x110] == config.read_block(0, 0x110)
    assert whole[0x114:] == config.read_block(0x114, 4096 - 0x114)


def test_locked_bits_ignore_writes_until_they_are_unlocked() -> None:
    config = ConfigSpace("pf")
    config.add([ConfigRegister("NUM_VFS", 0, 2, writable=0xFFFF)])
    config.set_writable(0, 2, 0)
    config.write(0, 2, 5)
    assert config.read(0, 2) == 0
    config.set_writable(0, 2, 0xFFFF)
    config.write(0, 2, 5)
    assert config.read(0, 2) == 5
