"""A VF that one guest passes on to another: what a VMM does in the guest that has the PF, without a guest in a guest.

The *host* is the guest that has the PF. It sees the VF as in any machine, in a `Function` of its own, and binds it to
vfio-pci. The *guest* is another machine, with a second `Function` of the same VF, whose interrupts and DMA are the VF's.
What happens to the host's function governs what the guest's can do:

    gate = Gate()
    host = Function("vf1-host", 1, bars=bars, is_vf=True, ...)
    guest = Function("vf1", 1, bars=gate.over(bars), is_vf=True, assigned=True, ...)
    passed = Passthrough(pf, host, guest, gate)

Bus Master Enable of the host's COMMAND says whether the VF is passed on. vfio-pci clears it when a device is opened and when its
last descriptor is closed, however that happens (`vfio_pci_core.c:vfio_pci_core_enable`, `vfio_pci_core_disable`), and a
VMM sets it for the device that it passes on. So a VMM that was killed leaves the VF closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from vfio_user_xe.emulator.model.states import Transitions
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from vfio_user_xe.emulator.pci.function import FLR, Function
from vfio_user_xe.emulator.pci.sriov import CONTROL
from vfio_user_xe.emulator.pci.transport import AccessHandler


class PassthroughState(StrEnum):
    """What the host lets the guest have of a VF."""

    ABSENT = "absent"
    """The PF has not enabled the VF."""
    CLOSED = "closed"
    """The VF is there, and the host, if its machine runs at all, passes it on to nobody: no BARs, no DMA, no interrupts."""
    OPEN = "open"
    """The VF is the guest's."""
    UNMAPPED = "unmapped"
    """The host has switched memory decoding off, or has put the VF into another power state than D0: no BARs."""
    RESET_WANTED = "reset-wanted"
    """The guest has reset the VF, and the host has not: no BARs, no DMA, no interrupts until the host's reset."""


STATES = Transitions(
    PassthroughState,
    {
        PassthroughState.ABSENT: {PassthroughState.CLOSED, PassthroughState.OPEN, PassthroughState.UNMAPPED},
        PassthroughState.CLOSED: {
            PassthroughState.ABSENT,
            PassthroughState.OPEN,
            PassthroughState.UNMAPPED,
            PassthroughState.RESET_WANTED,
        },
        PassthroughState.OPEN: {
            PassthroughState.ABSENT,
            PassthroughState.CLOSED,
            PassthroughState.UNMAPPED,
            PassthroughState.RESET_WANTED,
        },
        PassthroughState.UNMAPPED: {
            PassthroughState.ABSENT,
            PassthroughState.CLOSED,
            PassthroughState.OPEN,
            PassthroughState.RESET_WANTED,
        },
        PassthroughState.RESET_WANTED: {PassthroughState.ABSENT, PassthroughState.CLOSED},
    },
)
"""A reset that is wanted ends with the host's, which clears Bus Master Enable: so what follows is `CLOSED`. Closed and passed
on again without a reset in between, it is wanted still."""


class Gate:
    """What the guest's accesses pass: closed, reads are all ones and writes are dropped, as of a device that is gone."""

    def __init__(self) -> None:
        self.open = False

    def over(self, bars: Mapping[int, Bar]) -> dict[int, Bar]:
        """`bars` with their trapped accesses behind the gate. Areas that a client maps are not: it cannot be told.

        While the card is made, before it starts.
        """
        return {
            index: bar if bar.handler is None else replace(bar, handler=Gated(self, bar.handler))
            for index, bar in bars.items()
        }


