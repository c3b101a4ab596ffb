"""Fabric-attached memory: a pool behind a file that any number of cards reach, each in a server process of its own.

A card's functions see the pool at a DMA address. Which card may write which part is the pool's to say: a card is given
one of `shares` equal shares to write to, and may read all.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.api import PAGE_SIZE, AccessFault, Card, CardError, Initiator, Option, Space, Way, Window


class MemoryPool:
    """Memory in a file that several cards share."""

    API_VERSION = (2, 0)
    way: Way = "other"
    OPTIONS = (
        Option("file", "str", "", "the file, made when it is not there; the same for every card"),
        Option("size", "size", 1 << 20, "its size", minimum=PAGE_SIZE, multiple_of=PAGE_SIZE),
        Option("address", "int", 0xFE00_0000, "the pool's DMA address", minimum=0, hexadecimal=True),
        Option("shares", "int", 1, "into how many shares it is divided", minimum=1, maximum=64),
        Option("share", "int", 0, "which of them this card may write to", minimum=0, maximum=63),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.name = "memory-pool"
        self.ledger = card.fabric.ledger
        self.address: int = options["address"]
        self.size: int = options["size"]
        share = self.size // options["shares"]
        if options["share"] >= options["shares"]:
            raise CardError(f"there are only {options['shares']} shares, numbered from 0", key="share")
        if share % PAGE_SIZE:
            raise CardError(f"{options['shares']} shares of {self.size:#x} bytes are not whole pages", key="shares")
        self.writable = range(options["share"] * share, (options["share"] + 1) * share)
        self.file: str = options["file"]
        if not self.file:
            raise CardError("give the file that holds the memory", key="file")
        self.mapping = self._map()
        self.view = memoryview(self.mapping)
        card.on_stop.append(self._close)

    def _map(self) -> mmap.mmap:
        try:
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CardError(f"{self.file}: {error.strerror}", key="file") from None
        try:
            there = os.fstat(descriptor).st_size
            if there not in (0, self.size):
                raise CardError(f"{self.file} is {there:#x} bytes long, not {self.size:#x}", key="size")
            os.ftruncate(descriptor, self.size)
            return mmap.mmap(descriptor, self.size)
        finally:
            os.close(descriptor)

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        """A window on the pool, up to the end of what the card may do there in one piece."""
        offset = address - self.address
        if space != Space.SYSTEM or not 0 <= offset < self.size:
            return None
        end = min(offset + length, self.size)
        if write:
            if offset not in self.writable:
                raise AccessFault(initiator, space, address, f"the card's share of the pool is {self._share()}")
            end = min(end, self.writable.stop)
        view = self.view[offset:end] if write else self.view[offset:end].toreadonly()
        return Window(address, len(view), view, "pool", self.ledger.entry(initiator.name, "pool", self.name, kind))

    def _share(self) -> str:
        return f"[{self.address + self.writable.start:#x}, {self.address + self.writable.stop:#x})"

    def _close(self) -> None:
        try:
            self.view.release()
            self.mapping.close()
        except BufferError:
            pass  # a window is still in use; the mapping ends with it
