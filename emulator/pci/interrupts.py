"""Interrupts of a function: MSI or MSI-X through the transport, MSI-X table and pending bits in a BAR."""

from __future__ import annotations

import threading

from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Msi, MsiX
from vfio_user_xe.emulator.pci.transport import MSI, MSIX, AccessHandler, Transport, name_at


class Interrupts:
    """Raises vectors of one function. `raise_vector` may be called from any thread.

    Which vectors are delivered is the client's to say: it wires each to a descriptor when the guest unmasks it. A
    MSI-X vector that is not wired becomes pending, and is delivered when it is wired.
    """

    def __init__(self, msi: Msi | None, msix: MsiX | None) -> None:
        self.msi = msi
        self.msix = msix
        self.transport: Transport | None = None
        self._lock = threading.Lock()
        self._pending = 0

    @property
    def counts(self) -> list[int]:
        """Vectors by interrupt index: INTx, MSI, MSI-X, ERR, REQ."""
        return [0, self.msi.vectors if self.msi else 0, self.msix.vectors if self.msix else 0, 0, 0]

    @property
    def pending(self) -> int:
        """MSI-X pending bits, vector 0 in bit 0."""
        return self._pending

    def raise_vector(self, vector: int) -> bool:
        """Signal `vector`; False when nobody takes it now.

        Raises:
            ValueError: The function has no such vector.

        From any thread.
        """
        if not 0 <= vector < max(self.counts):
            raise ValueError(f"interrupt vector {vector}: the function has {max(self.counts)}")
        if self.msix is not None:
            with self._lock:
                transport = self.transport
                if transport is not None and transport.trigger(MSIX, vector):
                    return True
                if self.msi is None or self.msix.enabled():
                    self._pending |= 1 << vector
                    return False
        transport = self.transport
        if transport is None or self.msi is None:
            return False
        return transport.trigger(MSI, min(vector, self.msi.granted() - 1))

    def wired(self, index: int, start: int, count: int) -> None:
        """The client wired or unwired vectors `[start, start + count)`: deliver what was pending."""
        if index != MSIX or not self._pending:
            return
        with self._lock:
            transport = self.transport
            for vector in range(start, start + count):
                if self._pending >> vector & 1 and transport is not None and transport.trigger(MSIX, vector):
                    self._pending &= ~(1 << vector)

    def reset(self) -> None:
        """Forget what is pending."""
        with self._lock:
            self._pending = 0


class MsiXHandler:
    """Lays the MSI-X table and PBA over the handler of a BAR.

    The table is storage: clients such as QEMU keep it to themselves and mask there. The PBA tells what is pending.
    """

    def __init__(self, interrupts: Interrupts, msix: MsiX, bar: int, below: AccessHandler | None) -> None:
        self._interrupts = interrupts
        self.below = below
        """What answers the rest of the BAR; None: reads as 0."""
        self._table = range(msix.table_offset, msix.table_offset + msix.table_size) if bar == msix.bar else range(0)
        self._pba = range(msix.pba_offset, msix.pba_offset + msix.pba_size) if bar == msix.pba_bar else range(0)
        # Vector control of every entry is masked from reset (PCIe base spec, 7.7.2.4).
        self._entries = bytearray(b"\0" * 12 + b"\1\0\0\0") * msix.vectors

    def read(self, offset: int, size: int) -> int:
        if offset in self._table:
            start = offset - self._table.start
            return int.from_bytes(self._entries[start : start + size], "little")
        if offset in self._pba:
            return self._interrupts.pending >> 8 * (offset - self._pba.start) & ((1 << 8 * size) - 1)
        return self.below.read(offset, size) if self.below is not None else 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset in self._table:
            start = offset - self._table.start
            self._entries[start : start + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        elif offset not in self._pba and self.below is not None:
            self.below.write(offset, size, value)

    def name_of(self, offset: int) -> str:
        """What is at `offset`, in words; empty where the handler below knows no names."""
        if offset in self._table:
            return f"MSI-X table+{offset - self._table.start:#x}"
        if offset in self._pba:
            return f"MSI-X PBA+{offset - self._pba.start:#x}"
        return name_at(self.below, offset)


def with_msix(name: str, bars: dict[int, Bar], interrupts: Interrupts) -> dict[int, Bar]:
    """`bars` with the MSI-X structures laid over the BARs they are in.

    Raises:
        ValueError: The structures cannot be there; the message says why.

    While the card is made, before it starts.
    """
    msix = interrupts.msix
    if msix is None:
        return bars
    result = dict(bars)
    places = (
        ("table", msix.bar, msix.table_offset, msix.table_size),
        ("PBA", msix.pba_bar, msix.pba_offset, msix.pba_size),
    )
    for what, index, offset, size in places:
        bar = bars.get(index)
        if bar is None:
            raise ValueError(f"{name}: the MSI-X {what} is in BAR{index}, which does not exist")
        if offset + size > bar.size:
            raise ValueError(f"{name}: the MSI-X {what} at [{offset:#x}, {offset + size:#x}) is outside of BAR{index}")
        areas = bar.areas if bar.areas is not None else ([(0, bar.size)] if bar.memory is not None else [])
        for start, length in areas:
            if start < offset + size and offset < start + length:
                raise ValueError(
                    f"{name}: the MSI-X {what} at [{offset:#x}, {offset + size:#x}) of BAR{index} lies in the mapped"
                    f" area [{start:#x}, {start + length:#x})"
                )
        if result[index] is bar:
            handler = MsiXHandler(interrupts, msix, index, bar.handler)
            result[index] = Bar(
                bar.size, handler, bar.memory, bar.memory_offset, bar.areas, bar.prefetchable, bar.is_64bit
            )
    if msix.bar == msix.pba_bar and (
        msix.table_offset < msix.pba_offset + msix.pba_size and msix.pba_offset < msix.table_offset + msix.table_size
    ):
        raise ValueError(f"{name}: the MSI-X table and PBA overlap in BAR{msix.bar}")
    return result
