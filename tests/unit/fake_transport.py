"""A client of a function that needs no socket: guest memory in a bytearray, interrupts in a list."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from emulator.pci.transport import DmaError


@dataclass
class FakeTransport:
    """`size` bytes of guest memory at address 0, of which `[0, shared)` came with a descriptor."""

    size: int = 1 << 20
    shared: int = 1 << 20
    writable: bool = True
    memory: bytearray = field(default_factory=bytearray)
    triggered: list[tuple[int, int]] = field(default_factory=list)
    messages: list[tuple[str, int, int]] = field(default_factory=list)
    refuse: bool = False

    def __post_init__(self) -> None:
        self.memory = bytearray(self.size)

    def view(self, address: int, length: int, write: bool) -> memoryview | None:
        if address >= self.shared or (write and not self.writable):
            return None
        return memoryview(self.memory)[address : min(address + length, self.shared)]

    def mapped(self, address: int, length: int, write: bool) -> bool:
        return address + length <= self.size and (self.writable or not write)

    def read(self, address: int, length: int) -> bytes:
        self._message("read", address, length)
        return bytes(self.memory[address : address + length])

    def write(self, address: int, data: bytes | memoryview) -> None:
        self._message("write", address, len(data))
        self.memory[address : address + len(data)] = data

    def trigger(self, index: int, vector: int) -> bool:
        self.triggered.append((index, vector))
        return True

    def _message(self, kind: str, address: int, length: int) -> None:
        self.messages.append((kind, address, length))
        if self.refuse:
            raise DmaError("the client refuses", errno.EPERM)
