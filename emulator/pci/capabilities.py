"""Capabilities of PCI functions, declared as registers. Layouts: PCI Express base specification, chapter 7.

What they have in common is in `capability.py`. SR-IOV is in `sriov.py`, PCI Express and what belongs to the link in `express.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vfio_user_xe.emulator.pci.capability import VSEC_ID, Capability
from vfio_user_xe.emulator.pci.config_space import ConfigRegister
from vfio_user_xe.emulator.pci.types import FunctionView


class PowerManagement(Capability):
    """PM: D0 and D3hot. PMCSR is at `offset + 4`.

    With `no_soft_reset` the function keeps its state over D3hot; without it, leaving D3hot resets it, and `Function.on_reset` is called with "d3hot".
    """

    id = 0x01
    name = "PM"

    def __init__(self, offset: int | None = None, *, no_soft_reset: bool = True, pme_support: int = 0) -> None:
        """`pme_support` are bits 15:11 of PMC: from which states PME# may be asserted (bit 0 of it is D0)."""
        super().__init__(offset)
        self.no_soft_reset = no_soft_reset
        self.pme_support = pme_support

    def registers(self) -> Sequence[ConfigRegister]:
        pme_enable = 0x100 if self.pme_support else 0
        return [
            ConfigRegister("PMC", 2, 2, reset=3 | self.pme_support << 11),
            ConfigRegister(
                "PMCSR",
                4,
                2,
                reset=8 if self.no_soft_reset else 0,
                writable=0x3 | pme_enable,
                w1c=0x8000 if self.pme_support else 0,
                sticky=pme_enable | (0x8000 if self.pme_support else 0),
                write=self._written,
            ),
            ConfigRegister("PMCSR_BSE", 6, 1),
            ConfigRegister("PM_DATA", 7, 1),
        ]

    def _written(self, old: int, written: int) -> None:
        assert self.function is not None
        before, after = old & 3, written & 3
        if after in (1, 2):
            # Unsupported states: "the write completes normally, the data are discarded" (PM spec, PowerState).
            config = self.function.config
            config.poke(self.offset + 4, 2, config.peek(self.offset + 4, 2) & ~3 | before)
        elif before != after:
            self.function.power_state_changed(before, after, reset=not self.no_soft_reset)


class Msi(Capability):
    """MSI with 64-bit addresses; the client (QEMU) acts on it, and wires the vectors to descriptors."""

    id = 0x05
    name = "MSI"

    def __init__(self, vectors: int = 1, offset: int | None = None, *, maskable: bool = False) -> None:
        """`vectors` is 1, 2, 4, 8, 16 or 32.

        Raises:
            ValueError: Another number of vectors, or an offset that may not be.

        While the card is made, before it starts.
        """
        if vectors not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"capability MSI: {vectors} vectors, allowed are 1, 2, 4, 8, 16, 32")
        super().__init__(offset)
        self.vectors = vectors
        self.maskable = maskable

    def registers(self) -> Sequence[ConfigRegister]:
        capable = self.vectors.bit_length() - 1
        registers = [
            ConfigRegister("CONTROL", 2, 2, reset=0x80 | capable << 1 | self.maskable << 8, writable=0x71),
            ConfigRegister("ADDRESS", 4, 4, writable=0xFFFFFFFC),
            ConfigRegister("ADDRESS_HIGH", 8, 4, writable=0xFFFFFFFF),
            ConfigRegister("DATA", 12, 2, writable=0xFFFF),
            ConfigRegister("EXTENDED_DATA", 14, 2),
        ]
        if self.maskable:
            every = (1 << self.vectors) - 1
            registers += [ConfigRegister("MASK", 16, 4, writable=every), ConfigRegister("PENDING", 20, 4)]
        return registers

    def granted(self) -> int:
        """How many vectors the guest granted (at most `vectors`): higher ones alias to the last."""
        return min(1 << (self.read(2, 2) >> 4 & 7), self.vectors)


class MsiX(Capability):
    """MSI-X with table and pending bits in a BAR. QEMU keeps the table itself and lets reads of the PBA through."""

    id = 0x11
    name = "MSI-X"

    def __init__(
        self,
        vectors: int,
        bar: int,
        table_offset: int,
        pba_offset: int,
        pba_bar: int | None = None,
        offset: int | None = None,
    ) -> None:
        """`vectors` 1..2048; table and PBA at byte offsets (multiples of 8) of BAR `bar` (and `pba_bar`).

        Raises:
            ValueError: Too many vectors or none, or an offset that may not be.

        While the card is made, before it starts.
        """
        if not 1 <= vectors <= 2048:
            raise ValueError(f"capability MSI-X: {vectors} vectors, allowed are 1 to 2048")
        for what, where in (("table", table_offset), ("PBA", pba_offset)):
            if where % 8 or where < 0:
                raise ValueError(f"capability MSI-X: {what} offset {where:#x} is not a multiple of 8")
        super().__init__(offset)
        self.vectors = vectors
        self.bar = bar
        self.table_offset = table_offset
        self.pba_bar = bar if pba_bar is None else pba_bar
        self.pba_offset = pba_offset

    @property
    def table_size(self) -> int:
        """Bytes."""
        return self.vectors * 16

    @property
    def pba_size(self) -> int:
        """Bytes."""
        return (self.vectors + 63) // 64 * 8

    def registers(self) -> Sequence[ConfigRegister]:
        return [
            ConfigRegister("CONTROL", 2, 2, reset=self.vectors - 1, writable=0xC000),
            ConfigRegister("TABLE", 4, 4, reset=self.table_offset | self.bar),
            ConfigRegister("PBA", 8, 4, reset=self.pba_offset | self.pba_bar),
        ]

    def enabled(self) -> bool:
        """Whether the guest enabled MSI-X."""
        return bool(self.read(2, 2) & 0x8000)


