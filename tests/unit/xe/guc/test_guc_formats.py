"""The formats that the GuC shares with drivers: their sizes and offsets, and what `guc_memory` shows of them."""

from __future__ import annotations

from typing import Any

import pytest
from construct import Construct
from hypothesis import given
from hypothesis import strategies as st

from tests.support.xe.guc_driver import CSS, GucDriver
from vfio_user_xe.device_models.xe.guc import hxg
from vfio_user_xe.device_models.xe.guc.formats import ads, capture, ct, firmware, hwconfig, log, slpc
from vfio_user_xe.emulator.model.layout import offset_of, plain, word


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (firmware.CSS_HEADER, 128),
        (ads.ADS, 0x11DC),
        (log.STATE, 36),
        (ct.DESCRIPTOR, 64),
        (capture.REGISTER, 16),
        (slpc.OVERRIDES, 4 * (8 + 256)),
    ],
)
def test_a_structure_is_as_large_as_the_driver_s(layout: Construct, size: int) -> None:
    """`static_assert`s of the driver, and its structures counted by hand."""
    assert layout.sizeof() == size


def test_fields_are_where_the_driver_has_them() -> None:
    fields = ("golden_context_lrca", "um_init_data", "capture_instance", "capture_class", "capture_global")
    assert [offset_of(ads.ADS, field) for field in fields] == [0x1014, 0x1098, 0x109C, 0x111C, 0x119C]
    assert [offset_of(slpc.SHARED_DATA, field) for field in ("task_state", "overrides")] == [128, 192]
    assert (ct.HEAD, ct.TAIL, ct.STATUS_OFFSET) == (0, 4, 8)
    with pytest.raises(KeyError, match="'nothing' is none of head, tail, status"):
        offset_of(ct.DESCRIPTOR, "nothing")


def test_bits_of_a_word_count_from_the_lowest() -> None:
    layout = word(("low", 4), ("", 8), ("high", 20))
    assert plain(layout.parse(bytes.fromhex("a50f0080"))) == {"low": 5, "high": 0x80000}
    assert layout.build({"low": 5, "high": 0x80000}) == bytes.fromhex("05000080")
    with pytest.raises(ValueError, match="the fields have 33 bits, the word 32"):
        word(("wide", 33))


@given(st.integers(0, (1 << 32) - 1))
def test_traces_and_the_executor_read_the_same_hxg_header(dword: int) -> None:
    """Two descriptions of one dword, as the executor's must be quick: they agree."""
    message = hxg.Message((dword,))
    header = ct.HXG_REQUEST.parse(dword.to_bytes(4, "little"))
    assert (header.action, header.data0, header.type) == (message.action, message.data0, message.type)
    assert bool(header.from_guc) == bool(dword & hxg.ORIGIN_GUC)


@pytest.mark.parametrize("dword", [hxg.failure(0x105, 0x123), hxg.success(0x89ABCDE), hxg.event(0x1008, 5)])
def test_what_the_guc_builds_traces_can_read(dword: int) -> None:
    header = ct.HXG_HEADER.parse(dword.to_bytes(4, "little"))
    assert header.from_guc
    assert header.low == dword & 0xFFFFFFF
    assert header.type == hxg.message_type(dword)


def test_the_versions_of_a_blob_come_from_its_header() -> None:
    assert firmware.parse_header(CSS) == firmware.FirmwareHeader((70, 72, 1), (1, 38, 1))
    assert firmware.parse_header(bytes(128)) is None
    assert firmware.parse_header(CSS[:4] + bytes(4) + CSS[8:]) is None, "a header of no dwords"


def test_the_log_s_parts_follow_from_the_boot_parameter() -> None:
    assert log.place(0) is None
    assert log.place(0x1234_5000) is None, "an address, but not valid"
    place = log.place(0x0123_4000 | 1 | 1 << 4 | 2 << 6 | 3 << 10)
    assert place == log.LogPlace(0x1234000, 0x1234048, 0x1234000 + 0x1000 + 5 * 0x1000, 4 * 0x1000)
    place = log.place(0x0123_4000 | 1 | 1 << 2 | 1 << 3)
    assert place == log.LogPlace(0x1234000, 0x1234048, 0x1234000 + 0x1000 + (2 << 20), 1 << 20)


def test_the_hwconfig_table_is_key_length_value() -> None:
    table = hwconfig.TABLE.parse(hwconfig.TABLE.build([{"key": 15, "value": [8]}, {"key": 2, "value": []}]))
    assert [(entry.key, list(entry.value)) for entry in table] == [(15, [8]), (2, [])]


def shown(driver: GucDriver) -> dict[str, Any]:
    gts: list[dict[str, Any]] = driver.bench.run(driver.bench.card.commands["guc_memory"])
    return gts[0]


def test_guc_memory_shows_what_is_there(driver: GucDriver) -> None:
    place, header = driver.base + 0x20000, driver.base + 0x40000
    driver.bench.write(0xC184, place | 1)
    driver.bench.write(0xC194, header >> 12 << 1)
    driver.poke(place, bytes(0x1000))
    driver.poke_dwords(place + 72 + 8, 0x40, 0x80)
    driver.poke_dwords(header + 0x109C + 16 * 4, 0x1234)
    driver.poke_dwords(header + 8 * 32, 0x5000, 7)
    found = shown(driver)
    assert found["firmware"]["sw_version"] == {"patch": 1, "minor": 72, "major": 70}
    assert found["log"]["capture"]["read_ptr"] == 0x40
    assert found["log"]["capture"]["write_ptr"] == 0x80
    assert found["ads"]["capture_instance"] == {"pf": {}, "vf": {0: 0x1234}}
    assert found["ads"]["reg_state_list"] == {"video.0": {"address": 0x5000, "count": 7}}
    descriptor = found["ct"]["pf"]["h2g"]
    assert (descriptor["address"], descriptor["dwords"]) == (driver.base, 1024)
    assert not any(descriptor["status"].values())


def test_guc_memory_says_what_is_not_there(driver: GucDriver) -> None:
    driver.bench.write(0xC194, 0xFE00_0000 >> 12 << 1)
    found = shown(driver)
    assert found["log"] is None
    assert "fault" in found["ads"]
    driver.bench.write(0xC194, 0)
    assert shown(driver)["ads"] is None
