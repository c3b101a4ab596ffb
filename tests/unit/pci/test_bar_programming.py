"""VF BARs come to the client after VF Enable, whatever the guest, the client and the routes do meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import NonCallableMock, call

import pytest

from tests.support.wait import eventually
from vfio_user_xe.emulator.model.states import StateError
from vfio_user_xe.emulator.pci.bar_programming import STATES, BarState, Status, VfBarProgramming
from vfio_user_xe.emulator.pci.ecam import CHALLENGE, AccessError, Location, locate
from vfio_user_xe.emulator.pci.function import RESET, Function

VF_BARS = {0: 1 << 24, 2: 1 << 26}


def expected(plugged: Any, vfid: int) -> dict[int, int]:
    return {bar: plugged.sriov.bar_address(bar, vfid) for bar in VF_BARS}


def mapped(plugged: Any) -> dict[int, dict[int, int]]:
    """By VFID: where the client decodes the BARs of VFs."""
    found = {vf.index: plugged.device(vf.index).mapped() for vf in plugged.vfs}
    return {vfid: bars for vfid, bars in found.items() if bars}


def with_route(plugged: Any, direct_route: type) -> Any:
    route = direct_route(plugged.machine)
    plugged.sriov.programming.prefer(route)
    return route


@pytest.mark.parametrize("vfs", [1, 2, 7, 24, 63])
def test_every_enabled_vf_decodes_where_the_guest_put_it(
    plug: Callable[..., Any], direct_route: type, vfs: int
) -> None:
    plugged = plug(vfs)
    with_route(plugged, direct_route)
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(vfs)
    plugged.settle()
    assert mapped(plugged) == {vfid: expected(plugged, vfid) for vfid in range(1, vfs + 1)}
    assert expected(plugged, 1)[2] == expected(plugged, 1)[2] & ~((1 << 26) - 1)
    status = plugged.sriov.programming.status
    assert (status.state, status.vfs, status.method, status.pf, status.error) == ("done", vfs, "direct", "01:00.0", "")


def test_without_any_other_route_the_pfs_own_dma_does_it(plugged: Any) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(7)
    plugged.settle()
    assert len(mapped(plugged)) == 7
    assert plugged.sriov.programming.status.method == "dma"


def test_only_the_vfs_that_are_enabled_are_programmed(plugged: Any) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(3)
    plugged.settle()
    assert sorted(mapped(plugged)) == [1, 2, 3]


def test_vfs_without_memory_enable_are_not_programmed_until_it_is_set(plugged: Any) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.write(0x10, 2, 2)
    plugged.guest.write(0x08, 2, 1)
    plugged.settle()
    assert mapped(plugged) == {}
    plugged.guest.write(0x08, 2, 9)
    plugged.settle()
    assert sorted(mapped(plugged)) == [1, 2]
    plugged.guest.write(0x08, 2, 1)
    plugged.settle()
    assert mapped(plugged) == {}


def test_disabling_unmaps_and_enabling_again_maps(plugged: Any) -> None:
    plugged.guest.assign_vf_bars()
    for vfs in (7, 2, 5, 1):
        plugged.guest.enable(vfs)
        plugged.settle()
        assert sorted(mapped(plugged)) == list(range(1, vfs + 1))
        plugged.guest.disable()
        plugged.settle()
        assert mapped(plugged) == {}
        assert plugged.sriov.programming.status.state == "idle"


def test_a_guest_that_changes_its_mind_all_the_time_gets_what_it_wanted_last(plugged: Any) -> None:
    plugged.machine.before_write = lambda: time.sleep(0.0002)
    plugged.guest.assign_vf_bars()
    for vfs in (7, 3, 6, 1, 4):
        plugged.guest.enable(vfs)
        plugged.guest.disable()
    plugged.guest.enable(5)
    plugged.settle()
    assert mapped(plugged) == {vfid: expected(plugged, vfid) for vfid in range(1, 6)}
    assert plugged.sriov.programming.status.vfs == 5


def test_bars_are_written_before_any_vf_decodes(plugged: Any) -> None:
    plugged.guest.assign_vf_bars()
    plugged.machine.writes.clear()
    plugged.guest.enable(4)
    plugged.settle()
    registers = [address & 0xFFF for address, _, _ in plugged.machine.writes]
    assert registers == [0x10, 0x14, 0x18, 0x1C] * 4 + [4] * 4


def test_the_write_that_enables_is_answered_before_anything_is_programmed(plugged: Any) -> None:
    """The client can answer nothing while it waits for an access."""
    answered = threading.Event()
    order: list[bool] = []
    plugged.machine.before_write = lambda: order.append(answered.wait(60))
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(1)
    answered.set()
    plugged.settle()
    assert order
    assert all(order)


def test_the_pf_is_found_on_whatever_bus_and_ecam_base_it_is(plug: Callable[..., Any], new_machine: type) -> None:
    plugged = plug(2, new_machine(ecam=0xE0000000, bus=5))
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    plugged.settle()
    status = plugged.sriov.programming.status
    assert (status.pf, status.ecam) == ("05:00.0", 0xE0000000)
    assert sorted(mapped(plugged)) == [1, 2]


def test_the_pf_is_found_again_after_the_guest_renumbered_its_buses(plugged: Any) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    plugged.settle()
    plugged.guest.disable()
    plugged.settle()
    plugged.machine.renumber(1, 3)
    plugged.bus = 3
    plugged.guest.enable(2)
    plugged.settle()
    assert plugged.sriov.programming.status.pf == "03:00.0"
    assert sorted(mapped(plugged)) == [1, 2]


def test_the_second_time_no_bus_is_walked(plugged: Any) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(1)
    plugged.settle()
    plugged.guest.disable()
    plugged.settle()
    plugged.machine.reads = 0
    plugged.guest.enable(1)
    plugged.settle()
    # The PF's and the VF's number, and two BARs read back.
    assert plugged.machine.reads == 4


def test_an_equal_card_that_is_met_first_is_not_taken_for_this_one(plug: Callable[..., Any], new_machine: type) -> None:
    machine = new_machine(bus=1)
    other = plug(2, machine)
    machine.bus = 2
    mine = plug(2, machine)
    mine.guest.assign_vf_bars()
    mine.guest.enable(2)
    mine.settle()
    assert mine.sriov.programming.status.pf == "02:00.0"
    assert sorted(mapped(mine)) == [1, 2]
    assert mapped(other) == {}


def test_the_number_by_which_functions_are_found_is_gone_afterwards(plugged: Any) -> None:
    plugged.guest.enable(7)
    plugged.settle()
    assert all(function.config.read(CHALLENGE, 4) == 0 for function in (plugged.pf, *plugged.vfs))


def test_vfs_that_the_client_does_not_have_are_named_and_the_others_work(plugged: Any) -> None:
    for vfid in (2, 5):
        del plugged.machine.devices[(1 << 8) + vfid]
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(6)
    plugged.settle()
    status = plugged.sriov.programming.status
    assert (status.state, status.vfs, status.missing) == ("failed", 4, [2, 5])
    assert "VF 2 at 01:00.2, VF 5 at 01:00.5" in status.error
    assert "attach a vfio-user-pci device" in status.error
    assert plugged.device(6).mapped() == expected(plugged, 6)


def test_vfs_attached_in_the_wrong_order_are_named_and_not_programmed(plugged: Any) -> None:
    devices = plugged.machine.devices
    devices[0x101], devices[0x102] = devices[0x102], devices[0x101]
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(3)
    plugged.settle()
    assert plugged.sriov.programming.status.missing == [1, 2]
    assert not devices[0x101].mapped()
    assert devices[0x103].mapped() == expected(plugged, 3)


def test_behind_an_iommu_the_error_names_the_cure(plugged: Any, direct_route: type) -> None:
    plugged.machine.iommu = True
    with_route(plugged, direct_route).plugged = False
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    plugged.settle()
    status = plugged.sriov.programming.status
    assert (status.state, status.missing) == ("failed", [1, 2])
    assert status.tried[0] == "direct: not there"
    assert "dma: pf was not found" in status.tried[1]
    assert "Cure: plug it in; or" in status.error


def test_behind_an_iommu_another_route_does_it(plugged: Any, direct_route: type) -> None:
    plugged.machine.iommu = True
    with_route(plugged, direct_route)
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    plugged.settle()
    assert sorted(mapped(plugged)) == [1, 2]


def test_a_broken_route_is_passed_over(plugged: Any, direct_route: type) -> None:
    with_route(plugged, direct_route).broken = True
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    plugged.settle()
    status = plugged.sriov.programming.status
    assert (status.state, status.method) == ("done", "dma")
    assert status.tried == ["direct: pf was not found in ECAM (0xb0000000: it is broken, 0xe0000000: it is broken)"]


def test_a_route_to_another_machine_is_passed_over(plugged: Any, direct_route: type, new_machine: type) -> None:
    plugged.sriov.programming.prefer(direct_route(new_machine()))
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    plugged.settle()
    status = plugged.sriov.programming.status
    assert (status.state, status.method) == ("done", "dma")
    assert "pf is on none of its buses" in status.tried[0]


def test_what_dma_could_not_do_is_done_when_the_pf_becomes_bus_master(plugged: Any) -> None:
    device = plugged.guest.device
    device.write(4, 2, 2)
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    plugged.settle()
    assert plugged.sriov.programming.status.state == "failed"
    device.write(4, 2, 6)
    plugged.settle()
    assert sorted(mapped(plugged)) == [1, 2]


@pytest.mark.parametrize(
    ("before", "after", "again"),
    [(0, 4, True), (0, 6, True), (2, 6, True), (3, 7, True), (0x400, 0x404, True), (6, 4, False), (0, 2, False)],
)
def test_what_has_failed_is_tried_again_only_when_bus_master_is_set_that_was_not(
    plugged: Any, monkeypatch: pytest.MonkeyPatch, before: int, after: int, again: bool
) -> None:
    plugged.pf.config.write(4, 2, before)
    programming = NonCallableMock(spec=VfBarProgramming, status=Status(state=BarState.FAILED))
    monkeypatch.setattr(plugged.sriov, "programming", programming)
    plugged.pf.config.write(4, 2, after)
    assert programming.update.mock_calls == [call()] * again
    programming.status = Status(state=BarState.DONE)
    plugged.pf.config.write(4, 2, before)
    plugged.pf.config.write(4, 2, after)
    assert programming.update.mock_calls == [call()] * again


def test_a_bar_that_the_client_did_not_take_is_an_error(plugged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugged.device(2), "_write_bar", lambda index, value: None)
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    plugged.settle()
    status = plugged.sriov.programming.status
    assert status.state == "failed"
    assert "BAR0 of VF 2 was written" in status.error


def test_pf_function_level_reset_unmaps_the_vfs(plugged: Any, direct_route: type) -> None:
    with_route(plugged, direct_route)
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(4)
    plugged.settle()
    plugged.guest.function_level_reset()
    plugged.settle()
    assert mapped(plugged) == {}


def test_vf_function_level_reset_leaves_its_bars_mapped(plugged: Any) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    plugged.settle()
    plugged.device(1).write(0x78, 2, 0x8000)
    plugged.settle()
    assert mapped(plugged) == {vfid: expected(plugged, vfid) for vfid in (1, 2)}
    assert plugged.device(1).read(4, 2) & 2


def test_a_vf_whose_user_clears_memory_enable_is_mapped_again(plugged: Any) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(2)
    plugged.settle()
    plugged.device(1).write(4, 2, 4)
    assert plugged.device(1).mapped() == {}
    eventually(lambda: plugged.device(1).mapped() != {})
    assert plugged.device(1).mapped() == expected(plugged, 1)
    assert plugged.device(1).read(4, 2) == 6
    plugged.settle()
    assert plugged.sriov.programming.status.repairs == 1


def test_a_vf_that_becomes_bus_master_while_its_command_is_written_stays_one(plugged: Any) -> None:
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(1)
    plugged.settle()
    vf, device = plugged.vfs[0], plugged.device(1)
    mastered: list[int] = []

    def between() -> None:
        # As the kernel restores a device after its reset, when the programming has read COMMAND and not written it yet.
        if plugged.machine.writes and plugged.machine.writes[-1][0] & 0xFFF == 0x1C and not mastered:
            mastered.append(1)
            device.write(4, 2, 6)

    plugged.machine.writes.clear()
    device.write(4, 2, 0x400)
    plugged.machine.before_write = between
    eventually(lambda: mastered and vf.config.peek(4, 2) == 6 and device.command == 6)


def test_vfs_that_the_client_resets_are_not_repaired(plugged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a machine reset QEMU clears Memory Space Enable of the VFs some time before it resets the PF."""
    repairs: list[Callable[[], None]] = []
    monkeypatch.setattr(plugged.pf.executor, "call_later", lambda seconds, job: repairs.append(job))
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(7)
    plugged.settle()
    plugged.machine.writes.clear()
    for vf in plugged.vfs:
        plugged.device(vf.index).write(4, 2, 0)
        vf.reset()
    for repair in repairs:
        repair()
    plugged.settle()
    assert len(repairs) == 7
    assert plugged.machine.writes == []
    assert plugged.sriov.programming.status.repairs == 0