class VendorSpecific(Capability):
    """VNDR: a length and bytes of the vendor's."""

    id = 0x09
    name = "VNDR"

    def __init__(self, payload: bytes = b"", offset: int | None = None, *, writable: bytes = b"") -> None:
        """`payload` follows the 3-byte header; bits set in `writable` (from the same byte on) can be written."""
        super().__init__(offset)
        self.payload = payload
        self.writable = writable

    def registers(self) -> Sequence[ConfigRegister]:
        length = ConfigRegister("LENGTH", 2, 1, reset=3 + len(self.payload))
        return [length, *_byte_registers("VNDR", 3, self.payload, self.writable)]


class ExtendedVendorSpecific(Capability):
    """VSEC: the extended vendor-specific capability."""

    id = VSEC_ID
    name = "VSEC"
    extended = True

    def __init__(
        self, vsec_id: int, payload: bytes = b"", offset: int | None = None, *, revision: int = 0, writable: bytes = b""
    ) -> None:
        """`payload` follows the 8 bytes of headers; bits set in `writable` (from the same byte on) can be written."""
        super().__init__(offset)
        self.vsec_id = vsec_id
        self.revision = revision
        self.payload = payload
        self.writable = writable

    def registers(self) -> Sequence[ConfigRegister]:
        header = self.vsec_id | self.revision << 16 | (8 + len(self.payload)) << 20
        return [
            ConfigRegister("VSEC_HEADER", 4, 4, reset=header),
            *_byte_registers("VSEC", 8, self.payload, self.writable),
        ]


class DeviceSerialNumber(Capability):
    """DSN: 64 bits that name this card."""

    id = 0x0003
    name = "DSN"
    extended = True

    def __init__(self, serial: int, offset: int | None = None) -> None:
        super().__init__(offset)
        self.serial = serial

    def registers(self) -> Sequence[ConfigRegister]:
        return [ConfigRegister("SERIAL", 4, 8, reset=self.serial)]


class Ari(Capability):
    """ARI: function numbers of 8 bits, needed for more than 7 VFs."""

    id = 0x000E
    name = "ARI"
    extended = True
    hidden_from_snapshot = True

    def __init__(self, offset: int | None = None, *, next_function: int = 0) -> None:
        super().__init__(offset)
        self.next_function = next_function

    def registers(self) -> Sequence[ConfigRegister]:
        return [
            ConfigRegister("ARI_CAPABILITY", 4, 2, reset=self.next_function << 8),
            ConfigRegister("ARI_CONTROL", 6, 2),
        ]


class ResizableBar(Capability):
    """ReBAR for one BAR. QEMU pins a region's size when it connects, so a guest there sees only the current one.

    `on_resize(size)` is called inside the access when the guest picks another size; the BAR register is sized anew.
    """

    id = 0x0015
    name = "ReBAR"
    extended = True

    def __init__(
        self,
        bar: int,
        sizes: Sequence[int],
        offset: int | None = None,
        on_resize: Callable[[int], None] | None = None,
    ) -> None:
        """`sizes` in bytes: powers of two from 1 MiB to 128 TiB; the BAR's own size must be one of them.

        Raises:
            ValueError: A size is none of these, or an offset that may not be.

        While the card is made, before it starts.
        """
        super().__init__(offset)
        for size in sizes:
            if size & (size - 1) or not 1 << 20 <= size <= 1 << 47:
                raise ValueError(f"capability ReBAR: size {size:#x} is not a power of two from 1 MiB to 128 TiB")
        self.bar = bar
        self.sizes = tuple(sorted(sizes))
        self.on_resize = on_resize

    def bind(self, function: FunctionView, offset: int) -> None:
        """Told once, before its registers are declared: whose it is and where.

        Raises:
            ValueError: The BAR has none of the sizes that the capability lists.

        While the card is made, before it starts.
        """
        super().bind(function, offset)
        bar = function.bars.get(self.bar)
        if bar is None or bar.size not in self.sizes:
            raise ValueError(f"{function.name}: capability ReBAR: BAR{self.bar} has none of the sizes it lists")

    def registers(self) -> Sequence[ConfigRegister]:
        bits = sum(size >> 20 for size in self.sizes)
        current = self._encode(self.function.bars[self.bar].size) if self.function is not None else 0
        return [
            # Sizes up to 128 TiB: 1 MiB is bit 4; from 256 TiB on they would be in the control register.
            ConfigRegister("REBAR_CAPABILITY", 4, 4, reset=bits << 4 & 0xFFFFFFFF),
            ConfigRegister(
                "REBAR_CONTROL", 8, 4, reset=self.bar | 1 << 5 | current << 8, writable=0x3F00, write=self._resized
            ),
        ]

    @staticmethod
    def _encode(size: int) -> int:
        return size.bit_length() - 21

    def _resized(self, old: int, written: int) -> None:
        assert self.function is not None
        size = 1 << (20 + (written >> 8 & 0x3F))
        if size not in self.sizes:
            self.function.config.poke(self.offset + 8, 4, old)
            return
        self.function.size_bar_register(self.bar, size)
        if self.on_resize is not None:
            self.on_resize(size)


def _byte_registers(name: str, offset: int, payload: bytes, writable: bytes) -> list[ConfigRegister]:
    masks = writable.ljust(len(payload), b"\0")
    return [
        ConfigRegister(f"{name}_{index}", offset + index, 1, reset=value, writable=masks[index])
        for index, value in enumerate(payload)
    ]
