"""What a capability of a PCI function is, and how those of one function are placed and linked.

A capability has an id, a size and, optionally, a fixed offset; `install_all` lays them out, links the chains and names
overlaps. The capabilities themselves are in `capabilities.py`, SR-IOV in `sriov.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from vfio_user_xe.emulator.pci.config_space import CONFIG_SIZE, EXTENDED_START, ConfigRegister, ConfigSpace
from vfio_user_xe.emulator.pci.types import FunctionView

CAPABILITY_POINTER = 0x34
FIRST_CAPABILITY = 0x40
VSEC_ID = 0x000B


class Capability(ABC):
    """One capability. Subclasses set `id`, `name`, `extended` and give `registers()` from offset 2 (or 4) on."""

    id: ClassVar[int]
    name: ClassVar[str]
    extended: ClassVar[bool] = False
    version: int = 1
    hidden_from_snapshot: ClassVar[bool] = False
    """Whether a client that snapshots configuration space must take it for a vendor-specific one, because it would
    drop it otherwise (QEMU: SR-IOV and ARI)."""

    def __init__(self, offset: int | None = None) -> None:
        """`offset` fixes where it is (bytes, a multiple of 4); without it the next free place is taken.

        Raises:
            ValueError: `offset` is not a multiple of 4, or outside of where such capabilities may be.

        While the card is made, before it starts.
        """
        if offset is not None:
            low, high = (EXTENDED_START, CONFIG_SIZE) if self.extended else (FIRST_CAPABILITY, EXTENDED_START)
            if offset % 4 or not low <= offset < high:
                raise ValueError(
                    f"capability {self.name}: offset {offset:#x} is not a multiple of 4 in [{low:#x}, {high:#x})"
                )
        self.requested_offset = offset
        self.offset = 0
        """Where it is; set when the function is built."""
        self.function: FunctionView | None = None

    @property
    def size(self) -> int:
        """Bytes, header included."""
        return max(register.offset + register.size for register in self.registers())

    @abstractmethod
    def registers(self) -> Sequence[ConfigRegister]:
        """The registers after the header, offsets from the header's first byte."""

    def bind(self, function: FunctionView, offset: int) -> None:
        """Told once, before its registers are declared: whose it is and where."""
        self.function = function
        self.offset = offset

    def read(self, offset: int, size: int) -> int:
        """A register of this capability as it is now."""
        assert self.function is not None
        return self.function.config.peek(self.offset + offset, size)


def install_all(function: FunctionView, capabilities: Sequence[Capability]) -> None:
    """Place `capabilities` in the configuration space of `function` and link them.

    Raises:
        ValueError: Capabilities overlap or do not fit, or one that QEMU hides is at 0x100, where QEMU shows the guest its own copy of the header.

    While the card is made, before it starts.
    """
    for extended in (False, True):
        chain = [capability for capability in capabilities if capability.extended == extended]
        _place(function.config, chain, EXTENDED_START if extended else FIRST_CAPABILITY)
        chain.sort(key=lambda capability: capability.offset)
        if extended and chain and chain[0].offset != EXTENDED_START:
            raise ValueError(
                f"{function.name}: the first extended capability, {chain[0].name}, is at {chain[0].offset:#x}:"
                f" one must be at {EXTENDED_START:#x}; declare one that may, such as DeviceSerialNumber"
            )
        for index, capability in enumerate(chain):
            _install(function, capability, chain[index + 1].offset if index + 1 < len(chain) else 0)
        if not extended:
            first = chain[0].offset if chain else 0
            function.config.add([ConfigRegister("CAPABILITY_POINTER", CAPABILITY_POINTER, 1, reset=first)])


def _place(config: ConfigSpace, chain: Sequence[Capability], start: int) -> None:
    limit = CONFIG_SIZE if start == EXTENDED_START else EXTENDED_START
    taken: list[tuple[int, int, str]] = []
    for capability in sorted(chain, key=lambda c: (c.requested_offset is None, c.hidden_from_snapshot)):
        size = capability.size
        offset = capability.requested_offset
        if offset is None:
            offset = start
            if capability.hidden_from_snapshot and offset == EXTENDED_START:
                offset += 4
            for low, high, _ in sorted(taken):
                if offset < high and low < offset + size:
                    offset = (high + 3) & ~3
        if offset + size > limit:
            raise ValueError(
                f"{config.name}: capability {capability.name} ({size} bytes) does not fit below {limit:#x}"
            )
        if capability.hidden_from_snapshot and offset == EXTENDED_START:
            raise ValueError(
                f"{config.name}: capability {capability.name} must not be at {EXTENDED_START:#x}, where QEMU replaces"
                " the whole header; put another one there, such as DeviceSerialNumber"
            )
        for low, high, name in taken:
            if offset < high and low < offset + size:
                raise ValueError(
                    f"{config.name}: capability {capability.name} at [{offset:#x}, {offset + size:#x}) overlaps"
                    f" {name} at [{low:#x}, {high:#x})"
                )
        taken.append((offset, offset + size, capability.name))
        capability.offset = offset


def _install(function: FunctionView, capability: Capability, following: int) -> None:
    config = function.config
    capability.bind(function, capability.offset)
    if capability.extended:
        header = capability.id | capability.version << 16 | following << 20
        config.add([ConfigRegister("HEADER", 0, 4, reset=header)], capability.offset, capability.name)
        if capability.hidden_from_snapshot:
            config.disguise(capability.offset, VSEC_ID)
    else:
        registers = [ConfigRegister("ID", 0, 1, reset=capability.id), ConfigRegister("NEXT", 1, 1, reset=following)]
        config.add(registers, capability.offset, capability.name)
    config.add(capability.registers(), capability.offset, capability.name)
