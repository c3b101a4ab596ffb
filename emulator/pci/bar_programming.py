"""Programming the VF BARs into the client, which a guest's kernel never does by itself.

A client such as QEMU knows a VF only as a device whose BAR registers nobody has written. After VF Enable the PF's
side writes them, and COMMAND, through guest-physical ECAM. Two ways lead there: QEMU's qtest socket
(`emulator.vfio_user.qtest`), and DMA of the PF. Neither may be waited for inside an access, so all of it happens on
a thread that lives as long as there is something to do. See docs/hardware/pci.md.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from emulator.pci.sriov import Sriov

log = logging.getLogger(__name__)

CHALLENGE = 0xFFC
"""Configuration space offset at which a function answers with a number that only it knows, while it looks for itself
in the guest's configuration space: this tells it from an equal card. Reads as 0 at all other times."""


class AccessError(Exception):
    """A guest-physical access that was refused, or was not answered."""


class PhysicalAccess(Protocol):
    """Reads and writes guest-physical addresses in order. Blocks; raises `AccessError`."""

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
    cure: str
    """What a user does to have it, in words."""

    def open(self) -> Sequence[PhysicalAccess]:
        """The accesses that can be tried now: one for each machine that may be the right one."""
        ...


@dataclass(frozen=True, slots=True)
class Location:
    """Where a PF is in guest-physical memory: base of ECAM, and its routing id (bus, device, function)."""

    ecam: int
    routing_id: int

    def address(self, offset: int, behind: int = 0) -> int:
        """Of configuration space byte `offset` of the function whose routing id lies `behind` the PF's."""
        return self.ecam + ((self.routing_id + behind) << 12) + offset

    def bdf(self, behind: int = 0) -> str:
        """As lspci writes it."""
        routing_id = self.routing_id + behind
        return f"{routing_id >> 8:02x}:{routing_id >> 3 & 0x1F:02x}.{routing_id & 7}"


@dataclass(slots=True)
class Status:
    """What became of the VF BARs: for the control socket and for tests."""

    state: str = "idle"
    """`idle` (no VF enabled), `busy`, `done` (every enabled VF's BARs are in the client), `failed` (see `error`)."""
    vfs: int = 0
    """VFs whose BARs are in the client."""
    method: str = ""
    """The access that was used."""
    pf: str = ""
    """Where the PF was found, as lspci writes it."""
    ecam: int = 0
    milliseconds: float = 0.0
    """From the guest's write to the end."""
    runs: int = 0
    repairs: int = 0
    """Times a VF's memory decoding was switched on again after its user had switched it off."""
    error: str = ""
    tried: list[str] = field(default_factory=list)
    """Per access that did not do, why."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class VfBarProgramming:
    """Keeps the client's idea of the VF BARs equal to the guest's, on a thread of its own while there is a difference.

    `routes` are tried in order. `update` and `forget` are cheap and safe inside an access.
    """

    def __init__(self, sriov: Sriov) -> None:
        self.routes: list[Route] = []
        self._sriov = sriov
        self._status = Status()

    @property
    def status(self) -> Status:
        """What became of the last update."""
        return self._status

    def update(self) -> None:
        """The guest enabled or disabled VFs, or their memory decoding."""

    def forget(self) -> None:
        """The client reset, or went away: nothing is programmed any more."""
