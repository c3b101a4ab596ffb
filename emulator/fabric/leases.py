"""Leases: memory of a card that another process uses, until it is revoked.

Another card's server (`plugins/remote.py`, `p2p` with peers) or another program (`vfio-user-xe export`) asks for a piece
of a function's device memory, or of a BAR, and gets the memory's file descriptor and where in it the piece is. The lease
ends when the memory changes its owner, when its owner or the function is reset, when the BAR is not decoded any more,
and with the process. Whoever has it is told, and the card waits a moment for the answer, so that a copy can end.

A descriptor cannot be taken out of another process's hands. What protects the memory's next owner is that blocks move
when they change hands, which the device model sees to: who still looks at the old place sees holes.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

from vfio_user_xe.emulator.fabric.interconnect import FABRIC_HELP, AccessFault, Fabric, Initiator
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.memory import PAGE_SIZE, Memory
from vfio_user_xe.emulator.observe.tap import Tap
from vfio_user_xe.emulator.pci.decoding import BusDecoder
from vfio_user_xe.emulator.pci.function import Function

PATIENCE = 0.25
"""Seconds that a card waits for the holders of what it takes back; one that is hung does not hold it up for longer."""


class Shared(NamedTuple):
    """A contiguous piece of memory: `[offset, offset + length)` of `memory`, whose owner is called `owner`.

    `stamp` differs when any of it has changed hands in between, even where it is in the same place again.
    """

    owner: str
    memory: Memory
    offset: int
    length: int
    stamp: Hashable


@runtime_checkable
class SharedDeviceMemory(Protocol):
    """Device memory that can be used outside of the process; an addition to `vfio_user_xe.emulator.model.card.DeviceMemory`."""

    def share(self, initiator: Initiator, address: int, length: int) -> Shared | None:
        """Where the first contiguous bytes of `[address, +length)` are; as `DeviceMemory.resolve`, but from any thread."""
        ...


class LeaseRefused(Exception):
    """Memory that cannot be had; the text says why, and `code` where it makes a difference to who asked.

    "hole": the address is the function's, nothing is behind it. "registers": accesses there are trapped.
    "not decoded": the BAR is off.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Lease:
    """A piece of memory that another process uses: `[address, address + length)` of `function`'s, or of its BAR `bar`."""

    def __init__(
        self,
        number: int,
        function: str,
        bar: int | None,
        address: int,
        shared: Shared,
        told: Callable[[Lease], None],
        holder: str = "",
    ) -> None:
        self.number = number
        self.holder = holder
        self.function = function
        self.bar = bar
        self.address = address
        self.length = shared.length
        self.owner = shared.owner
        self.memory = shared.memory
        self.offset = shared.offset
        self.stamp = shared.stamp
        self.reason: str | None = None
        """The reason of its revocation; None while it is valid."""
        self.released = threading.Event()
        """Set by the holder's side when it uses the memory no more."""
        self.told = told

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for the control socket."""
        names = ("number", "holder", "function", "bar", "address", "length", "owner", "reason")
        return {name: getattr(self, name) for name in names}


class LeasingCard(Protocol):
    """What leases need of a card."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def fabric(self) -> Fabric:
        """Tells what is revoked."""
        ...

    @property
    def executor(self) -> Executor:
        """Waits for holders only on it."""
        ...

    @property
    def functions(self) -> list[Function]:
        """Whose memory and BARs are leased."""
        ...

    @property
    def device_memory(self) -> object | None:
        """The card's own memory; leased when it is a `SharedDeviceMemory`."""
        ...

    def function(self, name: str, /) -> Function:
        """The function of that name.

        Raises:
            KeyError: there is none.
        """
        ...


