from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vfio_user_xe.device_models.edu import BUFFER, LIVENESS, STATUS, Edu
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.model.faults import Faults
from vfio_user_xe.emulator.model.options import UnknownName
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, Register, flag, not_modelled, reserved
from vfio_user_xe.emulator.observe.stalls import Stall, StallWatchdog, bit_names
from vfio_user_xe.emulator.observe.trace import Tracer, parse_trace_argument
from vfio_user_xe.emulator.observe.unmodelled import unmodelled_bits, unmodelled_registers, unmodelled_report
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport


def lines_of(path: Path) -> list[str]:
    """The trace without its times."""
    return [line[13:] for line in path.read_text().splitlines()]


# Trace


def test_a_tap_that_is_off_records_nothing(tmp_path: Path) -> None:
    tracer = Tracer()
    guc, irq = tracer.tap("guc"), tracer.tap("irq")
    tracer.start(["irq"], tmp_path / "t")
    assert (guc.on, irq.on) == (False, True)
    assert tracer.active == ["irq"]
    if guc.on:
        guc("pf", "h2g")
    irq("pf", "msi", {"vector": 3})
    tracer.stop()
    assert lines_of(tmp_path / "t") == ["pf   irq    msi vector=3"]
    assert not irq.on


def test_text_shows_numbers_in_hexadecimal_and_quotes_what_has_spaces(tmp_path: Path) -> None:
    tracer = Tracer()
    tap = tracer.tap("guc")
    tracer.start(["all"], tmp_path / "t")
    tap("vf12", "event", {"small": 9, "large": 10, "flag": True, "word": "plain", "words": "two words"})
    tracer.stop()
    assert lines_of(tmp_path / "t") == ['vf12 guc    event small=9 large=0xa flag=True word=plain words="two words"']


def test_a_file_called_jsonl_gets_json_lines(tmp_path: Path) -> None:
    tracer = Tracer()
    tap = tracer.tap("guc")
    tracer.start(["guc"], tmp_path / "t.jsonl")
    tap("pf", "h2g", lambda: {"action": 0x1002, "raw": b"\1"})
    tracer.stop()
    (line,) = (tmp_path / "t.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record.pop("time") >= 0
    assert record == {
        "function": "pf",
        "category": "guc",
        "event": "h2g",
        "fields": {"action": 0x1002, "raw": "b'\\x01'"},
    }


def test_everything_emitted_before_stop_is_written_in_order(tmp_path: Path) -> None:
    tracer = Tracer()
    tap = tracer.tap("guc")
    tracer.start(["guc"], tmp_path / "t")
    for number in range(5000):
        tap("pf", str(number))
    tracer.stop()
    assert [line.split()[-1] for line in lines_of(tmp_path / "t")] == [str(number) for number in range(5000)]


def test_starting_again_replaces_the_file_and_the_categories(tmp_path: Path) -> None:
    tracer = Tracer()
    guc, irq = tracer.tap("guc"), tracer.tap("irq")
    tracer.start(["guc"], tmp_path / "t")
    guc("pf", "old")
    tracer.start(["irq"], tmp_path / "t")
    irq("pf", "new")
    assert not guc.on
    tracer.stop()
    tracer.stop()
    assert lines_of(tmp_path / "t") == ["pf   irq    new"]


def test_an_unknown_category_is_answered_with_those_there_are_and_switches_nothing(tmp_path: Path) -> None:
    tracer = Tracer()
    tap = tracer.tap("guc")
    with pytest.raises(UnknownName, match=r'category "gcu"; did you mean "guc"\? \(allowed: all, guc\)'):
        tracer.start(["guc", "gcu"], tmp_path / "t")
    assert not tap.on
    assert not (tmp_path / "t").exists()


def test_a_file_that_cannot_be_opened_leaves_the_trace_off(tmp_path: Path) -> None:
    tracer = Tracer()
    tap = tracer.tap("guc")
    with pytest.raises(FileNotFoundError):
        tracer.start(["guc"], tmp_path / "nowhere" / "t")
    assert not tap.on
    tracer.stop()


@pytest.mark.parametrize("argument", ["guc", ":file", "guc:", ",:file", ""])
def test_a_trace_argument_without_categories_or_file_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match="is not of the form"):
        parse_trace_argument(argument)
    assert parse_trace_argument("guc, cs:/tmp/a:b") == (["guc", "cs"], "/tmp/a:b")


@pytest.fixture
def card() -> Iterator[Card]:
    made = Card(CardConfig.default("edu"))
    made.start()
    made.functions[0].attached(FakeTransport())
    made.functions[0].config.write(COMMAND, 2, COMMAND_MASTER)
    yield made
    made.stop()


def bar0(card: Card) -> RegisterFile:
    assert isinstance(card.model, Edu)
    return card.model.registers


def traced(card: Card, path: Path, categories: list[str], act: Callable[[], object]) -> list[str]:
    card.tracer.start(categories, path)
    act()
    card.executor.run_sync(lambda: None)
    card.tracer.stop()
    return lines_of(path)


