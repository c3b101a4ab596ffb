"""Traces of what clients do: each category, switched on and off before, while and after clients are attached.

A plain device is served in this process, so that what a trace leaves behind can be looked for; an xe card is served by a
process of its own, and traced over its control socket.
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import logs
from tests.support.xe.wire_driver import MIB, Context, WireDriver
from vfio_user_xe.device_models import edu
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.observe.tap import Tap
from vfio_user_xe.emulator.observe.trace import Tracer
from vfio_user_xe.emulator.observe.trace import log as trace_log
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from vfio_user_xe.emulator.testing.lab import CONFIG, LiveCard, open_card
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client
from vfio_user_xe.emulator.vfio_user.session import Session

BAR0 = 0
INTERRUPTS = {0x190030: 0x0011_0011, 0x190038: 0x8000_0000, 0x190048: 0x0011_0000, 0x190008: 1 << 31}
"""Registers that let the engines' and the GuC's interrupts through (xe_irq.c)."""
EDU_CATEGORIES = ("client", "config", "fabric", "irq", "link", "mmio")
XE_CATEGORIES = ("client", "config", "cs", "engine", "fabric", "guc", "irq", "link", "mmio")
NEEDS_A_KERNEL = ("eu",)
"""Tried in tests/unit/xe/compute/test_kernel_trace.py."""


@pytest.fixture
def card() -> Iterator[Card]:
    made = Card(CardConfig.default("edu"))
    made.start()
    yield made
    made.stop()


class Guest:
    """A client of `card`'s function over a socket, and a driver of the device."""

    def __init__(self, card: Card, client: Client) -> None:
        self.card = card
        self.client = client
        self._addresses = itertools.count(0x1000, 0x1000)
        client.map_memory(0, MIB)
        self.interrupts = client.enable_irqs(wire.IRQ_MSI, 1)
        client.write(CONFIG, COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER)

    def act(self) -> None:
        """Something of every category."""
        client = self.client
        client.device_info()
        client.read(CONFIG, 0, 4)
        client.read(BAR0, edu.IDENTIFICATION, 4)
        client.write(BAR0, edu.INTERRUPT_RAISE, 4, 1)
        client.write(BAR0, edu.DMA_SOURCE, 4, edu.BUFFER)
        client.write(BAR0, edu.DMA_DESTINATION, 4, next(self._addresses))
        client.write(BAR0, edu.DMA_COUNT, 4, 64)
        client.write(BAR0, edu.DMA_COMMAND, 4, edu.START | edu.TO_GUEST)
        self.card.executor.run_sync(lambda: None, 10)


