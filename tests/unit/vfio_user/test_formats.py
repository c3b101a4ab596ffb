"""vfio-user messages by field name: the same layouts as `wire`, and what a trace says of a session."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from construct import Struct
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vfio_user.conftest import Connect, Storage, make_function
from vfio_user_xe.emulator.observe.trace import Tracer
from vfio_user_xe.emulator.pci.transport import Region
from vfio_user_xe.emulator.vfio_user import formats, wire

SAME = {
    wire.VERSION_BODY: formats.VERSION,
    wire.DMA_MAP_BODY: formats.DMA_MAP,
    wire.DMA_UNMAP_BODY: formats.DMA_UNMAP,
    wire.DIRTY_BITMAP: formats.DIRTY_BITMAP,
    wire.DIRTY_PAGES_BODY: formats.DIRTY_PAGES,
    wire.DEVICE_INFO: formats.DEVICE_INFO,
    wire.REGION_INFO: formats.REGION_INFO,
    wire.CAPABILITY: formats.CAPABILITY,
    wire.SPARSE_MMAP: formats.SPARSE_MMAP,
    wire.SPARSE_AREA: formats.SPARSE_AREA,
    wire.REGION_IO_FDS: formats.REGION_IO_FDS,
    wire.IO_FD: formats.IO_FD,
    wire.IRQ_INFO: formats.IRQ_INFO,
    wire.IRQ_SET: formats.IRQ_SET,
    wire.REGION_ACCESS: formats.REGION_ACCESS,
    wire.WRITE_MULTI: formats.WRITE_MULTI,
    wire.WRITE_MULTI_ENTRY: formats.WRITE_MULTI_ENTRY,
    wire.DMA_ACCESS: formats.DMA_ACCESS,
    wire.DEVICE_FEATURE_BODY: formats.DEVICE_FEATURE,
    wire.MIG_STATE: formats.MIG_STATE,
    wire.DMA_LOGGING_CONTROL: formats.DMA_LOGGING_CONTROL,
    wire.DMA_LOGGING_RANGE: formats.DMA_LOGGING_RANGE,
    wire.DMA_LOGGING_REPORT: formats.DMA_LOGGING_REPORT,
    wire.MIG_DATA: formats.MIG_DATA,
}


@pytest.mark.parametrize(("precompiled", "described"), SAME.items(), ids=lambda value: "")
def test_both_descriptions_have_the_same_fields_in_the_same_places(
    precompiled: struct.Struct, described: Struct
) -> None:
    sizes = [struct.calcsize("<" + field) for field in re.findall(r"\d*[a-zA-Z]", precompiled.format)]
    assert [part.sizeof() for part in described.subcons] == sizes


def test_every_command_is_described() -> None:
    assert set(formats.LAYOUTS) == set(wire.COMMAND_NAMES)


@given(st.integers(0, 0xFFFF) | st.sampled_from(sorted(wire.COMMAND_NAMES)), st.binary(max_size=200))
def test_anything_can_be_described(command: int, body: bytes) -> None:
    json.dumps(formats.describe(command, body))


def test_flags_are_named_and_data_are_hexadecimal() -> None:
    body = wire.DMA_MAP_BODY.pack(32, 3, 0, 0x1000, 0x2000)
    assert formats.describe(wire.DMA_MAP, body) == {
        "argsz": 32,
        "flags": "readable|writable",
        "offset": 0,
        "address": 0x1000,
        "size": 0x2000,
    }
    body = wire.REGION_ACCESS.pack(8, 0, 16) + bytes(range(16))
    assert formats.describe(wire.REGION_WRITE, body)["data"] == bytes(range(16)).hex()
    assert formats.describe(wire.DEVICE_GET_INFO, b"abc") == {"data": "616263"}


def test_what_follows_a_fixed_part_is_described_too() -> None:
    areas = wire.SPARSE_AREA.pack(0x1000, 0x2000) + wire.SPARSE_AREA.pack(0x8000, 0x1000)
    body = (
        wire.REGION_INFO.pack(80, 15, 2, 32, 1 << 24, 0) + wire.CAPABILITY.pack(1, 1, 0) + wire.SPARSE_MMAP.pack(2, 0)
    )
    found = formats.describe(wire.DEVICE_GET_REGION_INFO, body + areas)
    assert found["areas"] == [{"offset": 0x1000, "size": 0x2000}, {"offset": 0x8000, "size": 0x1000}]
    assert found["flags"] == "read|write|mmap|caps"
    body = wire.DEVICE_FEATURE_BODY.pack(40, wire.FEATURE_SET | wire.FEATURE_DMA_LOGGING_START)
    body += wire.DMA_LOGGING_CONTROL.pack(4096, 1, 0) + wire.DMA_LOGGING_RANGE.pack(0x10000, 0x1000)
    found = formats.describe(wire.DEVICE_FEATURE, body)
    assert (found["flags"], found["page_size"]) == ("feature=6|set", 4096)
    assert found["ranges"] == [{"address": 0x10000, "size": 0x1000}]


def test_a_trace_shows_commands_and_replies_and_errors_but_no_single_access(
    connect: Connect, storage: Storage, tmp_path: Path
) -> None:
    tracer, path = Tracer(), tmp_path / "trace.jsonl"
    regions = [Region(0x1000, handler=storage)]
    connection = connect(make_function(regions), tap=tracer.tap("client", "messages"))
    tracer.start(["client"], path)
    peer = connection.peer
    assert peer.request(wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, 1, 0)).errno == 0
    assert peer.request(wire.REGION_READ, wire.REGION_ACCESS.pack(0, 0, 4)).errno == 0
    assert peer.request(wire.DMA_MAP, b"").errno != 0
    tracer.stop()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    seen = [(event["event"], event["fields"]["command"]) for event in events]
    assert seen == [
        ("command", "DEVICE_GET_IRQ_INFO"),
        ("reply", "DEVICE_GET_IRQ_INFO"),
        ("command", "DMA_MAP"),
        ("reply", "DMA_MAP"),
    ]
    assert events[1]["fields"]["flags"] == "eventfd"
    assert events[3]["fields"]["errno"] == "EINVAL"
