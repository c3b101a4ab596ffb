"""Register blocks of the PF, accessed as the driver accesses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

PCODE_MAILBOX, PCODE_DATA0, PCODE_DATA1 = 0x138124, 0x138128, 0x13812C


def pcode(bench: Any, command: int, param1: int = 0, param2: int = 0, data0: int = 0, data1: int = 0) -> Any:
    bench.write(PCODE_DATA0, data0)
    bench.write(PCODE_DATA1, data1)
    bench.write(PCODE_MAILBOX, 1 << 31 | param2 << 16 | param1 << 8 | command)
    return bench.read(PCODE_MAILBOX), bench.read(PCODE_DATA0), bench.read(PCODE_DATA1)


def test_pcode_says_that_it_is_initialized(bench: Any) -> None:
    assert pcode(bench, 0x7E) == (0, 1, 0)


def test_pcode_refuses_a_command_it_does_not_know(bench: Any) -> None:
    assert pcode(bench, 0x42)[0] == 1
    assert pcode(bench, 0x7C, 0xEE)[0] == 4


def test_power_limit_that_was_written_is_read_back_until_reset(bench: Any) -> None:
    before = pcode(bench, 0x7C, 8)
    assert pcode(bench, 0x7C, 9, data0=0x8100, data1=0x8200)[0] == 0
    assert pcode(bench, 0x7C, 8) == (0, 0x8100, 0x8200)
    bench.pf.pci.reset()
    bench.settle()
    assert pcode(bench, 0x7C, 8) == before


def test_forcewake_acknowledges_only_what_the_mask_selects(bench: Any) -> None:
    bench.write(0xA188, 0x00000001)
    assert bench.read(0xDFC) == 0
    bench.write(0xA188, 0x00010001)
    assert bench.read(0xDFC) == 1
    bench.write(0xA188, 0x00010000)
    assert bench.read(0xDFC) == 0


def test_steering_semaphore_is_given_to_one_reader_at_a_time(bench: Any) -> None:
    assert [bench.read(0xFD0), bench.read(0xFD0)] == [1, 0]
    bench.write(0xFD0, 1)
    assert bench.read(0xFD0) == 1


def test_wopcm_registers_lock_when_written_and_unlock_with_a_full_reset(bench: Any) -> None:
    bench.write(0xC050, 0x7F3000)
    bench.write(0xC050, 0x123000)
    assert bench.read(0xC050) == 0x7F3001
    bench.write(0x941C, 8)
    assert bench.read(0xC050) == 0x7F3001
    bench.write(0x941C, 1)
    assert bench.read(0xC050) == 0
    assert bench.read(0x941C) == 0


def test_vf_cap_tells_a_vf_that_it_is_one_and_ignores_writes(bench: Any) -> None:
    for vfid, expected in ((0, 0), (1, 1), (2, 1)):
        bench.write(0x1901F8, 0xFFFFFFFE, vfid)
        assert bench.read(0x1901F8, vfid) == expected


def test_barrier_page_reads_deadbeef_and_drops_writes(bench: Any) -> None:
    for offset in (0x7FF000, 0x7FFFFC):
        bench.write(offset, 1)
        assert bench.read(offset) == 0xDEADBEEF
    assert bench.pf.registers.read(0x7FF002, 2) == 0xDEAD
    assert bench.read(0x7FE000) == 0


def test_a_vf_sees_no_register_beyond_its_own(bench: Any) -> None:
    for offset in (0xD8C, 0x138124, 0x190008, 0x9118, 0x3EE034):
        bench.write(offset, 0xFFFFFFFF, 1)
        assert bench.read(offset, 1) == 0


def test_gmd_ids_follow_the_options(make_bench: Callable[..., Any]) -> None:
    assert make_bench(vfs=0).read(0xD8C) == 0x05008004
    assert make_bench(vfs=0).read(0x380D8C) == 0
    other = make_bench(vfs=0, graphics="20.01", media=True)
    assert other.read(0xD8C) == 0x05004004
    assert other.read(0x380D8C) == 0x03404004


@pytest.mark.parametrize(("vram", "flat_ccs"), [(1 << 30, False), (4 << 30, True), (24 << 30, True)])
def test_memory_map_registers_describe_disjoint_areas_in_order(
    make_bench: Callable[..., Any], vram: int, flat_ccs: bool
) -> None:
    bench = make_bench(vfs=0, vram=vram, flat_ccs=flat_ccs)

    def read64(offset: int) -> int:
        return int(bench.read(offset) | bench.read(offset + 4) << 32)

    assert (bench.read(0x1083A0) >> 8 & 0x3FF) << 30 == vram
    gsm, dsm = read64(0x108100), read64(0x1080C0)
    assert gsm % (2 << 20) == 0
    assert gsm + (8 << 20) <= dsm < vram
    nodes = (bench.read(0x9118) >> 16).bit_count()
    ccs = ((bench.read(0x8804) & 0xFF) << 32 | bench.read(0x8800) & 0xFFFFFFC0) * nodes
    assert bench.read(0x8800) & 1 == flat_ccs
    assert bench.gpu.vram.flat_ccs == (ccs or None)
    if flat_ccs:
        assert ccs % (128 << 10) == 0
        assert ccs + vram // 512 <= gsm
    wopcm = 1 << (bench.read(0x1082C0) >> 7 & 7)
    assert dsm + (wopcm << 20) <= vram


def test_the_pat_says_which_pages_compress(make_bench: Callable[..., Any]) -> None:
    bench = make_bench(vfs=0, flat_ccs=True)
    bench.write(0x4848 + 4 * (12 - 8), 0x2C3)
    bench.write(0x4800 + 4 * 3, 0xC3)
    assert bench.gpu.vram.compressing(12)
    assert not bench.gpu.vram.compressing(3)


def test_engine_fuses_follow_the_options(make_bench: Callable[..., Any]) -> None:
    assert make_bench(vfs=0, ccs=0).read(0x9114) >> 16 & 0xF == 0
    assert make_bench(vfs=0, ccs=3).read(0x9114) >> 16 & 0xF == 0b111
    media = make_bench(vfs=0, media=True)
    # Two VCSs and two VECSs, as the B580 and B50 have.
    assert media.read(0x389140) == 0x00030003
    assert media.read(0x9140) == 0


def test_idle_delay_fits_below_the_power_context_count(bench: Any) -> None:
    # xe_hw_engine.c:adjust_idledly raises the delay to 5 us of 640 ns units.
    for base in (0x2000, 0x22000, 0x3EE000, 0x1A000):
        assert (bench.read(base + 0x54) & 0xFFFFF) * 640 > 5000


def test_status_registers_name_their_bits_and_values(bench: Any) -> None:
    registers = bench.pf.registers

    def shown(name: str, value: int) -> dict[str, str | int]:
        found = registers.describe(registers.by_name(name).offset, value)
        return {key: part for key, part in found.items() if key not in ("register", "offset", "value")}

    assert shown("GUC_STATUS", 0x8002F0EC) == {
        "BOOTROM": "JUMP_PASSED", "UKERNEL": "READY", "MIA": "HALT_REQUESTED", "AUTH_STATUS": "GOOD",
    }  # fmt: skip
    assert shown("INTR_IDENTITY_REG(0)", 0x8003_0001) == {"ENGINE_INTR": 1, "ENGINE_CLASS": "COPY", "DATA_VALID": 1}
    assert shown("GT_INTR_DW(0)", 1 << 25 | 1 << 15) == {"GUC": 1, "BCS0": 1}
    assert shown("PCODE_MAILBOX", 0x8000_007E) == {"COMMAND": "DGFX_PCODE_STATUS", "READY": 1}
    assert shown("XE2_LMEM_CFG", 0x8000_1234) == {"LMTT_DIR_PTR": 0x1234, "LMEM_EN": 1}
    assert shown("PAT_INDEX(0)", 0x222) == {"COH_MODE": "1WAY", "L3_POLICY": 2, "COMP_EN": 1}


def test_what_firmware_shows_is_in_terms_of_the_driver(bench: Any) -> None:
    registers = bench.pf.registers

    def fields(name: str) -> dict[str, int]:
        register = registers.by_name(name)
        return register.decode(bench.read(register.offset))

    assert (fields("GMD_ID")["ARCH"], fields("GMD_ID")["RELEASE"]) == (20, 2)
    assert fields("RPM_CONFIG0") == {"CTC_SHIFT_PARAMETER": 3, "CRYSTAL_CLOCK_FREQ": 1}
    assert fields("SG_TILE_ADDR_RANGE(0)") == {"OFFSET": 0, "SIZE": 4}
    assert fields("MIRROR_FUSE3")["NODE_ENABLE"] == 1


def test_rcu_mode_changes_only_what_a_write_selects(bench: Any) -> None:
    bench.write(0x14800, 0x0001_0001)
    bench.write(0x14800, 0x0002_0000)
    assert bench.read(0x14800) == 1
