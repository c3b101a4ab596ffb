"""For tests of device models and interconnects: a client that needs no socket.

card = Card(CardConfig.default("my-device"))
card.start()
client = FakeTransport()
card.functions[0].attached(client)
...
card.executor.run_sync(lambda: None)  # until the device has nothing to do
assert client.triggered == [(MSI, 0)]
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from vfio_user_xe.emulator.pci.transport import DmaError


@dataclass
class FakeTransport:
    """A client whose guest has `size` bytes of memory at address 0; `[0, shared)` of it came with a descriptor.

    `memory` is that memory, `triggered` the interrupts, as (interrupt index, vector), `messages` the DMA messages, as
    ("read" or "write", address, length). With `refuse` the client answers DMA messages with an error.
    """

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
