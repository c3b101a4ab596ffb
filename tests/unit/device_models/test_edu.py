"""The teaching device over a client that needs no socket."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from tests.support import logs
from vfio_user_xe.device_models import edu
from vfio_user_xe.device_models.edu import (
    BUFFER,
    COMPUTING,
    DMA_COMMAND,
    DMA_COUNT,
    DMA_DESTINATION,
    DMA_INTERRUPT,
    DMA_SOURCE,
    FACTORIAL,
    FACTORIAL_INTERRUPT,
    IDENTIFICATION,
    INTERRUPT_ACKNOWLEDGE,
    INTERRUPT_RAISE,
    INTERRUPT_STATUS,
    INTERRUPT_WHEN_COMPUTED,
    INTERRUPT_WHEN_COPIED,
    LIVENESS,
    START,
    STATUS,
    TO_GUEST,
    Edu,
)
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER
from vfio_user_xe.emulator.pci.transport import MSI, AccessHandler
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport

MSI_CONTROL = 0x40 + 2


class Bench:
    """The device, a guest's hands on its BAR, and the memory of that guest."""

    def __init__(self, settings: list[str] | None = None) -> None:
        self.card = Card(CardConfig.default("edu").override(settings=settings or []))
        assert isinstance(self.card.model, Edu)
        self.edu = self.card.model
        self.client = FakeTransport(size=1 << 20)
        self.card.start()
        function = self.edu.function
        function.attached(self.client)
        function.config.write(COMMAND, 2, COMMAND_MASTER)
        function.config.write(MSI_CONTROL, 2, 1)
        region = function.regions[0]
        assert region is not None
        assert region.handler is not None
        self.bar: AccessHandler = region.handler

    def read(self, offset: int, size: int = 4) -> int:
        return self.bar.read(offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.bar.write(offset, size, value)

    def settle(self) -> None:
        """Until the device has nothing to do."""
        self.card.executor.run_sync(lambda: None, 30)

    def dma(self, source: int, destination: int, count: int, command: int) -> None:
        for offset, value in ((DMA_SOURCE, source), (DMA_DESTINATION, destination), (DMA_COUNT, count)):
            self.write(offset, value, 8)
        self.write(DMA_COMMAND, command | START)
        self.settle()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.card.stop()


def test_it_has_the_ids_and_the_bar_of_the_documented_device(bench: Bench) -> None:
    config = bench.edu.function.config
    assert (config.read(0, 2), config.read(2, 2)) == (0x1234, 0x11E8)
    assert bench.read(IDENTIFICATION) == 0x010000ED
    region = bench.edu.function.regions[0]
    assert region is not None
    assert region.size == 1 << 20
    config.write(0x10, 4, 0xFFFFFFFF)
    assert config.read(0x10, 4) == 0xFFF00000


def test_the_identification_cannot_be_overwritten(bench: Bench) -> None:
    bench.write(IDENTIFICATION, 0)
    assert bench.read(IDENTIFICATION) == 0x010000ED


@pytest.mark.parametrize("value", [0, 1, 0x12345678, 0xFFFFFFFF])
def test_liveness_inverts(bench: Bench, value: int) -> None:
    bench.write(LIVENESS, value)
    assert bench.read(LIVENESS) == value ^ 0xFFFFFFFF


@pytest.mark.parametrize("value", [0, 1, 2, 5, 12, 13, 33, 34, 35, 0xFFFFFFFF])
def test_factorials_are_computed_modulo_2_to_the_32(bench: Bench, value: int) -> None:
    bench.write(FACTORIAL, value)
    bench.settle()
    assert bench.read(STATUS) & COMPUTING == 0
    assert bench.read(FACTORIAL) == math.factorial(min(value, 40)) % (1 << 32)
    assert bench.client.triggered == []


def test_computing_is_visible_and_a_second_number_is_ignored_meanwhile(bench: Bench) -> None:
    def on_executor() -> None:
        bench.write(FACTORIAL, 5)
        assert bench.read(STATUS) & COMPUTING
        bench.write(FACTORIAL, 6)

    bench.card.executor.run_sync(on_executor, 30)
    bench.settle()
    assert bench.read(FACTORIAL) == 120


def test_a_factorial_interrupts_when_asked_to(bench: Bench) -> None:
    bench.write(STATUS, INTERRUPT_WHEN_COMPUTED)
    bench.write(FACTORIAL, 4)
    bench.settle()
    assert bench.client.triggered == [(MSI, 0)]
    assert bench.read(INTERRUPT_STATUS) == FACTORIAL_INTERRUPT
    bench.write(INTERRUPT_ACKNOWLEDGE, FACTORIAL_INTERRUPT)
    assert bench.read(INTERRUPT_STATUS) == 0


def test_only_the_interrupt_bit_of_the_status_can_be_written(bench: Bench) -> None:
    bench.write(STATUS, 0xFFFFFFFF)
    assert bench.read(STATUS) == INTERRUPT_WHEN_COMPUTED


def test_raised_bits_collect_until_each_is_acknowledged(bench: Bench) -> None:
    bench.write(INTERRUPT_RAISE, 0x8000_0001)
    bench.write(INTERRUPT_RAISE, 0x10)
    assert bench.client.triggered == [(MSI, 0), (MSI, 0)]
    assert bench.read(INTERRUPT_STATUS) == 0x8000_0011
    bench.write(INTERRUPT_ACKNOWLEDGE, 0x11)
    assert bench.read(INTERRUPT_STATUS) == 0x8000_0000


def test_dma_copies_a_block_to_the_buffer_and_back(bench: Bench) -> None:
    block = bytes(range(100))
    bench.client.memory[0x1000:0x1064] = block
    bench.dma(0x1000, BUFFER, 100, 0)
    bench.dma(BUFFER, 0x2000, 100, TO_GUEST)
    assert bytes(bench.client.memory[0x2000:0x2064]) == block
    assert bench.read(DMA_COMMAND) == TO_GUEST
    assert bench.client.triggered == []
    assert [(e.interconnect, e.kind, e.bytes_read, e.bytes_written) for e in bench.card.fabric.ledger] == [
        ("host_dma", "dma", 100, 100)
    ]


def test_dma_works_by_messages_where_memory_is_not_shared(bench: Bench) -> None:
    bench.client.shared = 0
    bench.client.memory[0x1000:0x1008] = b"messages"
    bench.dma(0x1000, BUFFER + 8, 8, 0)
    bench.dma(BUFFER + 8, 0x3000, 8, TO_GUEST)
    assert bytes(bench.client.memory[0x3000:0x3008]) == b"messages"
    assert [kind for kind, _, _ in bench.client.messages] == ["read", "write"]


def test_dma_interrupts_when_asked_to(bench: Bench) -> None:
    bench.dma(0x1000, BUFFER, 4, INTERRUPT_WHEN_COPIED)
    assert bench.client.triggered == [(MSI, 0)]
    assert bench.read(INTERRUPT_STATUS) == DMA_INTERRUPT


def test_addresses_are_cut_to_28_bits(bench: Bench) -> None:
    bench.client.memory[0x1000:0x1004] = b"mask"
    bench.dma(0xF000_0000_1000, BUFFER, 4, 0)
    bench.dma(BUFFER, 0x7_1000_2000, 4, TO_GUEST)
    assert bytes(bench.client.memory[0x2000:0x2004]) == b"mask"


def test_the_mask_is_an_option() -> None:
    bench = Bench(["dma_mask=0xffff"])
    bench.client.memory[0x2000:0x2004] = b"tiny"
    bench.dma(0x12000, BUFFER, 4, 0)
    bench.card.stop()
    assert bytes(bench.edu.buffer[:4]) == b"tiny"


@pytest.mark.parametrize(
    ("address", "count"), [(BUFFER - 1, 4), (BUFFER + 4093, 4), (BUFFER, 4097), (0, 4), (BUFFER, (1 << 64) - 1)]
)
def test_dma_outside_of_the_buffer_moves_nothing_and_ends(
    bench: Bench, address: int, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench.dma(0x1000, address, count, 0)
    bench.dma(address, 0x1000, count, TO_GUEST)
    assert not any(bench.client.memory)
    assert bench.read(DMA_COMMAND) & START == 0
    assert "is not in the buffer" in logs.text(caplog, edu.log)
    assert bench.card.executor.failures == 0


def test_dma_to_memory_that_the_guest_does_not_have_leaves_the_buffer_and_ends(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.edu.buffer[0:4] = b"kept"
    bench.dma(0x80_0000, BUFFER, 4, INTERRUPT_WHEN_COPIED)
    assert bytes(bench.edu.buffer[0:4]) == b"kept"
    assert bench.read(DMA_COMMAND) & START == 0
    assert "no interconnect reaches it" in logs.text(caplog, edu.log)


def test_registers_of_a_running_dma_do_not_start_another(bench: Bench) -> None:
    bench.client.memory[0x1000:0x1004] = b"once"

    def on_executor() -> None:
        bench.write(DMA_SOURCE, 0x1000)
        bench.write(DMA_DESTINATION, BUFFER)
        bench.write(DMA_COUNT, 4)
        bench.write(DMA_COMMAND, START)
        bench.write(DMA_COMMAND, START | TO_GUEST)

    bench.card.executor.run_sync(on_executor, 30)
    bench.settle()
    assert bytes(bench.edu.buffer[:4]) == b"once"
    assert len(list(bench.card.fabric.ledger)) == 1
    assert next(iter(bench.card.fabric.ledger)).writes == 0


def test_a_machine_reset_clears_registers_and_buffer(bench: Bench) -> None:
    bench.write(INTERRUPT_RAISE, 1)
    bench.edu.buffer[0] = 1
    bench.edu.function.reset()
    bench.settle()
    assert bench.read(INTERRUPT_STATUS) == 0
    assert bench.edu.buffer[0] == 0
    assert bench.read(IDENTIFICATION) == 0x010000ED


def test_no_register_of_the_documented_device_is_unmodelled(bench: Bench) -> None:
    for offset in (0x00, 0x04, 0x08, 0x20, 0x24, 0x60, 0x64, *range(0x80, 0xA0, 4), BUFFER, BUFFER + 4092):
        bench.read(offset)
    assert bench.edu.registers.unmodelled == {}
