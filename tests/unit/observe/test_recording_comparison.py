"""What a replay compares of guest memory: all bytes but those that tell the time."""

from __future__ import annotations

from vfio_user_xe.emulator.recording.comparison import Comparison

CHANGES = 0x1008


def compared(recorded: bytes, made: bytes, *, tells: bool, address: int = CHANGES) -> list[tuple[str, str]]:
    both = Comparison(["pf"])
    both.write(0, CHANGES, recorded, made=False)
    both.write(0, address, made, made=True, tells=tells)
    both.look(1)
    return [(found.expected, found.got) for found in both.lasting()]


def test_bytes_that_tell_the_time_may_differ_and_others_may_not() -> None:
    assert compared(b"\x53", b"\x51", tells=True) == []
    assert compared(b"\x53", b"\x51", tells=False) == [("0x53", "0x51")]


def test_bytes_that_tell_the_time_must_have_been_written_then_too() -> None:
    assert compared(b"\x53", b"\x51\x52", tells=True) == [("not written", "0x52")]
    assert compared(b"\x53\x54", b"\x51", tells=True) == [("0x54", "not written")]


def test_the_rest_of_a_page_with_a_time_is_compared() -> None:
    both = Comparison(["pf"])
    for made, time, value in ((False, b"\x53", b"\x01"), (True, b"\x51", b"\x02")):
        both.write(0, CHANGES, time, made=made, tells=made)
        both.write(0, CHANGES + 8, value, made=made)
    both.look(1)
    (found,) = both.lasting()
    assert (found.where, found.expected, found.got) == ("pf: guest memory at 0x1010", "0x01", "0x02")


def test_a_place_tells_the_time_until_something_else_is_written_there() -> None:
    both = Comparison(["pf"])
    both.write(0, CHANGES, b"\x53", made=False)
    both.write(0, CHANGES, b"\x53", made=True, tells=True)
    both.write(0, CHANGES, b"\x51", made=True)
    both.look(1)
    assert [(found.expected, found.got) for found in both.lasting()] == [("0x53", "0x51")]