class Leases:
    """The leases of one card. From any thread."""

    def __init__(self, card: LeasingCard) -> None:
        self._card = card
        self._lock = threading.Lock()
        self._leases: dict[int, Lease] = {}
        self._numbers = itertools.count(1)
        self._revocations = 0
        self._resetting: set[str] = set()
        self.tap = Tap("fabric", FABRIC_HELP)
        """Called for every lease that is given ("lease") and revoked ("lease revoked")."""
        self.decoder = BusDecoder(card.functions)
        self.decoder.on_change.append(self._check)
        card.fabric.on_revoke.append(self._check)
        card.fabric.ledger.ownership.on_event.append(self._noted)
        for function in card.functions:
            function.on_reset.append(partial(self._reset, function))

    def open(
        self,
        function: Function,
        address: int,
        length: int,
        told: Callable[[Lease], None],
        bar: int | None = None,
        holder: str = "",
    ) -> Lease:
        """A lease on the first contiguous bytes of `[address, +length)`: device addresses of `function`, or in its BAR.

        Both in bytes, multiples of the page size. `told(lease)` is called when it is taken back, on the thread that does
        so, perhaps before this returns. `holder` says in words who has it.

        Raises:
            LeaseRefused: these are no whole pages, nothing is there to lease, or its function or owner is being
                reset.
        """
        if address < 0 or length <= 0 or address % PAGE_SIZE or length % PAGE_SIZE:
            raise LeaseRefused(f"[{address:#x}, +{length:#x}) is not made of whole pages of {PAGE_SIZE:#x} bytes")
        while True:
            revocations = self._revocations
            shared = self._shared(function, bar, address, length)
            lease = Lease(next(self._numbers), function.name, bar, address, shared, told, holder)
            with self._lock:
                self._leases[lease.number] = lease
            if revocations == self._revocations:
                if self.tap.on:
                    self.tap(lease.function, "lease", lease.as_dict())
                return lease
            # Something was taken back meanwhile, perhaps between the look at the memory and the entry.
            self.close(lease)

    def close(self, lease: Lease) -> None:
        """The holder is done with it."""
        lease.released.set()
        with self._lock:
            self._leases.pop(lease.number, None)

    def __iter__(self) -> Iterator[Lease]:
        with self._lock:
            return iter(list(self._leases.values()))

    def _shared(self, function: Function, bar: int | None, address: int, length: int) -> Shared:
        found = (
            self._of_device(function, address, length) if bar is None else self._of_bar(function, bar, address, length)
        )
        for name in (function.name, found.owner):
            if name in self._resetting:
                raise LeaseRefused(f"{name} is being reset")
        return found

    def _of_device(self, function: Function, address: int, length: int) -> Shared:
        memory = self._card.device_memory
        if not isinstance(memory, SharedDeviceMemory):
            raise LeaseRefused(f"the card {self._card.name} has no device memory that can be shared")
        try:
            found = memory.share(function, address, length)
        except AccessFault as fault:
            raise LeaseRefused(fault.reason, "hole") from None
        if found is None:
            raise LeaseRefused(f"{address:#x} is outside of the card's memory")
        return found

    def _of_bar(self, function: Function, index: int, offset: int, length: int) -> Shared:
        """Through the owner's own rules: the BAR is decoded, and its own translation applies."""
        decoded = next((d for d in self.decoder.decoded() if d.function is function and d.number == index), None)
        if decoded is None:
            raise LeaseRefused(f"{function.name}'s BAR{index} is not decoded", "not decoded")
        bar, region = decoded.bar, function.regions[index]
        if offset + length > bar.size:
            raise LeaseRefused(f"[{offset:#x}, +{length:#x}) is outside of {function.name}'s BAR{index}")
        if bar.device_memory and isinstance(self._card.device_memory, SharedDeviceMemory):
            found = self._of_device(function, offset, length)
            return found._replace(stamp=(decoded.base, found.stamp))
        for start, size in region.areas if region is not None else ():
            if region is not None and region.memory is not None and start <= offset < start + size:
                count = min(length, start + size - offset)
                return Shared(function.name, region.memory, region.memory_offset + offset, count, decoded.base)
        raise LeaseRefused(f"accesses to {offset:#x} of {function.name}'s BAR{index} are trapped", "registers")

    # Taking back.

    def _check(self) -> None:
        """Memory was revoked or moved: revoke the leases whose memory is not where it was."""
        with self._lock:
            self._revocations += 1
            leases = [lease for lease in self._leases.values() if lease.reason is None]
        gone = []
        for lease in leases:
            try:
                shared = self._shared(self._card.function(lease.function), lease.bar, lease.address, lease.length)
            except LeaseRefused as refused:
                gone.append((lease, str(refused)))
                continue
            if (shared.memory, shared.offset, shared.length, shared.stamp) != (
                lease.memory,
                lease.offset,
                lease.length,
                lease.stamp,
            ):
                gone.append((lease, "the memory has changed hands"))
        self._take_back(gone)

    def _reset(self, function: Function, reason: str) -> None:
        whose = f"the card was reset ({reason})" if not function.index else f"{function.name} was reset ({reason})"
        self._take_back_of(None if not function.index else function.name, whose)

    def _noted(self, event: dict[str, Any]) -> None:
        """The ledger was told of a reset that the PF's driver oversees."""
        if event["event"] == "reset_began":
            self._resetting.add(event["owner"])
            self._take_back_of(event["owner"], f"{event['owner']} is being reset")
        elif event["event"] == "reset_ended":
            self._resetting.discard(event["owner"])

    def _take_back_of(self, name: str | None, reason: str) -> None:
        with self._lock:
            self._revocations += 1
            leases = [lease for lease in self._leases.values() if name in (None, lease.function, lease.owner)]
        self._take_back([(lease, reason) for lease in leases])

    def _take_back(self, leases: list[tuple[Lease, str]]) -> None:
        told = []
        for lease, reason in leases:
            with self._lock:
                if lease.reason is not None:
                    continue
                lease.reason = reason
            lease.told(lease)
            told.append(lease)
            if self.tap.on:
                self.tap(lease.function, "lease revoked", lease.as_dict())
        # Never inside of an access: the holder's copy may need the very client that waits for it.
        if told and self._card.executor.is_current():
            deadline = time.monotonic() + PATIENCE
            for lease in told:
                lease.released.wait(max(0.0, deadline - time.monotonic()))
        with self._lock:
            for lease in told:
                self._leases.pop(lease.number, None)
