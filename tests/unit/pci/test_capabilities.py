"""Capabilities: how they are laid out and linked, and the ones with registers that do something."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import (
    Ari,
    DeviceSerialNumber,
    ExtendedVendorSpecific,
    Msi,
    MsiX,
    PowerManagement,
    ResizableBar,
    VendorSpecific,
)
from vfio_user_xe.emulator.pci.capability import Capability
from vfio_user_xe.emulator.pci.config_space import ConfigSpace
from vfio_user_xe.emulator.pci.express import ASPM_L0S, ASPM_L1, LatencyTolerance, PciExpress
from vfio_user_xe.emulator.pci.function import Function, Identity
from vfio_user_xe.emulator.pci.sriov import Sriov


class Zeros:
    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        pass


def build(*capabilities: Capability, bars: dict[int, Bar] | None = None, sriov: Sriov | None = None) -> Function:
    """A function whose executor never runs: nothing here needs it."""
    return Function(
        "pf",
        0,
        executor=Executor("never started"),
        identity=Identity(0x8086, 0xE212),
        capabilities=capabilities,
        bars=bars or {},
        sriov=sriov,
    )


def chain(config: ConfigSpace) -> list[tuple[int, int]]:
    """(id, offset) as a guest walks them."""
    found, offset = [], config.read(0x34, 1)
    while offset:
        found.append((config.read(offset, 1), offset))
        offset = config.read(offset + 1, 1)
    return found


def extended_chain(config: ConfigSpace) -> list[tuple[int, int]]:
    found, offset = [], 0x100 if config.read(0x100, 4) else 0
    while offset:
        header = config.read(offset, 4)
        found.append((header & 0xFFFF, offset))
        offset = header >> 20
    return found


def test_given_offsets_are_kept_and_the_rest_goes_into_free_places() -> None:
    function = build(PciExpress(), PowerManagement(0xD0), Msi(offset=0x50), VendorSpecific(b"ab"))
    assert chain(function.config) == [(0x09, 0x40), (0x05, 0x50), (0x10, 0x60), (0x01, 0xD0)]
    assert function.config.read(0x06, 2) & 0x10


def test_a_function_without_capabilities_says_so() -> None:
    function = build()
    assert function.config.read(0x34, 1) == 0
    assert not function.config.read(0x06, 2) & 0x10


def test_hidden_capabilities_never_come_to_lie_at_0x100() -> None:
    function = build(PciExpress(), Ari(), DeviceSerialNumber(5), sriov=Sriov(2, 0xE212, {0: 1 << 24}))
    assert [number for number, _ in extended_chain(function.config)] == [0x03, 0x0E, 0x10]
    assert extended_chain(function.config)[0] == (0x03, 0x100)


@pytest.mark.parametrize(
    "capability",
    [Ari(0x100), Ari(), Sriov(2, 0xE212, {0: 1 << 24}, offset=0x100), ExtendedVendorSpecific(1, b"", 0x200)],
)
def test_an_extended_chain_that_cannot_begin_at_0x100_is_refused(capability: Capability) -> None:
    with pytest.raises(ValueError, match="0x100"):
        build(PciExpress(), capability)


def test_overlap_is_refused_naming_both_capabilities() -> None:
    with pytest.raises(ValueError, match=r"PCIe at \[0x80, 0xbc\) overlaps MSI at \[0xa0, 0xb0\)"):
        build(Msi(offset=0xA0), PciExpress(0x80))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"VNDR .* does not fit below 0x100"):
        build(PciExpress(0x40), VendorSpecific(bytes(200)))


@pytest.mark.parametrize("offset", [0x3C, 0x41, 0x100])
def test_offsets_where_no_capability_can_be_are_refused(offset: int) -> None:
    with pytest.raises(ValueError, match="PM: offset"):
        PowerManagement(offset)


def test_the_same_capability_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="MSI is there twice"):
        build(Msi(), Msi())


def test_extended_capabilities_need_pci_express() -> None:
    with pytest.raises(ValueError, match="need a PciExpress"):
        build(DeviceSerialNumber(1))


@settings(deadline=None)
@given(st.permutations(["pm", "pcie", "msi", "vndr", "dsn", "ari", "vsec", "sriov"]))
def test_every_order_of_declaration_gives_the_same_capabilities_linked_by_rising_offset(order: list[str]) -> None:
    make: dict[str, Callable[[], Capability]] = {
        "pm": PowerManagement,
        "pcie": PciExpress,
        "msi": lambda: Msi(2),
        "vndr": lambda: VendorSpecific(b"\x01\x02\x03"),
        "dsn": lambda: DeviceSerialNumber(1),
        "ari": Ari,
        "vsec": lambda: ExtendedVendorSpecific(0x20, bytes(5)),
        "sriov": lambda: Sriov(7, 0xE212, {0: 1 << 24, 2: 1 << 28}),
    }
    function = build(*[make[name]() for name in order])
    for walk, ids in ((chain, {0x01, 0x05, 0x09, 0x10}), (extended_chain, {0x03, 0x0B, 0x0E, 0x10})):
        found = walk(function.config)
        assert {number for number, _ in found} == ids
        assert [offset for _, offset in found] == sorted(offset for _, offset in found)
        assert all(offset % 4 == 0 for _, offset in found)


def test_the_whole_space_read_at_once_shows_ari_and_sriov_as_vendor_specific_and_nothing_else_changed() -> None:
    function = build(
        PciExpress(), DeviceSerialNumber(1, 0x100), Ari(0x110), sriov=Sriov(7, 0xE212, {0: 1 << 24}, offset=0x320)
    )
    config = function.config
    whole = bytearray(config.read_block(0, 4096))
    assert [int.from_bytes(whole[at : at + 2], "little") for at in (0x100, 0x110, 0x320)] == [0x03, 0x0B, 0x0B]
    assert [config.read(at, 2) for at in (0x100, 0x110, 0x320)] == [0x03, 0x0E, 0x10]
    for at in (0x110, 0x320):
        whole[at : at + 2] = config.read(at, 2).to_bytes(2, "little")
    assert bytes(whole) == b"".join(config.read(at, 4).to_bytes(4, "little") for at in range(0, 4096, 4))


def test_pmcsr_lies_four_bytes_into_the_capability() -> None:
    function = build(PowerManagement(0xD0))
    assert function.config.read(0xD4, 2) == 0x0008
    function.config.write(0xD4, 2, 0x0003)
    assert function.config.read(0xD4, 2) == 0x000B
    assert function.power_state == 3


@pytest.mark.parametrize("state", [1, 2])
def test_power_states_that_are_not_offered_are_not_taken(state: int) -> None:
    function = build(PowerManagement(0xD0))
    function.config.write(0xD4, 2, state)
    assert function.config.read(0xD4, 2) & 3 == 0
    function.config.write(0xD4, 2, 3)
    function.config.write(0xD4, 2, state)
    assert function.config.read(0xD4, 2) & 3 == 3
    assert function.power_state == 3


def test_pme_status_is_cleared_by_one_and_enable_survives_a_function_level_reset() -> None:
    function = build(PciExpress(0x70), PowerManagement(0xD0, pme_support=0x9))
    function.config.poke(0xD4, 2, 0x8008)
    function.config.write(0xD4, 2, 0x0100)
    assert function.config.read(0xD4, 2) == 0x8108
    function.function_level_reset()
    assert function.config.read(0xD4, 2) == 0x8108
    function.config.write(0xD4, 2, 0x8000)
    assert not function.config.read(0xD4, 2) & 0x8000


@pytest.mark.parametrize(("vectors", "control"), [(1, 0x80), (4, 0x84), (32, 0x8A)])
def test_msi_tells_its_vectors_and_takes_what_the_guest_writes(vectors: int, control: int) -> None:
    config = build(Msi(vectors, 0xAC)).config
    assert config.read(0xAE, 2) == control
    config.write(0xAE, 2, 0xFFFF)
    assert config.read(0xAE, 2) == control | 0x71
    config.write(0xB0, 4, 0xFEE00013)
    assert config.read(0xB0, 4) == 0xFEE00010
    config.write(0xB4, 4, 0x12345678)
    assert config.read(0xB4, 4) == 0x12345678


@pytest.mark.parametrize("vectors", [0, 3, 64])
def test_msi_vectors_that_are_no_power_of_two_up_to_32_are_refused(vectors: int) -> None:
    with pytest.raises(ValueError, match="MSI"):
        Msi(vectors)


def test_msi_with_mask_bits_has_a_mask_for_each_vector() -> None:
    config = build(Msi(4, 0x50, maskable=True)).config
    assert config.read(0x52, 2) & 0x100
    config.write(0x60, 4, 0xFFFFFFFF)
    assert config.read(0x60, 4) == 0xF


def test_msix_tells_where_table_and_pba_are() -> None:
    config = build(MsiX(20, 0, 0x2000, 0x3000, offset=0x60), bars={0: Bar(0x4000, Zeros())}).config
    assert (config.read(0x62, 2), config.read(0x64, 4), config.read(0x68, 4)) == (19, 0x2000, 0x3000)
    config.write(0x62, 2, 0xFFFF)
    assert config.read(0x62, 2) == 0xC013


def test_flr_is_offered_and_initiate_flr_always_reads_zero() -> None:
    config = build(PciExpress(0x70)).config
    assert config.read(0x74, 4) >> 28 & 1
    config.write(0x78, 2, 0xA810)
    assert not config.read(0x78, 2) & 0x8000


def test_initiate_flr_does_nothing_in_a_function_that_does_not_offer_it() -> None:
    config = build(PciExpress(0x70, flr=False)).config
    assert not config.read(0x74, 4) >> 28 & 1
    config.write(0x04, 2, 6)
    config.write(0x78, 2, 0x8000)
    assert config.read(0x04, 2) == 6


def test_what_a_link_does_not_have_is_not_announced_and_not_writable() -> None:
    plain = build(PciExpress(0x70)).config
    rich = build(PciExpress(0x70, ltr=True, tags_10_bit=True, any_latency=True, completion_timeouts=0)).config
    assert (plain.read(0x94, 4), rich.read(0x94, 4)) == (0x1F, 0x30810)
    assert (plain.read(0x74, 4) >> 6 & 0x3F, rich.read(0x74, 4) >> 6 & 0x3F) == (0, 0x3F)
    for config, enabled in ((plain, 0), (rich, 0x400)):
        config.write(0x98, 2, 0x400)
        assert config.read(0x98, 2) == enabled


@pytest.mark.parametrize(
    ("aspm", "optional", "shown"), [(ASPM_L1, False, 2), (ASPM_L0S | ASPM_L1, True, 0x1003), (0, 0, 0)]
)
def test_a_link_shows_its_power_states(aspm: int, optional: bool, shown: int) -> None:
    config = build(PciExpress(0x70, aspm=aspm, aspm_optional=optional, link_speed=1, link_width=1)).config
    assert config.read(0x7C, 4) == 0x11 | shown << 10
    assert config.read(0x82, 2) == 0x11


def test_latencies_that_are_tolerated_are_kept_by_value_and_scale() -> None:
    config = build(PciExpress(), DeviceSerialNumber(1), LatencyTolerance(0x400)).config
    config.write(0x404, 4, 0xFFFF_1003)
    assert config.read(0x404, 4) == 0x1FFF_1003


def test_vendor_specific_payload_is_readable_and_writable_where_declared() -> None:
    config = build(VendorSpecific(b"\x11\x22", 0x40, writable=b"\x00\x0f")).config
    assert (config.read(0x42, 1), config.read(0x43, 2)) == (5, 0x2211)
    config.write(0x43, 2, 0xFFFF)
    assert config.read(0x43, 2) == 0x2F11


def test_extended_vendor_specific_header_tells_id_revision_and_length() -> None:
    config = build(PciExpress(), ExtendedVendorSpecific(0xBEEF, bytes(24), revision=2)).config
    assert config.read(0x104, 4) == 0xBEEF | 2 << 16 | 32 << 20


def test_serial_number_is_told() -> None:
    config = build(PciExpress(), DeviceSerialNumber(0x1122334455667788)).config
    assert (config.read(0x104, 4), config.read(0x108, 4)) == (0x55667788, 0x11223344)


def test_resizable_bar_takes_a_size_it_offers_and_answers_sizing_with_it() -> None:
    taken: list[int] = []
    rebar = ResizableBar(2, [1 << 28, 1 << 30, 1 << 34], on_resize=taken.append)
    function = build(PciExpress(), DeviceSerialNumber(1), rebar, bars={2: Bar(1 << 28, Zeros(), prefetchable=True)})
    config, at = function.config, rebar.offset
    assert config.read(at + 4, 4) == (1 << 28 | 1 << 30 | 1 << 34) >> 16
    assert config.read(at + 8, 4) == 2 | 1 << 5 | 8 << 8
    config.write(at + 8, 4, 10 << 8)
    assert config.read(at + 8, 4) == 2 | 1 << 5 | 10 << 8
    assert taken == [1 << 30]
    config.write(0x18, 4, 0xFFFFFFFF)
    assert config.read(0x18, 4) == 0xC000000C
    function.reset()
    config.write(0x18, 4, 0xFFFFFFFF)
    assert config.read(0x18, 4) == 0xF000000C


def test_resizable_bar_ignores_a_size_it_does_not_offer() -> None:
    rebar = ResizableBar(2, [1 << 28, 1 << 30])
    function = build(PciExpress(), DeviceSerialNumber(1), rebar, bars={2: Bar(1 << 28, Zeros())})
    function.config.write(rebar.offset + 8, 4, 9 << 8)
    assert function.config.read(rebar.offset + 8, 4) >> 8 & 0x3F == 8


@pytest.mark.parametrize("bars", [{}, {2: Bar(1 << 20, Zeros())}])
def test_resizable_bar_of_a_bar_that_has_none_of_its_sizes_is_refused(bars: dict[int, Bar]) -> None:
    with pytest.raises(ValueError, match="ReBAR"):
        build(PciExpress(), DeviceSerialNumber(1), ResizableBar(2, [1 << 28]), bars=bars)