@contextmanager
def attached(card: Card, tmp_path: Path) -> Iterator[Guest]:
    """A client that is attached to the card's function by a session of its own."""
    path = str(tmp_path / "edu.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            Session(card.functions[0], connection, tap=card.client_tap).run()

        session = threading.Thread(target=serve)
        session.start()
        try:
            with Client(path) as client:
                yield Guest(card, client)
        finally:
            session.join()
            os.unlink(path)
    card.executor.run_sync(lambda: None, 10)


def categories_in(path: Path) -> set[str]:
    return {json.loads(line)["category"] for line in path.read_text().splitlines()}


def records_held() -> int:
    """Records of any trace that are queued anywhere in this process."""
    gc.collect()
    queues = [found for found in gc.get_objects() if isinstance(found, deque)]
    return sum(1 for queue in queues for item in list(queue) if _is_record(item))


def _is_record(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 5 and item[2] in XE_CATEGORIES


@pytest.mark.parametrize("category", EDU_CATEGORIES)
def test_a_category_records_a_client_that_was_attached_before(card: Card, tmp_path: Path, category: str) -> None:
    path = tmp_path / "t.jsonl"
    with attached(card, tmp_path) as guest:
        guest.act()
        card.tracer.start([category], path)
        guest.act()
        card.tracer.stop()
        size = path.stat().st_size
        for _ in range(20):
            guest.act()
    assert categories_in(path) == {category}
    assert path.stat().st_size == size
    assert records_held() == 0


@pytest.mark.parametrize("category", EDU_CATEGORIES)
def test_a_category_records_a_client_that_attaches_later_and_stops_while_it_is_attached(
    card: Card, tmp_path: Path, category: str
) -> None:
    path = tmp_path / "t.jsonl"
    card.tracer.start([category], path)
    with attached(card, tmp_path) as guest:
        guest.act()
        card.tracer.stop()
        size = path.stat().st_size
        for _ in range(20):
            guest.act()
    assert categories_in(path) == {category}
    assert path.stat().st_size == size
    assert records_held() == 0


@pytest.mark.parametrize("category", EDU_CATEGORIES)
def test_a_category_records_each_of_two_clients_that_come_and_go(card: Card, tmp_path: Path, category: str) -> None:
    path, sizes = tmp_path / "t.jsonl", []
    card.tracer.start([category], path)
    for _ in range(2):
        with attached(card, tmp_path) as guest:
            guest.act()
        card.tracer.stop()
        sizes.append(path.stat().st_size)
        card.tracer.start([category], path)
    card.tracer.stop()
    assert all(sizes)
    with attached(card, tmp_path) as guest:
        guest.act()
    assert records_held() == 0


@pytest.mark.parametrize("category", EDU_CATEGORIES)
def test_a_category_that_is_not_traced_records_nothing_of_a_client(card: Card, tmp_path: Path, category: str) -> None:
    others = [name for name in card.tracer.categories() if name != category]
    card.tracer.start(others, tmp_path / "t.jsonl")
    with attached(card, tmp_path) as guest:
        guest.act()
    card.tracer.stop()
    assert categories_in(tmp_path / "t.jsonl") == set(others)


def test_every_category_of_a_card_is_tried_here(card: Card) -> None:
    assert set(card.tracer.categories()) == set(EDU_CATEGORIES)


def events_of(path: Path) -> list[tuple[str, dict[str, Any]]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [(record["event"], record["fields"]) for record in records]


def test_configuration_space_that_is_read_as_a_block_is_shown_as_one(card: Card, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with attached(card, tmp_path) as guest:
        card.tracer.start(["config"], path)
        word = guest.client.region_read(CONFIG, 0, 4)
        block = guest.client.region_read(CONFIG, 0, 64)
        whole = guest.client.region_read(CONFIG, 0, 4096)
        guest.client.region_write(CONFIG, 0x3C, b"\x0b")
        card.tracer.stop()
    assert events_of(path) == [
        ("read", {"offset": 0, "size": 4, "value": int.from_bytes(word, "little")}),
        ("read-block", {"offset": 0, "size": 64, "data": block.hex()}),
        ("read-block", {"offset": 0, "size": 4096, "data": whole[:64].hex() + "..."}),
        ("write", {"offset": 0x3C, "size": 1, "value": 0x0B}),
    ]


def test_registers_that_are_read_as_a_block_are_shown_one_by_one(card: Card, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with attached(card, tmp_path) as guest:
        card.tracer.start(["mmio"], path)
        guest.client.region_read(BAR0, edu.IDENTIFICATION, 12)
        card.tracer.stop()
    assert [(event, fields["register"]) for event, fields in events_of(path)] == [
        ("read", "IDENTIFICATION"),
        ("read", "LIVENESS"),
        ("read", "FACTORIAL"),
    ]


def test_a_client_that_never_pauses_leaves_nothing_behind_when_the_trace_ends(card: Card, tmp_path: Path) -> None:
    ended = threading.Event()
    with attached(card, tmp_path) as guest:

        def read() -> None:
            while not ended.is_set():
                guest.client.read(CONFIG, 0, 4)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(10):
                card.tracer.start(["config"], tmp_path / f"{number}.jsonl")
                card.tracer.stop()
            assert records_held() == 0
        finally:
            ended.set()
            reader.join()


# The tracer, on taps of its own.


def test_a_block_that_is_made_while_its_category_is_traced_is_recorded(tmp_path: Path) -> None:
    tracer, early, late = Tracer(), Tap("uart", "serial port"), Tap("uart", "serial port")
    tracer.join(early)
    tracer.start(["uart"], tmp_path / "t")
    tracer.join(late)
    late("serial", "write")
    tracer.stop()
    assert not late.on
    assert (tmp_path / "t").read_text().split()[1:] == ["serial", "uart", "write"]


def test_what_a_thread_tells_after_it_saw_its_tap_on_is_in_no_later_trace(tmp_path: Path) -> None:
    tracer = Tracer()
    tap = tracer.tap("uart", "serial port")
    tracer.start(["uart"], tmp_path / "first")
    tracer.stop()
    tap("serial", "late")
    tracer.start(["uart"], tmp_path / "second")
    tracer.stop()
    assert [(tmp_path / name).read_text() for name in ("first", "second")] == ["", ""]


def test_a_trace_whose_file_is_full_ends_with_a_log_line_and_the_card_goes_on(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    tracer, told = Tracer(), threading.Event()
    tap = tracer.tap("uart", "serial port")
    tracer.start(["uart"], "/dev/full")
    tap("serial", "write", lambda: told.set() or {})
    with caplog.at_level(logging.ERROR):
        assert told.wait(60)
        tracer.stop()
    assert "the trace /dev/full is incomplete: No space left on device" in logs.text(caplog, trace_log)
    assert not tap.on
    tracer.start(["uart"], tmp_path / "t")
    tap("serial", "again")
    tracer.stop()
    assert "again" in (tmp_path / "t").read_text()


def test_fields_that_cannot_be_written_are_said_to_be_so(tmp_path: Path) -> None:
    tracer = Tracer()
    tap = tracer.tap("uart", "serial port")
    tracer.start(["uart"], tmp_path / "t.jsonl")
    tap("serial", "bad", {("a", "tuple"): 1})  # type: ignore[dict-item]
    tap("serial", "good")
    tracer.stop()
    (bad, good) = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert (bad["event"], list(bad["fields"]), good["event"]) == ("bad", ["error"], "good")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_sampler_that_fails_ends_the_trace_and_nothing_is_queued_behind_it(tmp_path: Path) -> None:
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise ZeroDivisionError

    tracer = Tracer()
    tap = tracer.tap("uart", "serial port")
    tracer.join(Tap("broken", "a sampler", lambda: fail))
    tracer.start(["all"], tmp_path / "t")
    assert failed.wait(60)
    tracer.stop()
    tap("serial", "late")
    assert (tap.on, tracer.active, records_held()) == (False, [], 0)


# An xe card, over its control socket.


@pytest.fixture(scope="module")
def xe() -> Iterator[LiveCard]:
    with open_card(["--vfs", "2", "--set", "vram=1GiB", "--set", "vf_bar2=16MiB"]) as served:
        yield served


@contextmanager
def driven(xe: LiveCard) -> Iterator[Callable[[], None]]:
    """A driver that is attached to the PF; what it gives does something of every category."""
    driver = WireDriver(xe)
    try:
        driver.client.enable_irqs(wire.IRQ_MSI, 1)
        for offset, value in INTERRUPTS.items():
            driver.write(offset, value)
        contexts: list[Context] = []

        def act() -> None:
            driver.client.device_info()
            driver.client.read(CONFIG, 0, 4)
            context = driver.context()
            contexts.append(context)
            source, to = driver.alloc(), driver.alloc()
            context.map(source, source, 0x1000)
            context.map(to, to, 0x1000)
            assert context.copy(to, source, 0x1000) == []
            driver.settle()

        yield act
    finally:
        driver.client.reset()
        driver.close()


def test_every_category_of_an_xe_card_is_tried_here(xe: LiveCard) -> None:
    assert set(xe.call("trace")["categories"]) == {*XE_CATEGORIES, *NEEDS_A_KERNEL}


@pytest.mark.parametrize("category", XE_CATEGORIES)
def test_trace_on_records_a_driver_that_is_attached_already_and_trace_off_ends_it(
    xe: LiveCard, tmp_path: Path, category: str
) -> None:
    path = tmp_path / "t.jsonl"
    with driven(xe) as act:
        act()
        xe.call("trace_on", categories=[category], file=str(path))
        act()
        xe.call("trace_off")
        size = path.stat().st_size
        act()
    assert categories_in(path) == {category}
    assert (path.stat().st_size, xe.call("status")["trace"]) == (size, [])


@pytest.mark.parametrize("category", XE_CATEGORIES)
def test_trace_on_records_drivers_that_attach_later(xe: LiveCard, tmp_path: Path, category: str) -> None:
    path, sizes = tmp_path / "t.jsonl", []
    for _ in range(2):
        xe.call("trace_on", categories=[category], file=str(path))
        with driven(xe) as act:
            act()
        xe.call("trace_off")
        sizes.append(path.stat().st_size)
        assert categories_in(path) == {category}
    with driven(xe) as act:
        act()
    assert path.stat().st_size == sizes[-1]
