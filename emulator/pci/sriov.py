"""The SR-IOV capability of a PF (SR-IOV spec 1.1, chapter 3.3) and what follows from enabling its VFs.

VFs are functions of their own, with sockets of their own, that the client attached long before the guest enables
them; they are `attach`ed here. The guest's kernel takes VF BARs from this capability and never writes a VF's own BAR
registers, so after VF Enable somebody must write them into the client: `bar_programming`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.pci.bar_programming import BarState, VfBarProgramming, default_routes
from vfio_user_xe.emulator.pci.bars import BARS, bar_registers
from vfio_user_xe.emulator.pci.capability import Capability
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER, COMMAND_MEMORY, ConfigRegister
from vfio_user_xe.emulator.pci.types import FunctionView

CONTROL = 0x08
NUM_VFS = 0x10
SYSTEM_PAGE_SIZE = 0x20
VF_BAR0 = 0x24
VF_ENABLE = 0x01
VF_MEMORY_ENABLE = 0x08
ARI_HIERARCHY = 0x10
_CONTROL_WRITABLE = VF_ENABLE | VF_MEMORY_ENABLE | ARI_HIERARCHY
_SUPPORTED_PAGE_SIZES = 0x553
"""4 KiB, 8 KiB, 64 KiB, 256 KiB, 1 MiB, 4 MiB: what every PF must support (SR-IOV spec, 3.3.12)."""
_REPAIR_DELAY = 0.05
_VF_BAR_TYPE = 0xC
"""64-bit prefetchable: VF BARs must come to lie in the bridge's prefetchable window."""


