"""What `screenshot` and `render_targets` answer on the control socket."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.xe.bench import Bench
from vfio_user_xe.device_models.xe.engines.tiling import TILE_4, TILE_X, Tiling, tile_64
from vfio_user_xe.emulator.control.dispatch import Control
from vfio_user_xe.emulator.control.errors import CommandError

PLACE = 32 << 20
WIDTH, HEIGHT = 150, 70


def screenshot(bench: Bench, **arguments: Any) -> dict[str, Any]:
    described = {"function": "pf", "space": "device", "address": PLACE, "width": WIDTH, "height": HEIGHT}
    wanted = described | {"format": "xrgb8888"} | arguments
    answer: dict[str, Any] = Control(bench.card).call("screenshot", {k: v for k, v in wanted.items() if v is not None})
    return answer


def pixels(answer: dict[str, Any]) -> NDArray[np.uint8]:
    data = np.frombuffer(base64.b64decode(answer["pixels"]), dtype=np.uint8)
    return data.reshape(answer["height"], answer["width"], 3)


def pattern() -> NDArray[np.uint8]:
    """[rows, columns, 3], every pixel another colour."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x, y, (x * 7 + y * 13) % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "tiling", "pitch"),
    [("linear", None, 640), ("x", TILE_X, 1024), ("tile4", TILE_4, 640), ("tile64", tile_64(4), 1024)],
)
def test_memory_is_shown_by_its_tiling(bench: Bench, name: str, tiling: Tiling | None, pitch: int) -> None:
    memory = bench.gpu.vram.memory.view
    for y, row in enumerate(pattern().tolist()):
        for x, (red, green, blue) in enumerate(row):
            at = y * pitch + 4 * x
            if tiling is not None:
                tile = y // tiling.height * (pitch // tiling.width) + 4 * x // tiling.width
                at = tile * tiling.size + tiling.offset(4 * x % tiling.width, y % tiling.height)
            memory[PLACE + at : PLACE + at + 4] = bytes((blue, green, red, 0))
    answer = screenshot(bench, tiling=name, pitch=pitch)
    assert (pixels(answer) == pattern()).all()
    assert (answer["format"], answer["tiling"], answer["pitch"]) == ("xrgb8888", name, pitch)


@pytest.mark.parametrize(
    ("format", "data", "colour"),
    [
        ("xbgr8888", b"\x0a\x14\x1e\0", (10, 20, 30)),
        ("rgb565", (0b11111_000000_00001).to_bytes(2, "little"), (255, 0, 8)),
        ("r8", b"\x80", (128, 128, 128)),
        ("gr88", b"\x10\x20", (16, 32, 0)),
        ("abgr16161616f", np.array([1, 0.5, 2, 1], dtype=np.float16).tobytes(), (255, 128, 255)),
    ],
)
def test_formats_become_8_bit_colours(bench: Bench, format: str, data: bytes, colour: tuple[int, int, int]) -> None:
    bench.gpu.vram.memory.view[PLACE : PLACE + len(data)] = data
    answer = screenshot(bench, format=format, width=1, height=1)
    assert tuple(pixels(answer)[0, 0]) == colour


def test_a_look_counts_as_one_of_the_control_socket(bench: Bench) -> None:
    Control(bench.card).call("ledger", {"clear": True})
    screenshot(bench)
    (entry,) = [row for row in Control(bench.card).call("ledger", {}) if row["bytes_read"]]
    assert (entry["kind"], entry["owner"], entry["bytes_read"]) == ("control", "pf", 4 * WIDTH * HEIGHT)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"function": "vf99"}, "function"),
        ({"format": "nv12"}, "xrgb8888"),
        ({"tiling": "tiley"}, "tile4"),
        ({"space": "vram"}, "ggtt"),
        ({"width": 0}, "1 to 16384"),
        ({"width": 16384, "height": 16384}, "at most"),
        ({"pitch": 100}, "600 or more"),
        ({"tiling": "tile4", "pitch": 1000}, "multiple of 128"),
        ({"tiling": "tile64", "address": PLACE + 0x1000}, "multiple of that"),
        ({"address": -1}, "address -0x1"),
        ({"height": None}, "a height"),
        ({"address": None}, "has an address"),
        ({"space": "ppgtt"}, "asid or root"),
        ({"space": "ppgtt", "root": 0}, "not mapped"),
        ({"address": 1 << 44}, "no"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_what_is_allowed(
    bench: Bench, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(CommandError, match=said):
        screenshot(bench, **arguments)


def test_a_function_that_has_drawn_nothing_has_no_targets(bench: Bench) -> None:
    assert Control(bench.card).call("render_targets", {"function": "pf"}) == []
    with pytest.raises(CommandError, match="no context of pf"):
        Control(bench.card).call("screenshot", {"function": "pf"})
