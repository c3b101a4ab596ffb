"""A guest machine as a PF sees it from below: configuration space in ECAM, behind a client that behaves as QEMU does."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Ari, DeviceSerialNumber, Msi, PowerManagement
from vfio_user_xe.emulator.pci.ecam import AccessError
from vfio_user_xe.emulator.pci.express import PciExpress
from vfio_user_xe.emulator.pci.function import Function, Identity
from vfio_user_xe.emulator.pci.sriov import Sriov
from vfio_user_xe.emulator.pci.transport import DmaError, Transport

VF_BARS = {0: 1 << 24, 2: 1 << 26}
SRIOV = 0x320


class Storage:
    """A BAR handler that keeps what is written."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}

    def read(self, offset: int, size: int) -> int:
        return self.values.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        self.values[offset] = value


class FakeTransport(Transport):
    """Vectors that a test wires, and DMA that reaches a `Machine`."""

    def __init__(self, machine: Machine | None = None, device: ClientDevice | None = None) -> None:
        self.wired: set[tuple[int, int]] = set()
        self.triggered: list[tuple[int, int]] = []
        self.machine = machine
        self.device = device

    def view(self, address: int, length: int, write: bool) -> memoryview | None:
        return None

    def mapped(self, address: int, length: int, write: bool) -> bool:
        return True

    def read(self, address: int, length: int) -> bytes:
        return self._machine().read_physical(address, length).to_bytes(length, "little")

    def write(self, address: int, data: bytes | memoryview) -> None:
        self._machine().write_physical(address, len(data), int.from_bytes(data, "little"))

    def trigger(self, index: int, vector: int) -> bool:
        if (index, vector) not in self.wired:
            return False
        self.triggered.append((index, vector))
        return True

    def _machine(self) -> Machine:
        assert self.machine is not None
        assert self.device is not None
        with self.machine.lock:
            if self.machine.iommu or not self.device.command & 4:
                raise DmaError("No such device", errno.ENODEV)
        return self.machine


