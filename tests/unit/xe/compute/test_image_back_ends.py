"""Images on both back ends: the same bits for any surface, sampler and coordinates."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.xe.compute_kernels import LINEAR, LOAD, address, store
from tests.support.xe.compute_lab import DATA, EOT, SURFACES, base_addresses, labs, walker
from vfio_user_xe.device_models.xe.engines.surface_layout import NO_TAIL
from vfio_user_xe.device_models.xe.memory.formats import ppgtt

STATE, TABLE, SAMPLERS, BORDER = 0x100, 0x400, 0x600, 0x640
PARAMETERS_AT = 0x1000
IMAGE, IMAGE_MEMORY = 0x2000_0000, 32 << 20
"""Its address, and where that is in VRAM: a page of 2 MiB."""
BYTES = 0x2_0000
FORMATS = {0x000: 16, 0x084: 8, 0x0C7: 4, 0x0CB: 4, 0x0D7: 4, 0x10A: 2, 0x140: 1}
"""RGBA32_FLOAT, RGBA16_FLOAT, RGBA8_UNORM, RGBA8_UINT, R32_UINT, R16_UNORM, R8_UNORM, and their bytes."""
INTEGERS = (0x0CB, 0x0D7)
PITCHES = {0: 1024, 1: 1024, 2: 1024, 3: 1024}
SAMPLE, SAMPLE_L, LD, GATHER4, RESINFO, SAMPLE_LZ, LD_LZ = 0x0, 0x2, 0x7, 0x8, 0xA, 0x18, 0x1A
TYPED_LOAD, TYPED_STORE, TYPED_SPLIT = 0x100, 0x101, 0x102
"""The last is a load whose coordinates are in both parts of the payload."""
LANES = 16


class Case(NamedTuple):
    """What a message is about."""

    message: int
    """Of the sampler, or a typed one."""
    form: int
    kind: int
    """1 two-dimensional, 2 a volume."""
    tiling: int
    array: bool
    size: tuple[int, int, int]
    levels: int
    sampler: tuple[int, int, bool, bool]
    """Address mode, mip filter, linear, texel coordinates."""
    seed: int
    lowest: int = 0
    """The view's lowest level."""


cases = st.builds(
    Case,
    st.sampled_from([SAMPLE, SAMPLE_L, LD, GATHER4, RESINFO, SAMPLE_LZ, LD_LZ, TYPED_LOAD, TYPED_STORE]),
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from([1, 2]),
    st.sampled_from([0, 1, 3]),
    st.booleans(),
    st.tuples(st.integers(1, 24), st.integers(1, 10), st.integers(1, 4)),
    st.integers(1, 3),
    st.tuples(
        st.integers(0, 5).filter(lambda mode: mode != 3), st.sampled_from([0, 1, 3]), st.booleans(), st.booleans()
    ),
    st.integers(0, 1 << 30),
    st.just(0),
)


