"""Perfetto traces, `top`, the memory map, and the commands that show them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from vfio_user_xe.device_models.xe.info import INFO
from vfio_user_xe.emulator.fabric.interconnect import Space
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.observe.memory_map import MemoryMap
from vfio_user_xe.emulator.observe.perfetto import TraceRefused, events, export, records
from vfio_user_xe.emulator.observe.top import Sample, tables
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport
from vfio_user_xe.emulator.testing.lab import CONFIG, LiveCard, open_card

MIB = 1 << 20


def record(time: float, category: str, event: str, function: str = "pf", **fields: Any) -> dict[str, Any]:
    return {"time": time, "function": function, "category": category, "event": event, "fields": fields}


PROCESSES = INFO.trace_processes
TRACE = [
    record(0.001, "mmio", "write", register="GDRST", offset=0x941C, value=0x80000001),
    record(0.002, "irq", "msi", function="vf1", vector=0, delivered=True),
    record(0.003, "guc", "h2g", gt=0, action="REGISTER_CONTEXT"),
    record(0.004, "engine", "in", function="vf1", engine="rcs0", context=3),
    record(0.0045, "cs", "MI_STORE_DATA_IMM", function="vf1", engine="rcs0", context=3),
    record(0.005, "engine", "in", function="pf", engine="rcs0", context=1),
    record(0.006, "fabric", "window", owner="vf1", interconnect="iov", kind="vram", address=0x1000, length=4096),
    record(0.010, "link", "traffic", owner="vf1", interconnect="iov", kind="vram", bytes_read=0, bytes_written=0),
    record(0.030, "link", "traffic", owner="vf1", interconnect="iov", kind="vram", bytes_read=20_000, bytes_written=0),
]


def convert(trace: list[dict[str, Any]]) -> list[dict[str, Any]]:
    text = "".join(export([json.dumps(entry) + "\n" for entry in trace], "trace.jsonl", PROCESSES))
    found: list[dict[str, Any]] = json.loads(text)["traceEvents"]
    return found


def test_the_export_is_what_the_trace_event_format_wants() -> None:
    # Its document "Trace Event Format": which keys an event of each phase must have, and of which type.
    number, text, anything = {"type": "number", "minimum": 0}, {"type": "string", "minLength": 1}, {"type": "object"}
    identity = {"pid": {"type": "integer"}, "tid": {"type": "integer"}, "name": text, "args": anything}
    timed = {**identity, "ts": number, "cat": text}

    def phase(letter: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
        known = {"ph": {"const": letter}, **properties}
        return {"properties": known, "required": ["ph", "pid", *required], "additionalProperties": False}

    names = {"name": {"enum": ["process_name", "thread_name", "process_sort_index"]}}
    values = {"args": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "number"}}}
    event = {
        "type": "object",
        "oneOf": [
            phase("M", identity | names, ["name", "args"]),
            phase("i", timed | {"s": {"enum": ["g", "p", "t"]}}, ["tid", "ts", "name", "s"]),
            phase("B", timed, ["tid", "ts", "name"]),
            phase("E", timed, ["tid", "ts"]),
            phase("C", timed | values, ["ts", "name", "args"]),
        ],
    }
    schema = {
        "type": "object",
        "properties": {"displayTimeUnit": {"enum": ["ms", "ns"]}, "traceEvents": {"type": "array", "items": event}},
        "required": ["traceEvents"],
        "additionalProperties": False,
    }
    text = "".join(export([json.dumps(entry) + "\n" for entry in TRACE], "trace.jsonl", PROCESSES))
    assert "\\u" not in text, "the UI shows escapes in names of counters as they are"
    document = json.loads(text)
    jsonschema.validate(document, schema)
    assert {event["ph"] for event in document["traceEvents"]} == set("MiBEC")


def test_functions_firmware_engines_and_links_have_tracks_of_their_own() -> None:
    found = convert(TRACE)
    processes = {e["pid"]: e["args"]["name"] for e in found if e["name"] == "process_name"}
    tracks = {(processes[e["pid"]], e["args"]["name"]) for e in found if e["name"] == "thread_name"}
    assert tracks == {
        ("functions", "pf"),
        ("functions", "vf1"),
        ("GuC", "gt0"),
        ("engines", "rcs0"),
        ("links", "pf → vf1 by iov (vram)"),
    }


def test_every_event_is_on_a_track_that_was_named_before_and_times_are_microseconds() -> None:
    named = set()
    for event in convert(TRACE):
        if event["ph"] == "M":
            named.add((event["pid"], event.get("tid")))
            continue
        assert (event["pid"], event["tid"]) in named
        assert event["ph"] in "iBEC"
    assert next(e for e in convert(TRACE) if e["name"] == "write GDRST")["ts"] == 1000


def test_contexts_are_slices_that_begin_and_end_in_turn() -> None:
    by_track: dict[tuple[int, int], list[tuple[str, str, float]]] = defaultdict(list)
    for event in convert(TRACE):
        if event["ph"] in "BE":
            by_track[event["pid"], event["tid"]].append((event["ph"], event["name"], event["ts"]))
    (slices,) = by_track.values()
    assert slices == [
        ("B", "vf1 context 3", 4000),
        ("E", "vf1 context 3", 5000),
        ("B", "pf context 1", 5000),
        ("E", "pf context 1", 30000),
    ]


def test_traffic_is_a_counter_of_bytes() -> None:
    counters = [(event["ts"], event["args"]) for event in convert(TRACE) if event["ph"] == "C"]
    assert counters == [
        (10000, {"bytes read": 0, "bytes written": 0}),
        (30000, {"bytes read": 20000, "bytes written": 0}),
    ]


def test_a_file_that_is_no_trace_is_refused_by_line_and_a_cut_last_line_is_left_out() -> None:
    with pytest.raises(TraceRefused, match=r"notes\.txt, line 1, is no record of a trace: want a trace in JSON lines"):
        list(records(["   0.1 pf mmio read\n"], "notes.txt"))
    good = json.dumps(TRACE[0]) + "\n"
    with pytest.raises(TraceRefused, match="line 2"):
        list(records([good, "{}\n", good], "t"))
    assert len(list(records([good, '{"time": 0.'], "t"))) == 1
    assert list(events([], PROCESSES)) == []


def test_the_category_link_samples_what_the_ledger_counts(tmp_path: Path) -> None:
    card = Card(CardConfig.default("edu"))
    card.start()
    edu = card.functions[0]
    edu.attached(FakeTransport())
    card.executor.run_sync(lambda: None)
    edu.config.write(4, 2, 6)
    card.tracer.start(["link"], tmp_path / "trace.jsonl")
    card.executor.run_sync(lambda: card.fabric.write(edu, Space.SYSTEM, 0x1000, bytes(64), "dma"))
    card.stop()
    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert [(line["function"], line["event"]) for line in lines] == [("edu", "traffic")]
    assert lines[0]["fields"] == {
        "owner": "guest",
        "interconnect": "host_dma",
        "kind": "dma",
        "bytes_read": 0,
        "bytes_written": 64,
    }


# top


def sample(time: float, reads: int, busy: int, moved: int) -> Sample:
    function = {"name": "pf", "attached": True, "memory_enable": True, "bus_master": True, "power_state": 0}
    function["sriov"] = {"enabled": True, "num_vfs": 2, "total_vfs": 7}
    return Sample(
        time,
        {"card": "b580", "model": "xe", "trace": [], "functions": [function]},
        {"pf": (reads, 10)},
        {("rcs0", "vf1"): busy},
        {("pf", "vf1", "iov", "vram"): (moved, 0)},
        0,
    )


def cells(table: Any, row: int = 0) -> list[str]:
    return [list(column.cells)[row] for column in table.columns]


def test_rates_are_what_happened_between_two_looks() -> None:
    functions, engines, links = tables(sample(10.0, 1000, 0, 0), sample(12.0, 5000, 500_000_000, 4 * MIB))
    assert cells(functions) == ["pf", "attached", "memory, DMA", "2 of 7", "2,000", "0", "5,000", "10"]
    assert cells(engines) == ["rcs0", "vf1", "25%", "0.500 s"]
    assert cells(links)[4:] == ["2.0 MiB/s", "0 B/s", "4.0 MiB", "0 B"]


def test_a_function_without_a_guest_has_no_state() -> None:
    before, now = sample(0.0, 0, 0, 0), sample(1.0, 0, 0, 0)
    now.status["functions"][0]["attached"] = False
    functions, _, _ = tables(before, now)
    assert cells(functions)[1:3] == ["-", "-"], "its registers have what the last guest left"


def test_a_ledger_that_was_cleared_shows_no_negative_rate() -> None:
    _, _, links = tables(sample(0.0, 0, 0, MIB), sample(1.0, 0, 0, 1024))
    assert cells(links)[4] == "0 B/s"


@pytest.fixture(scope="module")
def xe() -> Iterator[LiveCard]:
    with open_card(["--vfs", "2"]) as card:
        yield card


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vfio_user_xe.emulator", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_top_once_is_plain_text_of_functions_and_rates(xe: LiveCard) -> None:
    with xe.client("pf") as client:
        client.read(CONFIG, 0, 4)
        client.read(0, 0xD8C, 4)
        result = command("top", "--socket-dir", str(xe.folder), "--once", "--interval", "0.1")
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines[0].startswith("xe (xe)")
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert rows["pf"][1] == "attached"
    assert {"vf1", "vf2"} < set(rows)


def test_a_walk_is_a_table_and_a_fault_is_its_exit_code(xe: LiveCard) -> None:
    result = command("walk", "--socket-dir", str(xe.folder), "0x1000")
    assert result.returncode == 1
    assert "GGTT" in result.stdout
    assert "fault: pf: GGTT address 0x1000" in result.stdout
    result = command("walk", "--socket-dir", str(xe.folder), "--space", "device", "0x1000")
    assert result.returncode == 0
    assert "-> device address 0x1000, which is pf's" in result.stdout


def test_the_vram_map_is_printed_and_drawn(xe: LiveCard, tmp_path: Path) -> None:
    picture = tmp_path / "vram.png"
    result = command("vram-map", "--socket-dir", str(xe.folder), "--png", str(picture))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("4 GiB; a character is 2 MiB")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_trace_becomes_a_perfetto_file_beside_it(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps(entry) + "\n" for entry in TRACE))
    result = command("perfetto", str(trace))
    assert result.stdout.strip() == str(tmp_path / "trace.perfetto.json")
    assert len(json.loads((tmp_path / "trace.perfetto.json").read_text())["traceEvents"]) > len(TRACE)
    (tmp_path / "notes.txt").write_text("no trace\n")
    refused = command("perfetto", str(tmp_path / "notes.txt"))
    assert refused.returncode == 2
    assert "line 1, is no record of a trace" in refused.stderr
    assert not (tmp_path / "notes.perfetto.json").exists()


# The memory map.


def test_a_cell_is_whose_it_is_mostly() -> None:
    found = MemoryMap(256 * MIB, {"vf1": [(2 * MIB, 4 * MIB)], "vf2": [(6 * MIB, MIB)]})
    assert found.step == 2 * MIB
    assert found.cells()[:5] == [0, 1, 1, 2, 0]
    rows = found.text().splitlines()
    assert rows[1].split()[1][:5] == ".112."
    assert rows[-2:] == ["1  vf1: 4 MiB in [0x200000, 0x600000)", "2  vf2: 1 MiB in [0x600000, 0x700000)"]


def test_a_large_memory_has_larger_cells() -> None:
    assert len(MemoryMap(24 << 30, {}).cells()) <= 64 * 32


def test_the_picture_has_the_colours_of_the_owners() -> None:
    data = MemoryMap(128 * MIB, {"vf1": [(0, 2 * MIB)]}).png()
    assert struct.unpack(">II", data[16:24]) == (640, 10)
    length = struct.unpack(">I", data[33:37])[0]
    assert data[37:41] == b"IDAT"
    pixels = zlib.decompress(data[41 : 41 + length])
    assert len(pixels) == 10 * (1 + 3 * 640)
    assert pixels[1:4] != pixels[1 + 30 : 4 + 30]
