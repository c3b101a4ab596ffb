"""Memory that the server can only reach by messages."""

from __future__ import annotations

from vfio_user_xe.emulator.vfio_user.client import Client, DmaMapping

READ = "VFIO_USER_DMA_READ"
WRITE = "VFIO_USER_DMA_WRITE"
LIMITS = "Read and Write Operations"
ORDER = "Command Concurrency"
TWIN = "VFIO_USER_VERSION"

BASE = 0x2000_0000
SIZE = 2 << 20
PATTERN = bytes((index * 13 + 5) & 0xFF for index in range(65536))


def by_messages(client: Client) -> DmaMapping:
    """2 MiB at `BASE` that the server can only reach by messages, filled with the pattern."""
    mapping = client.map_memory(BASE, SIZE, shared=False)
    mapping.at(BASE, SIZE)[:] = PATTERN * (SIZE // len(PATTERN))
    return mapping


def expected(address: int, length: int) -> bytes:
    start = (address - BASE) % len(PATTERN)
    return (PATTERN * (length // len(PATTERN) + 2))[start : start + length]