def surface(case: Case) -> tuple[int, ...]:
    """RENDER_SURFACE_STATE."""
    width, height, depth = case.size
    array = case.array and case.kind == 1
    q_pitch = 0 if case.kind == 2 and case.tiling == 1 else 32
    swizzle = 4 << 25 | 5 << 22 | 6 << 19 | 7 << 16
    return (
        case.kind << 29 | array << 28 | case.form << 18 | 1 << 16 | 1 << 14 | case.tiling << 12, q_pitch >> 2,
        width - 1 | height - 1 << 16, PITCHES[case.tiling] - 1 | depth - 1 << 21, (depth - 1) << 7,
        case.levels - 1 | case.lowest << 4 | NO_TAIL << 8, 0, swizzle, IMAGE & 0xFFFFFFFF, IMAGE >> 32, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


def sampler(case: Case) -> tuple[int, ...]:
    """SAMPLER_STATE."""
    mode, mip, linear, texels = case.sampler
    return (
        mip << 20 | linear << 17 | linear << 14,
        14 << 16,
        SURFACES + BORDER,
        mode << 6 | mode << 3 | mode | texels << 10,
    )


def parameters(case: Case) -> bytes:
    """Four parameters of sixteen lanes, some of them outside."""
    random = np.random.default_rng(case.seed)
    width, height, depth = case.size
    if case.message in (LD, LD_LZ, RESINFO):
        limits = (width, height, case.levels, depth) if case.message == LD else (width, height, depth, 1)
        limits = (case.levels,) * 4 if case.message == RESINFO else limits
        return b"".join(random.integers(-1, limit + 1, LANES, dtype=np.int32).tobytes() for limit in limits)
    if case.message in (TYPED_LOAD, TYPED_STORE, TYPED_SPLIT):
        places = b"".join(random.integers(-1, limit + 1, LANES, dtype=np.int32).tobytes() for limit in case.size)
        integer = case.form in INTEGERS
        values = random.integers(-200, 70000, LANES, dtype=np.int32) if integer else random.uniform(-0.5, 1.5, LANES)
        return places + values.astype(np.int32 if integer else np.float32).tobytes()
    scale = (width, height, depth) if case.sampler[3] else (1, 1, 1)
    axes = [(random.uniform(-0.5, 1.5, LANES) * length).astype(np.float32) for length in scale]
    if case.array and case.kind == 1:
        axes[2] = random.uniform(-1, depth, LANES).astype(np.float32)
    level = random.uniform(-1, case.levels, LANES).astype(np.float32)
    order = [level, *axes] if case.message == SAMPLE_L else [*axes, level]
    return b"".join(axis.tobytes() for axis in order)


def kernel(case: Case) -> str:
    """Loads the parameters, sends the message, stores what it answers."""
    text = LINEAR + address(30, 1).replace("r2.1", "r1.1")
    for number in range(4):
        register = 25 + number if case.message == TYPED_SPLIT and number else 14 + number
        text += f"send.ugm (16|M0)  r{register}  r30  null:0  0x{0x40 * number << 12:08x}  {LOAD}\n"
    descriptor = 4 << 25 | 4 << 20 | 1 << 17 | case.message << 12
    if case.message == TYPED_STORE:
        text += "send.tgm (16|M0)  null  r14  r17:1  0x0  0x66001506\n"  # red
    if case.message == TYPED_SPLIT:
        text += "send.tgm (16|M0)  r20  r14  r26:2  0x0  0x6240f502\n"
    elif case.message in (TYPED_LOAD, TYPED_STORE):
        text += "send.tgm (16|M0)  r20  r14  null:0  0x0  0x6640f502\n"
    else:
        text += f"send.smpl (16|M0)  r20  r14  null:0  0x0  0x{descriptor:08x}\n"
    for number in range(4):
        result = store(0, f"r{20 + number}").replace("r2.0", "r1.0")
        text += result.replace("0x0  ", f"0x{0x100 * number << 12:08x}  ")
    return text + EOT


def answer(back_end: str, case: Case) -> bytes:
    """What a back end stores, and the image."""
    with contextmanager(labs)(back_end) as lab:
        inline = [word for where in (DATA, DATA + PARAMETERS_AT) for word in (where & 0xFFFFFFFF, where >> 32)]
        job: Any = lab.compute_job(
            kernel(case),
            *walker(inline=inline, binding_table=TABLE, sampler=SURFACES + SAMPLERS),
            setup=base_addresses(),
        )
        lab.place(job, SURFACES + STATE, *surface(case))
        lab.place(job, SURFACES + TABLE, STATE)
        lab.place(job, SURFACES + SAMPLERS, *sampler(case))
        lab.place(job, SURFACES + BORDER, *struct.unpack("<4I", struct.pack("<4f", 0.25, 9, 9, 1)))
        job.set_bytes(PARAMETERS_AT, parameters(case))
        job.tables.entry(IMAGE, 1, IMAGE_MEMORY | 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)
        texels = np.random.default_rng(case.seed + 1).integers(0, 64, BYTES, dtype=np.uint8)
        job.tables.space().write(IMAGE, texels.tobytes())
        job.submit()
        lab.run()
        assert not lab.engine("ccs0").reports
        (interpreted,) = [one["interpreted"] for one in lab.engines.inspect() if one["name"] == "ccs0"]
        assert not interpreted or case.message == GATHER4
        found = b"".join(struct.pack("<16I", *job.data(0x100 * number, LANES)) for number in range(4))
        return found + bytes(job.tables.space().read(IMAGE, BYTES))


VOLUME = Case(SAMPLE_LZ, 0x0C7, 2, 1, False, (13, 9, 4), 1, (4, 0, True, True), 1)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases)
@example(VOLUME)
@example(VOLUME._replace(message=LD, form=0x0CB))
@example(VOLUME._replace(kind=1, array=True, tiling=3, message=GATHER4))
@example(VOLUME._replace(message=RESINFO, levels=3))
@example(VOLUME._replace(message=TYPED_STORE, form=0x084, levels=2))
@example(VOLUME._replace(message=TYPED_STORE, form=0x0CB, kind=1, array=True, tiling=3))
@example(VOLUME._replace(message=TYPED_LOAD, form=0x10A, kind=1, tiling=0))
def test_a_message_to_an_image_does_the_same_on_both_back_ends(case: Case) -> None:
    assert answer("compiled", case) == answer("reference", case)


@pytest.mark.parametrize("back_end", ["compiled", "reference"])
@pytest.mark.parametrize("kind", [1, 2])
def test_a_load_finds_its_texels_wherever_its_coordinates_are_divided(back_end: str, kind: int) -> None:
    whole = VOLUME._replace(message=TYPED_LOAD, kind=kind)
    assert answer(back_end, whole._replace(message=TYPED_SPLIT)) == answer(back_end, whole)


@pytest.mark.parametrize("back_end", ["compiled", "reference"])
def test_typed_messages_reach_the_lowest_level_of_the_view(back_end: str) -> None:
    """However many levels the view has."""
    second = VOLUME._replace(message=TYPED_LOAD, form=0x0D7, kind=1, tiling=0, size=(32, 8, 1), lowest=1)
    one, two = answer(back_end, second), answer(back_end, second._replace(levels=2))
    first = answer(back_end, second._replace(lowest=0))
    assert one == two
    assert one[:64] != first[:64]


@pytest.mark.parametrize("tiling", [0, 1, 3])
def test_the_messages_of_the_comparison_answer_something(tiling: int) -> None:
    assert any(answer("reference", VOLUME._replace(tiling=tiling)))
