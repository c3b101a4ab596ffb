"""A driver for the conformance device (`device.py`), on top of a connected client."""

from __future__ import annotations

from errno import errorcode

from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.conformance.outcomes import Failure
from vfio_user_xe.emulator.vfio_user.client import Client


class Driver:
    """Drives the conformance device of a connected client."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def get(self, register: int) -> int:
        """Read a register."""
        return self.client.read(device.REGISTERS, register, 4)

    def set(self, register: int, value: int) -> None:
        """Write a register."""
        self.client.write(device.REGISTERS, register, 4, value)

    def start_dma(self, command: int, address: int, length: int, buffer: int = 0) -> int:
        """Give a DMA command; returns what `device.REG_DMA_DONE` will be when it was carried out."""
        done = self.get(device.REG_DMA_DONE)
        self.set(device.REG_DMA_ADDRESS, address & 0xFFFFFFFF)
        self.set(device.REG_DMA_ADDRESS_HIGH, address >> 32)
        self.set(device.REG_DMA_LENGTH, length)
        self.set(device.REG_DMA_BUFFER, buffer)
        self.set(device.REG_DMA_COMMAND, command)
        return (done + 1) & 0xFFFFFFFF

    def finish_dma(self, done: int, timeout: float = 15.0) -> int:
        """Wait for a command's end and return its errno. The client answers DMA requests meanwhile."""
        self.client.serve(lambda: self.get(device.REG_DMA_DONE) == done, timeout, "the end of a DMA command")
        return self.get(device.REG_DMA_ERRNO)

    def dma(self, command: int, address: int, length: int, buffer: int = 0) -> int:
        """Carry a DMA command out; returns its errno."""
        return self.finish_dma(self.start_dma(command, address, length, buffer))

    def read_memory(self, address: int, length: int, *, by_message: bool = False) -> bytes:
        """The bytes that the device reads at a DMA address.

        Raises:
            Failure: the device's access failed.
        """
        error = self.dma(device.DMA_READ | (device.DMA_BY_MESSAGE if by_message else 0), address, length)
        if error:
            raise Failure(f"the device could not read {length} bytes at {address:#x}: {errorcode.get(error, error)}")
        return self.client.region_read(device.MAPPED, 0, length)

    def write_memory(self, address: int, data: bytes, *, by_message: bool = False) -> None:
        """Have the device write.

        Raises:
            Failure: the device's access failed.
        """
        self.client.region_write(device.MAPPED, 0, data)
        error = self.dma(device.DMA_WRITE | (device.DMA_BY_MESSAGE if by_message else 0), address, len(data))
        if error:
            raise Failure(
                f"the device could not write {len(data)} bytes at {address:#x}: {errorcode.get(error, error)}"
            )

    def may_access(self, address: int, length: int, *, write: bool = False) -> bool:
        """Whether the server lets the device access a range."""
        return self.dma(device.DMA_QUERY_WRITE if write else device.DMA_QUERY_READ, address, length) == 0

    def trigger(self, index: int, vector: int) -> bool:
        """Have the device signal a vector; returns whether it had an eventfd."""
        done = (self.get(device.REG_IRQ_DONE) + 1) & 0xFFFFFFFF
        self.set(device.REG_IRQ_TRIGGER, index << 16 | vector)
        self.client.serve(lambda: self.get(device.REG_IRQ_DONE) == done, what="the end of an interrupt command")
        return self.get(device.REG_IRQ_DELIVERED) == 1
