"""Programming the VF BARs into the client, which a guest's kernel never does by itself.

A client such as QEMU knows a VF only as a device whose BAR registers were never written: Linux takes VF BARs from
the PF's SR-IOV capability and never writes a VF's own. So after VF Enable the PF's side writes them, and COMMAND,
through guest-physical ECAM. Two ways lead there: QEMU's qtest socket (`vfio_user_xe.emulator.vfio_user.qtest`), and DMA of the PF.
Neither may be waited for inside an access, so it all happens on a thread that lives as long as there is something to
do. docs/hardware/pci.md tells the whole story.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from vfio_user_xe.emulator.model.states import Transitions
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from vfio_user_xe.emulator.pci.ecam import AccessError, EcamDma, Location, PhysicalAccess, Route, challenge, locate
from vfio_user_xe.emulator.pci.types import FunctionView

log = logging.getLogger(__name__)

BAR0 = 0x10
_BATCH = 8
"""VFs written at once: the guest's CPUs are stopped meanwhile, and new writes of the guest are not noticed."""

_PATIENCE = 0.1

Write = tuple[int, int, int]


class _Superseded(Exception):
    """The guest has changed its mind meanwhile."""


class BarState(StrEnum):
    """How far programming is."""

    IDLE = "idle"
    """No VF decodes memory."""
    BUSY = "busy"
    DONE = "done"
    """The client knows the BARs of every enabled VF."""
    FAILED = "failed"


STATES = Transitions(
    BarState,
    {
        BarState.IDLE: {BarState.BUSY},
        BarState.BUSY: {BarState.IDLE, BarState.DONE, BarState.FAILED},
        BarState.DONE: {BarState.BUSY, BarState.IDLE},
        BarState.FAILED: {BarState.BUSY, BarState.IDLE},
    },
)
"""From `DONE` and `FAILED` to `IDLE` the client resets or goes away; a new result needs a new run."""


@dataclass(slots=True)
class Status:
    """The outcome of the programming of VF BARs, for the control socket and for tests."""

    state: BarState = BarState.IDLE
    vfs: int = 0
    """VFs whose BARs the client knows."""
    missing: list[int] = field(default_factory=list)
    """Enabled VFs that the client does not have, or not where they belong."""
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
    """The failure and its remedy."""
    tried: list[str] = field(default_factory=list)
    """Per access that did not do: why."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "state": self.state.value}


@dataclass(frozen=True, slots=True)
class _Target:
    """The values that the client is to have, as they were when a run began."""

    generation: int
    bars: dict[int, dict[int, int]]
    """Addresses by BAR by VFID, of the VFs that decode memory."""
    stale: list[int]
    """VFIDs that decode in the client and shall not."""


class Vfs(Protocol):
    """The VFs of a PF, as its SR-IOV capability has them."""

    @property
    def pf(self) -> FunctionView:
        """Their PF."""
        ...

    @property
    def functions(self) -> Mapping[int, FunctionView]:
        """The VFs' functions by VFID."""
        ...

    @property
    def vf_bars(self) -> Mapping[int, int]:
        """The size of one VF's BAR, by number."""
        ...

    @property
    def memory_enabled(self) -> bool:
        """Whether VFs decode memory."""
        ...

    @property
    def enabled_vfs(self) -> list[int]:
        """VFIDs that exist now."""
        ...

    def bar_address(self, bar: int, vfid: int) -> int:
        """Where the guest put BAR `bar` of VF `vfid`."""
        ...

    def routing_offset(self, vfid: int) -> int:
        """How far the routing id of VF `vfid` lies behind its PF's."""
        ...


