"""A PCI function: configuration space, BARs, interrupts, resets. What device models are built on.

A `Function` is what a transport serves (`vfio_user_xe.emulator.pci.transport.Served`) and what makes accesses
(`vfio_user_xe.emulator.fabric.interconnect.Initiator`). A model declares it, hands it handlers for its BARs and appends to its callback
lists; it never sees a socket.

    edu = Function(
        "edu", 0, executor=executor, identity=Identity(0x1234, 0x11E8, class_code=0x00FF00, revision=0x10),
        capabilities=[Msi(offset=0x40)], bars={0: Bar(1 << 20, handler=registers, is_64bit=False)},
    )
    edu.on_reset.append(model.reset)
    edu.raise_msi()
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.observe.tap import Tap
from vfio_user_xe.emulator.pci.bars import Bar, bar_registers, check_layout
from vfio_user_xe.emulator.pci.capabilities import Msi, MsiX
from vfio_user_xe.emulator.pci.capability import Capability, install_all
from vfio_user_xe.emulator.pci.config_space import (
    COMMAND,
    COMMAND_MASTER,
    COMMAND_MEMORY,
    CONFIG_SIZE,
    ConfigRegister,
    ConfigSpace,
)
from vfio_user_xe.emulator.pci.express import PciExpress
from vfio_user_xe.emulator.pci.interrupts import Interrupts, with_msix
from vfio_user_xe.emulator.pci.sriov import Sriov
from vfio_user_xe.emulator.pci.transport import CONFIG_REGION, Region, Transport

log = logging.getLogger(__name__)

REGIONS = 9
_SETTLE_SECONDS = 0.25
_RESET_SECONDS = 2.0
_EVERYTHING = 1 << 64
"""Bytes that addresses can name."""

RESET = "reset"
"""A machine reset, or a new client after an earlier one."""
FLR = "flr"
"""A function level reset of this function."""
D3HOT = "d3hot"
"""D3hot was left, and the function does not keep its state over it (`PowerManagement.no_soft_reset` is false)."""
DISABLED = "disabled"
"""VFs only: the PF's VF Enable was cleared, by the guest or by a reset of the PF."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a function says it is: ids, and the 24-bit class code (base class, subclass, interface)."""

    vendor: int
    device: int
    subsystem_vendor: int = 0
    subsystem: int = 0
    class_code: int = 0
    revision: int = 0


class ResetGovernor(Protocol):
    """Who decides of the resets of a function whose client has it from somebody else (`passthrough.Passthrough`)."""

    def reset_requested(self, reason: str) -> None:
        """The client reset the function, whose own registers are reset already. On the client's thread: never waits."""
        ...