def test_a_machine_reset_in_the_middle_of_programming_ends_it(plugged: Any) -> None:
    begun, go = threading.Event(), threading.Event()

    def stop_once() -> None:
        begun.set()
        go.wait(60)

    plugged.machine.before_write = stop_once
    plugged.guest.assign_vf_bars()
    plugged.guest.enable(7)
    assert begun.wait(60)
    plugged.machine_reset()
    plugged.machine.writes.clear()
    go.set()
    plugged.settle()
    # What was under way when the reset came is what the client still sees: no VF decodes.
    assert mapped(plugged) == {}
    assert plugged.sriov.programming.status.state == "idle"


def test_after_a_machine_reset_everything_works_again(plugged: Any) -> None:
    resets: list[str] = []
    plugged.pf.on_reset.append(resets.append)
    for _ in range(3):
        plugged.guest.enable_memory()
        plugged.guest.assign_vf_bars()
        plugged.guest.enable(7)
        plugged.settle()
        assert len(mapped(plugged)) == 7
        plugged.machine_reset()
        plugged.settle()
        assert mapped(plugged) == {}
    assert resets == [RESET] * 3


def test_a_client_that_dies_in_the_middle_leaves_the_next_one_everything(
    plug: Callable[..., Any], new_machine: type
) -> None:
    plugged = plug(7)
    plugged.guest.assign_vf_bars()
    enough = threading.Event()
    count = 0

    def die() -> None:
        nonlocal count
        count += 1
        if count == 10:
            for vf in plugged.vfs:
                vf.detached()
            plugged.pf.detached()
            enough.set()
        if count >= 10:
            raise RuntimeError("the machine is gone")

    def write(address: int, size: int, value: int) -> None:
        try:
            die()
        except RuntimeError as exc:
            raise AccessError(str(exc)) from exc

    plugged.machine.write_physical = write
    plugged.guest.enable(7)
    assert enough.wait(60)
    plugged.settle()
    assert plugged.sriov.programming.status.state == "idle"
    machine = new_machine(ecam=0xE0000000, bus=9)
    machine.plug(plugged.pf, plugged.vfs)
    assert plugged.sriov.enabled_vfs == []
    plugged.machine, plugged.bus = machine, 9
    plugged.guest.device = machine.devices[9 << 8]
    plugged.guest.enable_memory()
    plugged.guest.assign_vf_bars(0x1_0000_0000)
    plugged.guest.enable(7)
    plugged.settle()
    assert mapped(plugged) == {vfid: expected(plugged, vfid) for vfid in range(1, 8)}