class ClientDevice:
    """QEMU's side of one function: it keeps BARs and COMMAND to itself and passes everything else on."""

    def __init__(self, function: Function, lock: threading.RLock) -> None:
        self.function = function
        self.lock = lock
        self.command = 0
        self.bars = [0] * 6
        self.sizes = {index: bar.size for index, bar in function.bars.items()}
        snapshot = function.config.read_block(0, 4096)
        self.extended_ids = _extended_ids(snapshot)

    def read(self, offset: int, size: int) -> int:
        if 0x10 <= offset < 0x28:
            return self.bars[(offset - 0x10) // 4] >> 8 * (offset & 3) & ((1 << 8 * size) - 1)
        with self.lock:
            return self.function.config.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        with self.lock:
            self.function.config.write(offset, size, value)
            if 0x10 <= offset < 0x28 and size == 4:
                self._write_bar((offset - 0x10) // 4, value)
            elif offset == 4:
                self.command = value & 0xFFFF

    def _write_bar(self, index: int, value: int) -> None:
        for bar, size in self.sizes.items():
            if index == bar:
                self.bars[index] = value & ~(size - 1) & 0xFFFFFFF0 | 0xC
            elif index == bar + 1:
                self.bars[index] = value & ~(size - 1) >> 32 & 0xFFFFFFFF

    def mapped(self) -> dict[int, int]:
        """Where the BARs decode, by BAR number."""
        if not self.command & 2:
            return {}
        return {bar: (self.bars[bar + 1] << 32 | self.bars[bar]) & ~0xF for bar in self.sizes}


@dataclass
class Machine:
    """A q35 with `devices` by routing id, and root ports 00:01.0, 00:02.0, ... to `buses`.

    `lock` is QEMU's big lock: an access of the guest holds it until it is answered, and physical accesses need it.
    """

    ecam: int = 0xB0000000
    bus: int = 1
    buses: list[int] = field(default_factory=list)
    iommu: bool = False
    devices: dict[int, ClientDevice] = field(default_factory=dict)
    reads: int = 0
    writes: list[tuple[int, int, int]] = field(default_factory=list)
    before_write: Callable[[], None] | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def plug(self, pf: Function, vfs: Sequence[Function] = ()) -> FakeTransport:
        """Attach a PF at device 0 of `bus`, and VFs behind it; the PF's transport is returned."""
        self.buses.append(self.bus)
        sriov = pf.sriov
        for function in (pf, *vfs):
            offset = sriov.routing_offset(function.index) if sriov and function.index else 0
            self.devices[(self.bus << 8) + offset] = ClientDevice(function, self.lock)
        transport = FakeTransport(self, self.devices[self.bus << 8])
        pf.attached(transport)
        for vf in vfs:
            vf.attached(FakeTransport())
        return transport

    def renumber(self, old: int, new: int) -> None:
        """The guest gives bus `old` the number `new`."""
        self.buses = [new if bus == old else bus for bus in self.buses]
        self.devices = {
            (new << 8) + routing_id % 256 if routing_id >> 8 == old else routing_id: device
            for routing_id, device in self.devices.items()
        }

    def read_physical(self, address: int, size: int = 4) -> int:
        with self.lock:
            self.reads += 1
            if not self.ecam <= address < self.ecam + (256 << 20):
                return 0
            routing_id, offset = (address - self.ecam) >> 12, address & 0xFFF
            if routing_id == 0:
                return {0: 0x29C08086, 0x60: self.ecam | 1}.get(offset, 0)
            if routing_id % 8 == 0 and 1 <= routing_id // 8 <= len(self.buses):
                bus = self.buses[routing_id // 8 - 1]
                return {0: 0x000C1B36, 0x0C: 0x00010000, 0x18: bus << 16 | bus << 8}.get(offset, 0)
            device = self.devices.get(routing_id)
            return (1 << 8 * size) - 1 if device is None else device.read(offset, size)

    def write_physical(self, address: int, size: int, value: int) -> None:
        if self.before_write is not None:
            self.before_write()
        with self.lock:
            self.writes.append((address, size, value))
            device = self.devices.get((address - self.ecam) >> 12)
            if device is not None:
                device.write(address & 0xFFF, size, value)


class DirectRoute:
    """A `Route` and `PhysicalAccess` to a machine, as a qtest socket would be."""

    name = "direct"
    cure = "plug it in"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.plugged = True
        self.broken = False

    def open(self) -> Sequence[DirectRoute]:
        return [self] if self.plugged else []

    def read(self, addresses: Sequence[int]) -> list[int]:
        self._check()
        return [self.machine.read_physical(address) for address in addresses]

    def write(self, writes: Sequence[tuple[int, int, int]]) -> None:
        for address, size, value in writes:
            self._check()
            self.machine.write_physical(address, size, value)

    def _check(self) -> None:
        if self.broken:
            raise AccessError("it is broken")


@dataclass
class Guest:
    """Drives a PF's configuration space as Linux does, through the client's device."""

    device: ClientDevice

    def read(self, offset: int, size: int) -> int:
        return self.device.read(SRIOV + offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self.device.write(SRIOV + offset, size, value)

    def enable_memory(self) -> None:
        """pci_enable_resources: the read-modify-write by which the client learns that the PF is bus master."""
        self.device.write(4, 2, self.device.read(4, 2) | 2)

    def assign_vf_bars(self, base: int = 0x3800_0000_0000) -> None:
        """pci_assign_resource of the IOV resources."""
        address = base
        for bar, size in VF_BARS.items():
            address = (address + size - 1) & ~(size - 1)
            self.write(0x24 + 4 * bar, 4, address & 0xFFFFFFFF)
            self.write(0x28 + 4 * bar, 4, address >> 32)
            address += size * 64

    def enable(self, vfs: int) -> None:
        """drivers/pci/iov.c: sriov_enable."""
        self.write(0x10, 2, vfs)
        self.write(0x08, 2, self.read(0x08, 2) | 0x09)

    def disable(self) -> None:
        """drivers/pci/iov.c: sriov_disable."""
        self.write(0x08, 2, self.read(0x08, 2) & ~0x09)
        self.write(0x10, 2, 0)

    def function_level_reset(self) -> None:
        """Initiate FLR (the PCIe capability is at 0x70)."""
        self.device.write(0x78, 2, self.device.read(0x78, 2) | 0x8000)


def _extended_ids(snapshot: bytes) -> list[int]:
    ids, offset = [], 0x100
    while offset:
        header = int.from_bytes(snapshot[offset : offset + 4], "little")
        ids.append(header & 0xFFFF)
        offset = header >> 20
    return ids


@pytest.fixture
def executor() -> Iterator[Executor]:
    executor = Executor("test")
    executor.start()
    yield executor
    executor.stop()
    assert executor.failures == 0


IDENTITY = Identity(0x8086, 0xE212, 0x8086, 0x1100, 0x030000, 1)


@pytest.fixture
def make_pf(executor: Executor) -> Callable[..., Function]:
    def make(vfs: int = 7, **arguments: object) -> Function:
        capabilities = [
            PowerManagement(0xD0),
            PciExpress(0x70),
            Msi(offset=0xAC),
            DeviceSerialNumber(1, 0x100),
            Ari(0x110),
        ]
        given = {
            "executor": executor,
            "identity": IDENTITY,
            "capabilities": capabilities,
            "bars": {0: Bar(1 << 24, Storage()), 2: Bar(1 << 28, Storage(), prefetchable=True)},
            "sriov": Sriov(vfs, 0xE212, VF_BARS, offset=SRIOV),
        }
        return Function("pf", 0, **{**given, **arguments})  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_vf(executor: Executor) -> Callable[[int], Function]:
    def make(vfid: int) -> Function:
        return Function(
            f"vf{vfid}",
            vfid,
            executor=executor,
            identity=IDENTITY,
            capabilities=[PciExpress(0x70), Msi(offset=0xAC), DeviceSerialNumber(1, 0x100), Ari(0x110)],
            bars={bar: Bar(size, Storage(), prefetchable=True) for bar, size in VF_BARS.items()},
            is_vf=True,
        )

    return make


@dataclass
class Plugged:
    """A PF with VFs in a machine."""

    pf: Function
    vfs: list[Function]
    machine: Machine
    transport: FakeTransport
    guest: Guest
    bus: int

    @property
    def sriov(self) -> Sriov:
        assert self.pf.sriov is not None
        return self.pf.sriov

    def device(self, vfid: int) -> ClientDevice:
        return self.machine.devices[(self.bus << 8) + self.sriov.routing_offset(vfid)]

    def machine_reset(self) -> None:
        """As QEMU does it under its lock: VFs first, each COMMAND, RESET, BARs (traced)."""
        with self.machine.lock:
            for device in [*(self.device(vf.index) for vf in reversed(self.vfs)), self.guest.device]:
                device.write(4, 2, device.read(4, 2) & ~0x407)
                device.function.reset()
                device.bars = [0] * 6
                device.command = 0

    def settle(self) -> None:
        """Until nothing is under way."""
        self.sriov.programming.wait(60)
        self.pf.executor.run_sync(lambda: None, 60)


@pytest.fixture
def plug(make_pf: Callable[..., Function], make_vf: Callable[[int], Function]) -> Callable[..., Plugged]:
    def make(vfs: int = 7, machine: Machine | None = None) -> Plugged:
        pf = make_pf(vfs)
        functions = [make_vf(vfid) for vfid in range(1, vfs + 1)]
        for function in functions:
            pf.sriov.attach(function)
        machine = machine or Machine()
        transport = machine.plug(pf, functions)
        guest = Guest(machine.devices[machine.bus << 8])
        guest.enable_memory()
        return Plugged(pf, functions, machine, transport, guest, machine.bus)

    return make


@pytest.fixture
def plugged(plug: Callable[..., Plugged]) -> Plugged:
    return plug()


@pytest.fixture
def new_machine() -> type[Machine]:
    return Machine


@pytest.fixture
def direct_route() -> type[DirectRoute]:
    return DirectRoute


@pytest.fixture
def new_transport() -> type[FakeTransport]:
    return FakeTransport


@pytest.fixture
def page() -> Iterator[Memory]:
    memory = Memory(1 << 16, "test")
    yield memory
    memory.close()
