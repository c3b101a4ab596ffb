"""The conformance device: a function that the vfio-user conformance suite can test a server through.

`emulator/conformance/device.py` has its numbers, `docs/conformance.md` its data sheet. Like every device it does its
work on the executor: a register write only queues.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.model.card import Card, Option
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.memory import PAGE_SIZE, Memory
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, Register
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Msi, MsiX, PowerManagement
from vfio_user_xe.emulator.pci.express import PciExpress
from vfio_user_xe.emulator.pci.function import Function, Identity
from vfio_user_xe.emulator.pci.transport import MSI, MSIX, DmaError, Region, Transport

_ROM_REGION = 6
_ROM = b"\x55\xaa" + bytes(PAGE_SIZE - 2)
_PIECE = 64 << 10
_FLAGS = device.DMA_BY_MESSAGE | device.DMA_THEN_MSI


class Conformance:
    """A device to test vfio-user servers and clients with; see `vfio-user-xe conformance`."""

    API_VERSION: ClassVar[tuple[int, int]] = (2, 0)
    OPTIONS: ClassVar[tuple[Option, ...]] = ()

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        card.functions.append(ConformanceFunction("pf", card.executor))


@dataclass(slots=True)
class WriteLog:
    """The writes to trapped memory."""

    writes: int = 0
    last_offset: int = 0
    last_size: int = 0


class TrappedMemory:
    """Memory whose every access is trapped; logs each write."""

    def __init__(self, size: int, log: WriteLog) -> None:
        self._bytes = bytearray(size)
        self._log = log

    def read(self, offset: int, size: int) -> int:
        """See `AccessHandler.read`."""
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """See `AccessHandler.write`."""
        self._bytes[offset : offset + size] = value.to_bytes(size, "little")
        self._log.writes += 1
        self._log.last_offset = offset
        self._log.last_size = size


class ConformanceFunction(Function):
    """The device as a PCI function."""

    def __init__(self, name: str, executor: Executor) -> None:
        self.registers = RegisterFile(f"{name} registers", device.REGISTERS_SIZE)
        self.registers.unmodelled_storage = False
        self.log = WriteLog()
        self.sparse_memory = Memory(device.SPARSE_SIZE, f"{name} sparse")
        self.buffer = Memory(device.MAPPED_SIZE, f"{name} buffer")
        self._rom = Region(PAGE_SIZE, handler=_ReadOnlyMemory(_ROM), writable=False)
        self._resets = 0
        self._irq_done = 0
        self._irq_delivered = 0
        self._dma_done = 0
        self._dma_errno = 0
        self._dma_direct = 0
        super().__init__(
            name,
            0,
            executor=executor,
            identity=Identity(device.VENDOR_ID, device.DEVICE_ID, class_code=device.CLASS_CODE),
            capabilities=[
                PowerManagement(),
                PciExpress(),
                Msi(device.MSI_VECTORS),
                MsiX(device.MSIX_VECTORS, device.SCRATCH, device.MSIX_TABLE, device.MSIX_PENDING),
            ],
            bars={
                device.REGISTERS: Bar(device.REGISTERS_SIZE, self.registers, is_64bit=False),
                device.SCRATCH: Bar(device.SCRATCH_SIZE, TrappedMemory(device.SCRATCH_SIZE, self.log), is_64bit=False),
                device.MAPPED: Bar(device.MAPPED_SIZE, memory=self.buffer, prefetchable=True),
                device.SPARSE: Bar(
                    device.SPARSE_SIZE,
                    TrappedMemory(device.SPARSE_SIZE, self.log),
                    memory=self.sparse_memory,
                    areas=list(device.SPARSE_AREAS),
                    prefetchable=True,
                ),
            },
        )
        self.registers.add(self._declare())

    @property
    def regions(self) -> Sequence[Region | None]:
        """BARs and configuration space, and a read-only ROM."""
        regions = list(super().regions)
        regions[_ROM_REGION] = self._rom
        return regions

    def reset(self) -> None:
        """Forget everything but the counters."""
        super().reset()
        self._resets += 1
        self.registers.reset()

    def _declare(self) -> list[Register]:
        log = self.log
        live = {
            "RESETS": (device.REG_RESETS, lambda: self._resets),
            "IRQ_DONE": (device.REG_IRQ_DONE, lambda: self._irq_done),
            "IRQ_DELIVERED": (device.REG_IRQ_DELIVERED, lambda: self._irq_delivered),
            "DMA_DONE": (device.REG_DMA_DONE, lambda: self._dma_done),
            "DMA_ERRNO": (device.REG_DMA_ERRNO, lambda: self._dma_errno),
            "DMA_DIRECT": (device.REG_DMA_DIRECT, lambda: self._dma_direct),
            "WRITES": (device.REG_WRITES, lambda: log.writes & 0xFFFFFFFF),
            "LAST_OFFSET": (device.REG_LAST_OFFSET, lambda: log.last_offset),
            "LAST_SIZE": (device.REG_LAST_SIZE, lambda: log.last_size),
        }
        return [
            Register("MAGIC", device.REG_MAGIC, device.MAGIC, RO),
            Register("VERSION", device.REG_VERSION, device.VERSION, RO),
            Register("SCRATCH", device.REG_SCRATCH),
            Register("IRQ_TRIGGER", device.REG_IRQ_TRIGGER, write=self._queue_irq),
            Register("DMA_ADDRESS", device.REG_DMA_ADDRESS),
            Register("DMA_ADDRESS_HIGH", device.REG_DMA_ADDRESS_HIGH),
            Register("DMA_LENGTH", device.REG_DMA_LENGTH),
            Register("DMA_BUFFER", device.REG_DMA_BUFFER),
            Register("DMA_COMMAND", device.REG_DMA_COMMAND, write=self._queue_dma),
            Register("BROKEN", device.REG_BROKEN, read=_broken_read, write=_broken_write),
            *(Register(name, offset, access=RO, read=read) for name, (offset, read) in live.items()),
        ]

    # Inside an access: only queue.

    def _queue_irq(self, value: int) -> None:
        self.executor.submit(partial(self._signal, value >> 16, value & 0xFFFF))

    def _queue_dma(self, command: int) -> None:
        peek = self.registers.peek
        address = peek(device.REG_DMA_ADDRESS) | peek(device.REG_DMA_ADDRESS_HIGH) << 32
        length, buffer = peek(device.REG_DMA_LENGTH), peek(device.REG_DMA_BUFFER)
        self.executor.submit(partial(self._dma, command, address, length, buffer))

    # On the executor.

    def _signal(self, index: int, vector: int) -> None:
        transport = self.transport
        exists = index < len(self.interrupts) and vector < self.interrupts[index]
        self._irq_delivered = int(exists and transport is not None and transport.trigger(index, vector))
        self._irq_done += 1

    def _dma(self, command: int, address: int, length: int, buffer: int) -> None:
        self._dma_direct = 0
        transport = self.transport
        try:
            if transport is None:
                raise DmaError("no client", errno.ENOTCONN)
            self._carry_out(transport, command, address, length, buffer)
            self._dma_errno = 0
        except DmaError as exc:
            self._dma_errno = exc.errno or errno.EIO
        if command & device.DMA_THEN_MSI and transport is not None and not transport.trigger(MSIX, 0):
            transport.trigger(MSI, 0)
        self._dma_done += 1

    def _carry_out(self, transport: Transport, command: int, address: int, length: int, buffer: int) -> None:
        operation, by_message = command & ~_FLAGS, bool(command & device.DMA_BY_MESSAGE)
        write = operation in (device.DMA_WRITE, device.DMA_QUERY_WRITE)
        if not device.DMA_READ <= operation <= device.DMA_QUERY_WRITE:
            raise DmaError(f"unknown command {command:#x}", errno.EINVAL)
        if length == 0 or not transport.mapped(address, length, write):
            raise DmaError(f"[{address:#x}, +{length:#x}) is not mapped", errno.EFAULT)
        if operation in (device.DMA_QUERY_READ, device.DMA_QUERY_WRITE):
            return
        if buffer + length > self.buffer.size:
            raise DmaError("outside of the buffer", errno.EINVAL)
        local = self.buffer.view[buffer : buffer + length]
        done = 0
        while done < length:
            view = None if by_message else transport.view(address + done, length - done, write)
            if view is None:
                count = self._without_view(transport, address + done, length - done, write, by_message)
                piece = local[done : done + count]
                if write:
                    transport.write(address + done, piece)
                else:
                    piece[:] = transport.read(address + done, count)
            else:
                # In pieces: a copy keeps the interpreter to itself, and accesses wait.
                count = min(len(view), _PIECE)
                view = view[:count]
                piece = local[done : done + count]
                if write:
                    view[:] = piece
                else:
                    piece[:] = view
                self._dma_direct += count
            done += count

    @staticmethod
    def _without_view(transport: Transport, address: int, length: int, write: bool, by_message: bool) -> int:
        """How many bytes from `address` on can only be reached by messages."""
        if by_message:
            return length
        count = min(length, PAGE_SIZE - address % PAGE_SIZE)
        while count < length and transport.view(address + count, 1, write) is None:
            count = min(length, count + PAGE_SIZE)
        return count


class _ReadOnlyMemory:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._content[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        raise AssertionError("the region is not writable")


def _broken_read() -> int:
    raise RuntimeError("this register is broken on purpose")


def _broken_write(value: int) -> None:
    raise RuntimeError("this register is broken on purpose")
