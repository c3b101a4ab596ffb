"""Reaching a guest's configuration space from outside: guest-physical accesses, and finding a function in ECAM.

ECAM is the window in which every function's configuration space has 4 KiB (PCIe base spec, 7.2.2). Its base and the
function's bus number are the guest's to choose, so they are looked for.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from vfio_user_xe.emulator.pci.transport import DmaError, Transport
from vfio_user_xe.emulator.pci.types import FunctionView

CHALLENGE = 0xFFC
"""Where a function shows a number that only it knows while it looks for itself; reads as 0 at all other times."""
ECAM_BASES = (0xB0000000, 0xE0000000)
"""Of a q35 machine: SeaBIOS and QEMU's reset value, OVMF."""
_Q35_HOST_BRIDGE = 0x29C08086
_PCIEXBAR = 0x60
"""Of the q35 host bridge: where ECAM is, bit 0 enables, bits 2:1 give 256, 128 or 64 buses (3 Series chipset datasheet, PCIEXBAR)."""
_ABSENT = (0, 0xFFFFFFFF)


class AccessError(Exception):
    """A guest-physical access that was refused or not answered, or that does not lead to the function."""


class PhysicalAccess(Protocol):
    """Reads and writes guest-physical addresses, in order. Blocks.

    Raises:
        AccessError: an access failed.
    """

    @property
    def name(self) -> str:
        """For status and messages."""
        ...

    def read(self, addresses: Sequence[int]) -> list[int]:
        """The 32-bit values at `addresses`."""
        ...

    def write(self, writes: Sequence[tuple[int, int, int]]) -> None:
        """Do `writes`, each `(address, size in bytes (2 or 4), value)`."""
        ...


class Route(Protocol):
    """A way to guest-physical memory that may be there or not."""

    name: str

    @property
    def cure(self) -> str:
        """What a user does to have it, in words."""
        ...

    def open(self) -> Sequence[PhysicalAccess]:
        """The accesses that can be tried now: one for each machine that may be the right one."""
        ...


@dataclass(frozen=True, slots=True)
class Location:
    """Where a function is in guest-physical memory: base of ECAM, and its routing id (bus, device, function)."""

    ecam: int
    routing_id: int

    def address(self, offset: int, behind: int = 0) -> int:
        """Of configuration space byte `offset` of the function whose routing id lies `behind` this one's."""
        return self.ecam + ((self.routing_id + behind) << 12) + offset

    def bdf(self, behind: int = 0) -> str:
        """As lspci writes it."""
        routing_id = self.routing_id + behind
        return f"{routing_id >> 8:02x}:{routing_id >> 3 & 0x1F:02x}.{routing_id & 7}"


class EcamDma:
    """DMA of the PF aimed at ECAM, which QEMU lets through where no IOMMU translates the PF's accesses."""

    name = "dma"
    cure = "let the guest switch on the PF's bus mastering, with no IOMMU translating its DMA"

    def __init__(self, function: FunctionView) -> None:
        self._function = function

    def open(self) -> Sequence[PhysicalAccess]:
        return [self] if self._function.transport is not None else []

    def read(self, addresses: Sequence[int]) -> list[int]:
        transport = self._transport()
        try:
            return [int.from_bytes(transport.read(address, 4), "little") for address in addresses]
        except DmaError as exc:
            raise AccessError(str(exc)) from exc

    def write(self, writes: Sequence[tuple[int, int, int]]) -> None:
        transport = self._transport()
        try:
            for address, size, value in writes:
                transport.write(address, value.to_bytes(size, "little"))
        except DmaError as exc:
            raise AccessError(str(exc)) from exc

    def _transport(self) -> Transport:
        transport = self._function.transport
        if transport is None:
            raise AccessError("the client is gone")
        return transport


