from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import (
    MASKED,
    RO,
    RW,
    VF,
    W1C,
    W1S,
    Register,
    field,
    flag,
    not_modelled,
    reserved,
)
from vfio_user_xe.emulator.observe.tap import Record

dwords = st.integers(0, 0xFFFFFFFF)


def file_with(*registers: Register, size: int = 0x1000, kind: str = "pf") -> RegisterFile:
    made = RegisterFile("test", size, kind)
    made.add(registers)
    return made


@given(before=dwords, written=dwords, mask=dwords)
def test_a_write_changes_what_its_access_says(before: int, written: int, mask: int) -> None:
    expected = {
        RW: before & ~mask | written & mask,
        RO: before,
        W1C: before & ~(written & mask),
        W1S: before | written & mask,
        MASKED: before & 0xFFFF & ~(written >> 16 & mask) | written & (written >> 16) & mask & 0xFFFF,
    }
    for access, value in expected.items():
        registers = file_with(Register("R", 0x10, reset=before, access=access, mask=mask))
        registers.write(0x10, 4, written)
        assert registers.read(0x10, 4) == value, access


def test_hooks_see_the_raw_value_after_the_store() -> None:
    seen: list[tuple[int, int]] = []
    registers = file_with(
        Register("R", 0, reset=0xF0, access=W1C, write=lambda value: seen.append((value, registers.peek(0))))
    )
    registers.write(0, 4, 0x30)
    assert seen == [(0x30, 0xC0)]


def test_a_read_hook_computes_the_value() -> None:
    ticks = iter(range(100))
    registers = file_with(Register("TIMESTAMP", 0x20, access=RO, read=lambda: next(ticks)))
    assert [registers.read(0x20, 4) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("offset", "size", "expected"), [(0, 1, 0x44), (1, 1, 0x33), (2, 2, 0x1122), (0, 4, 0x11223344)]
)
def test_parts_of_a_register_are_read_little_endian(offset: int, size: int, expected: int) -> None:
    assert file_with(Register("R", 0, reset=0x11223344)).read(offset, size) == expected


def test_a_byte_written_into_a_plain_register_leaves_the_other_bytes() -> None:
    registers = file_with(Register("R", 0, reset=0x11223344))
    registers.write(2, 1, 0xAA)
    assert registers.read(0, 4) == 0x11AA3344


@pytest.mark.parametrize(("access", "expected"), [(W1C, 0xFFFF00FF), (W1S, 0xFFFFFFFF)])
def test_a_byte_written_into_a_write_one_register_acts_on_that_byte_only(access: str, expected: int) -> None:
    registers = file_with(Register("R", 0, reset=0xFFFFFFFF, access=access))
    registers.write(1, 1, 0xFF)
    assert registers.read(0, 4) == expected


def test_eight_bytes_are_two_dwords() -> None:
    registers = file_with(Register("LOW", 0), Register("HIGH", 4))
    registers.write(0, 8, 0x1122334455667788)
    assert (registers.read(0, 4), registers.read(4, 4)) == (0x55667788, 0x11223344)
    assert registers.read(0, 8) == 0x1122334455667788


def test_both_halves_of_a_wide_register_follow_its_mask_and_reset_value() -> None:
    registers = file_with(Register("BASE", 8, reset=0x1_0000_0002, width=8, mask=0xF_0000_000F))
    assert registers.read(8, 8) == 0x1_0000_0002
    registers.write(12, 4, 0xFFFFFFFF)
    assert registers.read(8, 8) == 0xF_0000_0002
    registers.write(8, 8, 0)
    assert registers.read(8, 8) == 0
    assert registers.name_of(12) == "BASE+4"


def test_a_register_that_a_vf_does_not_see_reads_zero_there_and_calls_no_hook() -> None:
    called: list[int] = []
    pf_only = Register("R", 0, reset=5, visible=frozenset({"pf"}), write=called.append, read=lambda: 9)
    registers = file_with(pf_only, kind=VF)
    registers.write(0, 4, 1)
    assert registers.read(0, 4) == 0
    assert not called


