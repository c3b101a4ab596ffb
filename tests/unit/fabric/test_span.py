"""Windows and spans: every access counts, and none passes a revocation."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from tests.support.initiators import PF
from vfio_user_xe.emulator.fabric.ledger import LedgerEntry
from vfio_user_xe.emulator.fabric.span import Revoked, Span, Window, move

BASE = 0x70_0000


def window(size: int = 0x2000, view: Any = None) -> Window:
    made = Window(0x1000, size, view or memoryview(bytearray(size)), "vf1", LedgerEntry("pf", "vf1", "iov", "vram"))
    made.initiator, made.space = PF, "device"
    return made


def counted(entry: LedgerEntry) -> tuple[int, int, int, int]:
    return entry.reads, entry.bytes_read, entry.writes, entry.bytes_written


def test_values_of_each_size_are_stored_loaded_and_counted() -> None:
    span = Span(window(), BASE)
    span.store32(BASE + 4, 0xDEAD_BEEF)
    span.store64(BASE + 8, 0x1122_3344_5566_7788)
    span.store(BASE + 17, b"odd")
    span.store_words(BASE + 32, array("I", [1, 2, 3]))
    assert counted(span.entry) == (0, 0, 4, 4 + 8 + 3 + 12)
    assert span.load32(BASE + 4) == 0xDEAD_BEEF
    assert span.load64(BASE + 8) == 0x1122_3344_5566_7788
    assert span.load(BASE + 17, 3) == b"odd"
    assert span.load_words(BASE + 32, 3) == [1, 2, 3]
    words = span.fetch()
    assert words[1] == 0xDEAD_BEEF
    span.fetched(0)
    span.fetched(2)
    assert counted(span.entry)[:2] == (5, 4 + 8 + 3 + 12 + 8)


@pytest.mark.parametrize("base", [0, 0x1000, 0x3000, 0xFFFF_F000])
def test_a_span_may_begin_at_any_page(base: int) -> None:
    span = Span(window(0x4000), base)
    assert (span.base, span.end) == (base, base + 0x4000)
    for offset in (0, 0x7F8, 0x1000, 0x2FF8, 0x3FF0):
        for store, load, value in (
            (span.store32, span.load32, offset + 1),
            (span.store64, span.load64, offset << 40 | 1),
            (span.store, lambda at: span.load(at, 3), b"odd"),
            (lambda at, words: span.store_words(at, array("I", words)), lambda at: span.load_words(at, 2), [offset, 7]),
        ):
            store(base + offset, value)
            assert load(base + offset) == value
        assert span.window.read(offset, 8) == offset.to_bytes(4, "little") + bytes([7, 0, 0, 0])


def test_a_span_has_the_whole_pages_of_its_window() -> None:
    assert Span(window(0x2FFF), BASE).end == BASE + 0x2000
    short = Span(window(0xFFF), BASE)
    assert short.end == BASE


ACCESSES = {
    "load32": lambda span: span.load32(BASE),
    "store32": lambda span: span.store32(BASE, 1),
    "load64": lambda span: span.load64(BASE),
    "store64": lambda span: span.store64(BASE, 1),
    "load": lambda span: span.load(BASE, 4),
    "store": lambda span: span.store(BASE, b"1234"),
    "load_words": lambda span: span.load_words(BASE, 2),
    "store_words": lambda span: span.store_words(BASE, array("I", [1, 2])),
    "fetch": lambda span: span.fetch(),
}


@pytest.mark.parametrize("access", ACCESSES)
def test_no_access_of_a_span_passes_a_revocation_nor_is_counted(access: str) -> None:
    memory = bytearray(0x1000)
    held = window(0x1000, memoryview(memory))
    span = Span(held, BASE)
    held.revoke()
    with pytest.raises(Revoked, match="pf: device address 0x1000: the path to vf1 was revoked"):
        ACCESSES[access](span)
    assert counted(span.entry) == (0, 0, 0, 0)
    assert not any(memory)


def test_two_spans_of_a_window_are_both_revoked() -> None:
    held = window()
    spans = Span(held, BASE), Span(held, 0)
    held.revoke()
    for span, address in zip(spans, (BASE, 0), strict=True):
        with pytest.raises(Revoked):
            span.load32(address)


def test_a_span_of_a_revoked_window_has_nothing() -> None:
    held = window()
    held.revoke()
    span = Span(held, BASE)
    assert not span.valid
    with pytest.raises(Revoked):
        span.store32(BASE, 1)


WHOLE: dict[str, Any] = {
    "read": lambda held: held.read(0, 4),
    "write": lambda held: held.write(0, b"1234"),
    "lend": lambda held: held.lend(0, 4, write=True),
    "fill": lambda held: held.fill(0, 4, b"ab"),
    "fill with a byte": lambda held: held.fill(0, 4, b"a"),
    "move from": lambda held: move(held, 0, window(), 0, 4),
    "move to": lambda held: move(window(), 0, held, 0, 4),
}


@pytest.mark.parametrize("access", WHOLE)
def test_no_access_of_a_window_passes_a_revocation_nor_is_counted(access: str) -> None:
    memory = bytearray(0x1000)
    held = window(0x1000, memoryview(memory))
    held.revoke()
    with pytest.raises(Revoked):
        WHOLE[access](held)
    assert counted(held.entry) == (0, 0, 0, 0)
    assert not any(memory)


@pytest.mark.parametrize("size", [16, 64 << 10])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_move_copies_and_counts_on_both_sides(size: int, readonly: bool) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    source = window(len(data), memoryview(data) if readonly else memoryview(bytearray(data)))
    target = window(size + 8)
    move(source, 1, target, 8, size)
    assert target.read(8, size) == data[1 : size + 1]
    assert counted(source.entry) == (1, size, 0, 0)
    assert counted(target.entry)[2:] == (1, size)


def test_a_fill_begins_in_the_middle_of_its_pattern() -> None:
    held = window()
    held.fill(2, 7, b"abc", 1)
    held.fill(20, 3, b"z")
    assert held.read(0, 24) == b"\0\0bcabcab" + b"\0" * 11 + b"zzz" + b"\0"
    assert counted(held.entry)[2:] == (2, 10)


def test_zeroing_that_did_nothing_is_not_counted() -> None:
    held = window()
    assert not held.zero(0, 16, lambda view: False)
    assert counted(held.entry)[2:] == (0, 0)
    assert held.zero(0, 16, lambda view: len(view) == 16)
    assert counted(held.entry)[2:] == (1, 16)


@pytest.mark.parametrize("length", [1, 2, 3, 6, 7, 100])
@pytest.mark.parametrize("phase", [0, 1, 2])
def test_a_fill_of_any_length_repeats_its_pattern(length: int, phase: int) -> None:
    held = window()
    held.fill(5, length, b"abc", phase)
    assert held.read(0, 5 + length + 1) == bytes(5) + (b"abc" * 40)[phase:][:length] + b"\0"


def test_what_is_lent_is_the_piece_that_was_asked_for() -> None:
    held = window()
    held.write(0, bytes(range(1, 200)))
    lent = held.lend(10, 7, write=False)
    assert lent is not None
    assert bytes(lent) == bytes(range(11, 18))
    lent = held.lend(16, 4, write=True, count=2)
    assert lent is not None
    lent[:] = b"wxyz"
    assert held.read(15, 6) == b"\x10wxyz\x15"
    assert counted(held.entry) == (2, 7 + 6, 2, 199 + 2)


@pytest.mark.parametrize(("offset", "length"), [(0, 0x2001), (0x2000, 1), (0x1FFF, 2), (-1, 1), (0, -1), (8, 0x1FF9)])
def test_a_window_ends_with_its_last_byte(offset: int, length: int) -> None:
    held = window()
    assert len(held.read(0, 0x2000)) == 0x2000
    assert held.read(0x2000, 0) == b""
    with pytest.raises(ValueError, match="outside of a window of 0x2000 bytes"):
        held.read(offset, length)


def test_words_of_a_span_are_at_their_addresses() -> None:
    span = Span(window(), BASE)
    span.store(BASE, bytes(range(64)))
    for address in range(0, 48, 4):
        for count in (1, 2, 3, 4):
            words = memoryview(bytes(range(64))).cast("I")[address // 4 :][:count].tolist()
            assert span.load_words(BASE + address, count) == words
            assert span.load32(BASE + address) == words[0]
    for address in (0, 4, 20, 0x1FF8):
        span.store_words(BASE + address, array("I", [address, 0xFFFF_FFFF]))
        assert span.load(BASE + address, 8) == address.to_bytes(4, "little") + b"\xff" * 4
    with pytest.raises(ValueError, match="0x701ffc is outside of the span"):
        span.load_words(BASE + 0x1FFC, 2)
    with pytest.raises(ValueError, match="0x701ffc is outside of the span"):
        span.store_words(BASE + 0x1FFC, array("I", [1, 2]))


@pytest.mark.parametrize("size", [16, 0x4000 - 1, 0x4000, 0x4001, 600 << 10])
@pytest.mark.parametrize(("start", "end"), [(0, 0), (1, 8), (40, 24)])
def test_a_move_changes_nothing_but_its_target(size: int, start: int, end: int) -> None:
    for made in (bytearray, bytes):
        data = bytes(n % 251 for n in range(size + 64))
        source, target = window(size + 64, memoryview(made(data))), window(size + 64)
        move(source, start, target, end, size)
        assert target.read(0, size + 64) == bytes(end) + data[start:][:size] + bytes(64 - end)
