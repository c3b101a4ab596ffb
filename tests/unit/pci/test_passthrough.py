"""A VF that one guest passes on: what the host does to it governs what the other guest has of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.states import StateError
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Msi, PowerManagement
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from vfio_user_xe.emulator.pci.express import PciExpress
from vfio_user_xe.emulator.pci.function import DISABLED, FLR, RESET, Function, Identity
from vfio_user_xe.emulator.pci.passthrough import STATES, Gate, Passthrough, PassthroughState
from vfio_user_xe.emulator.pci.sriov import CONTROL, NUM_VFS
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport

SRIOV = 0x320
DEVICE_CONTROL = 0x78
INITIATE_FLR = 0x8000
PMCSR = 0xD4
BOTH = COMMAND_MEMORY | COMMAND_MASTER
SIZES = {0: 1 << 24, 2: 1 << 26}


class Counted:
    """Storage behind a BAR that counts its accesses."""

    def __init__(self) -> None:
        self.value = 0x1234
        self.accesses = 0

    def read(self, offset: int, size: int) -> int:
        self.accesses += 1
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.accesses += 1
        self.value = value


@dataclass
class PassedOn:
    """A PF with one VF, both sides of it, and what the VF's model is told."""

    pf: Function
    host: Function
    guest: Function
    passed: Passthrough
    storage: Counted
    resets: list[str]

    def enable(self) -> None:
        self.pf.config.write(SRIOV + NUM_VFS, 2, 1)
        self.pf.config.write(SRIOV + CONTROL, 2, 0x9)

    def disable(self) -> None:
        self.pf.config.write(SRIOV + CONTROL, 2, 0)

    def command(self, value: int) -> None:
        self.host.config.write(COMMAND, 2, value)

    def flr(self) -> None:
        """As the kernel resets a function: COMMAND is cleared, and restored afterwards (`pci.c:pci_dev_save_and_disable`)."""
        before = self.host.config.peek(COMMAND, 2)
        self.command(0x400)
        self.host.config.write(DEVICE_CONTROL, 2, INITIATE_FLR)
        self.command(before)
        self.settle()

    def settle(self) -> None:
        for _ in range(2):
            self.pf.executor.run_sync(lambda: None, 60)

    def read(self) -> int:
        region = self.guest.regions[0]
        assert region is not None
        assert region.handler is not None
        return region.handler.read(0x10, 4)

    def write(self, value: int) -> None:
        region = self.guest.regions[0]
        assert region is not None
        assert region.handler is not None
        region.handler.write(0x10, 4, value)

    @property
    def state(self) -> PassthroughState:
        return self.passed.state


def vf(executor: Executor, name: str, bars: dict[int, Bar], *, assigned: bool) -> Function:
    capabilities = [PowerManagement(0xD0, no_soft_reset=True), PciExpress(0x70), Msi(offset=0xAC)]
    identity = Identity(0x1234, 0x5678)
    return Function(
        name,
        1,
        executor=executor,
        identity=identity,
        capabilities=capabilities,
        bars=bars,
        is_vf=True,
        assigned=assigned,
    )


@pytest.fixture
def vf_passed(make_pf: Callable[..., Function], executor: Executor) -> PassedOn:
    pf, storage, gate = make_pf(1), Counted(), Gate()
    assert pf.sriov is not None
    pf.sriov.programming.suspend()
    bars = {index: Bar(size, storage, prefetchable=True) for index, size in SIZES.items()}
    host = vf(executor, "vf1-host", bars, assigned=False)
    guest = vf(executor, "vf1", gate.over(bars), assigned=True)
    pf.sriov.attach(host)
    made = PassedOn(pf, host, guest, Passthrough(pf, host, guest, gate), storage, [])
    guest.on_reset.append(made.resets.append)
    host.attached(FakeTransport())
    made.settle()
    return made


@pytest.fixture
def opened(vf_passed: PassedOn) -> PassedOn:
    vf_passed.enable()
    vf_passed.command(BOTH)
    vf_passed.settle()
    return vf_passed