class Gated:
    """An `AccessHandler` behind a gate."""

    __slots__ = ("_gate", "_handler")

    def __init__(self, gate: Gate, handler: AccessHandler) -> None:
        self._gate = gate
        self._handler = handler

    def read(self, offset: int, size: int) -> int:
        """As behind it, or all ones."""
        return self._handler.read(offset, size) if self._gate.open else (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """As behind it, or dropped."""
        if self._gate.open:
            self._handler.write(offset, size, value)


@dataclass(frozen=True, slots=True)
class _Side:
    """A `ResetGovernor`."""

    reset_requested: Callable[[str], None]


class Passthrough:
    """One VF that is passed on.

    It follows the host's function by what is written there and by its resets, on whichever thread that happens; a lock
    serialises them. It never waits: neither guest can hold the other up by it.
    """

    def __init__(self, pf: Function, host: Function, guest: Function, gate: Gate) -> None:
        """`gate` is the one that the guest's BARs are behind.

        Raises:
            ValueError: `host` and `guest` are not the same VF of `pf`, or `guest` is not one for a guest without the PF.

        While the card is made, before it starts.
        """
        if pf.sriov is None or not host.is_vf or not guest.assigned or host.index != guest.index:
            raise ValueError(f"{host.name} and {guest.name} are not the same VF of {pf.name}, for two guests")
        self._sriov = pf.sriov
        self.host = host
        self.guest = guest
        self._gate = gate
        self._lock = threading.Lock()
        self._state = STATES.start(f"{guest.name}, passed on", PassthroughState.ABSENT)
        self._used = False
        """The guest has switched the VF's memory or DMA on since the last reset."""
        self._reset_wanted = False
        self._opened = self._resets = self._requests = 0
        guest.governor = _Side(self._guest_wants_reset)
        host.governor = _Side(self._host_was_reset)
        guest.withhold(True)
        pf.config.watch(pf.sriov.offset + CONTROL, 2, self._changed)
        host.config.watch(COMMAND, 2, self._changed)
        guest.config.watch(COMMAND, 2, self._guest_command_written)
        host.on_power.append(self._changed)
        host.on_attached.append(self._changed)
        host.on_detached.append(self._changed)

    @property
    def state(self) -> PassthroughState:
        """What the guest has. From any thread."""
        return self._state.state

    def describe(self) -> dict[str, Any]:
        """Plain data, for the control socket."""
        with self._lock:
            return {
                "function": self.guest.name,
                "host": self.host.name,
                "state": self._state.state.value,
                "attached": self.guest.has_client,
                "opened": self._opened,
                "resets": self._resets,
                "resets_wanted": self._requests,
            }

    def _guest_wants_reset(self, reason: str) -> None:
        # One that the guest has not used since the host's last reset needs none: a machine resets what is plugged into it.
        with self._lock:
            if self._used and self._state.state in (PassthroughState.OPEN, PassthroughState.UNMAPPED):
                self._reset_wanted = True
                self._requests += 1
        self._changed()

    def _guest_command_written(self, old: int, written: int) -> None:
        if written & (COMMAND_MEMORY | COMMAND_MASTER):
            self._used = True

    def _host_was_reset(self, reason: str) -> None:
        with self._lock:
            self._used = self._reset_wanted = False
            self._resets += reason == FLR
        # The guest's own registers stay: its VMM keeps them, and the host's reset is behind its back.
        self.guest.reset_by_host(reason)
        self._changed()

    def _changed(self, *_: object) -> None:
        with self._lock:
            target = self._target()
            before = self._state.to(target)
            if before is target:
                return
            self._opened += target is PassthroughState.OPEN
            self._gate.open = target is PassthroughState.OPEN
            self.guest.withhold(target not in (PassthroughState.OPEN, PassthroughState.UNMAPPED))

    def _target(self) -> PassthroughState:
        host, command = self.host, self.host.config.peek(COMMAND, 2)
        if host.index not in self._sriov.enabled_vfs:
            return PassthroughState.ABSENT
        if not command & COMMAND_MASTER or not host.has_client:
            return PassthroughState.CLOSED
        if self._reset_wanted:
            return PassthroughState.RESET_WANTED
        if not command & COMMAND_MEMORY or host.power_state:
            return PassthroughState.UNMAPPED
        return PassthroughState.OPEN
