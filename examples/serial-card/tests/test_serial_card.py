"""The UART as its data sheet has it, driven by a vfio-user client; no guest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serial_card import DATA, IER, IIR_FCR, LCR, LSR, MCR, MSR, SCRATCH

from vfio_user_xe.emulator.testing.lab import CONFIG, MSI, Client, LiveCard
from vfio_user_xe.emulator.testing.pytest_plugin import FaultInjection

pytestmark = pytest.mark.vfio_user_card("--model", "serial-card")

BAR1 = 1
READY, EMPTY = 0x01, 0x60


class Port:
    """The registers, a byte each, as the driver accesses them."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __getitem__(self, register: int) -> int:
        return self.client.read(BAR1, register, 1)

    def __setitem__(self, register: int, value: int) -> None:
        self.client.write(BAR1, register, 1, value)


@pytest.fixture
def port(vfio_client: Client) -> Port:
    port = Port(vfio_client)
    port[IIR_FCR] = 0xC7
    return port


@pytest.fixture
def sent(card: LiveCard) -> Callable[[], bytes]:
    card.call("serial_received", clear=True)
    return lambda: bytes.fromhex(card.call("serial_received"))


def test_it_is_found_as_a_16550a(port: Port) -> None:
    """The checks of 8250_port.c:autoconfig."""
    port[IER] = 0x0F
    assert port[IER] == 0x0F
    port[IER] = 0
    port[MCR] = 0x10 | 0x0A
    assert port[MSR] & 0xF0 == 0x90
    port[MCR] = 0
    port[IIR_FCR] = 0x01
    assert port[IIR_FCR] >> 6 == 3
    port[LCR] = 0xBF
    assert port[IIR_FCR] != 0, "it has no EFR"
    port[LCR] = 0
    port[SCRATCH] = 0x5A
    assert port[SCRATCH] == 0x5A


def test_what_is_written_arrives_at_the_far_end(port: Port, sent: Callable[[], bytes]) -> None:
    for byte in b"hello":
        port[DATA] = byte
    assert sent() == b"hello"
    assert port[LSR] & EMPTY == EMPTY


def test_what_the_far_end_sends_is_received_sixteen_bytes_at_a_time(port: Port, card: LiveCard) -> None:
    text = bytes(range(64))
    card.call("serial_send", data=text.hex())
    assert card.call("serial_line")["waiting"] == 48
    received = []
    while port[LSR] & READY:
        received.append(port[DATA])
    assert bytes(received) == text


def test_the_divisor_hides_behind_its_latch(port: Port, card: LiveCard) -> None:
    port[LCR] = 0x83
    port[DATA], port[IER] = 12, 0
    port[LCR] = 0x1B
    line = card.call("serial_line")
    assert (line["baud"], line["data_bits"], line["parity"]) == (9600, 8, "even")
    assert port[IER] == 0


def test_interrupts_tell_their_cause_and_are_acknowledged(port: Port, card: LiveCard) -> None:
    (interrupt,) = port.client.enable_irqs(MSI, 1)
    port.client.write(CONFIG, 0x04, 2, 0x6)
    port[IER] = 0x02
    interrupt.wait(5)
    assert port[IIR_FCR] & 0xF == 0x2, "the transmitter is empty"
    assert port[IIR_FCR] & 0xF == 0x1, "reading that acknowledged it"
    port[IER] = 0x01
    card.call("serial_send", data="41")
    interrupt.wait(5)
    assert port[IIR_FCR] & 0xF == 0xC, "less than the trigger level came"
    assert port[DATA] == 0x41
    assert port[IIR_FCR] & 0xF == 0x1


def test_a_byte_is_lost_when_the_fault_says_so(port: Port, sent: Callable[[], bytes], faults: FaultInjection) -> None:
    faults.inject("serial.drop", after=1)
    for byte in b"abc":
        port[DATA] = byte
    assert sent() == b"ac"


def test_loopback_keeps_bytes_from_the_line(port: Port, sent: Callable[[], bytes]) -> None:
    port[MCR] = 0x10
    port[DATA] = 0x55
    assert sent() == b""
    assert port[LSR] & READY
    assert port[DATA] == 0x55


def test_it_keeps_the_rules_of_vfio_user(card: LiveCard) -> None:
    failures: list[Any] = card.conformance()
    assert failures == []
