"""`edu`: QEMU's teaching device, from its documentation (QEMU, docs/specs/edu.rst). The example for authors.

It inverts a number, computes factorials, raises interrupts, and copies between guest memory and a buffer of 4 KiB.
`docs/writing-a-device.md` builds this file step by step.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.model.card import Card, Option
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, Register, flag
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Msi
from vfio_user_xe.emulator.pci.function import Function, Identity

log = logging.getLogger(__name__)

IDENTIFICATION = 0x00
LIVENESS = 0x04
FACTORIAL = 0x08
STATUS = 0x20
INTERRUPT_STATUS = 0x24
INTERRUPT_RAISE = 0x60
INTERRUPT_ACKNOWLEDGE = 0x64
DMA_SOURCE = 0x80
DMA_DESTINATION = 0x88
DMA_COUNT = 0x90
DMA_COMMAND = 0x98
BUFFER = 0x40000
BUFFER_SIZE = 4096

COMPUTING, INTERRUPT_WHEN_COMPUTED = 0x01, 0x80
START, TO_GUEST, INTERRUPT_WHEN_COPIED = 0x01, 0x02, 0x04
FACTORIAL_INTERRUPT, DMA_INTERRUPT = 0x001, 0x100


class Edu:
    """QEMU's teaching device: liveness, factorial, interrupts by MSI, DMA."""

    API_VERSION = (2, 0)
    OPTIONS = (
        Option(
            "dma_mask",
            "int",
            0x0FFF_FFFF,
            "the address bits that the device can put out",
            minimum=0xFFF,
            maximum=(1 << 64) - 1,
            hexadecimal=True,
        ),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.card = card
        self.dma_mask: int = options["dma_mask"]
        self.registers = RegisterFile("edu", 1 << 20)
        self.registers.add(self.declare())
        self.buffer = self.registers.add_storage("BUFFER", BUFFER, BUFFER_SIZE)
        self.function = Function(
            "edu",
            0,
            executor=card.executor,
            identity=Identity(0x1234, 0x11E8, class_code=0x00FF00, revision=0x10),
            capabilities=[Msi()],
            bars={0: Bar(1 << 20, handler=self.registers, is_64bit=False)},
        )
        self.function.on_reset.append(lambda reason: self.registers.reset())
        card.functions.append(self.function)

    def declare(self) -> list[Register]:
        """All registers of BAR0."""
        return [
            Register("IDENTIFICATION", IDENTIFICATION, reset=0x010000ED, access=RO),
            Register("LIVENESS", LIVENESS, access=RO, write=self.invert),
            Register("FACTORIAL", FACTORIAL, access=RO, write=self.start_factorial),
            Register(
                "STATUS", STATUS, mask=INTERRUPT_WHEN_COMPUTED, fields=[flag(0, "COMPUTING"), flag(7, "INTERRUPT")]
            ),
            Register("INTERRUPT_STATUS", INTERRUPT_STATUS, access=RO, fields=[flag(8, "DMA"), flag(0, "FACTORIAL")]),
            Register("INTERRUPT_RAISE", INTERRUPT_RAISE, access=RO, write=self.interrupt),
            Register("INTERRUPT_ACKNOWLEDGE", INTERRUPT_ACKNOWLEDGE, access=RO, write=self.acknowledge),
            Register("DMA_SOURCE", DMA_SOURCE, width=8),
            Register("DMA_DESTINATION", DMA_DESTINATION, width=8),
            Register("DMA_COUNT", DMA_COUNT, width=8),
            Register(
                "DMA_COMMAND",
                DMA_COMMAND,
                access=RO,
                write=self.start_dma,
                fields=[flag(0, "START"), flag(1, "TO_GUEST"), flag(2, "INTERRUPT")],
            ),
            Register("DMA_COMMAND_HIGH", DMA_COMMAND + 4, access=RO),
        ]

    def invert(self, value: int) -> None:
        self.registers.poke(LIVENESS, ~value)

    # Interrupts: a bit in INTERRUPT_STATUS stays until the guest acknowledges it.

    def interrupt(self, bits: int) -> None:
        self.registers.update(INTERRUPT_STATUS, set=bits)
        self.function.raise_msi()

    def acknowledge(self, bits: int) -> None:
        self.registers.update(INTERRUPT_STATUS, clear=bits)

    # Factorial: the write only queues; the executor computes.

    def start_factorial(self, value: int) -> None:
        if self.registers.peek(STATUS) & COMPUTING:
            return
        self.registers.poke(FACTORIAL, value)
        self.registers.update(STATUS, set=COMPUTING)
        self.card.executor.submit(self.compute_factorial)

    def compute_factorial(self) -> None:
        result = 1
        # 34! is a multiple of 2^32, and so is every later one.
        for factor in range(2, min(self.registers.peek(FACTORIAL), 34) + 1):
            result = result * factor & 0xFFFF_FFFF
        self.registers.poke(FACTORIAL, result)
        if self.registers.update(STATUS, clear=COMPUTING) & INTERRUPT_WHEN_COMPUTED:
            self.interrupt(FACTORIAL_INTERRUPT)

    # DMA: between guest memory and the buffer, which has device addresses from 0x40000 on.

    def start_dma(self, command: int) -> None:
        if self.registers.peek(DMA_COMMAND) & START:
            return
        self.registers.poke(DMA_COMMAND, command & (START | TO_GUEST | INTERRUPT_WHEN_COPIED))
        if command & START:
            self.card.executor.submit(self.copy)

    def copy(self) -> None:
        command = self.registers.peek(DMA_COMMAND)
        source, destination, count = (self.peek64(offset) for offset in (DMA_SOURCE, DMA_DESTINATION, DMA_COUNT))
        try:
            if command & TO_GUEST:
                data = bytes(self.in_buffer(source, count))
                self.card.fabric.write(self.function, Space.SYSTEM, destination & self.dma_mask, data, "dma")
            else:
                part = self.in_buffer(destination, count)
                part[:] = self.card.fabric.read(self.function, Space.SYSTEM, source & self.dma_mask, count, "dma")
        except (AccessFault, ValueError) as error:
            log.warning("edu: DMA failed: %s", error)
        self.registers.update(DMA_COMMAND, clear=START)
        if command & INTERRUPT_WHEN_COPIED:
            self.interrupt(DMA_INTERRUPT)

    def in_buffer(self, address: int, count: int) -> memoryview:
        """`count` bytes of the buffer at device address `address`."""
        start = address - BUFFER
        if start < 0 or start + count > BUFFER_SIZE:
            raise ValueError(f"[{address:#x}, +{count:#x}) is not in the buffer [{BUFFER:#x}, +{BUFFER_SIZE:#x})")
        return self.buffer[start : start + count]

    def peek64(self, offset: int) -> int:
        """A 64-bit register."""
        return self.registers.peek(offset) | self.registers.peek(offset + 4) << 32