def test_a_vf_that_the_pf_has_not_enabled_is_absent_whatever_the_host_writes(vf_passed: PassedOn) -> None:
    vf_passed.command(BOTH)
    assert vf_passed.state is PassthroughState.ABSENT
    assert vf_passed.read() == 0xFFFFFFFF


def test_a_closed_vf_reads_all_ones_and_takes_no_write(vf_passed: PassedOn) -> None:
    vf_passed.enable()
    assert vf_passed.state is PassthroughState.CLOSED
    vf_passed.write(1)
    assert vf_passed.read() == 0xFFFFFFFF
    assert not vf_passed.storage.accesses


def test_bus_master_enable_of_the_host_opens_it(opened: PassedOn) -> None:
    assert opened.state is PassthroughState.OPEN
    opened.write(7)
    assert opened.read() == 7


@pytest.mark.parametrize(
    ("command", "state"),
    [
        (COMMAND_MASTER, PassthroughState.UNMAPPED),
        (COMMAND_MEMORY, PassthroughState.CLOSED),
        (0, PassthroughState.CLOSED),
        (BOTH, PassthroughState.OPEN),
    ],
)
def test_the_host_s_command_governs_what_the_guest_has(opened: PassedOn, command: int, state: PassthroughState) -> None:
    opened.command(command)
    assert opened.state is state
    assert opened.read() == (0x1234 if state is PassthroughState.OPEN else 0xFFFFFFFF)


def test_without_memory_decoding_dma_and_interrupts_go_on(opened: PassedOn) -> None:
    client = FakeTransport()
    opened.guest.attached(client)
    opened.command(COMMAND_MASTER)
    assert opened.guest.transport is client
    assert opened.guest.raise_msi()


def test_a_closed_vf_has_no_dma_and_no_interrupts_and_its_windows_are_dropped(opened: PassedOn) -> None:
    client = FakeTransport()
    dropped: list[tuple[int, int]] = []
    opened.guest.on_unmapped.append(lambda address, length: dropped.append((address, length)))
    opened.guest.attached(client)
    assert opened.guest.raise_msi()
    opened.command(COMMAND_MEMORY)
    assert opened.guest.transport is None
    assert not opened.guest.raise_msi()
    assert dropped == [(0, 1 << 64)]
    opened.command(BOTH)
    assert opened.guest.transport is client


def test_a_client_that_comes_while_the_vf_is_closed_gets_it_when_it_opens(vf_passed: PassedOn) -> None:
    client = FakeTransport()
    vf_passed.guest.attached(client)
    assert vf_passed.guest.transport is None
    assert vf_passed.guest.has_client
    vf_passed.enable()
    vf_passed.command(BOTH)
    assert vf_passed.guest.transport is client


def test_a_client_that_went_while_the_vf_was_closed_is_not_given_it_again(opened: PassedOn) -> None:
    opened.guest.attached(FakeTransport())
    opened.command(0)
    opened.guest.detached()
    opened.command(BOTH)
    assert opened.guest.transport is None
    assert not opened.guest.has_client


def test_another_power_state_takes_the_bars_away(opened: PassedOn) -> None:
    opened.host.config.write(PMCSR, 2, 3)
    opened.settle()
    assert opened.state is PassthroughState.UNMAPPED
    assert opened.read() == 0xFFFFFFFF
    opened.host.config.write(PMCSR, 2, 0)
    opened.settle()
    assert opened.state is PassthroughState.OPEN


def test_disabling_vfs_pulls_the_vf_and_resets_it(opened: PassedOn) -> None:
    opened.guest.attached(FakeTransport())
    opened.disable()
    assert opened.state is PassthroughState.ABSENT
    assert opened.guest.transport is None
    opened.settle()
    assert opened.resets == [DISABLED]


def test_the_host_s_flr_resets_the_vf_once_and_leaves_the_guest_s_registers(opened: PassedOn) -> None:
    opened.guest.config.write(COMMAND, 2, BOTH)
    opened.flr()
    assert opened.resets == [FLR]
    assert opened.guest.config.peek(COMMAND, 2) == BOTH
    assert opened.state is PassthroughState.OPEN