class VfBarProgramming:
    """Keeps the client's idea of the VF BARs equal to the guest's.

    `routes` are tried in order; DMA is the last. `update`, `forget` and `repair` are cheap and safe inside an access.
    """

    def __init__(self, sriov: Vfs) -> None:
        self.routes: list[Route] = []
        """In the order in which they are tried; `prefer` puts one first."""
        self._sriov = sriov
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._generation = 0
        self._finished = 0
        self._changed_at = 0.0
        self._programmed: set[int] = set()
        self._commands: dict[int, int] = {}
        """By VFID, what is being written into COMMAND."""
        self._hint: Location | None = None
        self._state = STATES.start("VF BARs", BarState.IDLE)
        self._status = Status()
        self._suspended = False

    def prefer(self, route: Route) -> None:
        """Try `route` before the others from the next run on. Before the card starts."""
        self.routes.insert(0, route)

    def suspend(self) -> None:
        """Do nothing from now on: there is no client to program."""
        self._suspended = True

    @property
    def status(self) -> Status:
        """The outcome of the last update: a copy."""
        with self._lock:
            return replace(self._status)

    def wait(self, timeout: float | None = None) -> Status:
        """The status when nothing is under way any more; never inside an access.

        Raises:
            TimeoutError: Programming goes on after `timeout` seconds.

        From any thread but inside an access: it waits.
        """
        with self._lock:
            if not self._lock.wait_for(lambda: self._thread is None, timeout):
                raise TimeoutError(f"VF BARs are still being programmed after {timeout} s")
            return replace(self._status)

    def update(self) -> None:
        """The guest enabled or disabled VFs, or their memory decoding."""
        with self._lock:
            self._generation += 1
            self._changed_at = time.monotonic()
            self._become(BarState.BUSY)
            self._lock.notify_all()
            self._start()

    def repair(self, vfid: int) -> None:
        """The user of VF `vfid` cleared Memory Space Enable in its COMMAND.

        In a VF that bit does nothing (SR-IOV spec, 3.4.1.3), but the client unmaps the VF's BARs: map them again.
        """
        with self._lock:
            if vfid in self._programmed:
                self._status.repairs += 1
                self.update()

    def takes_master(self, vfid: int, old: int, written: int) -> bool:
        """Whether this write into COMMAND of VF `vfid` is the programming's own, and undoes what the guest has just written.

        It was made of COMMAND as it was, and the guest may have made the VF bus master since then. Inside an access.
        """
        return self._commands.get(vfid) == written and bool(old & ~written & COMMAND_MASTER)

    def forget_vf(self, vfid: int) -> None:
        """The client reset VF `vfid` only."""
        with self._lock:
            self._programmed.discard(vfid)

    def forget(self) -> None:
        """The client reset, or went away: nothing is programmed any more."""
        with self._lock:
            self._generation += 1
            self._programmed.clear()
            self._hint = None
            self._replace(Status(runs=self._status.runs, repairs=self._status.repairs))
            self._lock.notify_all()
            if self._thread is None:
                self._finished = self._generation

    def _become(self, state: BarState) -> None:
        self._state.to(state)
        self._status.state = state

    def _replace(self, status: Status) -> None:
        self._state.to(status.state)
        self._status = status

    def _start(self) -> None:
        if self._thread is None and not self._suspended:
            name = f"{self._sriov.pf.name} VF BARs"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    # On the thread.

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._finished == self._generation:
                    self._thread = None
                    self._lock.notify_all()
                    return
                target = self._target()
                if target.bars or target.stale:
                    self._become(BarState.BUSY)
            result: Status | None
            try:
                result = self._apply(target)
            except _Superseded:
                continue
            except Exception as exc:
                log.exception("%s: programming the VF BARs failed", self._sriov.pf.name)
                result = Status(BarState.FAILED, error=f"internal error: {exc!r}")
            with self._lock:
                if target.generation != self._generation:
                    continue
                self._finished = target.generation
                if result is None:
                    self._replace(Status(runs=self._status.runs, repairs=self._status.repairs))
                    continue
                result.runs = self._status.runs + 1
                result.repairs = self._status.repairs
                result.milliseconds = (time.monotonic() - self._changed_at) * 1000
                self._replace(result)
            if result.error:
                log.log(logging.ERROR if target.bars else logging.WARNING, "%s: %s", self._sriov.pf.name, result.error)

    def _target(self) -> _Target:
        sriov = self._sriov
        vfids = sriov.enabled_vfs if sriov.memory_enabled and sriov.pf.transport is not None else []
        bars = {vfid: {bar: sriov.bar_address(bar, vfid) for bar in sriov.vf_bars} for vfid in vfids}
        return _Target(self._generation, bars, sorted(self._programmed.difference(vfids)))

    def _apply(self, target: _Target) -> Status | None:
        """Do it by the first route that works; None when there is nothing to do.

        Raises:
            _Superseded: the registers were written again meanwhile.
        """
        if not target.bars and not target.stale:
            return None
        tried: list[str] = []
        for route in self.routes:
            accesses = route.open()
            if not accesses:
                tried.append(f"{route.name}: not there")
            for access in accesses:
                try:
                    return self._through(access, target, tried)
                except AccessError as exc:
                    self._check(target)
                    tried.append(f"{access.name}: {exc}")
        # A client that died takes its ways away one by one: not a failure, once the PF's own connection is known gone.
        with self._lock:
            self._lock.wait_for(lambda: target.generation != self._generation, _PATIENCE)
        self._check(target)
        what = "VF BARs are not programmed, so VF memory reads as 0" if target.bars else "VF BARs are still mapped"
        cures = "; or ".join(route.cure for route in self.routes)
        error = f"{what}. Tried {'; '.join(tried) or 'nothing'}. Cure: {cures or 'give the PF a route'}."
        return Status(BarState.FAILED, missing=sorted(target.bars), error=error, tried=tried)

    def _through(self, access: PhysicalAccess, target: _Target, tried: list[str]) -> Status:
        location = locate(access, self._sriov.pf, self._hint)
        self._hint = location

        def write(vfids: Sequence[int], make: Callable[[int], list[Write]]) -> None:
            for first in range(0, len(vfids), _BATCH):
                self._check(target)
                access.write([one for vfid in vfids[first : first + _BATCH] for one in make(vfid)])

        def command(vfid: int) -> list[Write]:
            value = 0
            if vfid in target.bars:
                value = COMMAND_MEMORY | self._sriov.functions[vfid].config.peek(COMMAND, 2) & COMMAND_MASTER
                self._commands[vfid] = value
            return [(self._address(location, vfid, COMMAND), 2, value)]

        def bars(vfid: int) -> list[Write]:
            return [
                (self._address(location, vfid, BAR0 + 4 * bar + half), 4, address >> 8 * half & 0xFFFFFFFF)
                for bar, address in target.bars[vfid].items()
                for half in (0, 4)
            ]

        write(target.stale, command)
        with self._lock:
            self._check(target)
            self._programmed.difference_update(target.stale)
        present = self._present(access, location, target)
        # BARs first: they cost little while nothing decodes, and a guest may save them as soon as it sees the VFs.
        write(present, bars)
        with self._lock:
            self._check(target)
            self._programmed.update(present)
        try:
            write(present, command)
        finally:
            self._commands.clear()
        self._verify(access, location, target, present)
        status = Status(
            BarState.DONE if target.bars else BarState.IDLE, vfs=len(present), method=access.name, tried=tried
        )
        status.pf, status.ecam = location.bdf(), location.ecam
        status.missing = [vfid for vfid in target.bars if vfid not in present]
        if status.missing:
            status.state, status.error = BarState.FAILED, self._explain_missing(location, status.missing)
        return status

    def _present(self, access: PhysicalAccess, location: Location, target: _Target) -> list[int]:
        """The VFs that are in the client and where they belong: each proves it by a number that only it knows."""
        functions = [self._sriov.functions[vfid] for vfid in target.bars if vfid in self._sriov.functions]
        with challenge(functions) as numbers:
            vfids = [function.index for function in functions]
            found = access.read([self._address(location, vfid, 0xFFC) for vfid in vfids])
        return [vfid for vfid, number, value in zip(vfids, numbers, found, strict=True) if number == value]

    def _verify(self, access: PhysicalAccess, location: Location, target: _Target, vfids: Sequence[int]) -> None:
        places = [(vfid, bar) for vfid in vfids for bar in target.bars[vfid]]
        values = access.read([self._address(location, vfid, BAR0 + 4 * bar) for vfid, bar in places])
        self._check(target)
        for (vfid, bar), value in zip(places, values, strict=True):
            wanted = target.bars[vfid][bar]
            if value & ~0xF != wanted & 0xFFFFFFFF:
                raise AccessError(f"BAR{bar} of VF {vfid} was written {wanted:#x} and reads {value:#x}")

    def _explain_missing(self, location: Location, missing: Sequence[int]) -> str:
        places = ", ".join(f"VF {vfid} at {location.bdf(self._sriov.routing_offset(vfid))}" for vfid in missing[:4]) + (
            ", ..." if len(missing) > 4 else ""
        )
        return (
            f"{len(missing)} of the enabled VFs are not in the client: {places}."
            " Cure: attach a vfio-user-pci device with the VF's socket at each of these functions of the PF's bus."
        )

    def _address(self, location: Location, vfid: int, offset: int) -> int:
        return location.address(offset, self._sriov.routing_offset(vfid))

    def _check(self, target: _Target) -> None:
        if target.generation != self._generation:
            raise _Superseded


def default_routes(sriov: Vfs) -> list[Route]:
    """What every PF has: its own DMA."""
    return [EcamDma(sriov.pf)]