@contextlib.contextmanager
def challenge(functions: Sequence[FunctionView]) -> Iterator[list[int]]:
    """Let each of `functions` show a secret number of its own at `CHALLENGE`, and tell the numbers.

    Ids cannot tell which function answers: VFs have none, and a machine may have two equal cards.
    """
    numbers = [secrets.randbits(32) | 1 for _ in functions]
    for function, number in zip(functions, numbers, strict=True):
        function.config.poke(CHALLENGE, 4, number)
    try:
        yield numbers
    finally:
        for function in functions:
            function.config.poke(CHALLENGE, 4, 0)


def locate(
    access: PhysicalAccess, function: FunctionView, hint: Location | None = None, bases: Sequence[int] = ECAM_BASES
) -> Location:
    """Find `function` through `access`, at `hint` or by walking the guest's buses.

    Raises:
        AccessError: The function is on no bus of the guest, or the access fails.

    From any thread but inside an access: it waits.
    """
    with challenge([function]) as (number,):
        if hint is not None and access.read([hint.address(CHALLENGE)]) == [number]:
            return hint
        looked_at = []
        for base in bases:
            buses, why = _ecam_at(access, base)
            if not buses:
                looked_at.append(f"{base:#x}: {why}")
                continue
            found = _walk(access, base, buses, function, number)
            if found is not None:
                return found
            looked_at.append(f"{base:#x}: {function.name} is on none of its buses")
    raise AccessError(f"{function.name} was not found in ECAM ({', '.join(looked_at)})")


def _ecam_at(access: PhysicalAccess, base: int) -> tuple[int, str]:
    """How many buses ECAM at `base` has; 0 and the reason when it is not there."""
    try:
        host, low, high = access.read([base, base + _PCIEXBAR, base + _PCIEXBAR + 4])
    except AccessError as exc:
        return 0, str(exc)
    if host in _ABSENT:
        return 0, "no host bridge"
    if host != _Q35_HOST_BRIDGE:
        return 256, ""
    buses = {0: 256, 1: 128, 2: 64}.get(low >> 1 & 3, 0)
    register = high << 32 | low
    if not low & 1 or not buses or register & ~((buses << 20) - 1) != base:
        return 0, f"the host bridge says {register:#x}"
    return buses, ""


def _walk(access: PhysicalAccess, base: int, buses: int, function: FunctionView, number: int) -> Location | None:
    ids = function.config.peek(0, 4)
    queue, seen = [0], {0}
    for bus in queue:
        present = _functions_of(access, base, bus)
        candidates = [routing_id for routing_id, value in present.items() if value == ids]
        shown = access.read([Location(base, routing_id).address(CHALLENGE) for routing_id in candidates])
        for routing_id, value in zip(candidates, shown, strict=True):
            if value == number:
                return Location(base, routing_id)
        headers = access.read([Location(base, routing_id).address(0x0C) for routing_id in present])
        bridges = [routing_id for routing_id, header in zip(present, headers, strict=True) if header >> 16 & 0x7F == 1]
        for numbers in access.read([Location(base, routing_id).address(0x18) for routing_id in bridges]):
            secondary = numbers >> 8 & 0xFF
            if secondary < buses and secondary not in seen:
                seen.add(secondary)
                queue.append(secondary)
    return None


def _functions_of(access: PhysicalAccess, base: int, bus: int) -> dict[int, int]:
    """Ids by routing id of the functions on `bus`."""
    firsts = [bus << 8 | device << 3 for device in range(32)]
    found = _ids(access, base, firsts)
    headers = access.read([Location(base, routing_id).address(0x0C) for routing_id in found])
    others = [
        routing_id + number
        for routing_id, header in zip(list(found), headers, strict=True)
        if header >> 16 & 0x80
        for number in range(1, 8)
    ]
    found.update(_ids(access, base, others))
    return found


def _ids(access: PhysicalAccess, base: int, routing_ids: Sequence[int]) -> dict[int, int]:
    values = access.read([Location(base, routing_id).address(0) for routing_id in routing_ids])
    return {routing_id: value for routing_id, value in zip(routing_ids, values, strict=True) if value not in _ABSENT}