def test_register_accesses_are_traced_by_register_and_field_name(card: Card, tmp_path: Path) -> None:
    def act() -> None:
        bar0(card).write(LIVENESS, 4, 1)
        bar0(card).read(LIVENESS, 4)
        bar0(card).write(STATUS, 4, 0x80)
        bar0(card).read(BUFFER + 8, 4)
        bar0(card).read(0x44, 4)

    assert traced(card, tmp_path / "t", ["mmio"], act) == [
        "edu  mmio   write register=LIVENESS offset=4 value=1",
        "edu  mmio   read register=LIVENESS offset=4 value=0xfffffffe",
        "edu  mmio   write register=STATUS offset=0x20 value=0x80 INTERRUPT=1",
        "edu  mmio   read register=BUFFER+0x8 offset=0x40008 value=0",
        "edu  mmio   read register=0x44 offset=0x44 value=0",
    ]


# Unmodelled registers


def test_undeclared_registers_are_reported_by_use_with_the_block_they_are_in() -> None:
    file = RegisterFile("pf", 0x10000)
    file.add([Register("FORCEWAKE", 0xA188), Register("BASE", 0x100, width=8)])
    file.add_storage("SCRATCH", 0x4000, 0x40)
    for _ in range(3):
        file.read(0xA190, 4)
    file.write(0x108, 4, 5)
    file.write(0x108, 4, 6)
    file.read(0x10, 4)
    file.read(0x4004, 4)
    assert unmodelled_registers([file]) == [
        {"function": "pf", "offset": 0xA190, "reads": 3, "writes": 0, "first_value": 0, "value": 0, "after": "FORCEWAKE+0x8"},
        {"function": "pf", "offset": 0x108, "reads": 0, "writes": 2, "first_value": 5, "value": 6, "after": "BASE+4+0x4"},
        {"function": "pf", "offset": 0x10, "reads": 1, "writes": 0, "first_value": 0, "value": 0, "after": ""},
    ]  # fmt: skip
    text = unmodelled_report([file]).splitlines()
    assert len(text) == 5
    assert text[1].split() == ["pf", "0xa190", "3", "0", "0x0", "0x0", "FORCEWAKE+0x8"]


def test_bits_that_are_not_modelled_are_reported_by_register_and_name() -> None:
    control = [flag(0, "START"), not_modelled(3, "TURBO"), reserved(8, 31)]
    file = RegisterFile("pf", 0x100)
    file.add([Register("CONTROL", 0x10, fields=control), Register("BASE", 0x20, width=8, fields=[reserved(40)])])
    file.write(0x10, 4, 1)
    file.write(0x20, 8, 1 << 40)
    file.write(0x10, 4, 0x109)
    file.write(0x10, 4, 0x8)
    assert unmodelled_bits([file]) == [
        {"function": "pf", "register": "CONTROL", "offset": 0x10, "writes": 2, "first_value": 0x109, "bits": 0x108,
         "names": ["TURBO", "reserved(31:8)"]},
        {"function": "pf", "register": "BASE+4", "offset": 0x24, "writes": 1, "first_value": 0x100, "bits": 0x100,
         "names": ["reserved(40)"]},
    ]  # fmt: skip
    text = unmodelled_report([file]).splitlines()
    assert text[0] == "no undeclared register was accessed"
    assert text[2].split() == ["pf", "CONTROL", "2", "0x109", "0x108", "TURBO", "reserved(31:8)"]


def test_a_device_that_declared_all_says_so() -> None:
    assert unmodelled_report([RegisterFile("pf", 64)]).splitlines() == [
        "no undeclared register was accessed",
        "no bit that is reserved or not modelled was set",
    ]


# Stalls


class Clock:
    """A guest that acts between the looks of a watchdog, in a time of its own."""

    def __init__(self, file: RegisterFile, after: float = 1.0) -> None:
        self.now = 100.0
        self.watchdog = StallWatchdog([file], after)
        self.reported: list[Stall] = []
        self.watchdog.on_stall = [self.reported.append]

    def steps(self, count: int, act: Callable[[], object]) -> None:
        for _ in range(count):
            act()
            self.now += 0.05
            self.watchdog.sample(self.now)


STATUS_REGISTER = Register("GUC_STATUS", 0x20, reset=0x8000_0010, fields=[flag(0, "READY"), flag(31, "BOOT")])


def polled_file() -> RegisterFile:
    file = RegisterFile("pf", 0x1000)
    file.add([STATUS_REGISTER, Register("OTHER", 0x24), Register("CLOCK", 0x28, access=RO, read=lambda: 7)])
    return file


