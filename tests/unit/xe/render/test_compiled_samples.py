"""Draws with several samples and stencil tests are the same in compiled code and in numpy, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.xe.engine_lab import DATA_VA
from tests.support.xe.render_both import DEPTH_AT, TARGET_AT, blend_entry, both, depth_state, triangles, vertices
from tests.support.xe.render_lab import INTERPOLATE, RECTLIST, WRITE, RenderLab, render_labs, target_state
from vfio_user_xe.device_models.xe.compute import formats

STENCIL_AT = 0x1000
RGBA32_FLOAT = 0x000
TARGETS = (0x0C7, 0x0C0, 0x0D8, 0x0C8, 0x0C2)
Words = tuple[int, ...]


@pytest.fixture
def lab() -> Iterator[RenderLab]:
    """A lab with a compiled back end."""
    yield from render_labs("compiled")


def several(state: Words, exponent: int, tiling: int = 0) -> Words:
    """A target's state with samples, each 16 rows behind the other."""
    words = list(state)
    words[0] |= tiling << 12
    words[1] |= 16 >> 2
    words[4] |= exponent << 3
    return tuple(words)


def sampled(exponent: int, mask: int = 0xFFFF, *, enabled: bool = True) -> Words:
    """3DSTATE_MULTISAMPLE, 3DSTATE_SAMPLE_MASK, and 3DSTATE_RASTER with "multisample rasterization enable"."""
    return (0x780D0000, exponent << 1, 0x78180000, mask, 0x78500003, 1 << 16 | enabled << 12, 0, 0, 0)


def stencil_state(random: np.random.Generator, *, depth: bool) -> Words:
    """3DSTATE_STENCIL_BUFFER of 16 rows a sample, any functions, operations, masks and references."""
    first = int(random.integers(1 << 32)) & ~0xFF | 0b11100
    first |= int(random.integers(8)) << 5 | (0b11 if depth else 0)
    return (
        0x78060006, 1 << 29 | 15, DATA_VA + STENCIL_AT, 0, 15 << 1 | 15 << 17, 0, 0, 4,
        0x784E0002, first, int(random.integers(1 << 32)), int(random.integers(1 << 16)),
    )  # fmt: skip


def deep(state: Words) -> Words:
    """A depth buffer of several samples, in slices of 32 rows."""
    return (*state[:7], 8, *state[8:])


@pytest.mark.parametrize("seed", range(24))
def test_several_samples(lab: RenderLab, seed: int) -> None:
    random = np.random.default_rng(seed)
    exponent, form = int(random.integers(1, 4)), int(random.choice(TARGETS))
    more = sampled(exponent, int(random.choice([0xFFFF, 0b1010_0101])))
    if random.integers(2):
        more += deep(
            depth_state(int(random.choice([1, 3])), int(random.choice([0, 2, 4, 6])), bool(random.integers(2)))
        )
    if random.integers(2):
        more += stencil_state(random, depth=bool(random.integers(2)))
    blend = blend_entry(random) if random.integers(2) else [1 << 30, *[0] * 16]
    blend[0] |= int(random.integers(2)) << 31 | int(random.integers(2)) << 29 | int(random.integers(2)) << 27 | 5 << 24
    per_sample, mode = int(random.integers(2)), int(random.choice([1, 2, 4]))
    memory = random.uniform(0, 1, 0x2000).astype(np.float32).tobytes()
    both(
        lab,
        INTERPOLATE + WRITE,
        triangles(7, *more, extra=per_sample << 6, modes=mode),
        vertices=vertices(random, 21),
        surface=several(target_state(form), exponent),
        blend=blend,
        pixels=memory[:0x4000],
        depth=memory[: 0x1_0000 - DEPTH_AT],
        may_be_empty=True,
    )


def test_without_multisampling_all_samples_are_covered_as_the_centre_is(lab: RenderLab) -> None:
    memory = both(
        lab,
        INTERPOLATE + WRITE,
        triangles(7, *sampled(2, enabled=False)),
        vertices=vertices(np.random.default_rng(4), 21),
        surface=several(target_state(), 2),
    )
    planes = np.frombuffer(memory[TARGET_AT : TARGET_AT + 0x1000], dtype=np.uint8).reshape(4, -1)
    assert planes.any()
    assert (planes == planes[0]).all()


