"""What of a chip a device id stands for, as the driver finds it: fuses and the hwconfig table."""

from __future__ import annotations

import pytest

from tests.support.xe.bench import Bench
from vfio_user_xe.device_models.xe.gt.eu_stall import REPORT, Stall
from vfio_user_xe.device_models.xe.gt.mcr import MCR_SELECTOR
from vfio_user_xe.device_models.xe.guc import hwconfig
from vfio_user_xe.device_models.xe.guc.formats.hwconfig import TABLE
from vfio_user_xe.device_models.xe.profiles.parts import PARTS
from vfio_user_xe.emulator.model.options import CardError
from vfio_user_xe.emulator.model.packaged_cards import load_card, packaged_cards


@pytest.mark.parametrize(
    ("device_id", "cores", "slices", "channels"),
    [(0xE20B, 20, 5, 12), (0xE20C, 18, 5, 10), (0xE212, 16, 4, 8), (0xE222, 20, 5, 16), (0xE223, 32, 8, 16)],
    ids=hex,
)
def test_fuses_and_hwconfig_describe_the_product(device_id: int, cores: int, slices: int, channels: int) -> None:
    described(cores, slices, channels, device_id=device_id)


@pytest.mark.parametrize(("cores", "slices"), [(1, 1), (5, 2), (16, 4)])
def test_xe_cores_can_be_fused_off(cores: int, slices: int) -> None:
    described(cores, slices, 8, device_id=0xE212, xe_cores=cores)


def test_a_card_has_no_more_xe_cores_than_its_product() -> None:
    with pytest.raises(CardError, match=r"xe_cores.* 0xe212 has 16 Xe cores at most"):
        Bench(device_id=0xE212, xe_cores=17)


def described(cores: int, slices: int, channels: int, **options: int) -> None:
    bench = Bench(**options, vfs=0)
    try:
        for fuse in ("XELP_GT_GEOMETRY_DSS_ENABLE", "XEHP_GT_COMPUTE_DSS_ENABLE"):
            assert bench.read(bench.pf.registers.by_name(fuse).offset).bit_count() == cores
        l3 = bench.read(bench.pf.registers.by_name("MIRROR_FUSE3").offset)
        banks = (l3 >> 16).bit_count() * (l3 >> 4 & 0xF).bit_count()
        assert {engine.most_threads for engine in bench.gpu.gts[0].engines.engines} == {cores * 8 * 8}
        told = {entry.key: list(entry.value) for entry in TABLE.parse(hwconfig.table(bench.gpu.profile))}
    finally:
        bench.close()
    assert told[hwconfig.MAX_SLICES_SUPPORTED] == [slices]
    assert told[hwconfig.MAX_SUBSLICE] == [cores]
    assert told[hwconfig.MAX_MEMORY_CHANNELS] == [channels]
    assert told[hwconfig.TOTAL_PS_THREADS] == [cores * 8 * 8]
    # NEO multiplies the banks that it finds in the topology with their size, and calls it the global memory's cache.
    assert told[hwconfig.L3_BANK_SIZE_IN_KB] == [18 * 1024 // banks]


def test_the_largest_part_has_samples_of_each_of_its_xe_cores() -> None:
    bench = Bench(device_id=0xE223, vfs=0)
    try:
        stalls = bench.gpu.gts[0].stalls
        assert stalls is not None
        bench.map_ggtt(0x100000, 32 * 512 << 10, 0x100000)
        bench.write(0xE520, 0x100000 | 1 << 3 | 1 << 1)
        bench.run(lambda: [stalls.keep(core, 0x40, Stall.OTHER, 1) for core in range(32)])
        bench.write(MCR_SELECTOR, 7 << 8 | 3)
        assert bench.read(REPORT) >> 2 == 1
    finally:
        bench.close()


def test_packaged_cards_name_their_parts() -> None:
    for name in packaged_cards():
        assert load_card(name).options["device_id"] in PARTS
    assert {load_card(name).options["vram"] for name in ("b65", "b70")} == {32 << 30}
