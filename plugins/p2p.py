"""`p2p`: PCI peer-to-peer. An access by bus address that lands in a BAR of another function: of the same card, or of one
in another server process (`peers`).

A switch decodes such an address before any IOMMU sees it; so this interconnect is asked before `host_dma`, which would send it
to the client. The access goes through the owner's own rules: its BAR must be decoded (COMMAND, VF Enable and VF MSE, D0), and
where the BAR is a window of device memory, the owner's own translation applies (VF BAR2 is a window of GDPA). With ACS
redirect and a translating IOMMU the initiator uses IOVAs instead, which are no bus addresses: those pass on to `host_dma`.
With `acs_redirect` everything does, as through ports that send every peer request up to the root complex.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Initiator, LedgerEntry, Space, Way, Window
from vfio_user_xe.emulator.model.card import Card, Option
from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.pci.bars import Bar, read_registers, write_registers
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER
from vfio_user_xe.emulator.pci.function import Function
from vfio_user_xe.emulator.pci.transport import AccessHandler
from vfio_user_xe.plugins.peering import NOBODY, PeerMemory, PeerRefused, Reach


class P2p:
    """BARs of functions, reached by bus address."""

    API_VERSION = (2, 0)
    way: Way = "legacy"
    OPTIONS: tuple[Option, ...] = (
        Option("registers", "bool", True, "whether trapped BARs (registers) are reached too, dword by dword"),
        Option("acs_redirect", "bool", False, "leave every peer request to the root complex: nothing is reached here"),
        Option("peers", "str", "", "socket folders, joined by ':', of servers of other cards in the same machine"),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.name = "p2p"
        self._card = card
        self.registers = bool(options["registers"])
        self.redirected = bool(options["acs_redirect"])
        self._decoder = card.leases.decoder
        self._peers = [PeerMemory(card, folder, self.name) for folder in options["peers"].split(":") if folder]
        self._decoder.on_change.append(self._changed)

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        if space != Space.SYSTEM or self.redirected or not isinstance(initiator, Function) or initiator.assigned:
            # What a VF in a guest of its own has for a bus address is not the PF's.
            return None
        decoded = self._decoder.at(address)
        if decoded is not None:
            _check_master(initiator, address)
            at = address - decoded.base
            return self._inside(
                initiator, decoded.function, decoded.number, decoded.bar, address, at, length, write, kind
            )
        for peer in self._peers:
            for bar in peer.bars():
                if bar.base <= address < bar.base + bar.size:
                    _check_master(initiator, address)
                    return self._of_peer(peer, Reach(space, *bar), initiator, address, length, kind)
        return None

    def _changed(self) -> None:
        # What a peer decodes it takes back itself.
        own = {function.name for function in self._card.functions} | {NOBODY}
        self._card.fabric.revoke(lambda window: window.entry.interconnect == self.name and window.owner in own)

    def _of_peer(
        self, peer: PeerMemory, reach: Reach, initiator: Initiator, address: int, length: int, kind: str
    ) -> Window | None:
        try:
            return peer.window(reach, initiator, address, length, kind)
        except PeerRefused as refused:
            count = min(length, PAGE_SIZE - address % PAGE_SIZE)
            if refused.code == "not decoded":
                return None  # it was when this card was told last
            if refused.code == "hole":
                return _Unanswered(
                    address, count, self._card.fabric.ledger.entry(initiator.name, NOBODY, self.name, kind)
                )
            if refused.code == "registers" and self.registers:
                return peer.registers(reach, initiator, address, count, kind)
            raise

    def _inside(
        self,
        initiator: Initiator,
        owner: Function,
        index: int,
        bar: Bar,
        address: int,
        offset: int,
        length: int,
        write: bool,
        kind: str,
    ) -> Window:
        ledger = self._card.fabric.ledger
        memory = self._card.device_memory
        length = min(length, bar.size - offset)
        if bar.device_memory and memory is not None:
            # As the owner would be answered through the same BAR: its own addresses, its own translation.
            try:
                found = memory.resolve(owner, offset, length, write)
            except AccessFault:
                # The owner has nothing there. A read of a BAR is still answered, as it is for the owner's CPU.
                count = min(length, PAGE_SIZE - offset % PAGE_SIZE)
                return _Unanswered(address, count, ledger.entry(initiator.name, NOBODY, self.name, kind))
            if found is not None:
                whose, view = found
                return Window(address, len(view), view, whose, ledger.entry(initiator.name, whose, self.name, kind))
        region = owner.regions[index]
        assert region is not None
        entry = ledger.entry(initiator.name, owner.name, self.name, kind)
        for start, size in region.areas:
            if start <= offset < start + size and region.memory is not None:
                count = min(length, start + size - offset)
                at = region.memory_offset + offset
                return Window(address, count, region.memory.view[at : at + count], owner.name, entry)
        if bar.handler is None or not self.registers:
            raise AccessFault(initiator, Space.SYSTEM, address, f"nothing of {owner.name}'s BAR{index} is there")
        following = min((start for start, _ in region.areas if start > offset), default=bar.size)
        return RegisterWindow(address, min(length, following - offset), owner.name, entry, bar.handler, offset)


def _check_master(initiator: Function, address: int) -> None:
    if not initiator.config.peek(COMMAND, 2) & COMMAND_MASTER:
        reason = "the function is no bus master (bit 2 of COMMAND is clear)"
        raise AccessFault(initiator, Space.SYSTEM, address, reason)


class _Unanswered(Window):
    """Where a BAR is decoded and nothing is behind it: reads all ones, drops writes (PCI Express, unsupported request)."""

    def __init__(self, address: int, length: int, entry: LedgerEntry) -> None:
        super().__init__(address, length, None, NOBODY, entry)

    def _read(self, offset: int, length: int) -> bytes:
        return b"\xff" * length

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        pass


class RegisterWindow(Window):
    """Registers behind a BAR: no view; every access is cut into aligned dwords (bytes at the ends)."""

    __slots__ = ("_handler", "_offset")

    def __init__(
        self, address: int, length: int, owner: str, entry: LedgerEntry, handler: AccessHandler, offset: int
    ) -> None:
        super().__init__(address, length, None, owner, entry)
        self._handler = handler
        self._offset = offset

    def _read(self, offset: int, length: int) -> bytes:
        return read_registers(self._handler, self._offset + offset, length)

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        write_registers(self._handler, self._offset + offset, data)