@pytest.mark.parametrize("whole_quads", [False, True])
def test_threads_find_their_live_lanes_in_the_state_register(lab: RenderLab, whole_quads: bool) -> None:
    # As Mesa's compiler does for a value of the first live lane (brw_eu_emit.c: brw_find_live_channel).
    shader = """
    mov (16|M0)  r60.0<1>:f  sr0.2<0;1,0>:ud
    mov (16|M0)  r61.0<1>:f  sr0.3<0;1,0>:ud
    mov (16|M0)  r62.0<1>:f  ce0.0<0;1,0>:ud
    mov (16|M0)  r63.0<1>:f  0x3F800000:f
    """
    # A column of pixels: one or two of four in each quad.
    column = [[0, 0, 0, 0, x, y, 0.5, 1, 0, 0, 0, 0] for x, y in ((5, 16), (4, 16), (4, 0))]
    commands = list(triangles(1, topology=RECTLIST))
    commands[commands.index(0x7820000A) + 3] |= whole_quads << 30
    memory = both(lab, shader + WRITE, tuple(commands), vertices=column, surface=target_state(RGBA32_FLOAT, 256))
    drawn = np.frombuffer(memory[TARGET_AT : TARGET_AT + 0x1000], dtype=np.float32).reshape(16, 16, 4)[:, 4]
    assert (drawn[:, 0] == (0xFFFF if whole_quads else 0x5555)).all()
    assert (drawn[:, 1] == drawn[:, 0]).all()


def test_samples_in_planes_of_tile64(lab: RenderLab) -> None:
    random = np.random.default_rng(64)
    both(
        lab,
        INTERPOLATE + WRITE,
        triangles(7, *sampled(1)),
        vertices=vertices(random, 21),
        surface=several(target_state(0x0C7, pitch=512), 1, tiling=1),
    )


@pytest.mark.parametrize("seed", range(12))
def test_stencil_of_one_sample(lab: RenderLab, seed: int) -> None:
    random = np.random.default_rng(500 + seed)
    more = stencil_state(random, depth=bool(random.integers(2)))
    if random.integers(2):
        more = (*depth_state(3, 2, True), *more)
    both(
        lab,
        INTERPOLATE + WRITE,
        triangles(9, *more, extra=int(random.integers(2)) << 28),
        vertices=vertices(random, 27),
        surface=target_state(),
        depth=random.uniform(0, 1, 0x400).astype(np.float32).tobytes(),
        may_be_empty=True,
    )


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("where", [2, 3], ids=["centroid", "sample"])
def test_payloads_of_samples(lab: RenderLab, per_sample: bool, where: int) -> None:
    # Offsets in pixels, where samples are, which sample a thread shades, and what it covers: as colours.
    random = np.random.default_rng(where)
    shader = """
    mov (16|M0)  r60.0<1>:f  r4.0<1;1,0>:uw
    mov (16|M0)  r61.0<1>:f  r5.0<1;1,0>:ub
    mov (16|M0)  r62.0<1>:f  r0.8<0;1,0>:ud
    mov (16|M0)  r63.0<1>:f  r3.0<1;1,0>:ud
    """
    state = list(triangles(7, *sampled(2), extra=per_sample << 6 | 1 << 18 | 1, modes=1, first_register=6))
    state[state.index(0x7820000A) + 6] |= where << 3
    memory = both(
        lab,
        shader + WRITE,
        tuple(state),
        vertices=vertices(random, 21),
        surface=several(target_state(0x0D8), 2),
    )
    values = set(np.frombuffer(memory[TARGET_AT : TARGET_AT + 0x1000], dtype=np.float32).tolist())
    assert len(values) > (4 if where == 2 or per_sample else 1)


@pytest.mark.parametrize("exponent", [0, 2])
def test_depth_and_stencil_without_a_pixel_shader(lab: RenderLab, exponent: int) -> None:
    # As depths alone are drawn, for shadows or before colours.
    random = np.random.default_rng(exponent + 1)
    tested = stencil_state(random, depth=True) if exponent else ()
    more = (*deep(depth_state(1, 2, True)), *tested, *sampled(exponent))
    state = list(triangles(7, *more))
    state[state.index(0x784F0000) + 1] = 0
    memory = both(
        lab,
        WRITE,
        tuple(state),
        vertices=vertices(random, 21),
        depth=b"\0\0\x80?" * 0x1000,
        may_be_empty=True,
    )
    assert memory[DEPTH_AT : DEPTH_AT + 0x800] != b"\0\0\x80?" * 0x200


def test_formats_of_the_tests_have_four_bytes() -> None:
    assert {formats.FORMATS[form].bytes for form in TARGETS} == {4}
