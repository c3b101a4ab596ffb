"""Answers of the control socket in words."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from vfio_user_xe.emulator.cli.answers import for_a_person, show_any, show_records, show_status

FUNCTION: dict[str, Any] = {
    "name": "pf", "attached": True, "memory_enable": True, "bus_master": False, "power_state": 0,
    "bars": {"0": 16 << 20, "2": 4 << 30},
}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        (None, ["done"]),
        (3, ["3"]),
        (True, ["yes"]),
        ("00ff", ["00ff"]),
        ([], ["none"]),
        ({}, ["nothing: "]),
        (["mmio", "irq"], ["mmio", "irq"]),
        ({"address": 4096, "length": 4096}, ["address: 0x1000", "length: 4,096"]),
        ({"on": [], "size": 4096, "off": None}, ["on: -", "size: 4,096", "off: -"]),
        (
            {"memories": {"vram": {"size": 8192, "resident": 0}}, "resident": 0},
            ["memories:", "  vram:", "    size: 8,192", "    resident: 0", "resident: 0"],
        ),
    ],
)
def test_an_answer_of_any_shape_is_printed_line_by_line(
    answer: Any, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    show_any(answer)
    assert capsys.readouterr().out.splitlines() == lines


def test_records_are_a_table_also_when_some_lack_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    show_any([{"name": "vram", "size": 4096}, {"name": "ggtt", "dirty": False}])
    head, *rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines() if "m" in line]
    assert "name" in head[1]
    text = [[cell for cell in row if cell.isalnum() or "," in cell or cell == "-"] for row in rows]
    assert ["vram", "4,096", "-"] in text


def test_no_records_are_said_to_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    show_records([], title="accesses")
    show_records([])
    assert capsys.readouterr().out.splitlines() == ["no accesses", "nothing"]


def test_a_status_names_functions_and_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    sriov = {"enabled": True, "num_vfs": 1, "total_vfs": 7}
    sriov |= {"bar_programming": {"state": "failed", "error": "no way to configuration space"}}  # type: ignore[dict-item]
    show_status(
        {
            "card": "b580", "model": "xe", "interconnects": ["iov"], "options": {"vfs": 7}, "trace": ["mmio"], "stalls": 2,
            "executor": {"failures": 1}, "functions": [{**FUNCTION, "sriov": sriov}, {**FUNCTION, "name": "vf1", "attached": False}],
        }
    )  # fmt: skip
    text = capsys.readouterr().out
    assert "card b580, device model xe" in text
    rows = [line for line in text.splitlines() if "MiB" in line]
    assert ["attached" in row and "memory" in row and "1 of 7" in row for row in rows] == [True, False]
    assert all("0: 16.0 MiB, 2: 4.0 GiB" in row for row in rows)
    assert "programming of VF BARs by pf: failed: no way to configuration space" in text
    assert text.endswith("traced: mmio\nregisters that a guest polled without end: 2\njobs that failed: 1\n")


@pytest.mark.parametrize(
    ("terminal", "as_json", "words"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_words_are_for_terminals_and_json_for_programs(
    terminal: bool, as_json: bool, words: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert for_a_person(as_json) is words