@pytest.mark.parametrize("how", [RESET, FLR])
def test_a_reset_by_the_guest_waits_for_the_host_s(opened: PassedOn, how: str) -> None:
    opened.guest.config.write(COMMAND, 2, BOTH)
    if how == RESET:
        opened.guest.reset()
    else:
        opened.guest.config.write(DEVICE_CONTROL, 2, INITIATE_FLR)
    opened.settle()
    assert opened.state is PassthroughState.RESET_WANTED
    assert opened.read() == 0xFFFFFFFF
    assert opened.resets == [], "the VF was reset behind the back of the host's VFIO"
    opened.flr()
    assert opened.resets == [FLR]
    assert opened.state is PassthroughState.OPEN


def test_a_reset_that_is_wanted_is_not_forgotten_when_the_host_closes_and_opens_without_one(opened: PassedOn) -> None:
    opened.guest.config.write(COMMAND, 2, BOTH)
    opened.guest.reset()
    opened.command(COMMAND_MEMORY)
    assert opened.state is PassthroughState.CLOSED
    opened.command(BOTH)
    assert opened.state is PassthroughState.RESET_WANTED


def test_plugging_an_unused_vf_in_wants_no_reset(opened: PassedOn) -> None:
    opened.guest.attached(FakeTransport())
    opened.guest.reset()
    opened.guest.detached()
    opened.guest.attached(FakeTransport())
    assert opened.state is PassthroughState.OPEN


def test_a_second_machine_that_attaches_a_used_vf_waits_for_the_host_s_reset(opened: PassedOn) -> None:
    opened.guest.attached(FakeTransport())
    opened.guest.config.write(COMMAND, 2, BOTH)
    opened.guest.detached()
    opened.guest.attached(FakeTransport())
    assert opened.state is PassthroughState.RESET_WANTED


def test_a_machine_reset_of_the_host_resets_the_vf(opened: PassedOn) -> None:
    opened.host.reset()
    opened.settle()
    assert opened.resets == [RESET]
    assert opened.state is PassthroughState.CLOSED


def test_a_host_whose_machine_is_gone_passes_nothing_on_until_the_next_one_has_reset_it(opened: PassedOn) -> None:
    opened.guest.attached(FakeTransport())
    opened.host.detached()
    opened.settle()
    assert opened.state is PassthroughState.CLOSED
    assert opened.guest.transport is None
    opened.host.attached(FakeTransport())
    opened.settle()
    assert opened.state is PassthroughState.CLOSED
    assert opened.resets == [RESET]


def test_what_it_is_and_how_often_is_told(opened: PassedOn) -> None:
    opened.guest.config.write(COMMAND, 2, BOTH)
    opened.guest.reset()
    opened.flr()
    assert opened.passed.describe() == {
        "function": "vf1",
        "host": "vf1-host",
        "state": "open",
        "attached": False,
        "opened": 2,
        "resets": 1,
        "resets_wanted": 1,
    }


def test_both_guests_at_once_leave_a_state_that_fits_the_registers(opened: PassedOn) -> None:
    opened.guest.attached(FakeTransport())
    failures: list[BaseException] = []

    def repeat(act: Callable[[], None]) -> None:
        try:
            for _ in range(200):
                act()
        except BaseException as error:
            failures.append(error)

    def host() -> None:
        opened.command(0)
        opened.host.config.write(DEVICE_CONTROL, 2, INITIATE_FLR)
        opened.command(BOTH)

    def guest() -> None:
        opened.guest.config.write(COMMAND, 2, BOTH)
        opened.guest.reset()

    threads = [threading.Thread(target=repeat, args=(act,)) for act in (host, guest)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    opened.flr()
    assert opened.state is PassthroughState.OPEN
    assert opened.guest.transport is not None


def test_a_vf_cannot_go_from_absent_to_a_wanted_reset() -> None:
    with pytest.raises(StateError, match="cannot go from absent to reset wanted"):
        STATES.check("vf1", PassthroughState.ABSENT, PassthroughState.RESET_WANTED)


def test_two_functions_that_are_not_one_vf_are_refused(vf_passed: PassedOn) -> None:
    with pytest.raises(ValueError, match="not the same VF of pf, for two guests"):
        Passthrough(vf_passed.pf, vf_passed.guest, vf_passed.host, Gate())
