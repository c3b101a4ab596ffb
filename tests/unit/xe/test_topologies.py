"""What each topology puts behind sockets, how it looks, and which QEMU gets what."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.xe.bench import Bench
from tests.support.xe.guc_driver import GucDriver
from tests.support.xe.provisioning import PROVISIONED, configure, enable_vfs
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.guest.qemu_arguments import (
    ROOT_BUS,
    CardDescription,
    cards_arguments,
    device_properties,
    needs_iommu,
)
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport

_SRIOV = 0x320


def described(bench: Bench, folder: str = "/s") -> CardDescription:
    sockets = {function.name: f"{folder}/{function.name}.sock" for function in bench.card.served}
    return CardDescription.of(bench.card, sockets, qtest=None, control=None)


def attached(arguments: list[str]) -> dict[str, str]:
    """Sockets by PCI address, of the devices in QEMU arguments."""
    devices = [json.loads(word) for word in arguments if word.startswith("{")]
    return {f"{device['bus']}/{device['addr']}": device["socket"]["path"] for device in devices}


def test_in_the_same_guest_all_functions_are_attached_together(make_bench: Callable[..., Bench]) -> None:
    card = described(make_bench(vfs=2))
    assert attached(cards_arguments([card])) == {
        "vfuport/0.0": "/s/pf.sock",
        "vfuport/0.1": "/s/vf1.sock",
        "vfuport/0.2": "/s/vf2.sock",
    }


def test_switches_lie_between_the_root_port_and_the_functions(make_bench: Callable[..., Bench]) -> None:
    card = described(make_bench(vfs=1))
    for chassis in (1, 255):
        arguments = cards_arguments([card, card], switches=2, chassis=chassis)
        bridges = [
            dict(part.partition("=")[::2] for part in word.split(","))
            for word in arguments
            if word.startswith(("pcie-", "x"))
        ]
        assert [(bridge["id"], bridge.get("bus")) for bridge in bridges[:5]] == [
            ("vfuport-root", None),
            ("vfuport-up1", "vfuport-root"),
            ("vfuport-down1", "vfuport-up1"),
            ("vfuport-up2", "vfuport-down1"),
            ("vfuport", "vfuport-up2"),
        ]
        slots = [(bridge["chassis"], bridge["slot"]) for bridge in bridges if "slot" in bridge]
        assert len(set(slots)) == len(slots) == 6
        assert all(int(slot) < 256 for _, slot in slots[:3])
        assert attached(arguments)["vfuport/0.1"] == "/s/vf1.sock"
        assert attached(arguments)["vfuport2/0.0"] == "/s/pf.sock"
        plugged = device_properties(card)
        assert {device["bus"] for device in plugged} == {"vfuport"}


def test_split_gives_placeholders_to_the_pf_s_guest_and_vfs_to_others(make_bench: Callable[..., Bench]) -> None:
    card = described(make_bench(vfs=2, topology="split"))
    assert attached(cards_arguments([card])) == {
        "vfuport/0.0": "/s/pf.sock",
        "vfuport/0.1": "/s/vf1-placeholder.sock",
        "vfuport/0.2": "/s/vf2-placeholder.sock",
    }
    assert attached(cards_arguments([card], functions=["vf2"])) == {"vfuport/0.0": "/s/vf2.sock"}
    assert attached(cards_arguments([card], functions=["vf1", "vf2"])) == {
        "vfuport/0.0": "/s/vf1.sock",
        "vfuport/0.1": "/s/vf2.sock",
    }


def test_passthrough_gives_vfs_to_the_pf_s_guest_and_the_same_vfs_to_others(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(vfs=2, topology="passthrough")
    card = described(bench)
    assert attached(cards_arguments([card])) == {
        "vfuport/0.0": "/s/pf.sock",
        "vfuport/0.1": "/s/vf1-host.sock",
        "vfuport/0.2": "/s/vf2-host.sock",
    }
    assert attached(cards_arguments([card], functions=["vf2"])) == {"vfuport/0.0": "/s/vf2.sock"}
    host, vf = bench.card.served[1], bench.card.function("vf1")
    assert host.config.read(0, 4) == 0xFFFFFFFF, "to the PF's guest it is a VF"
    assert vf.config.read(0, 4) == 0xE2128086
    assert host.regions[2] is not None
    assert vf.regions[2] is not None
    assert host.regions[2].memory is vf.regions[2].memory, "one VRAM"


def test_the_server_programs_bars_of_the_pf_s_guest_alone(make_bench: Callable[..., Bench]) -> None:
    card = CardDescription(**{**vars_of(described(make_bench(vfs=1, topology="passthrough"))), "qtest": "/s/qtest"})
    assert "-qtest" in cards_arguments([card])
    assert "-qtest" in cards_arguments([card], functions=["pf", "vf1-host"])
    assert "-qtest" not in cards_arguments([card], functions=["vf1"])


def test_vf_only_serves_the_vfs_and_no_pf(make_bench: Callable[..., Bench]) -> None:
    card = described(make_bench(vfs=2, topology="vf-only"))
    assert attached(cards_arguments([card])) == {"vfuport/0.0": "/s/vf1.sock", "vfuport/0.1": "/s/vf2.sock"}


def test_nested_asks_for_a_viommu(make_bench: Callable[..., Bench]) -> None:
    plain, nested = described(make_bench(vfs=2)), described(make_bench(vfs=2, topology="nested"))
    assert not needs_iommu([plain])
    assert needs_iommu([plain, nested])


def test_cards_of_one_machine_have_ports_of_their_own_and_one_qtest_socket(make_bench: Callable[..., Bench]) -> None:
    cards = [described(make_bench(vfs=1), folder) for folder in ("/a", "/b")]
    arguments = cards_arguments([CardDescription(**{**vars_of(card), "qtest": "/a/qtest"}) for card in cards])
    assert attached(arguments) == {
        "vfuport/0.0": "/a/pf.sock",
        "vfuport/0.1": "/a/vf1.sock",
        "vfuport2/0.0": "/b/pf.sock",
        "vfuport2/0.1": "/b/vf1.sock",
    }
    assert arguments.count("-qtest") == 1
    chassis = [word for word in arguments if word.startswith("pcie-root-port")]
    assert [f"chassis={n},slot={n}" in port for n, port in enumerate(chassis, 1)] == [True, True]


def test_cards_on_the_root_bus_have_no_ports_and_devices_of_their_own(make_bench: Callable[..., Bench]) -> None:
    cards = [described(make_bench(vfs=1), folder) for folder in ("/a", "/b")]
    arguments = cards_arguments(cards, port=ROOT_BUS)
    assert not [word for word in arguments if word.startswith("pcie-root-port")]
    assert attached(arguments) == {
        "pcie.0/5.0": "/a/pf.sock",
        "pcie.0/5.1": "/a/vf1.sock",
        "pcie.0/6.0": "/b/pf.sock",
        "pcie.0/6.1": "/b/vf1.sock",
    }


def test_a_card_that_is_not_plugged_in_leaves_its_port_with_the_window_that_is_asked_for(
    make_bench: Callable[..., Bench],
) -> None:
    card = described(make_bench(vfs=2))
    arguments = cards_arguments([card], unplugged=True, window=8 << 30)
    assert attached(arguments) == {}
    assert [word for word in arguments if word.endswith(f"pref64-reserve={8 << 30}")]
    plugged = device_properties(card)
    assert [device["addr"] for device in plugged] == ["0.0", "0.1", "0.2"]
    assert [device.get("multifunction", False) for device in plugged] == [True, False, False]
    assert {device["bus"] for device in plugged} == {"vfuport"}


def vars_of(card: CardDescription) -> dict[str, Any]:
    return {name: getattr(card, name) for name in CardDescription.__dataclass_fields__}


@pytest.mark.parametrize("topology", ["split", "vf-only"])
def test_a_vf_in_a_guest_of_its_own_looks_like_a_device_of_its_own(
    make_bench: Callable[..., Bench], topology: str
) -> None:
    vf = make_bench(vfs=1, topology=topology).gpu.functions[1].pci
    assert vf.config.read(0, 4) == 0xE2128086
    vf.config.write(COMMAND, 2, 0x6)
    assert vf.config.read(COMMAND, 2) == 0x6
    vf.config.write(COMMAND, 2, 0)
    vf.config.reset(keep_sticky=True)
    assert vf.config.read(COMMAND, 2) == 0
    names = [capability.name for capability in vf.capabilities]
    assert "ARI" not in names


def test_a_placeholder_has_the_vf_s_ids_and_no_bar_and_no_driver_looks_for_its_class(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(vfs=1, topology="split")
    placeholder = bench.card.served[1]
    assert placeholder.name == "vf1-placeholder"
    assert placeholder.config.read(0, 4) == 0xFFFFFFFF, "a VF has no ids of its own"
    assert placeholder.config.read(0x08, 4) >> 8 == 0xFF0000
    assert not placeholder.bars


def test_enabling_vfs_that_are_elsewhere_programs_no_bars(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(vfs=1, topology="split")
    enable_vfs(bench, 1)
    assert bench.pf.pci.sriov.programming.wait(60).state == "idle"
    assert bench.gpu.gts[0].guc.hosts[1].present


def split_driver(bench: Bench) -> GucDriver:
    """The PF's driver of a split card whose VF is provisioned and enabled."""
    bench.map_ggtt(0x1000000, 1 << 20, 1 << 20)
    driver = GucDriver(bench)
    driver.boot()
    driver.start_ct()
    configure(driver, 1, PROVISIONED)
    enable_vfs(bench, 1)
    driver.received()
    return driver


