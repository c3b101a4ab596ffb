"""What `walk` and `activity` tell of a card."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.xe.bench import Bench
from vfio_user_xe.device_models.xe.soc.lmem_cfg import LMEM_CFG, LMEM_EN
from vfio_user_xe.emulator.control.dispatch import Control
from vfio_user_xe.emulator.control.errors import CommandError

MIB = 1 << 20
ROOT, L3, L2, L1, L0 = (n * MIB for n in range(16, 21))
PRESENT, WRITABLE, COMPACT, LARGE, NULL, VRAM = 1, 1 << 1, 1 << 6, 1 << 7, 1 << 9, 1 << 11
DIRECTORY, TABLE, LEAF = 32 * MIB, 33 * MIB, 34 * MIB


def put(bench: Bench, address: int, value: int, size: int = 8) -> None:
    bench.gpu.vram.memory.view[address : address + size] = value.to_bytes(size, "little")


def walk(bench: Bench, **arguments: Any) -> dict[str, Any]:
    answer: dict[str, Any] = Control(bench.card).call("walk", arguments)
    return answer


def meanings(answer: dict[str, Any]) -> list[tuple[str, int, int, str]]:
    return [(step["table"], step["level"], step["index"], step["meaning"]) for step in answer["steps"]]


@pytest.fixture
def tables(bench: Bench) -> Bench:
    """A PPGTT that maps 4 KiB at 0x1000, 2 MiB at 2 MiB, 64 KiB pages at 4 MiB."""
    put(bench, ROOT, L3 | PRESENT | WRITABLE)
    put(bench, L3, L2 | PRESENT | WRITABLE)
    put(bench, L2, L1 | PRESENT | WRITABLE)
    put(bench, L1, L0 | PRESENT | WRITABLE)
    put(bench, L1 + 8, 64 * MIB | PRESENT | WRITABLE | LARGE | VRAM)
    put(bench, L1 + 16, (L0 + 0x1000) | PRESENT | COMPACT)
    put(bench, L0 + 8, 0x5000 | PRESENT)
    put(bench, L0 + 16, PRESENT | NULL)
    put(bench, L0 + 0x1000 + 3 * 8, (80 * MIB) | PRESENT | WRITABLE | VRAM)
    return bench


@pytest.fixture
def lmtt(bench: Bench) -> Bench:
    """VF 1 has 2 MiB of VRAM at GDPA 0, which is DPA 128 MiB."""
    put(bench, DIRECTORY + 8, TABLE >> 12 | 1)
    put(bench, TABLE, LEAF >> 12 | 1)
    put(bench, LEAF, (128 * MIB) >> 16 | 1, 4)
    bench.write(LMEM_CFG, DIRECTORY >> 16 | LMEM_EN)
    bench.settle()
    return bench


def test_a_ggtt_address_is_walked_to_its_byte_and_owner(bench: Bench) -> None:
    bench.map_ggtt(0x200_0000, 0x1000, 48 * MIB)
    answer = walk(bench, function="pf", address="0x2000010")
    assert meanings(answer) == [("GGTT", 0, 0x2000, "4 KiB in VRAM at 0x3000000")]
    assert answer["steps"][0]["at"] == f"pf BAR0+{8 * MIB + 8 * 0x2000:#x}"
    assert answer["target"] == {"space": "device", "address": 48 * MIB + 0x10, "owner": "pf"}
    assert answer["fault"] is None


def test_a_ggtt_entry_of_a_vf_is_shown_and_faults_for_the_pf(bench: Bench) -> None:
    bench.pf.ggtt.entries[5] = 0x7000 | 2 << 2 | 1
    answer = walk(bench, function="pf", address=0x5000)
    assert meanings(answer) == [("GGTT", 0, 5, "4 KiB in system memory at 0x7000, of VF 2")]
    assert answer["target"] is None
    assert "belongs to VF 2" in answer["fault"]


def test_every_level_of_a_ppgtt_is_shown(tables: Bench) -> None:
    answer = walk(tables, function="pf", space="ppgtt", root=ROOT, address=0x1234)
    assert meanings(answer) == [
        ("PPGTT", 4, 0, f"table at {L3:#x}"),
        ("PPGTT", 3, 0, f"table at {L2:#x}"),
        ("PPGTT", 2, 0, f"table at {L1:#x}"),
        ("PPGTT", 1, 0, f"table at {L0:#x}"),
        ("PPGTT", 0, 1, "4 KiB in system memory at 0x5000, read-only"),
    ]
    assert answer["steps"][4]["at"] == f"pf device {L0 + 8:#x}"
    assert answer["target"] == {"space": "system", "address": 0x5234, "owner": ""}


def test_large_and_64k_pages_and_null_are_told_apart(tables: Bench) -> None:
    large = walk(tables, function="pf", space="ppgtt", root=ROOT, address=2 * MIB + 0x345)
    assert meanings(large)[-1] == ("PPGTT", 1, 1, f"2 MiB in VRAM at {64 * MIB:#x}")
    assert large["target"]["address"] == 64 * MIB + 0x345
    compact = walk(tables, function="pf", space="ppgtt", root=ROOT, address=4 * MIB + 0x3_1234)
    assert [step["level"] for step in compact["steps"]] == [4, 3, 2, 1, 0]
    assert meanings(compact)[3][3] == f"table at {L0 + 0x1000:#x}, of 64 KiB pages"
    assert (compact["steps"][4]["index"], compact["target"]["address"]) == (3, 80 * MIB + 0x1234)
    null = walk(tables, function="pf", space="ppgtt", root=ROOT, address=0x2000)
    assert (meanings(null)[-1][3], null["target"]["space"]) == ("null: reads zero, drops writes", "null")


def test_a_walk_that_ends_early_shows_how_far_it_came(tables: Bench) -> None:
    answer = walk(tables, function="pf", space="ppgtt", root=ROOT, address=1 << 40)
    assert [(step["level"], step["meaning"]) for step in answer["steps"]] == [
        (4, f"table at {L3:#x}"),
        (3, "not present"),
    ]
    assert "level 3" in answer["fault"]


def test_a_vf_s_device_address_goes_through_all_of_lmtt(lmtt: Bench) -> None:
    answer = walk(lmtt, function="vf1", space="device", address=0x123456)
    assert meanings(answer) == [
        ("LMTT", 2, 1, f"table at DPA {TABLE:#x}"),
        ("LMTT", 1, 0, f"table at DPA {LEAF:#x}"),
        ("LMTT", 0, 0, f"2 MiB at DPA {128 * MIB:#x}"),
    ]
    assert answer["target"] == {"space": "device", "address": 128 * MIB + 0x123456, "owner": "vf1"}
    outside = walk(lmtt, function="vf1", space="device", address=2 * MIB)
    assert [step["meaning"] for step in outside["steps"]][-1] == "not valid"
    assert "maps nothing at GDPA 0x200000" in outside["fault"]
    assert "no LMTT table" in walk(lmtt, function="vf2", space="device", address=0)["fault"]
    assert walk(lmtt, function="pf", space="device", address=128 * MIB)["target"]["owner"] == "vf1"


def test_what_cannot_be_walked_is_refused_with_what_there_is(bench: Bench) -> None:
    with pytest.raises(CommandError, match="vf1"):
        walk(bench, function="vf7", address=0)
    with pytest.raises(CommandError, match="ggtt"):
        walk(bench, function="pf", address=0, space="pgtt")
    with pytest.raises(CommandError, match="by asid or root"):
        walk(bench, function="pf", address=0, space="ppgtt")


def test_activity_is_by_engine_and_function(bench: Bench) -> None:
    bench.gpu.gts[0].engines.busy = {("rcs0", 0): 5, ("bcs0", 2): 7}
    assert Control(bench.card).call("activity", {}) == [
        {"engine": "rcs0", "function": "pf", "busy_ns": 5},
        {"engine": "bcs0", "function": "vf2", "busy_ns": 7},
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"address": -1}, "address -0x1 is not in ggtt: allowed is 0 to 0xffffffff"),
        ({"address": 1 << 32}, "is not in ggtt: allowed is 0 to 0xffffffff"),
        ({"address": 1 << 48, "space": "ppgtt", "root": ROOT}, "is not in ppgtt: allowed is 0 to 0xffffffffffff"),
        ({"address": -1, "space": "device"}, "is not in device: allowed is 0 to 0xffffffffffffffff"),
        ({"address": 0, "space": "ppgtt", "root": ROOT + 1}, "root 0x1000001 is no page table's address"),
        ({"address": 0, "space": "ppgtt", "root": -0x1000}, "root -0x1000 is no page table's address"),
    ],
)
def test_an_address_that_no_space_has_is_refused_and_nothing_is_walked(
    bench: Bench, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CommandError) as refused:
        walk(bench, function="pf", **arguments)
    assert message in str(refused.value)


def test_an_address_of_a_ppgtt_may_be_written_with_its_sign_extended(tables: Bench) -> None:
    extended = walk(tables, function="pf", space="ppgtt", root=ROOT, address=0xFFFF_8000_0000_1234)
    plain = walk(tables, function="pf", space="ppgtt", root=ROOT, address=0x8000_0000_1234)
    assert extended == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"function": "vf9"}, 'there is no function "vf9"'),
        ({"start": -5, "end": 1}, "[-0x5, 0x1) is not a range of [0, 0x1000000000000)"),
        ({"start": 8, "end": 8}, "[0x8, 0x8) is not a range"),
    ],
)
def test_mappings_that_cannot_be_are_refused(bench: Bench, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError) as refused:
        Control(bench.card).call("ppgtt", arguments)
    assert message in str(refused.value)
