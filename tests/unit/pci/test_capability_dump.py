"""What the command `capabilities` shows of configuration space."""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.emulator.pci.capability_dump import dump
from vfio_user_xe.emulator.pci.function import Function


def test_both_chains_are_shown_in_order(make_pf: Callable[..., Function]) -> None:
    shown = [(entry["offset"], entry["id"], entry["name"]) for entry in dump(make_pf())]
    assert shown == [
        (0x70, 0x10, "PCIe"),
        (0xAC, 0x05, "MSI"),
        (0xD0, 0x01, "PM"),
        (0x100, 0x0003, "DSN"),
        (0x110, 0x000E, "ARI"),
        (0x320, 0x0010, "SR-IOV"),
    ]


def test_registers_have_the_values_that_they_have_now(make_pf: Callable[..., Function]) -> None:
    pf = make_pf(vfs=7)
    pf.config.write(0x320 + 0x10, 2, 3)
    pf.config.write(0xAC + 4, 4, 0xFEE00000)
    by_name = {entry["name"]: entry["registers"] for entry in dump(pf)}
    assert (by_name["SR-IOV"]["total_vfs"], by_name["SR-IOV"]["num_vfs"]) == (7, 3)
    assert by_name["MSI"]["address"] == 0xFEE00000


def test_a_header_that_nobody_declared_is_shown_without_a_name(make_pf: Callable[..., Function]) -> None:
    pf = make_pf()
    pf.config.poke(0xD0 + 1, 1, 0xE0)
    pf.config.poke(0xE0, 2, 0x0009)
    assert dump(pf)[3] == {"offset": 0xE0, "id": 0x09}


def test_a_chain_that_is_a_loop_ends(make_pf: Callable[..., Function]) -> None:
    pf = make_pf()
    pf.config.poke(0xD0 + 1, 1, 0x70)
    assert [entry["offset"] for entry in dump(pf)][:4] == [0x70, 0xAC, 0xD0, 0x100]