class Function:
    """One PCI function.

    Callback lists; unless said otherwise they run on the executor, in order, after the access that caused them:

    * `on_reset(reason)`: the function was reset; `reason` is one of `RESET`, `FLR`, `D3HOT`, `DISABLED`.
    * `on_power(old, new)`: it went from power state `old` to `new` (0 is D0, 3 is D3hot).
    * `on_attached()`, `on_detached()`: a client came; it is gone.
    * `on_unmapped(address, length)`: guest memory goes away when the callbacks return, or writes to it are to be logged
      from now on; so these run on the **transport's thread**: drop views, and never wait for the executor, which may be waiting for this client.
    """

    def __init__(
        self,
        name: str,
        index: int,
        *,
        executor: Executor,
        identity: Identity,
        capabilities: Sequence[Capability],
        bars: Mapping[int, Bar],
        sriov: Sriov | None = None,
        is_vf: bool = False,
        assigned: bool = False,
        bus_master_at_reset: bool | None = None,
    ) -> None:
        """Build the function.

        `index` is the VFID: 0 for a PF or a plain device, n for VF n. `assigned` is for a VF that a guest has without
        its PF: it looks like a device of its own then, as hypervisors make a VF look that they pass on.
        `bus_master_at_reset` says what COMMAND bit 2 reads after a reset; by default 1 for a PF, so that firmware and
        kernels switch the client's DMA on early (VF BARs may be programmed by DMA), 0 for others.

        Raises:
            ValueError: Capabilities, BARs or kind do not fit each other; the message names what.

        While the card is made, before it starts.
        """
        if is_vf and sriov is not None:
            raise ValueError(f"{name}: a VF cannot have an SR-IOV capability")
        if assigned and not is_vf:
            raise ValueError(f"{name}: only a VF can be assigned to a guest without its PF")
        self.name = name
        self.index = index
        self.executor = executor
        self.identity = identity
        self.is_vf = is_vf
        self.assigned = assigned
        self.sriov = sriov
        self.client_reset: Callable[[], None] | None = None
        """VFs: what the PF's SR-IOV capability does inside the reset by which a client resets the VF."""
        self.governor: ResetGovernor | None = None
        """Set: resets by the client only ask for one, and `on_reset` is called by `reset_by_host` alone."""
        self.transport: Transport | None = None
        """While a client is attached and not withheld."""
        self._client: Transport | None = None
        self._withheld = False
        self._client_lock = threading.Lock()
        self.on_reset: list[Callable[[str], None]] = []
        self.on_power: list[Callable[[int, int], None]] = []
        self.on_attached: list[Callable[[], None]] = []
        self.on_detached: list[Callable[[], None]] = []
        self.on_unmapped: list[Callable[[int, int], None]] = []
        self.power_state = 0
        self.irq_tap = Tap("irq", "interrupts signalled")
        """Told of every vector that the model raises, and whether the client took it."""
        self._was_attached = False

        check_layout(name, bars)
        self.capabilities = [*capabilities, *([sriov] if sriov is not None else [])]
        self._check_capabilities()
        msi = next((c for c in self.capabilities if isinstance(c, Msi)), None)
        msix = next((c for c in self.capabilities if isinstance(c, MsiX)), None)
        self.interrupt_state = Interrupts(msi, msix)
        self.bars: Mapping[int, Bar] = with_msix(name, dict(bars), self.interrupt_state)

        if bus_master_at_reset is None:
            bus_master_at_reset = sriov is not None
        self.config = ConfigSpace(name)
        self.config.add(self._header(bus_master_at_reset))
        for bar_index, bar in self.bars.items():
            self.config.add(bar_registers(bar_index, bar.size, bar.type_bits))
        install_all(self, self.capabilities)
        self._regions: list[Region | None] = [None] * REGIONS
        for bar_index, bar in self.bars.items():
            self._regions[bar_index] = bar.region(f"{name}: BAR{bar_index}")
        self._regions[CONFIG_REGION] = Region(CONFIG_SIZE, handler=self.config)

    def _header(self, bus_master: bool) -> list[ConfigRegister]:
        who = self.identity
        bare_vf = self.is_vf and not self.assigned
        # VFs read 0xffff in both ids (SR-IOV spec, 3.4.1.1): scans skip them, the PF tells what they are.
        vendor, device = (0xFFFF, 0xFFFF) if bare_vf else (who.vendor, who.device)
        # A VF's memory enable is not the guest's to see, but the client maps its BARs by it: so it is kept as written.
        command = COMMAND_MEMORY | COMMAND_MASTER | (0 if bare_vf else 0x540)
        return [
            ConfigRegister("VENDOR_ID", 0x00, 2, reset=vendor),
            ConfigRegister("DEVICE_ID", 0x02, 2, reset=device),
            ConfigRegister(
                "COMMAND",
                COMMAND,
                2,
                reset=COMMAND_MASTER if bus_master else 0,
                writable=command,
                sticky=COMMAND_MEMORY if bare_vf else 0,
            ),
            ConfigRegister("STATUS", 0x06, 2, reset=0x10 if self.capabilities else 0, w1c=0xF900),
            ConfigRegister("REVISION_ID", 0x08, 1, reset=who.revision),
            ConfigRegister("CLASS_CODE", 0x09, 3, reset=who.class_code),
            ConfigRegister("CACHE_LINE_SIZE", 0x0C, 1, writable=0 if bare_vf else 0xFF),
            ConfigRegister("LATENCY_TIMER", 0x0D, 1),
            ConfigRegister("HEADER_TYPE", 0x0E, 1),
            ConfigRegister("BIST", 0x0F, 1),
            ConfigRegister("CARDBUS_CIS", 0x28, 4),
            ConfigRegister("SUBSYSTEM_VENDOR_ID", 0x2C, 2, reset=who.subsystem_vendor),
            ConfigRegister("SUBSYSTEM_ID", 0x2E, 2, reset=who.subsystem),
            ConfigRegister("EXPANSION_ROM", 0x30, 4),
            ConfigRegister("INTERRUPT_LINE", 0x3C, 1, writable=0 if bare_vf else 0xFF),
            ConfigRegister("INTERRUPT_PIN", 0x3D, 1),
            ConfigRegister("MIN_GNT", 0x3E, 1),
            ConfigRegister("MAX_LAT", 0x3F, 1),
        ]

    def _check_capabilities(self) -> None:
        seen: set[type[Capability]] = set()
        for capability in self.capabilities:
            repeatable = capability.name in ("VNDR", "VSEC")
            if type(capability) in seen and not repeatable:
                raise ValueError(f"{self.name}: capability {capability.name} is there twice")
            seen.add(type(capability))
        if any(c.extended for c in self.capabilities) and PciExpress not in seen:
            raise ValueError(f"{self.name}: extended capabilities need a PciExpress capability")

    def capability(self, kind: type[Capability]) -> Capability | None:
        """The first capability of that class, or None."""
        return next((c for c in self.capabilities if isinstance(c, kind)), None)

    # What device models call.

    def raise_msi(self, vector: int = 0) -> bool:
        """Signal a vector by MSI-X or MSI, whichever the guest enabled; from any thread.

        False when it was not delivered: with MSI-X it is pending then, and is delivered when the guest unmasks it.
        """
        delivered = self.interrupt_state.raise_vector(vector)
        if self.irq_tap.on:
            self.irq_tap(self.name, "msi", {"vector": vector, "delivered": delivered})
        return delivered

    def size_bar_register(self, index: int, size: int) -> None:
        """Make the register of BAR `index` answer sizing with `size` bytes."""
        for register in bar_registers(index, size, self.bars[index].type_bits):
            self.config.set_writable(register.offset, 4, register.writable)
            self.config.poke(
                register.offset, 4, self.config.peek(register.offset, 4) & register.writable | register.reset
            )

    # What capabilities call, inside an access.

    def function_level_reset(self) -> None:
        """Reset this function only; a PF takes its VFs along."""
        self._reset_registers(keep_sticky=True)
        if self.sriov is not None:
            self.sriov.reset(machine=False)
        self._announce_reset(FLR)

    def disabled(self) -> None:
        """VFs: the PF's VF Enable was cleared."""
        self._reset_registers(keep_sticky=False)
        self._announce_reset(DISABLED)

    def power_state_changed(self, old: int, new: int, *, reset: bool) -> None:
        """PMCSR went from `old` to `new`; `reset` when state is lost on the way back to D0."""
        self.power_state = new

        def announce() -> None:
            for callback in self.on_power:
                callback(old, new)

        self.executor.submit(announce)
        if reset and new == 0:
            self._reset_registers(keep_sticky=True)
            if self.sriov is not None:
                self.sriov.reset(machine=False)
            self._announce_reset(D3HOT)

    def _reset_registers(self, *, keep_sticky: bool) -> None:
        self.config.reset(keep_sticky=keep_sticky)
        self.power_state = 0
        for index, bar in self.bars.items():
            self.size_bar_register(index, bar.size)
        self.interrupt_state.reset()

    def withhold(self, withheld: bool) -> None:
        """Keep the client away from the model while `withheld`: no DMA and no interrupts, as of a device that is not there.

        Its own accesses still come. From any thread; never waits.
        """
        with self._client_lock:
            self._withheld = withheld
            self._give()
        if withheld:
            for callback in self.on_unmapped:
                callback(0, _EVERYTHING)

    @property
    def has_client(self) -> bool:
        """Whether a client is attached, withheld or not."""
        return self._client is not None

    def _give(self) -> None:
        self.transport = self.interrupt_state.transport = None if self._withheld else self._client

    def reset_by_host(self, reason: str) -> None:
        """The function was reset behind its client's back: its configuration space, which the client keeps, stays.

        From any thread.
        """
        self.interrupt_state.reset()
        self._announce(reason)

    def _announce_reset(self, reason: str) -> None:
        if self.governor is not None:
            self.governor.reset_requested(reason)
        else:
            self._announce(reason)

    def _announce(self, reason: str) -> None:
        def announce() -> None:
            for callback in self.on_reset:
                callback(reason)

        self.executor.submit(announce)

    # Served: what the transport calls.

    @property
    def regions(self) -> Sequence[Region | None]:
        return self._regions

    @property
    def interrupts(self) -> Sequence[int]:
        return self.interrupt_state.counts

    def attached(self, transport: Transport) -> None:
        # A new client is a machine that was just switched on. What the last one left may still be looked at until then.
        if self._was_attached:
            self.reset()
        self._was_attached = True
        with self._client_lock:
            self._client = transport
            self._give()
        for callback in self.on_attached:
            self.executor.submit(callback)

    def detached(self) -> None:
        with self._client_lock:
            self._client = None
            self._give()
        if self.sriov is not None:
            self.sriov.client_gone()
        for callback in self.on_detached:
            self.executor.submit(callback)

    def reset(self) -> None:
        if self.client_reset is not None:
            self.client_reset()
        self._reset_registers(keep_sticky=False)
        if self.sriov is not None:
            self.sriov.reset(machine=True)
        done = threading.Event()
        self._announce_reset(RESET)
        self.executor.submit(done.set)
        # Whatever the client does after it was answered, it does to a device that has been reset. A transport gives DMA
        # that waits for the client up before it resets, so only a model that works for long makes this wait end early.
        if self.executor.running and not self.executor.is_current():
            done.wait(_RESET_SECONDS)

    def drop_windows(self, address: int, length: int) -> None:
        for callback in self.on_unmapped:
            callback(address, length)
        # The client may reuse the memory once it is answered, so a copy in flight must end first. Not for ever:
        # the job may itself wait for this client to answer a DMA message, which it cannot before this request's reply.
        self.executor.settle(_SETTLE_SECONDS)

    def wired(self, index: int, start: int, count: int) -> None:
        self.interrupt_state.wired(index, start, count)
