"""The demo of rendering: PF and VF draw at once with unmodified Mesa, and the PF shows the VF's frames without a copy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from demo_output import console, ledger_table, require, show, step
from rich.table import Table

from vfio_user_xe.device_models.xe.frames.picture import Difference, as_png, picture
from vfio_user_xe.device_models.xe.frames.play import Picture, Source, frame_path, play
from vfio_user_xe.emulator.testing.lab import Lab

PF_NODE, VF_NODE = "/dev/dri/renderD128", "/dev/dri/renderD129"
SIZE, FRAMES = (280, 170), 2
COMPOSED = (640, 220)
SOURCES = (
    Source("pf", PF_NODE, *SIZE, modifier="tile4", hue=1),
    Source("vf1", VF_NODE, *SIZE, modifier="tile4"),
)
FOLDER, EXPECTED = "/tmp/demo", "/tmp/demo-llvmpipe"
TOLERANCE = 8
"""Pixels of a composed picture that may differ from llvmpipe's by more than two steps of 255."""


def show_frames(lab: Lab, folder: Path) -> None:
    """Draw, compose, judge; PNGs are left in `folder`."""
    before: list[dict[str, Any]] = lab.card.call("activity")
    lab.card.call("ledger", clear=True)
    with step(
        "OpenGL ES on the PF and on VF 1 at once (iris); a compositor on the PF imports their frames as dma-bufs"
    ):
        width, height = COMPOSED
        played = play(
            lab.guest,
            PF_NODE,
            SOURCES,
            frames=FRAMES,
            width=width,
            height=height,
            folder=FOLDER,
            save_frames=True,
            timeout=400,
        )
        show(played.said)
        require([found.frames for found in played.pictures] == [{"pf": n + 1, "vf1": n + 1} for n in range(FRAMES)],
                "the compositor did not show every frame of both")  # fmt: skip
    with step("Who had which engine for how long"):
        _print_shares(before, lab.card.call("activity"))
    with step("How the PF's sampler read the frames, by the ledger"):
        entries = [entry for entry in lab.card.call("ledger") if entry["kind"].split()[0] in ("eu", "3d")]
        ledger_table(entries)
        crossed = [e for e in entries if (e["initiator"], e["owner"]) == ("pf", "vf1")]
        needed = 4 * SIZE[0] * SIZE[1] * FRAMES
        require(sum(e["bytes_read"] for e in crossed) >= needed, "the PF did not read VF 1's frames where they are")
        show(
            ", ".join(sorted({e["interconnect"] for e in crossed}))
            + ": no copy, neither by a processor nor by an engine"
        )
    with step("The same by Mesa's software renderer"):
        soft = [replace(source, node=None) for source in SOURCES]
        expected = play(lab.guest, None, soft, frames=FRAMES, width=width, height=height, folder=EXPECTED, timeout=400)
        for found, wanted in zip(played.pictures, expected.pictures, strict=True):
            _compare(lab, found, wanted)
    with step("Pictures"):
        folder.mkdir(parents=True, exist_ok=True)
        pictures = {f"{source.name}.png": frame_path(FOLDER, source, FRAMES) for source in SOURCES}
        pictures["composed.png"] = played.pictures[-1].path
        for name, path in pictures.items():
            (folder / name).write_bytes(as_png(lab.guest.get(path)))
            show(str(folder / name))


def _compare(lab: Lab, found: Picture, wanted: Picture) -> None:
    difference = Difference.between(picture(lab.guest.get(found.path)), picture(lab.guest.get(wanted.path)))
    show(
        f"{found.path}: {difference.noticeable} pixels differ by more than 2 of 255, none by more than {difference.worst}"
    )
    require(difference.noticeable <= TOLERANCE, "the picture is not that of the software renderer")


def _print_shares(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    earlier = {(entry["engine"], entry["function"]): entry["busy_ns"] for entry in before}
    table = Table("engine", "function", "busy")
    spent: dict[str, int] = {}
    for entry in after:
        busy = entry["busy_ns"] - earlier.get((entry["engine"], entry["function"]), 0)
        if busy > 0:
            table.add_row(entry["engine"], entry["function"], f"{busy / 1e6:.1f} ms")
            spent[entry["function"]] = spent.get(entry["function"], 0) + busy
    console.print(table)
    require({"pf", "vf1"} <= set(spent), f"a function did not get any engine: {spent}")
