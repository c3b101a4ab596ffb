"""Lines, outlines, stipples and depth offsets are the same in compiled code and in numpy, to the last bit."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.xe.render_both import DEPTH_AT, TARGET_AT, both, depth_state, triangles, vertices
from tests.support.xe.render_lab import HEIGHT, INTERPOLATE, TRILIST, WIDTH, WRITE, RenderLab, render_labs
from vfio_user_xe.device_models.xe.render.topology import Topology

BLENDED = [1 << 30, 1 << 31 | 3 << 26 | 19 << 21 | 3 << 13 | 19 << 8, 3, *[0] * 14]
"""By source alpha."""


@pytest.fixture
def lab() -> Iterator[RenderLab]:
    """A lab with a compiled back end."""
    yield from render_labs("compiled")


def raster(bits: int, *offset: float) -> tuple[int, ...]:
    """3DSTATE_RASTER without culling."""
    return (0x78500003, 1 << 16 | bits, *struct.unpack("<3I", struct.pack("<3f", *(offset or (0, 0, 0)))))


def lines(width: float) -> tuple[int, ...]:
    """3DSTATE_SF with this width of lines and points, without a viewport's transformation."""
    return (0x78130002, round(width * 128) << 12, 0, 1 << 11 | round(width * 8))


def pixels(memory: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.frombuffer(memory[TARGET_AT : TARGET_AT + 4 * WIDTH * HEIGHT], dtype=np.uint8).reshape(HEIGHT, WIDTH, 4)


@pytest.mark.parametrize("seed", range(4))
def test_antialiased_lines(lab: RenderLab, seed: int) -> None:
    random = np.random.default_rng(seed)
    memory = both(
        lab,
        INTERPOLATE + WRITE,
        triangles(2, *raster(1 << 2), *lines(2.5), 0x78140000, 1 << 6 | 1 << 11, topology=Topology.LINELIST),
        vertices=vertices(random, 6, space=False),
        blend=BLENDED,
        pixels=bytes([200, 100, 50, 255]) * (WIDTH * HEIGHT),
    )
    assert len(np.unique(pixels(memory)[..., 0])) > 4


@pytest.mark.parametrize("seed", range(4))
def test_stippled_lines_and_polygons(lab: RenderLab, seed: int) -> None:
    random = np.random.default_rng(seed)
    stipples = (0x79080001, 0x33CC, 2, 0x7907001F, *(0xAAAA_5555,) * 16, *(0x5555_AAAA,) * 16)
    corners = [[0, 0, 0, 0, x, y, 0.5, 1, 1, 1, 1, 1] for x, y in ((0, 0), (16, 0), (0, 16), (16, 16))]
    strip = triangles(2, *stipples, 0x78140000, 1 << 11 | 1 << 4 | 1 << 3, topology=Topology.TRISTRIP)
    filled = pixels(both(lab, INTERPOLATE + WRITE, strip, vertices=[*corners, *corners[:2]]))
    assert filled.any(axis=2).tolist() == [[True, False] * (WIDTH // 2)] * HEIGHT
    topology = random.choice([Topology.LINELIST, Topology.LINESTRIP])
    drawn = triangles(2, *stipples, *lines(1.5), 0x78140000, 1 << 11 | 1 << 3, topology=int(topology))
    both(lab, INTERPOLATE + WRITE, drawn, vertices=vertices(random, 6, space=False))


@pytest.mark.parametrize("mode", [0, 1, 2], ids=["solid", "wireframe", "point"])
@pytest.mark.parametrize("form", [1, 3, 5])
def test_depth_offsets(lab: RenderLab, mode: int, form: int) -> None:
    random = np.random.default_rng(form)
    memory = both(
        lab,
        INTERPOLATE + WRITE,
        triangles(
            4, *raster(mode << 5 | mode << 3 | 1 << 9 - mode, 40.0, 0.75, 0.25), *lines(3), *depth_state(form, 4, True)
        ),
        vertices=vertices(random, 12),
        depth=b"\xff\xff\x7f\x3f" * 0x400,
        may_be_empty=True,
    )
    assert memory[DEPTH_AT : DEPTH_AT + 0x1000] != b"\xff\xff\x7f\x3f" * 0x400


def test_a_constant_offset_of_one_step_lets_what_is_at_the_same_depth_pass(lab: RenderLab) -> None:
    # The decal of a wall: less than, at the wall's depth, a step nearer.
    corners = [[0, 0, 0, 0, x, y, 0.5, 1, 1, 1, 1, 1] for x, y in ((0, 0), (16, 0), (0, 16))]
    depth = struct.pack("<I", round(0.5 * 0xFF_FFFF)) * 0x400
    for constant, drawn in ((0.0, False), (-2.0, True), (2.0, False)):
        commands = triangles(1, *raster(1 << 9, constant, 0, 0), *depth_state(3, 2, False), topology=TRILIST)
        memory = both(lab, INTERPOLATE + WRITE, commands, vertices=corners, depth=depth, may_be_empty=True)
        assert pixels(memory).any() == drawn


def test_outlines_of_quads_leave_their_inside_and_edges_without_a_flag(lab: RenderLab) -> None:
    square = [[0, 0, 0, 0, x, y, 0.5, 1, 1, 1, 1, 1] for x, y in ((2.5, 2.5), (12.5, 2.5), (12.5, 12.5), (2.5, 12.5))]
    # The header's first component is the flag: of the second vertex it is missing, which the right edge begins with.
    for vertex, edge in zip(square, (1, 0, 1, 1), strict=True):
        vertex[0] = edge
    commands = list(triangles(2, *raster(1 << 5 | 1 << 3), topology=Topology.QUADLIST))
    plain = pixels(both(lab, INTERPOLATE + WRITE, tuple(commands), vertices=square)).any(axis=2)
    assert not plain[4:12, 4:12].any()
    assert plain[5, 2]
    assert plain[5, 12]
    flagged = commands.index(0x7809_0005)
    commands[flagged + 1] |= 1 << 15
    some = pixels(both(lab, INTERPOLATE + WRITE, tuple(commands), vertices=square)).any(axis=2)
    assert some[5, 2]
    assert not some[5, 12]
