"""Functions: what PFs and VFs answer, resets, power states, clients that come and go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Msi, PowerManagement
from vfio_user_xe.emulator.pci.express import PciExpress
from vfio_user_xe.emulator.pci.function import D3HOT, FLR, RESET, Function, Identity
from vfio_user_xe.emulator.pci.sriov import Sriov

IDENTITY = Identity(0x8086, 0xE212, 0x8086, 0x1100, 0x030000, 3)
Make = Callable[..., Function]


def reasons(function: Function) -> list[str]:
    seen: list[str] = []
    function.on_reset.append(seen.append)
    return seen


def settle(executor: Executor) -> None:
    executor.run_sync(lambda: None, 10)


def test_a_pf_tells_who_it_is(make_pf: Make) -> None:
    config = make_pf().config
    assert config.read(0x00, 4) == 0xE2128086
    assert config.read(0x08, 4) == 0x03000001
    assert config.read(0x2C, 4) == 0x11008086
    assert config.read(0x0E, 1) == 0
    assert config.read(0x3D, 1) == 0


def test_a_vf_has_no_ids_but_the_class_and_subsystem_of_its_pf(make_vf: Make) -> None:
    vf = make_vf(1)
    assert vf.config.read(0x00, 4) == 0xFFFFFFFF
    assert vf.config.read_block(0, 4096)[:4] == b"\xff\xff\xff\xff"
    assert vf.config.read(0x08, 4) == 0x03000001
    assert vf.config.read(0x2C, 2) == 0x8086
    assert vf.config.read(0x2E, 2) == 0x1100


def test_read_only_registers_stay_what_they_are(make_pf: Make) -> None:
    config = make_pf().config
    before = config.read_block(0, 4096)
    for offset in (0x00, 0x08, 0x2C, 0x30, 0x34, 0x100, 0x104, 0x110, 0x320, 0x32C):
        config.write(offset, 4, 0xFFFFFFFF)
    assert config.read_block(0, 4096) == before


def test_a_pf_reports_bus_master_from_reset_and_as_written_afterwards(make_pf: Make) -> None:
    config = make_pf().config
    assert config.read(4, 2) == 4
    config.write(4, 2, 2)
    assert config.read(4, 2) == 2


def test_a_plain_device_is_no_bus_master_at_reset(executor: Executor) -> None:
    function = Function("edu", 0, executor=executor, identity=IDENTITY, capabilities=[Msi()], bars={})
    assert function.config.read(4, 2) == 0
    assert [region is not None for region in function.regions] == [False] * 7 + [True, False]


def test_vf_command_keeps_memory_and_master_as_written_and_nothing_else(make_vf: Make) -> None:
    config = make_vf(1).config
    assert config.read(4, 2) == 0
    config.write(4, 2, 0xFFFF)
    assert config.read(4, 2) == 6
    config.write(4, 2, 4)
    assert config.read(4, 2) == 4


def test_vf_function_level_reset_clears_master_but_not_memory(make_vf: Make) -> None:
    config = make_vf(1).config
    config.write(4, 2, 6)
    config.write(0x78, 2, 0x8000)
    assert config.read(4, 2) == 2


def test_bar_registers_read_their_type_bits_from_the_start(make_pf: Make, make_vf: Make) -> None:
    assert [make_pf().config.read(offset, 4) for offset in (0x10, 0x18, 0x20)] == [4, 0xC, 0]
    assert [make_vf(1).config.read(offset, 4) for offset in (0x10, 0x18, 0x20)] == [0xC, 0xC, 0]


def test_regions_have_the_sizes_of_the_bars_and_configuration_space_is_region_7(make_pf: Make) -> None:
    function = make_pf()
    sizes = [region.size if region else 0 for region in function.regions]
    assert sizes == [1 << 24, 0, 1 << 28, 0, 0, 0, 0, 4096, 0]
    region = function.regions[7]
    assert region is not None
    assert region.handler is function.config


def test_function_level_reset_resets_registers_at_once_and_the_model_on_the_executor(
    make_pf: Make, executor: Executor
) -> None:
    pf = make_pf()
    seen = reasons(pf)
    config = pf.config
    config.write(0x04, 2, 0x0006)
    config.write(0x18, 4, 0xD0000000)
    config.write(0xAE, 2, 1)
    config.write(0x78, 2, config.read(0x78, 2) | 0x8000)
    assert config.read(0x04, 2) == 4
    assert config.read(0x18, 4) == 0xC
    assert config.read(0xAE, 2) & 1 == 0
    assert config.read(0x78, 2) & 0x8000 == 0
    settle(executor)
    assert seen == [FLR]


def test_a_byte_write_of_the_upper_half_of_device_control_initiates_flr_too(make_pf: Make, executor: Executor) -> None:
    pf = make_pf()
    seen = reasons(pf)
    pf.config.write(0x79, 1, 0x80)
    settle(executor)
    assert seen == [FLR]


def test_machine_reset_resets_everything(make_vf: Make, executor: Executor) -> None:
    vf = make_vf(1)
    seen = reasons(vf)
    vf.config.write(4, 2, 6)
    vf.reset()
    assert vf.config.read(4, 2) == 0
    settle(executor)
    assert seen == [RESET]


def test_callbacks_run_on_the_executor_only(make_pf: Make, executor: Executor) -> None:
    pf = make_pf()
    on_executor: list[bool] = []
    pf.on_reset.append(lambda reason: on_executor.append(executor.is_current()))
    pf.on_power.append(lambda old, new: on_executor.append(executor.is_current()))
    pf.config.write(0x78, 2, 0x8000)
    pf.config.write(0xD4, 2, 3)
    settle(executor)
    assert on_executor == [True, True]


def test_d3hot_and_back_is_told_and_keeps_state(make_pf: Make, executor: Executor) -> None:
    pf = make_pf()
    seen = reasons(pf)
    power: list[tuple[int, int]] = []
    pf.on_power.append(lambda old, new: power.append((old, new)))
    pf.config.write(4, 2, 6)
    pf.config.write(0xD4, 2, 3)
    pf.config.write(0xD4, 2, 3)
    pf.config.write(0xD4, 2, 0)
    settle(executor)
    assert power == [(0, 3), (3, 0)]
    assert seen == []
    assert pf.config.read(4, 2) == 6


def test_leaving_d3hot_resets_a_function_that_keeps_no_state(executor: Executor) -> None:
    function = Function(
        "dev",
        0,
        executor=executor,
        identity=IDENTITY,
        capabilities=[PciExpress(0x70), PowerManagement(0xD0, no_soft_reset=False)],
        bars={},
    )
    seen = reasons(function)
    function.config.write(4, 2, 6)
    function.config.write(0xD4, 2, 3)
    assert function.config.read(4, 2) == 6
    function.config.write(0xD4, 2, 0)
    assert function.config.read(4, 2) == 0
    settle(executor)
    assert seen == [D3HOT]
    assert function.power_state == 0


def test_reset_wakes_a_function_from_d3hot(make_pf: Make) -> None:
    pf = make_pf()
    pf.config.write(0xD4, 2, 3)
    pf.reset()
    assert pf.power_state == 0
    assert pf.config.read(0xD4, 2) & 3 == 0


def test_the_first_client_finds_the_function_as_built_and_the_next_one_finds_it_reset(
    make_pf: Make, executor: Executor, new_transport: type
) -> None:
    pf = make_pf()
    seen = reasons(pf)
    events: list[str] = []
    pf.on_attached.append(lambda: events.append("attached"))
    pf.on_detached.append(lambda: events.append("detached"))
    first = new_transport()
    pf.attached(first)
    assert pf.transport is first
    pf.config.write(4, 2, 6)
    pf.detached()
    assert pf.transport is None
    settle(executor)
    assert seen == []
    assert pf.config.read(4, 2) == 6
    pf.attached(new_transport())
    assert pf.config.read(4, 2) == 4
    settle(executor)
    assert seen == [RESET]
    assert events == ["attached", "detached", "attached"]


def test_unmapped_memory_is_told_on_the_callers_thread(make_pf: Make) -> None:
    pf = make_pf()
    seen: list[tuple[int, int]] = []
    pf.on_unmapped.append(lambda address, length: seen.append((address, length)))
    pf.drop_windows(0x1000, 0x2000)
    assert seen == [(0x1000, 0x2000)]


def test_a_vf_with_an_sriov_capability_is_refused(make_pf: Make) -> None:
    with pytest.raises(ValueError, match="a VF cannot"):
        make_pf(is_vf=True)


def test_impossible_bars_are_refused_when_the_function_is_built(make_pf: Make) -> None:
    with pytest.raises(ValueError, match="pf: BAR0: size"):
        make_pf(bars={0: Bar(100)})


def test_the_function_dependency_of_sriov_on_pci_express_is_checked(make_pf: Make) -> None:
    with pytest.raises(ValueError, match="PciExpress"):
        make_pf(capabilities=[Msi()], sriov=Sriov(1, 0xE212, {0: 1 << 24}, offset=0x320))
