"""The pixels of a draw are the same in compiled code and in numpy, to the last bit; and so is what the ledger says of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.xe.compute_lab import SURFACES
from tests.support.xe.engine_lab import DATA_VA
from tests.support.xe.render_both import (
    BORDER,
    TARGET_AT,
    TEXTURE_AT,
    TEXTURE_BYTES,
    blend_entry,
    both,
    depth_state,
    triangles,
    vertices,
)
from tests.support.xe.render_lab import INTERPOLATE, RECTLIST, WRITE, RenderLab, render_labs, target_state
from vfio_user_xe.device_models.xe.compute import formats
from vfio_user_xe.device_models.xe.compute.compiled_images import srgb_steps, srgb_values

RGBA32_FLOAT = 0
TARGETS = (0x000, 0x0C7, 0x0C0, 0x0E9, 0x0C9, 0x084, 0x0D8, 0x100, 0x0C2, 0x106, 0x0C8, 0x0C1, 0x101, 0x0D3)
"""Float, RGBA8, BGRA8, BGRX8, SNORM8, half, one channel, 565, 10-10-10-2, two channels; sRGB of three kinds, 11-11-10."""
TEXTURES = (
    0x000,
    0x101,
    0x0C7,
    0x0C0,
    0x0C8,
    0x0C1,
    0x0C9,
    0x084,
    0x0D8,
    0x100,
    0x102,
    0x0D3,
    0x0ED,
    0x146,
    0x140,
    0x0C2,
    0x10A,
    0x0D9,
    0x0CB,
)


@pytest.fixture
def lab() -> Iterator[RenderLab]:
    """A lab with a compiled back end."""
    yield from render_labs("compiled")


@pytest.mark.parametrize("seed", range(16))
def test_triangles_with_depth_and_blending(lab: RenderLab, seed: int) -> None:
    random = np.random.default_rng(seed)
    form = int(random.choice(TARGETS))
    size = formats.FORMATS[form].bytes
    tiling = int(random.choice([0, 3]))
    surface = target_state(form, pitch=256 if tiling else max(64, 16 * size), tiling=tiling)
    more: tuple[int, ...] = ()
    if random.integers(4):
        more = depth_state(
            int(random.choice([1, 3, 5])), int(random.choice([0, 2, 4, 5, 6, 7])), bool(random.integers(2))
        )
    floats = np.random.default_rng(seed + 1).uniform(0, 1, 0x1000).astype(np.float32).tobytes()
    texels = formats.encode(formats.FORMATS[form], random.uniform(0, 1, (0x1000 // size, 4))).tobytes()
    both(
        lab,
        INTERPOLATE + WRITE,
        triangles(9, *more),
        vertices=vertices(random, 27),
        surface=surface,
        blend=blend_entry(random) if random.integers(3) else (),
        pixels=texels,
        depth=floats,
    )


def test_threads_of_32_lanes(lab: RenderLab) -> None:
    # As Mesa's compiler writes their colours: `brw_eu_defines.h`, XE2_DATAPORT_RENDER_TARGET_WRITE_SIMD32_SINGLE_SOURCE.
    random = np.random.default_rng(32)
    shader = "".join(
        f"""
    mad (16|M{16 * half})  r{60 + 2 * n + half}.0<1>:f  r6.{3 * n}<0;0>:f  r{2 + 2 * half}.0<1;0>:f  r6.{3 * n + 1}<0>:f
    mad (16|M{16 * half})  r{60 + 2 * n + half}.0<1>:f  r{60 + 2 * n + half}.0<1;0>:f  r{3 + 2 * half}.0<1;0>:f  r6.{3 * n + 2}<0>:f
    """
        for n in range(4)
        for half in range(2)
    )
    state = list(triangles(9, first_register=6))
    state[state.index(0x7820000A) + 1] |= 2
    memory = both(
        lab,
        shader + "sendc.rc (32|M0)  null  r60  null:0  0x0  0x10031100  {EOT}\n",
        tuple(state),
        vertices=vertices(random, 27),
        surface=target_state(RGBA32_FLOAT, 256),
    )
    assert memory[TARGET_AT : TARGET_AT + 0x1000].strip(b"\0")


def test_colours_as_the_render_copies_of_igt_write_them(lab: RenderLab) -> None:
    # rendercopy_gen9.c:xe2_render_copy: a subtype of 4 with 16 lanes.
    memory = both(
        lab,
        INTERPOLATE + WRITE.replace("0x08031000", "0x08031400"),
        triangles(4),
        vertices=vertices(np.random.default_rng(4), 12),
        surface=target_state(RGBA32_FLOAT, 256),
    )
    assert memory[TARGET_AT : TARGET_AT + 0x1000].strip(b"\0")


@pytest.mark.parametrize("seed", range(4))
def test_fragments_beyond_clip_planes_and_the_eye(lab: RenderLab, seed: int) -> None:
    random = np.random.default_rng(100 + seed)
    rows = vertices(random, 18)
    for row in rows:
        row[4:8] = [*random.uniform(-2, 2, 3).tolist(), float(random.uniform(-0.4, 1.5))]
    clip = (0x78120002, 0, 1 << 31 | 1 << 30, 0, 0x78500003, 1 << 16 | 1 << 26 | 1, 0, 0, 0)
    viewport = (0x78130002, 2, 0, 0, 0x78210000, 0x2500)
    both(
        lab, INTERPOLATE + WRITE, triangles(6, *clip, *viewport), vertices=rows, surface=target_state(RGBA32_FLOAT, 256)
    )


def test_rectangles_and_late_tests(lab: RenderLab) -> None:
    random = np.random.default_rng(7)
    rows = []
    for _ in range(5):
        left, top = random.integers(0, 8, 2).tolist()
        for x, y in ((left + 9, top + 7), (left, top + 7), (left, top)):
            rows.append([0, 0, 0, 0, x, y, 0.5, 1, *random.uniform(0, 1, 4).tolist()])
    # The shader discards lanes whose first component is small.
    shader = INTERPOLATE + "cmp (16|M0)  (gt)f0.0  null.0<1>:f  r60.0<1;1,0>:f  0x3E99999A:f\n" + "(f0.0) " + WRITE
    commands = triangles(5, *depth_state(1, 4, True), topology=RECTLIST, extra=1 << 28)
    memory = both(
        lab, shader, commands, vertices=rows, surface=target_state(RGBA32_FLOAT, 256), depth=b"\0\0\x80?" * 0x400
    )
    assert memory[TARGET_AT : TARGET_AT + 0x1000].strip(b"\0")


def texture_state(random: np.random.Generator, form: int, kind: int, levels: int) -> tuple[int, ...]:
    """RENDER_SURFACE_STATE of 16 by 8 texels (cubes: 8 by 8) at `TEXTURE_AT`."""
    wide = 8 if kind == 3 else 16
    tiling, array = int(random.choice([0, 3])), int(kind in (1, 3) and random.integers(2))
    depth = {1: 4 if array else 1, 2: 4}.get(kind, 1)
    place = DATA_VA + TEXTURE_AT
    swizzle = 4 << 25 | 5 << 22 | 6 << 19 | 7 << 16 if random.integers(2) else 6 << 25 | 1 << 22 | 0 << 19 | 4 << 16
    return (
        kind << 29 | array << 28 | form << 18 | 1 << 16 | 1 << 14 | tiling << 12, 4, wide - 1 | 7 << 16, depth - 1 << 21 | 255,
        0, levels - 1, 0, swizzle, place & 0xFFFFFFFF, place >> 32, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


MODES = (0, 1, 2, 3, 4, 5, 6)
SAMPLES = {
    "sample": ("r14", 0x0842_0001),
    "sample_lz": ("r14", 0x0843_8001),
    "sample_b": ("r13", 0x0842_1001),
    "sample_l": ("r13", 0x0A42_2001),
    "sample_c": ("r13", 0x0A42_3001),
    "sample_d": ("r24", 0x0E42_4001),
    "sample_mlod": ("r13", 0x0A43_2001),
    "ld": ("r20", 0x0842_7001),
}
"""Where parameters begin, and the descriptor: up to five or seven registers, four of a response, surface 1, sampler 0."""
COORDINATES = (
    "".join(
        f"""
    mad (16|M0)  r{14 + n}.0<1>:f  r3.{3 * n}<0;0>:f  r1.0<1;0>:f  r3.{3 * n + 1}<0>:f
    mad (16|M0)  r{14 + n}.0<1>:f  r{14 + n}.0<1;0>:f  r2.0<1;0>:f  r3.{3 * n + 2}<0>:f
    """
        for n in range(4)
    )
    + """
    mul (16|M0)  r13.0<1>:f  r17.0<1;1,0>:f  0x3F400000:f
    mul (16|M0)  r20.0<1>:f  r14.0<1;1,0>:f  0x41A00000:f
    mul (16|M0)  r21.0<1>:f  r15.0<1;1,0>:f  0x41200000:f
    mov (16|M0)  r20.0<1>:d  r20.0<1;1,0>:f
    mov (16|M0)  r21.0<1>:d  r21.0<1;1,0>:f
    mov (16|M0)  r22.0<1>:d  r13.0<1;1,0>:f
    mov (16|M0)  r23.0<1>:d  r16.0<1;1,0>:f
    mov (16|M0)  r24.0<1>:f  r14.0<1;1,0>:f
    mul (16|M0)  r25.0<1>:f  r15.0<1;1,0>:f  0x3E000000:f
    mul (16|M0)  r26.0<1>:f  r16.0<1;1,0>:f  0x3D000000:f
    mov (16|M0)  r27.0<1>:f  r15.0<1;1,0>:f
    mul (16|M0)  r28.0<1>:f  r17.0<1;1,0>:f  0x3E000000:f
    mul (16|M0)  r29.0<1>:f  r14.0<1;1,0>:f  0x3D000000:f
    mov (16|M0)  r30.0<1>:f  r16.0<1;1,0>:f
