"""`p2p`: PCI peer-to-peer. An access by bus address that lands in a BAR of a function of the same card.

A switch decodes such an address before any IOMMU sees it; so this interconnect is asked before `host_dma`, which would send it
to the client. The access goes through the owner's own rules: its BAR must be decoded (COMMAND, VF Enable and VF MSE), and
where the BAR is a window of device memory, the owner's own translation applies (VF BAR2 is a window of GDPA). With ACS
redirect and a translating IOMMU the initiator uses IOVAs instead, which are no bus addresses: those pass on to `host_dma`.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from typing import Any

from emulator.card import Card, Option
from emulator.interconnect import AccessFault, Initiator, LedgerEntry, Space, Window
from emulator.memory import PAGE_SIZE
from emulator.pci.bars import BAR0_OFFSET, BARS, Bar
from emulator.pci.function import COMMAND, COMMAND_MASTER, COMMAND_MEMORY, Function
from emulator.pci.sriov import CONTROL
from emulator.pci.transport import AccessHandler

_ADDRESS_MASK = ~0xF

NOBODY = "none"
"""Owner, in the ledger, of the part of a VF's BAR2 that its VF has no memory for."""


class P2p:
    """BARs of the card's functions, reached by bus address from any of its functions."""

    API_VERSION = (1, 0)
    OPTIONS: tuple[Option, ...] = (
        Option("registers", "bool", True, "whether trapped BARs (registers) are reached too, dword by dword"),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.name = "p2p"
        self._card = card
        self._registers = bool(options["registers"])
        self._known: list[tuple[int, int, Function, int, Bar]] | None = None
        # Interconnects are made after the functions: whatever changes which BARs are decoded drops what is known.
        for function in card.functions:
            function.on_reset.append(self._changed)
            function.config.watch(COMMAND, 2, self._changed)
            for index in range(BARS):
                function.config.watch(BAR0_OFFSET + 4 * index, 4, self._changed)
            if function.sriov is not None:
                function.sriov.on_enable.append(self._changed)
                function.sriov.on_disable.append(self._changed)
                function.config.watch(function.sriov.offset + CONTROL, 2, self._changed)

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        if space != Space.SYSTEM or not isinstance(initiator, Function) or initiator.assigned:
            # What a VF in a guest of its own has for a bus address is not the PF's.
            return None
        known = self._known
        if known is None:
            known = self._known = sorted(self._decoded(), key=lambda decoded: decoded[0])
        at = bisect.bisect_right(known, address, key=lambda decoded: decoded[0]) - 1
        if at < 0 or address >= known[at][1]:
            return None
        if not initiator.config.peek(COMMAND, 2) & COMMAND_MASTER:
            raise AccessFault(initiator, space, address, "the function is no bus master (bit 2 of COMMAND is clear)")
        base, _, owner, index, bar = known[at]
        return self._inside(initiator, owner, index, bar, address, address - base, length, write, kind)

    def _changed(self, *_: object) -> None:
        self._known = None
        self._card.fabric.revoke(lambda window: window.entry.interconnect == self.name)

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
                # The owner has nothing there. A read of a BAR has an answer all the same, as the owner's CPU gets it.
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
        if bar.handler is None or not self._registers:
            raise AccessFault(initiator, Space.SYSTEM, address, f"nothing of {owner.name}'s BAR{index} is there")
        following = min((start for start, _ in region.areas if start > offset), default=bar.size)
        return RegisterWindow(address, min(length, following - offset), owner.name, entry, bar.handler, offset)

    def _decoded(self) -> Iterator[tuple[int, int, Function, int, Bar]]:
        """Every BAR that is decoded now: its first bus address and the one behind it, and whose it is."""
        sriov = self._card.functions[0].sriov
        for function in self._card.functions:
            for index, bar in function.bars.items():
                base = 0
                if function.is_vf:
                    if sriov is not None and sriov.memory_enabled and function.index in sriov.enabled_vfs:
                        base = sriov.bar_address(index, function.index)
                elif function.config.peek(COMMAND, 2) & COMMAND_MEMORY:
                    base = function.config.peek(BAR0_OFFSET + 4 * index, 8 if bar.is_64bit else 4) & _ADDRESS_MASK
                if base:
                    yield base, base + bar.size, function, index, bar


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
        return b"".join(self._handler.read(at, size).to_bytes(size, "little") for at, size in self._cut(offset, length))

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        start = self._offset + offset
        for at, size in self._cut(offset, len(data)):
            self._handler.write(at, size, int.from_bytes(data[at - start : at - start + size], "little"))

    def _cut(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        at = self._offset + offset
        end = at + length
        while at < end:
            size = 4 if at % 4 == 0 and end - at >= 4 else 1
            yield at, size
            at += size