def test_vfs_enabled_without_any_client_are_nothing_to_program(make_pf: Callable[..., Function]) -> None:
    pf = make_pf()
    assert pf.sriov is not None
    pf.config.write(0x330, 2, 2)
    pf.config.write(0x328, 2, 9)
    assert pf.sriov.programming.wait(60).state == "idle"


def test_the_status_is_plain_data(plugged: Any) -> None:
    plugged.guest.enable(1)
    plugged.settle()
    data = plugged.sriov.programming.status.as_dict()
    assert data["state"] == "done"
    assert data["vfs"] == 1
    assert data["milliseconds"] > 0


def test_locate_says_where_it_looked(make_pf: Callable[..., Function], direct_route: type, new_machine: type) -> None:
    with pytest.raises(AccessError, match="0xb0000000: no host bridge, 0xe0000000: pf is on none of its buses"):
        locate(direct_route(new_machine(ecam=0xE0000000)), make_pf())


def test_ecam_is_not_believed_where_the_host_bridge_says_otherwise(
    make_pf: Callable[..., Function], direct_route: type, new_machine: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that looks like a host bridge at a base that is not the one it decodes."""
    machine = new_machine()
    monkeypatch.setattr(
        machine,
        "read_physical",
        lambda address, size=4: {0xB0000000: 0x29C08086, 0xB0000060: 0xE0000001}.get(address, 0),
    )
    with pytest.raises(AccessError, match="0xb0000000: the host bridge says 0xe0000001"):
        locate(direct_route(machine), make_pf())


def test_addresses_in_ecam_are_4_kib_a_function() -> None:
    location = Location(0xB0000000, 0x100)
    assert location.address(0x10, 9) == 0xB0000000 + (0x109 << 12) + 0x10
    assert location.bdf(9) == "01:01.1"


def test_a_result_comes_only_from_a_run() -> None:
    for state in (BarState.DONE, BarState.FAILED):
        with pytest.raises(StateError, match=f"VF BARs: cannot go from idle to {state}; allowed: busy"):
            STATES.check("VF BARs", BarState.IDLE, state)
