"""`host_dma`: memory of the guest, by the DMA address (IOVA) of the function that asks, through its own client.

Where the client gave a descriptor for its memory, a window is a view on it. Elsewhere (memory that is not shared, ROMs)
every access is a message to the client and waits for its answer: only the executor may do that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Initiator, LedgerEntry, Space, Way, Window
from vfio_user_xe.emulator.fabric.ledger import ELSEWHERE, UNSHARED
from vfio_user_xe.emulator.model.card import Card, Option
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER
from vfio_user_xe.emulator.pci.function import Function
from vfio_user_xe.emulator.pci.transport import DmaError, Transport

OWNER = "guest"
"""Whose memory it is, in the ledger. What came without a descriptor may be another device's: it is called "card2:vf1" when it
is the BAR of another card of this process, and "unshared" when its owner is not known."""


class HostDma:
    """Memory of the guest, reached by DMA address, zero-copy where the client shares it."""

    API_VERSION = (2, 0)
    way: Way = "legacy"
    OPTIONS: tuple[Option, ...] = (
        Option("views", "bool", True, "use the client's shared memory; false sends a message for every access"),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.name = "host_dma"
        self._card = card
        self._views = bool(options["views"])

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        # Only functions have clients; another initiator has no memory of a guest.
        if space != Space.SYSTEM or not isinstance(initiator, Function) or initiator.transport is None:
            return None
        if not initiator.config.peek(COMMAND, 2) & COMMAND_MASTER:
            raise AccessFault(initiator, space, address, "the function is no bus master (bit 2 of COMMAND is clear)")
        transport = initiator.transport
        ledger = self._card.fabric.ledger
        view = transport.view(address, length, write)
        shared = view is not None and len(view) > 0
        if view is not None and shared and self._views:
            return Window(address, len(view), view, OWNER, ledger.entry(initiator.name, OWNER, self.name, kind))
        owner = OWNER if shared else self._beside(initiator, address)
        entry = ledger.entry(initiator.name, owner, self.name, kind)
        # What the client announced as one piece may end anywhere, but not inside of a page.
        for count in (length, min(length, PAGE_SIZE - address % PAGE_SIZE)):
            if transport.mapped(address, count, write):
                return MessageWindow(address, count, owner, entry, transport, self._card.executor)
        return None

    def _beside(self, initiator: Function, address: int) -> str:
        """Whose memory without a descriptor is: known where it is the bus address of a BAR of this process's cards."""
        if not initiator.assigned:
            for card in self._card.beside:
                decoded = card.leases.decoder.at(address)
                if decoded is not None:
                    return f"{card.name}{ELSEWHERE}{decoded.function.name}"
        return UNSHARED


class MessageWindow(Window):
    """Guest memory behind DMA messages."""

    __slots__ = ("_executor", "_transport")

    def __init__(
        self,
        address: int,
        length: int,
        owner: str,
        entry: LedgerEntry,
        transport: Transport,
        executor: Executor,
    ) -> None:
        super().__init__(address, length, None, owner, entry)
        self._transport = transport
        self._executor = executor

    def _read(self, offset: int, length: int) -> bytes:
        self._must_be_on_executor()
        try:
            return self._transport.read(self.address + offset, length)
        except DmaError as error:
            raise AccessFault(self.initiator, self.space, self.address + offset, str(error)) from error

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        self._must_be_on_executor()
        try:
            self._transport.write(self.address + offset, data)
        except DmaError as error:
            raise AccessFault(self.initiator, self.space, self.address + offset, str(error)) from error

    def _must_be_on_executor(self) -> None:
        if not self._executor.is_current():
            raise RuntimeError("a DMA message waits for the client, which may be waiting for us: use the executor")
