"""The SR-IOV capability under the accesses that Linux makes (drivers/pci/iov.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vfio_user_xe.emulator.pci.function import DISABLED, FLR, Function
from vfio_user_xe.emulator.pci.sriov import Sriov

VF_BARS = {0: 1 << 24, 2: 1 << 26}


def record(plugged: Any) -> list[tuple[str, list[int]]]:
    events: list[tuple[str, list[int]]] = []
    plugged.sriov.on_enable.append(lambda vfids: events.append(("enable", vfids)))
    plugged.sriov.on_disable.append(lambda vfids: events.append(("disable", vfids)))
    return events


def test_the_boot_sequence_of_linux_is_answered(plugged: Any) -> None:
    """sriov_init and compute_max_vf_buses, access by access as traced from a 7.3 kernel."""
    guest = plugged.guest
    assert guest.read(0x00, 4) == 0x00010010
    assert guest.read(0x08, 2) == 0
    guest.write(0x08, 2, 0x0010)
    assert guest.read(0x08, 2) == 0x0010
    assert guest.read(0x0E, 2) == guest.read(0x0C, 2) == 7
    assert guest.read(0x1C, 4) & 1
    guest.write(0x20, 4, 1)
    assert guest.read(0x20, 4) == 1
    assert guest.read(0x1A, 2) == 0xE212
    assert guest.read(0x04, 4) == 0
    assert guest.read(0x12, 1) == 0
    for vfs in range(7, -1, -1):
        guest.write(0x10, 2, vfs)
        assert guest.read(0x10, 2) == vfs
        assert (guest.read(0x14, 2), guest.read(0x16, 2)) == (1, 1)


def test_vf_bars_are_sized_as_64_bit_prefetchable(plugged: Any) -> None:
    """__pci_read_bases on the capability: write ones, read, write back."""
    guest = plugged.guest
    found = {}
    for bar in range(0, 6, 2):
        low = 0x24 + 4 * bar
        before = guest.read(low, 4), guest.read(low + 4, 4)
        guest.write(low, 4, 0xFFFFFFFF)
        guest.write(low + 4, 4, 0xFFFFFFFF)
        mask = guest.read(low + 4, 4) << 32 | guest.read(low, 4)
        guest.write(low, 4, before[0])
        guest.write(low + 4, 4, before[1])
        assert (guest.read(low, 4), guest.read(low + 4, 4)) == before
        if mask & ~0xF:
            assert mask & 0xF == 0xC
            found[bar] = (1 << 64) - (mask & ~0xF)
    assert found == VF_BARS


def test_enabling_tells_which_vfs_there_are_after_the_write(plugged: Any) -> None:
    events = record(plugged)
    plugged.guest.enable(3)
    assert plugged.guest.read(0x08, 2) & 9 == 9
    assert plugged.sriov.enabled_vfs == [1, 2, 3]
    plugged.settle()
    assert events == [("enable", [1, 2, 3])]


def test_disabling_takes_the_vfs_away_and_resets_them(plugged: Any) -> None:
    events = record(plugged)
    resets: list[tuple[int, str]] = []
    for vf in plugged.vfs:
        vf.on_reset.append(lambda reason, index=vf.index: resets.append((index, reason)))
    plugged.guest.enable(2)
    plugged.vfs[0].config.write(0xAE, 2, 1)
    plugged.guest.disable()
    assert plugged.sriov.enabled_vfs == []
    assert plugged.vfs[0].config.read(0xAE, 2) & 1 == 0
    plugged.settle()
    assert events == [("enable", [1, 2]), ("disable", [1, 2])]
    assert resets == [(1, DISABLED), (2, DISABLED)]


def test_vfs_go_with_vf_enable_whatever_else_is_set(plugged: Any) -> None:
    events = record(plugged)
    plugged.guest.write(0x10, 2, 2)
    for control in (0x18, 0x19, 0x11, 0x18, 0x10, 0x00):
        plugged.guest.write(0x08, 2, control)
        assert plugged.sriov.enabled is bool(control & 1)
        assert plugged.sriov.enabled_vfs == ([1, 2] if control & 1 else [])
        assert plugged.sriov.memory_enabled is (control & 9 == 9)
    plugged.settle()
    assert events == [("enable", [1, 2]), ("disable", [1, 2])]


def test_num_vfs_page_size_and_ari_hold_still_while_vf_enable_is_set(plugged: Any) -> None:
    guest = plugged.guest
    guest.write(0x08, 2, 0x10)
    guest.enable(4)
    guest.write(0x10, 2, 6)
    guest.write(0x20, 4, 2)
    guest.write(0x08, 2, 0x09)
    assert (guest.read(0x10, 2), guest.read(0x20, 4), guest.read(0x08, 2)) == (4, 1, 0x19)
    guest.disable()
    guest.write(0x10, 2, 6)
    guest.write(0x08, 2, 0)
    assert (guest.read(0x10, 2), guest.read(0x08, 2)) == (6, 0)


def test_vf_bars_hold_still_while_vfs_decode_memory(plugged: Any) -> None:
    guest = plugged.guest
    guest.assign_vf_bars()
    before = guest.read(0x2C, 4)
    guest.enable(1)
    guest.write(0x2C, 4, 0)
    assert guest.read(0x2C, 4) == before
    guest.write(0x08, 2, 0x01)
    guest.write(0x2C, 4, 0)
    assert guest.read(0x2C, 4) == 0xC


@pytest.mark.parametrize(("control", "held"), [(0x00, False), (0x10, False), (0x11, False), (0x08, True), (0x19, True)])
def test_vf_bars_are_held_by_memory_enable_alone(plugged: Any, control: int, held: bool) -> None:
    plugged.guest.write(0x10, 2, 2)
    plugged.guest.write(0x08, 2, control)
    plugged.guest.write(0x28, 4, 0x1234)
    assert plugged.guest.read(0x28, 4) == (0 if held else 0x1234)


def test_more_vfs_than_there_are_is_not_taken(plugged: Any) -> None:
    plugged.guest.write(0x10, 2, 5)
    plugged.guest.write(0x10, 2, 8)
    assert plugged.guest.read(0x10, 2) == 5


@pytest.mark.parametrize("value", [0, 3, 4])
def test_a_system_page_size_that_is_not_exactly_one_supported_is_not_taken(plugged: Any, value: int) -> None:
    plugged.guest.write(0x20, 4, value)
    assert plugged.guest.read(0x20, 4) == 1


def test_a_supported_system_page_size_is_taken(plugged: Any) -> None:
    plugged.guest.write(0x20, 4, 0x10)
    assert plugged.guest.read(0x20, 4) == 0x10


def test_a_write_of_the_same_control_value_enables_nothing_again(plugged: Any) -> None:
    events = record(plugged)
    plugged.guest.enable(2)
    plugged.guest.write(0x08, 2, plugged.guest.read(0x08, 2))
    plugged.settle()
    assert events == [("enable", [1, 2])]


def test_pf_function_level_reset_takes_the_vfs_away_and_linux_brings_them_back(plugged: Any) -> None:
    """pci_restore_iov_state: VF BARs, page size, NumVFs, control."""
    events = record(plugged)
    pf_resets: list[str] = []
    plugged.pf.on_reset.append(pf_resets.append)
    guest = plugged.guest
    guest.assign_vf_bars()
    guest.enable(3)
    saved = [(offset, guest.read(offset, 4)) for offset in range(0x24, 0x3C, 4)]
    guest.function_level_reset()
    assert plugged.sriov.enabled_vfs == []
    assert (guest.read(0x08, 2), guest.read(0x10, 2), guest.read(0x24, 4)) == (0, 0, 0xC)
    for offset, value in saved:
        guest.write(offset, 4, value)
    guest.write(0x20, 4, 1)
    guest.write(0x10, 2, 3)
    guest.write(0x08, 2, 0x09)
    plugged.settle()
    assert events == [("enable", [1, 2, 3]), ("disable", [1, 2, 3]), ("enable", [1, 2, 3])]
    assert pf_resets == [FLR]
    assert plugged.device(3).mapped() == {bar: plugged.sriov.bar_address(bar, 3) for bar in VF_BARS}


def test_machine_reset_of_the_pf_takes_the_vfs_away(plugged: Any) -> None:
    events = record(plugged)
    plugged.guest.enable(2)
    plugged.pf.reset()
    assert plugged.sriov.enabled_vfs == []
    assert plugged.guest.read(0x08, 2) == 0
    plugged.guest.write(0x10, 2, 1)
    assert plugged.guest.read(0x10, 2) == 1
    plugged.settle()
    assert events == [("enable", [1, 2]), ("disable", [1, 2])]


def test_vfs_lie_one_after_the_other_behind_the_pf(make_pf: Callable[..., Function]) -> None:
    sriov = make_pf(24).sriov
    assert sriov is not None
    assert [sriov.routing_offset(vfid) for vfid in (1, 2, 24)] == [1, 2, 24]


@pytest.mark.parametrize(("first_offset", "stride"), [(1, 1), (4, 1), (1, 3), (5, 2)])
def test_vfs_have_the_routing_ids_that_first_offset_and_stride_say(first_offset: int, stride: int) -> None:
    sriov = Sriov(7, 0xE212, {0: 4096}, first_offset, stride)
    assert [sriov.routing_offset(vfid) for vfid in range(1, 8)] == [first_offset + stride * n for n in range(7)]


@pytest.mark.parametrize("size", [4096, 8192, 1 << 40])
def test_vf_bars_may_have_any_power_of_two_of_pages(size: int) -> None:
    assert Sriov(255, 0xE212, {0: size, 2: 4096, 4: size}).vf_bars == {0: size, 2: 4096, 4: size}


def test_the_last_vf_may_have_the_last_routing_id_of_the_bus() -> None:
    assert Sriov(255, 0xE212, {0: 4096}).routing_offset(255) == 255
    assert Sriov(128, 0xE212, {0: 4096}, 1, 2).routing_offset(128) == 255
    with pytest.raises(ValueError, match="leave the PF's bus"):
        Sriov(128, 0xE212, {0: 4096}, 2, 2)


def test_registers_are_as_wide_as_the_specification_says(plugged: Any) -> None:
    """What lies behind a register is not written with it (SR-IOV spec, 3.3)."""
    guest = plugged.guest
    guest.write(0x10, 2, 3)
    assert guest.read(0x0C, 4) == 7 << 16 | 7
    assert guest.read(0x10, 4) == 3
    assert guest.read(0x14, 4) == 1 << 16 | 1
    assert guest.read(0x18, 4) == 0xE212 << 16
    guest.write(0x08, 4, 0xFFFF_FFFF)
    assert guest.read(0x08, 4) == 0x19


def test_vf_bars_are_programmed_when_vf_enable_or_memory_enable_changes_and_not_otherwise(
    plugged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[int] = []
    monkeypatch.setattr(plugged.sriov.programming, "update", lambda: updates.append(plugged.guest.read(0x08, 2)))
    plugged.guest.write(0x10, 2, 2)
    for control in (0x10, 0x11, 0x11, 0x19, 0x19, 0x11, 0x10, 0x00):
        plugged.guest.write(0x08, 2, control)
    assert updates == [0x11, 0x19, 0x11, 0x10]


def test_qemu_is_shown_no_sriov_and_no_ari_but_the_guest_is(plugged: Any) -> None:
    assert plugged.guest.device.extended_ids == [0x03, 0x0B, 0x0B]
    assert plugged.guest.device.read(0x110, 4) & 0xFFFF == 0x0E
    assert plugged.guest.device.read(0x320, 4) & 0xFFFF == 0x10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total_vfs": 0}, "0 VFs"),
        ({"total_vfs": 256}, "256 VFs"),
        ({"total_vfs": 200, "stride": 2}, "leave the PF's bus"),
        ({"total_vfs": 1, "first_offset": 0}, "leave the PF's bus"),
        ({"total_vfs": 1, "vf_bars": {1: 4096}}, "VF BAR1"),
        ({"total_vfs": 1, "vf_bars": {0: 6144}}, "VF BAR0 size 0x1800"),
        ({"total_vfs": 1, "vf_bars": {0: 5 * 4096}}, "VF BAR0 size 0x5000"),
        ({"total_vfs": 1, "vf_bars": {0: 2048}}, "VF BAR0 size 0x800"),
    ],
)
def test_impossible_capabilities_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sriov(**{"vf_device_id": 0xE212, "vf_bars": {0: 4096}, **arguments})


def test_functions_that_cannot_be_a_pfs_vfs_are_refused(
    make_pf: Callable[..., Function], make_vf: Callable[..., Function]
) -> None:
    sriov = make_pf(2).sriov
    assert sriov is not None
    sriov.attach(make_vf(1))
    with pytest.raises(ValueError, match="VF 1 is vf1 already"):
        sriov.attach(make_vf(1))
    with pytest.raises(ValueError, match="not a VF of 1 to 2"):
        sriov.attach(make_vf(3))
    with pytest.raises(ValueError, match="not a VF"):
        sriov.attach(make_pf())
    other = Sriov(2, 0xE212, {0: 1 << 24})
    with pytest.raises(ValueError, match="differ from the PF's VF BARs"):
        other.attach(make_vf(2))