@pytest.mark.parametrize("how", ["flr", "guest reset", "placeholder"])
def test_a_reset_of_the_vf_or_of_its_guest_is_an_flr_for_the_pf_s_driver(
    make_bench: Callable[..., Bench], how: str
) -> None:
    bench = make_bench(vfs=1, topology="split")
    driver = split_driver(bench)
    vf = bench.gpu.functions[1].pci
    {
        "flr": vf.function_level_reset,
        "guest reset": vf.reset,
        "placeholder": bench.card.served[1].function_level_reset,
    }[how]()
    bench.settle()
    assert driver.events() == [(0x90005106, 1, 1)]


def test_a_passed_on_vf_is_reset_for_the_pf_s_driver_by_the_host_alone(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(vfs=1, topology="passthrough")
    driver = split_driver(bench)
    host, vf = bench.card.served[1], bench.card.function("vf1")
    host.attached(FakeTransport())
    host.config.write(COMMAND, 2, 6)
    vf.config.write(COMMAND, 2, 6)
    vf.reset()
    bench.settle()
    assert driver.events() == []
    host.function_level_reset()
    bench.settle()
    assert driver.events() == [(0x90005106, 1, 1)]


def test_trapped_windows_of_a_passed_on_vf_are_closed_with_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(vfs=1, topology="passthrough", vf_vram="trapped", vf_ggtt="trapped")
    split_driver(bench)
    host, vf = bench.card.served[1], bench.card.function("vf1")
    host.attached(FakeTransport())
    registers, vram = vf.regions[0], vf.regions[2]
    assert registers is not None
    assert registers.handler is not None
    assert vram is not None
    assert not registers.areas
    assert not vram.areas, "a client maps nothing that could outlive the VF"
    window = 8 << 20
    assert registers.handler.read(window, 8) == (1 << 64) - 1
    host.config.write(COMMAND, 2, 6)
    assert registers.handler.read(window, 8) != (1 << 64) - 1


def test_dma_of_a_passed_on_vf_is_its_user_s_and_stops_when_the_host_closes_it(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(vfs=1, topology="passthrough")
    split_driver(bench)
    host, vf = bench.card.served[1], bench.card.function("vf1")
    mine, other = FakeTransport(), FakeTransport()
    host.attached(other)
    vf.attached(mine)
    host.config.write(COMMAND, 2, 6)
    vf.config.write(COMMAND, 2, 6)

    def write(data: bytes) -> None:
        bench.card.fabric.write(vf, Space.SYSTEM, 0x1000, data, "system")

    bench.run(lambda: write(b"mine"))
    assert mine.memory[0x1000:0x1004] == b"mine"
    assert not any(other.memory)
    host.config.write(COMMAND, 2, 0)
    with pytest.raises(AccessFault):
        bench.run(lambda: write(b"late"))
    assert mine.memory[0x1000:0x1004] == b"mine"


def test_dma_of_a_vf_elsewhere_is_its_own_guest_s_even_at_addresses_of_the_pf_s_bars(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(vfs=1, topology="split")
    pf, vf = bench.pf.pci, bench.gpu.functions[1].pci
    transports = {function: FakeTransport(size=32 << 20, shared=32 << 20) for function in (pf, vf)}
    for function, transport in transports.items():
        function.attached(transport)
        function.config.write(COMMAND, 2, 6)
    pf.config.write(0x10, 4, 0x1000000)
    bench.settle()

    def write() -> None:
        bench.card.fabric.write(vf, Space.SYSTEM, 0x1244000, b"mine", "system")

    bench.run(write)
    assert {(e.initiator, e.owner, e.interconnect) for e in bench.card.fabric.ledger} == {("vf1", "guest", "host_dma")}