def test_a_polled_register_is_named_once_with_the_bits_that_never_changed() -> None:
    file = polled_file()
    clock = Clock(file)
    toggle = iter(range(10_000))

    def poll() -> None:
        for _ in range(10):
            file.poke(0x20, 0x8000_0010 ^ (next(toggle) & 1) << 4)
            file.read(0x20, 4)

    clock.steps(200, poll)
    (stall,) = clock.reported
    assert (stall.function, stall.register, stall.offset) == ("pf", "GUC_STATUS", 0x20)
    assert stall.seconds >= 1.0
    assert stall.reads >= 8
    assert stall.stuck_at_1 == 0x8000_0000
    assert stall.stuck_at_0 == 0x7FFF_FFEF
    assert stall.fields == {"READY": 0, "BOOT": 1}
    assert "pf polls GUC_STATUS (0x20)" in str(stall)
    assert "bits 31 set, bits 30:5, 3:0 clear" in str(stall)
    assert list(clock.watchdog.stalls) == [stall]


def test_a_poll_that_ends_in_time_is_no_stall() -> None:
    file = polled_file()
    clock = Clock(file)
    for _ in range(5):
        clock.steps(15, lambda: [file.read(0x20, 4) for _ in range(20)])
        clock.steps(1, lambda: [file.read(0x24, 4) for _ in range(50)])
    assert clock.reported == []


def test_a_driver_that_reads_many_registers_does_not_stall() -> None:
    file = polled_file()
    clock = Clock(file)

    def work() -> None:
        for offset in range(0x100, 0x180, 4):
            file.read(offset, 4)
        file.read(0x20, 4)

    clock.steps(100, work)
    assert clock.reported == []


def test_a_driver_that_reads_back_what_it_writes_does_not_stall() -> None:
    file = polled_file()
    clock = Clock(file)

    def submit() -> None:
        for _ in range(5):
            file.write(0x24, 4, 1)
            file.read(0x20, 4)

    clock.steps(100, submit)
    assert clock.reported == []


def test_a_driver_that_backs_off_between_reads_is_found() -> None:
    file = polled_file()
    clock = Clock(file)
    counter = iter(range(10_000))
    clock.steps(400, lambda: file.read(0x20, 4) if next(counter) % 10 == 0 else None)
    assert [stall.register for stall in clock.reported] == ["GUC_STATUS"]


def test_an_idle_guest_does_not_stall() -> None:
    file = polled_file()
    clock = Clock(file)
    clock.steps(2, lambda: file.read(0x20, 4))
    clock.steps(500, lambda: None)
    assert clock.reported == []
    assert not any(hasattr(reader, "all_ones") for reader in file._readers.values())


def test_a_loop_over_two_registers_is_found() -> None:
    file = polled_file()
    clock = Clock(file)
    clock.steps(100, lambda: [file.read(0x28, 4) + file.read(0x20, 4) for _ in range(10)])
    assert len(clock.reported) == 1


def test_the_next_stall_is_named_again_and_undeclared_registers_by_offset() -> None:
    file = polled_file()
    clock = Clock(file)
    for offset in (0x20, 0x44, 0x20):
        clock.steps(60, lambda offset=offset: [file.read(offset, 4) for _ in range(5)])
    assert [stall.register for stall in clock.reported] == ["GUC_STATUS", "0x44", "GUC_STATUS"]


def test_the_thread_watches_and_leaves_nothing_behind() -> None:
    file = polled_file()
    watchdog = StallWatchdog([file], after=0.1)
    seen = threading.Event()
    watchdog.on_stall = [lambda stall: seen.set()]
    watchdog.start()
    while not seen.wait(0.001):
        file.read(0x20, 4)
    watchdog.stop()
    watchdog.stop()
    assert watchdog.stalls[0].register == "GUC_STATUS"
    assert not any(hasattr(reader, "all_ones") for reader in file._readers.values())


@pytest.mark.parametrize(
    ("bits", "names"), [(0, "none"), (1, "0"), (0x80000000, "31"), (0xFFFFFFFF, "31:0"), (0x8000000F, "31, 3:0")]
)
def test_bits_are_named_as_ranges(bits: int, names: str) -> None:
    assert bit_names(bits) == names


# Faults


def test_a_fault_happens_after_and_as_often_as_it_was_told() -> None:
    point = Faults().point("guc.lose", "lose a message")
    assert point.take() is None
    point.arm(after=2, times=2, arguments={"action": 5})
    assert [point.take() for _ in range(6)] == [None, None, {"action": 5}, {"action": 5}, None, None]
    assert (point.armed, point.taken) == (False, 2)


def test_a_fault_can_happen_for_ever_until_it_is_disarmed() -> None:
    faults = Faults()
    point = faults.point("a", "")
    point.arm(times=0)
    assert [point.take() for _ in range(50)] == [{}] * 50
    faults.clear()
    assert point.take() is None


def test_a_fault_point_is_one_for_all_who_ask_and_unknown_ones_are_refused() -> None:
    faults = Faults()
    assert faults.point("guc.lose", "x") is faults.point("guc.lose", "x")
    assert faults["guc.lose"].help == "x"
    with pytest.raises(KeyError, match=r'did you mean "guc\.lose"'):
        faults["guc.loose"]
    with pytest.raises(ValueError, match="must not be negative"):
        faults["guc.lose"].arm(after=-1)