def test_undeclared_offsets_store_and_are_counted() -> None:
    registers = file_with()
    registers.write(0x40, 4, 7)
    assert registers.read(0x40, 4) == 7
    record = registers.unmodelled[0x40]
    assert (record.reads, record.writes, record.first_value) == (1, 1, 7)


def test_undeclared_offsets_of_a_file_without_storage_read_zero() -> None:
    registers = file_with()
    registers.unmodelled_storage = False
    registers.write(0x40, 4, 7)
    assert registers.read(0x40, 4) == 0
    assert registers.unmodelled[0x40].writes == 1


def test_plain_storage_stores_is_named_and_not_reported() -> None:
    registers = file_with()
    view = registers.add_storage("BUFFER", 0x100, 0x20)
    registers.write(0x104, 4, 0x04030201)
    assert bytes(view[4:8]) == b"\x01\x02\x03\x04"
    view[4] = 9
    assert registers.read(0x104, 1) == 9
    assert registers.name_of(0x104) == "BUFFER+0x4"
    assert not registers.unmodelled


@pytest.mark.parametrize(("offset", "length"), [(0xFFC, 8), (2, 4), (0, 6), (0, 0), (-4, 4)])
def test_plain_storage_outside_the_file_is_refused(offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="BUFFER"):
        file_with().add_storage("BUFFER", offset, length)


def test_reset_brings_back_reset_values_and_clears_the_rest() -> None:
    registers = file_with(Register("R", 0, reset=3), Register("WIDE", 8, reset=1 << 40, width=8))
    for offset in (0, 8, 12, 0x80):
        registers.write(offset, 4, 0x55)
    registers.reset()
    assert [registers.peek(offset) for offset in (0, 8, 12, 0x80)] == [3, 0, 1 << 8, 0]


def test_two_registers_at_one_offset_are_refused_by_name() -> None:
    registers = file_with(Register("WIDE", 0, width=8))
    with pytest.raises(ValueError, match="OTHER and WIDE are both at 0x4"):
        registers.add([Register("OTHER", 4)])


