"""Address spaces: what an engine or the GuC sees memory through. Every one belongs to a function.

An `AddressSpace` translates addresses (GGTT or PPGTT), opens windows through the card's fabric, keeps them, and
gives plain reads and writes by address. All of it runs on the card's executor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from emulator.interconnect import Fabric, Initiator, Window

from .ggtt import Ggtt
from .vram import Vram


class Gpu(Protocol):
    """What an address space needs of a card."""

    @property
    def fabric(self) -> Fabric: ...
    @property
    def vram(self) -> Vram: ...


class FunctionView(Protocol):
    """What an address space needs of a function; `device_models.xe.function.XeFunction` is one."""

    @property
    def vfid(self) -> int: ...
    @property
    def pci(self) -> Initiator: ...
    @property
    def ggtt(self) -> Ggtt: ...
    @property
    def gpu(self) -> Gpu: ...


class TranslationFault(Exception):
    """An address that does not translate: which one, for what access, and which entry of which level said so."""

    def __init__(
        self, function: str, space: str, address: int, *, level: int, entry: int, write: bool, reason: str
    ) -> None:
        super().__init__(
            f"{function}: {space} address {address:#x} ({'write' if write else 'read'}): "
            f"level {level} entry {entry:#x}: {reason}"
        )
        self.function = function
        self.space = space
        self.address = address
        self.level = level
        self.entry = entry
        self.write = write
        self.reason = reason


class AddressSpace:
    """Reads, writes and windows by address. Raises `TranslationFault` or `AccessFault` from every access."""

    def window(self, address: int, length: int, write: bool) -> Window:
        """A window on the first contiguous bytes of `[address, address + length)`."""
        raise NotImplementedError

    def spans(self, address: int, length: int, write: bool) -> Iterator[Window]:
        """Windows that cover `[address, address + length)` in order, as few as contiguity allows: for bulk work."""
        raise NotImplementedError

    def read(self, address: int, length: int) -> bytes:
        raise NotImplementedError

    def write(self, address: int, data: bytes | memoryview) -> None:
        raise NotImplementedError

    def read32(self, address: int) -> int:
        raise NotImplementedError

    def read64(self, address: int) -> int:
        raise NotImplementedError

    def write32(self, address: int, value: int) -> None:
        raise NotImplementedError

    def write64(self, address: int, value: int) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        """Forget every translation kept."""
        raise NotImplementedError


class GgttSpace(AddressSpace):
    """A function's GGTT. Entries are looked at on every access: it needs no invalidation."""

    def __init__(self, function: FunctionView) -> None:
        raise NotImplementedError