class Sriov(Capability):
    """SR-IOV: `total_vfs` VFs of device id `vf_device_id`, with 64-bit prefetchable BARs of `vf_bars` bytes each.

    `on_enable(vfids)` and `on_disable(vfids)` are called on the executor after the guest set or cleared VF Enable (or
    a reset cleared it); VFIDs count from 1.
    """

    id = 0x0010
    name = "SR-IOV"
    extended = True
    hidden_from_snapshot = True

    def __init__(
        self,
        total_vfs: int,
        vf_device_id: int,
        vf_bars: Mapping[int, int],
        first_offset: int = 1,
        stride: int = 1,
        offset: int | None = None,
        programs_bars: bool = True,
    ) -> None:
        """`vf_bars` maps a BAR number (0, 2, 4) to the size of one VF's.

        `programs_bars` false is for VFs that are not in the PF's guest: there is nothing to program there.

        Raises:
            ValueError: Too many VFs or none, VFs beyond the bus of the PF, or a VF BAR that may not be; the message says which.

        While the card is made, before it starts.
        """
        super().__init__(offset)
        if not 1 <= total_vfs <= 255:
            raise ValueError(f"capability SR-IOV: {total_vfs} VFs, allowed are 1 to 255 (all on the PF's bus)")
        if first_offset < 1 or stride < 1 or first_offset + (total_vfs - 1) * stride > 255:
            raise ValueError(
                f"capability SR-IOV: {total_vfs} VFs from offset {first_offset} by stride {stride} leave the PF's bus"
            )
        for bar, size in vf_bars.items():
            if bar not in range(0, BARS, 2):
                raise ValueError(f"capability SR-IOV: VF BAR{bar}, allowed are 0, 2 and 4 (they are 64-bit)")
            if size < PAGE_SIZE or size & (size - 1):
                raise ValueError(f"capability SR-IOV: VF BAR{bar} size {size:#x} is not a power of two of pages")
        self.total_vfs = total_vfs
        self.vf_device_id = vf_device_id
        self.vf_bars = dict(vf_bars)
        self.first_offset = first_offset
        self.stride = stride
        self.functions: dict[int, FunctionView] = {}
        """The VFs' functions by VFID, as far as they were attached."""
        self.on_enable: list[Callable[[list[int]], None]] = []
        self.on_disable: list[Callable[[list[int]], None]] = []
        self.programs_bars = programs_bars
        self.programming = VfBarProgramming(self)
        """What became of the VF BARs in the client."""
        self._enabled_vfs = 0

    def bind(self, function: FunctionView, offset: int) -> None:
        super().bind(function, offset)
        self.programming.routes += default_routes(self)
        function.config.watch(COMMAND, 2, self._command_written)

    @property
    def pf(self) -> FunctionView:
        """The function that this capability is in."""
        assert self.function is not None, "the SR-IOV capability belongs to no function yet"
        return self.function

    @property
    def enabled(self) -> bool:
        """Whether VF Enable is set."""
        return bool(self.read(CONTROL, 2) & VF_ENABLE)

    @property
    def memory_enabled(self) -> bool:
        """Whether VF Enable and VF Memory Space Enable are set."""
        return self.read(CONTROL, 2) & (VF_ENABLE | VF_MEMORY_ENABLE) == VF_ENABLE | VF_MEMORY_ENABLE

    @property
    def num_vfs(self) -> int:
        """NumVFs as the guest wrote it."""
        return self.read(NUM_VFS, 2)

    @property
    def enabled_vfs(self) -> list[int]:
        """VFIDs that exist now."""
        return list(range(1, self._enabled_vfs + 1))

    def attach(self, function: FunctionView) -> None:
        """Make `function` the VF of its `index`.

        Raises:
            ValueError: Its index is none of a VF or is taken, or its BARs are not those of the VFs.

        While the card is made, before it starts.
        """
        vfid = function.index
        if not function.is_vf or not 1 <= vfid <= self.total_vfs:
            raise ValueError(f"{function.name}: index {vfid} is not a VF of 1 to {self.total_vfs}")
        if vfid in self.functions:
            raise ValueError(f"{function.name}: VF {vfid} is {self.functions[vfid].name} already")
        sizes = {bar: shape.size for bar, shape in function.bars.items()}
        if sizes != self.vf_bars:
            raise ValueError(f"{function.name}: BAR sizes {sizes} differ from the PF's VF BARs {self.vf_bars}")
        self.functions[vfid] = function
        function.client_reset = partial(self.programming.forget_vf, vfid)
        if not self.programs_bars:
            return

        def command_written(old: int, written: int) -> None:
            if self.programming.takes_master(vfid, old, written):
                function.config.poke(COMMAND, 2, written | COMMAND_MASTER)
                # The client has it as it was written: once more, with the bit.
                function.executor.call_later(_REPAIR_DELAY, lambda: self.programming.repair(vfid))
            if not written & COMMAND_MEMORY and vfid <= self._enabled_vfs and self.memory_enabled:
                # Later: in a machine reset the client does this, too, just before it resets the VF.
                function.executor.call_later(_REPAIR_DELAY, lambda: self._repair(vfid))

        function.config.watch(COMMAND, 2, command_written)

    def routing_offset(self, vfid: int) -> int:
        """How far the routing id (bus, device, function) of VF `vfid` lies behind its PF's."""
        return self.first_offset + (vfid - 1) * self.stride

    def bar_address(self, bar: int, vfid: int) -> int:
        """Where the guest put BAR `bar` of VF `vfid`."""
        base = self.read(VF_BAR0 + 4 * bar, 8) & ~0xF
        return base + (vfid - 1) * self.vf_bars[bar]

    def registers(self) -> Sequence[ConfigRegister]:
        registers = [
            ConfigRegister("SRIOV_CAPABILITIES", 0x04, 4),
            ConfigRegister("SRIOV_CONTROL", CONTROL, 2, writable=_CONTROL_WRITABLE, write=self._control_written),
            ConfigRegister("SRIOV_STATUS", 0x0A, 2),
            ConfigRegister("INITIAL_VFS", 0x0C, 2, reset=self.total_vfs),
            ConfigRegister("TOTAL_VFS", 0x0E, 2, reset=self.total_vfs),
            ConfigRegister("NUM_VFS", NUM_VFS, 2, writable=0xFFFF, write=self._num_vfs_written),
            ConfigRegister("FUNCTION_DEPENDENCY_LINK", 0x12, 1),
            ConfigRegister("FIRST_VF_OFFSET", 0x14, 2, reset=self.first_offset),
            ConfigRegister("VF_STRIDE", 0x16, 2, reset=self.stride),
            ConfigRegister("VF_DEVICE_ID", 0x1A, 2, reset=self.vf_device_id),
            ConfigRegister("SUPPORTED_PAGE_SIZES", 0x1C, 4, reset=_SUPPORTED_PAGE_SIZES),
            ConfigRegister(
                "SYSTEM_PAGE_SIZE",
                SYSTEM_PAGE_SIZE,
                4,
                reset=1,
                writable=_SUPPORTED_PAGE_SIZES,
                write=self._page_size_written,
            ),
            ConfigRegister("VF_MIGRATION_STATE", 0x3C, 4),
        ]
        for bar, size in self.vf_bars.items():
            registers += bar_registers(bar, size, _VF_BAR_TYPE, base=VF_BAR0)
        return registers

    # Inside an access.

    def _control_written(self, old: int, written: int) -> None:
        new = self.read(CONTROL, 2)
        if (old ^ new) & VF_ENABLE:
            if new & VF_ENABLE:
                self._enable()
            else:
                self._disable()
        self._lock_registers()
        if (old ^ new) & (VF_ENABLE | VF_MEMORY_ENABLE) and self.programs_bars:
            self.programming.update()

    def _command_written(self, old: int, written: int) -> None:
        # What DMA could not do while the PF was no bus master is done now.
        if written & ~old & COMMAND_MASTER and self.programming.status.state is BarState.FAILED:
            self.programming.update()

    def _num_vfs_written(self, old: int, written: int) -> None:
        # More than TotalVFs: results are undefined (SR-IOV spec, 3.3.7). Here the value before stays.
        if self.read(NUM_VFS, 2) > self.total_vfs:
            self._poke(NUM_VFS, 2, old)

    def _page_size_written(self, old: int, written: int) -> None:
        # Exactly one bit must be set (SR-IOV spec, 3.3.13); anything else is not taken.
        if self.read(SYSTEM_PAGE_SIZE, 4).bit_count() != 1:
            self._poke(SYSTEM_PAGE_SIZE, 4, old)

    def _enable(self) -> None:
        self._enabled_vfs = self.num_vfs
        self._announce(self.on_enable, self.enabled_vfs)

    def _disable(self) -> None:
        gone = self.enabled_vfs
        self._enabled_vfs = 0
        self._announce(self.on_disable, gone)
        for vfid in gone:
            if vfid in self.functions:
                self.functions[vfid].disabled()

    def _lock_registers(self) -> None:
        """NumVFs, page size and ARI hold still while VF Enable is set, VF BARs while VFs decode memory."""
        config, control = self.pf.config, self.read(CONTROL, 2)
        enabled, decoding = control & VF_ENABLE, control & VF_MEMORY_ENABLE
        config.set_writable(self.offset + NUM_VFS, 2, 0 if enabled else 0xFFFF)
        config.set_writable(self.offset + SYSTEM_PAGE_SIZE, 4, 0 if enabled else _SUPPORTED_PAGE_SIZES)
        config.set_writable(
            self.offset + CONTROL, 2, _CONTROL_WRITABLE & ~ARI_HIERARCHY if enabled else _CONTROL_WRITABLE
        )
        for bar, size in self.vf_bars.items():
            for register in bar_registers(bar, size, _VF_BAR_TYPE, base=VF_BAR0):
                config.set_writable(self.offset + register.offset, 4, 0 if decoding else register.writable)

    def reset(self, *, machine: bool) -> None:
        """The PF was reset and its registers with it: its VFs are gone.

        In a `machine` reset the client forgets VF BARs by itself; otherwise they are taken back.
        """
        was_enabled = bool(self._enabled_vfs)
        self._disable()
        self._lock_registers()
        if machine:
            self.programming.forget()
        elif was_enabled and self.programs_bars:
            self.programming.update()

    def client_gone(self) -> None:
        """The PF's client is gone, and with it what was programmed into it."""
        self.programming.forget()

    def _repair(self, vfid: int) -> None:
        enabled = vfid <= self._enabled_vfs and self.memory_enabled
        if enabled and not self.functions[vfid].config.peek(COMMAND, 2) & COMMAND_MEMORY:
            self.programming.repair(vfid)

    def _announce(self, callbacks: list[Callable[[list[int]], None]], vfids: list[int]) -> None:
        if not vfids or not callbacks:
            return

        def announce() -> None:
            for callback in callbacks:
                callback(vfids)

        self.pf.executor.submit(announce)

    def _poke(self, offset: int, size: int, value: int) -> None:
        self.pf.config.poke(self.offset + offset, size, value)