"""
)


@pytest.mark.parametrize("seed", range(48))
def test_sampler_messages(lab: RenderLab, seed: int) -> None:
    random = np.random.default_rng(1000 + seed)
    op = sorted(SAMPLES)[seed % len(SAMPLES)]
    form = int(random.choice(TEXTURES)) if op != "sample_c" else 0x0D8
    kind, levels = int(random.choice([1, 1, 2, 3])), int(random.choice([1, 3]))
    if op == "ld":
        kind = 1
    sampled(lab, random, op, form, kind, levels)


@pytest.mark.parametrize("op", [0x0C43C001, 0x0843D001], ids=["ld2dms_w", "ld_mcs"])
@pytest.mark.parametrize("exponent", [1, 2, 3])
@pytest.mark.parametrize("array", [False, True])
def test_fetches_of_samples(lab: RenderLab, op: int, exponent: int, array: bool) -> None:
    random = np.random.default_rng(exponent)
    state = list(texture_state(random, 0x0C7, 1, 1))
    state[0] = state[0] & ~(1 << 28 | 3 << 12) | array << 28
    state[1], state[3] = 2, (3 if array else 0) << 21 | 63  # slices of 512 bytes
    state[4] |= exponent << 3
    # The sample, two control words, u, v, r.
    parameters = "".join(
        f"mov (16|M0)  r{to}.0<1>:d  r{of}.0<1;1,0>:d\n"
        for to, of in ((31, 22), (32, 20), (33, 20), (34, 20), (35, 21), (36, 23))
    )
    result = "".join(f"mov (16|M0)  r{60 + n}.0<1>:f  r{60 + n}.0<1;1,0>:ud\n" for n in range(4)) if op & 0x1000 else ""
    memory = both(
        lab,
        COORDINATES + parameters + f"send.smpl (16|M0)  r60  r31  null:0  0x0  {op:#x}\n" + result + WRITE,
        triangles(4),
        vertices=[[*row[:8], *(np.array(row[8:]) * [2, 2, 3, 2]).tolist()] for row in vertices(random, 12)],
        surface=target_state(RGBA32_FLOAT, 256),
        texture=random.integers(0, 256, TEXTURE_BYTES, dtype=np.uint8).tobytes(),
        texture_state=tuple(state),
        sampler=(0, 0, 0, 0),
    )
    assert memory[TARGET_AT : TARGET_AT + 0x1000].strip(b"\0")


@pytest.mark.parametrize("descriptor", [0x0242A001, 0x0242B001], ids=["resinfo", "sampleinfo"])
@pytest.mark.parametrize("kind", [0, 1, 2, 3, 7], ids=["line", "plane", "volume", "cube", "null"])
@pytest.mark.parametrize("array", [False, True])
def test_questions_for_what_a_texture_is_are_answered(lab: RenderLab, descriptor: int, kind: int, array: bool) -> None:
    random = np.random.default_rng(kind)
    state = list(texture_state(random, 0x0C7, kind, 3))
    state[0] = state[0] & ~(1 << 28) | array << 28
    result = "".join(f"mov (16|M0)  r{60 + n}.0<1>:f  r{60 + n}.0<1;1,0>:ud\n" for n in range(4))
    state[3] = state[3] & 0x3FFFF | 2 << 21
    memory = both(
        lab,
        COORDINATES + f"send.smpl (16|M0)  r60  r20  null:0  0x0  {descriptor:#x}\n" + result + WRITE,
        triangles(4),
        vertices=[[*row[:8], *(np.array(row[8:]) * [2, 2, 3, 2]).tolist()] for row in vertices(random, 12)],
        surface=target_state(RGBA32_FLOAT, 256),
        texture=bytes(TEXTURE_BYTES),
        texture_state=tuple(state),
        sampler=(0, 0, 0, 0),
    )
    assert memory[TARGET_AT : TARGET_AT + 0x1000].strip(b"\0")


@pytest.mark.parametrize("form", [0x000, 0x0C7])
def test_images_that_fragment_shaders_write_and_read(lab: RenderLab, form: int) -> None:
    random = np.random.default_rng(form)
    state = list(texture_state(random, form, 1, 1))
    state[0] &= ~(1 << 28)
    # Lanes may share a texel: all write the same, and what is read is elsewhere.
    shader = (
        COORDINATES
        + "mov (16|M0)  r40.0<1>:f  0x3F400000:f\n"
        + "send.tgm (16|M0)  null  r20  r40:1  0x01000000  0x64001506\n"
        + "add (16|M0)  r21.0<1>:d  r21.0<1;1,0>:d  100:d\n"
        + "send.tgm (16|M0)  r60  r20  null:0  0x01000000  0x6440f502\n"
        + WRITE
    )
    texture = random.integers(0, 60, TEXTURE_BYTES, dtype=np.uint8).tobytes()
    memory = both(
        lab,
        shader,
        triangles(2, extra=1 << 2),
        vertices=vertices(random, 6),
        surface=target_state(RGBA32_FLOAT, 256),
        texture=texture,
        texture_state=tuple(state),
        sampler=(0, 0, 0, 0),
    )
    assert memory[TEXTURE_AT : TEXTURE_AT + TEXTURE_BYTES] != texture


@pytest.mark.parametrize("kind", [2, 3], ids=["volume", "cube"])
@pytest.mark.parametrize("seed", range(3))
def test_slopes_of_volumes_and_cubes_choose_the_level_by_two_axes(lab: RenderLab, kind: int, seed: int) -> None:
    sampled(lab, np.random.default_rng(2000 + seed), "sample_d", RGBA32_FLOAT, kind, 3)


def sampled(lab: RenderLab, random: np.random.Generator, op: str, form: int, kind: int, levels: int) -> None:
    """Triangles with a texture that messages of this kind sample, in both ways."""
    first, descriptor = SAMPLES[op]
    integer = formats.FORMATS[form].is_integer
    filters = (
        int(random.choice([0, 1, 2])) << 14 | int(random.choice([0, 1])) << 17 | int(random.choice([0, 1, 3])) << 20
    )
    bias = int(random.integers(-200, 200)) & 0x1FFF
    modes = [int(random.choice(MODES)) for _ in range(3)]
    sampler = (
        filters | bias << 1, 0xF00 << 8 | int(random.integers(16)), SURFACES + BORDER,
        modes[0] << 6 | modes[1] << 3 | modes[2] | 3 << 19,
    )  # fmt: skip
    size = formats.FORMATS[form].bytes
    values = random.uniform(-100 if integer else -1.5, 200 if integer else 1.5, (TEXTURE_BYTES // size, 4))
    texture = formats.encode(formats.FORMATS[form], values).tobytes()
    result = "" if not integer else "".join(f"mov (16|M0)  r{60 + n}.0<1>:f  r{60 + n}.0<1;1,0>:d\n" for n in range(4))
    shader = COORDINATES + f"send.smpl (16|M0)  r60  {first}  null:0  0x0  {descriptor:#x}\n" + result + WRITE
    both(
        lab,
        shader,
        triangles(4),
        vertices=[[*row[:8], *(np.array(row[8:]) * [2, 2, 3, 2]).tolist()] for row in vertices(random, 12)],
        surface=target_state(RGBA32_FLOAT, 256),
        texture=texture,
        texture_state=texture_state(random, form, kind, levels),
        sampler=sampler,
    )


@pytest.mark.parametrize("form", [0x0C7, 0x0C0])
@pytest.mark.parametrize("modes", [(0, 0), (0, 2), (2, 2)])
def test_bilinear_textures_of_bytes(lab: RenderLab, form: int, modes: tuple[int, int]) -> None:
    # The case that the handler has a way of its own for.
    random = np.random.default_rng(form + 10 * modes[0] + modes[1])
    sampler = (1 << 14 | 1 << 17, 0, SURFACES + BORDER, modes[0] << 6 | modes[1] << 3)
    texture = random.integers(0, 256, TEXTURE_BYTES, dtype=np.uint8).tobytes()
    for tiling in (0, 3):
        place = DATA_VA + TEXTURE_AT
        surface = (
            1 << 29 | form << 18 | 1 << 16 | 1 << 14 | tiling << 12, 0, 12 | 6 << 16, 255, 0, 0, 0,
            5 << 25 | 4 << 22 | 6 << 19 | 7 << 16, place & 0xFFFFFFFF, place >> 32, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip
        both(
            lab,
            COORDINATES + "send.smpl (16|M0)  r60  r14  null:0  0x0  0x08420001\n" + WRITE,
            triangles(4),
            vertices=vertices(random, 12),
            surface=target_state(RGBA32_FLOAT, 256),
            texture=texture,
            texture_state=surface,
            sampler=sampler,
        )


@pytest.mark.parametrize("form", [0x0CB, 0x0CA, 0x002, 0x0C4, 0x10D], ids=["ub", "sb", "ud", "ten", "uw"])
@pytest.mark.parametrize("masked", [False, True])
def test_targets_of_integers(lab: RenderLab, form: int, masked: bool) -> None:
    random = np.random.default_rng(form)
    size = formats.FORMATS[form].bytes
    entry = [1 << 30, 0b0110, 1 << 31 | 6 << 27, *[0] * 14] if masked else []
    scaled = "".join(
        f"mul (16|M0)  r{n}.0<1>:f  r{n}.0<1;1,0>:f  0x43960000:f\nmov (16|M0)  r{n}.0<1>:d  r{n}.0<1;1,0>:f\n"
        for n in range(60, 64)
    )
    both(
        lab,
        INTERPOLATE + scaled + WRITE,
        triangles(6),
        vertices=vertices(random, 18),
        surface=target_state(form, pitch=max(64, 16 * size)),
        blend=entry,
        pixels=random.integers(0, 256, 0x1000, dtype=np.uint8).tobytes(),
    )


@pytest.mark.parametrize("width", [4, 5, 6, 8, 10])
def test_each_value_of_a_channel_in_srgb_begins_at_its_step(width: int) -> None:
    steps, expected = srgb_steps()[(1 << width) + 1 : 2 << width], np.arange(1, 1 << width)
    assert (srgb_values(width, steps) == expected).all()
    assert (srgb_values(width, np.nextafter(steps, 0)) == expected - 1).all()
