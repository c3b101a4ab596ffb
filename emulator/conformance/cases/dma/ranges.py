"""Requests over ranges of client memory, and whether a range is mapped.

That shows from outside: mapping over a range is refused exactly if it is.
"""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client

MAP = "VFIO_USER_DMA_MAP"
UNMAP = "VFIO_USER_DMA_UNMAP"

PAGE = 4096
BASE = 0x4000_0000
RW = wire.DMA_READABLE | wire.DMA_WRITABLE
READ, WRITE = wire.DMA_READABLE, wire.DMA_WRITABLE


def map_body(address: int, size: int, flags: int = RW, offset: int = 0, argsz: int = wire.DMA_MAP_BODY.size) -> bytes:
    return wire.DMA_MAP_BODY.pack(argsz, flags, offset, address, size)


def unmap_body(address: int, size: int, flags: int = 0, argsz: int = wire.DMA_UNMAP_BODY.size) -> bytes:
    return wire.DMA_UNMAP_BODY.pack(argsz, flags, address, size)


def memory_of(t: Context, size: int) -> Memory:
    memory = Memory(size, "client memory")
    t.finally_(memory.close)
    return memory


def is_mapped(t: Context, client: Client, address: int, size: int = PAGE) -> bool:
    """Whether anything is mapped in a range; leaves it as it was. No case maps with these permissions."""
    if t.exchange(client, wire.DMA_MAP, map_body(address, size, flags=WRITE)).failed:
        return True
    client.dma_unmap(address, size)
    return False