def test_a_register_beyond_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        file_with(Register("R", 0xFFC, width=8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"access": "wo"}, "none of"),
        ({"offset": 2}, "multiple of 4"),
        ({"width": 2}, "4 or 8"),
        ({"width": 8, "read": lambda: 0}, "storage only"),
        ({"reset": 1 << 32}, "does not fit"),
        ({"reset": -1}, "does not fit"),
        ({"fields": [field(3, 0, "F")]}, "field F is bits 3 to 0, not low to high of bits 0 to 31"),
        ({"fields": [field(0, 32, "F")]}, "field F is bits 0 to 32, not low to high of bits 0 to 31"),
        ({"fields": [flag(-1, "F")]}, "field F is bits -1 to -1"),
        ({"access": MASKED, "fields": [flag(16, "F")]}, "bits 0 to 15"),
        ({"fields": [flag(1, "F"), flag(2, "F")]}, "two fields are called F"),
        ({"fields": [field(0, 4, "F"), reserved(4, 7)]}, r"fields F and reserved\(7:4\) both have bit 4"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Register(**{"name": "R", "offset": 0, **arguments})  # type: ignore[arg-type]


STATUS = Register(
    "STATUS",
    0,
    fields=[
        flag(31, "BUSY"),
        field(8, 15, "CODE", {0xAB: "ABORTED", 0: "NONE"}),
        not_modelled(7, "TURBO"),
        not_modelled(4, "SPEED", 6, {2: "FAST"}),
        reserved(16, 30),
        reserved(0),
    ],
)


def test_fields_are_decoded_to_numbers_and_reserved_ones_only_where_they_are_set() -> None:
    assert STATUS.decode(0x8000AB00) == {"BUSY": 1, "CODE": 0xAB, "TURBO": 0, "SPEED": 0}
    assert STATUS.decode(0x00050001) == {
        "BUSY": 0, "CODE": 0, "TURBO": 0, "SPEED": 0, "reserved(30:16)": 5, "reserved(0)": 1,
    }  # fmt: skip


def test_values_that_have_a_name_are_shown_by_it() -> None:
    assert STATUS.shown(0x8000AB20) == {"BUSY": 1, "CODE": "ABORTED", "SPEED": "FAST"}
    assert STATUS.shown(0x0000AC10) == {"CODE": 0xAC, "SPEED": 1}
    assert STATUS.meanings(0x20) == {"CODE": "NONE", "SPEED": "FAST"}


def test_a_masked_write_is_shown_by_the_fields_that_it_selects() -> None:
    register = Register(
        "R", 0, access=MASKED, fields=[flag(0, "KERNEL"), field(4, 5, "LEVEL", {0: "LOW"}), flag(8, "HIGH")]
    )
    assert register.written(0x0001_0101) == {"KERNEL": 1}
    assert register.written(0x0031_0000) == {"KERNEL": 0, "LEVEL": "LOW"}
    assert register.shown(0x0101) == {"KERNEL": 1, "HIGH": 1}


def test_the_upper_half_of_a_wide_register_is_described_by_the_fields_in_it() -> None:
    registers = file_with(Register("BASE", 8, width=8, fields=[flag(0, "ENABLE"), field(20, 63, "ADDRESS")]))
    assert registers.describe(12, 1) == {"register": "BASE+4", "offset": 12, "value": 1, "ADDRESS": 1 << 12}
    assert registers.describe(8, 0x300001) == {
        "register": "BASE", "offset": 8, "value": 0x300001, "ENABLE": 1, "ADDRESS": 3,
    }  # fmt: skip


def test_bits_that_are_reserved_or_not_modelled_are_noted_when_a_write_sets_them() -> None:
    seen: list[int] = []
    hooked = Register("HOOKED", 4, access=RO, write=seen.append, fields=[not_modelled(1, "TURBO")])
    registers = file_with(STATUS, hooked)
    for value in (0x8000AB00, 0x81, 0x20, 0):
        registers.write(0, 4, value)
    registers.write(4, 4, 1)
    assert registers.peek(0) == 0
    assert list(registers.unmodelled_bits) == [0]
    note = registers.unmodelled_bits[0]
    assert (note.writes, note.bits, note.first_value) == (2, 0xA1, 0x81)
    assert STATUS.unmodelled_fields(note.bits) == ["TURBO", "SPEED", "reserved(0)"]
    registers.write(4, 4, 2)
    assert seen == [1, 2]
    assert registers.unmodelled_bits[4].bits == 2


def test_a_masked_write_sets_only_bits_that_it_selects() -> None:
    registers = file_with(Register("R", 0, access=MASKED, fields=[not_modelled(0, "A"), not_modelled(1, "B")]))
    registers.write(0, 4, 0x0000_0003)
    registers.write(0, 4, 0x0003_0000)
    assert not registers.unmodelled_bits
    registers.write(0, 4, 0x0002_0003)
    assert registers.unmodelled_bits[0].bits == 2
    assert registers.peek(0) == 2


def test_bits_in_the_upper_half_of_a_wide_register_are_noted_there() -> None:
    register = Register("R", 8, width=8, fields=[not_modelled(33, "HIGH"), reserved(2)])
    registers = file_with(register)
    registers.write(8, 8, 2 << 32 | 2)
    assert [(note.offset, note.bits) for note in registers.unmodelled_bits.values()] == [(12, 2)]
    registers.write(8, 4, 4)
    assert registers.unmodelled_bits[8].bits == 4


def test_reading_notes_no_bits() -> None:
    registers = file_with(Register("R", 0, reset=0xFF, fields=[not_modelled(0, "A", 7)]))
    assert registers.read(0, 4) == 0xFF
    assert not registers.unmodelled_bits


def test_registers_are_found_by_name_in_any_case() -> None:
    assert file_with(Register("GMD_ID", 0xD8C)).by_name("gmd_id").offset == 0xD8C


def test_a_wrong_name_is_answered_with_near_ones() -> None:
    registers = file_with(Register("FORCEWAKE_GT", 0), Register("FORCEWAKE_ACK_GT", 4), Register("GMD_ID", 8))
    with pytest.raises(KeyError, match="FORCEWAKE_GT, FORCEWAKE_ACK_GT"):
        registers.by_name("forcewake")
    with pytest.raises(KeyError, match="GMD_ID"):
        registers.by_name("GMD_IDD")


def test_a_model_that_updates_bits_and_a_guest_that_writes_others_lose_nothing() -> None:
    """The guest owns the low half of a register, the model the high half; each finds what it left there."""
    registers = file_with(Register("R", 0, mask=0xFFFF))
    finished = threading.Event()
    lost: list[str] = []

    def guest() -> None:
        number = 0
        while not finished.is_set():
            number = (number + 1) & 0xFFFF
            registers.write(0, 4, number)
            if registers.read(0, 4) & 0xFFFF != number:
                lost.append(f"the guest's {number:#x}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=guest)
        thread.start()
        for number in range(10_000):
            bit = 1 << (16 + number % 16)
            if not registers.update(0, set=bit) & bit or not registers.peek(0) & bit:
                lost.append(f"the model's {bit:#x}")
            registers.update(0, clear=bit)
        finished.set()
        thread.join()
    finally:
        finished.set()
        sys.setswitchinterval(interval)
    assert lost == []
    assert registers.peek(0) >> 16 == 0


def test_the_tap_is_told_of_every_dword_in_order_and_of_nothing_once_it_is_off() -> None:
    seen: list[tuple[str, object, object]] = []

    def record(told: Record) -> None:
        _, function, category, event, late = told
        assert (function, category) == (registers.name, "mmio")
        fields = late() if callable(late) else late or {}
        seen.append((event, fields["offset"], fields["value"]))

    registers = file_with(Register("R", 0, reset=1), Register("CALC", 4, access=RO, read=lambda: 42))
    registers.tap.switch_on(record, lambda: 0.0)
    registers.read(0, 8)
    registers.write(0, 4, 5)
    registers.write(0x80, 4, 6)
    registers.read(0x80, 4)
    registers.tap.switch_off()
    registers.read(0, 4)
    assert seen == [("read", 0, 1), ("read", 4, 42), ("write", 0, 5), ("write", 0x80, 6), ("read", 0x80, 6)]
    assert registers.read(0, 4) == 5
    assert registers.unmodelled[0x80].writes == 1


@pytest.mark.parametrize("traced", [False, True])
def test_a_watch_tells_which_bits_never_changed(traced: bool) -> None:
    values = iter([0b0011, 0b0101, 0b1001])
    registers = file_with(Register("STATUS", 0, access=RO, read=lambda: next(values)))
    if traced:
        registers.tap.switch_on(lambda told: None, lambda: 0.0)
    watch = registers.watch(0)
    assert registers.watch(0) is watch
    for _ in range(3):
        registers.read(0, 4)
    registers.unwatch(0)
    assert (watch.reads, watch.last) == (3, 0b1001)
    assert watch.all_ones == 0b0001
    assert watch.all_zeros == 0xFFFFFFF0
    with pytest.raises(StopIteration):
        registers.read(0, 4)


def test_watching_an_undeclared_offset_keeps_it_undeclared() -> None:
    registers = file_with()
    watch = registers.watch(0x30)
    registers.read(0x30, 4)
    registers.unwatch(0x30)
    registers.read(0x30, 4)
    assert watch.reads == 1
    assert registers.unmodelled[0x30].reads == 2
    assert registers.unwatch(0x30) is None


def test_polling_is_visible() -> None:
    registers = file_with()
    for _ in range(5):
        registers.read(0x124, 4)
    assert (registers.reads, registers.last_read) == (5, 0x124)
