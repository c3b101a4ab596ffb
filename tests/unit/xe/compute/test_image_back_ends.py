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
from vfio_user_xe.device_models.xe.eu.messages.message import SamplerOp
from vfio_user_xe.device_models.xe.eu.messages.sampler_forms import FORMS
from vfio_user_xe.device_models.xe.memory.formats import ppgtt

STATE, TABLE, SAMPLERS, BORDER = 0x100, 0x400, 0x600, 0x640
PARAMETERS_AT = 0x1000
IMAGE, IMAGE_MEMORY = 0x2000_0000, 32 << 20
"""Its address, and where that is in VRAM: a page of 2 MiB."""
BYTES = 0x2_0000
FORMATS = {0x000: 16, 0x084: 8, 0x0C7: 4, 0x0CB: 4, 0x0D7: 4, 0x10A: 2, 0x140: 1}
"""RGBA32_FLOAT, RGBA16_FLOAT, RGBA8_UNORM, RGBA8_UINT, R32_UINT, R16_UNORM, R8_UNORM, and their bytes."""
BLOCKS = (0x186, 0x18B, 0x191, 0x180, 0x187, 0x18C, 0x188, 0x18D, 0x189, 0x199, 0x18A, 0x19A)
"""BC1 with and without alpha, BC2, BC3, each in SRGB, too; BC4 and BC5, each with signs, too."""
INTEGERS = (0x0CB, 0x0D7)
PITCHES = {0: 1024, 1: 1024, 2: 1024, 3: 1024}
SAMPLE, SAMPLE_L, LD, GATHER4, RESINFO, SAMPLE_LZ, LD_LZ = 0x0, 0x2, 0x7, 0x8, 0xA, 0x18, 0x1A
SAMPLERS_OPS = sorted(FORMS)
"""All messages that take a sampler state."""
TYPED_LOAD, TYPED_STORE, TYPED_SPLIT = 0x100, 0x101, 0x102
"""The last is a load whose coordinates are in both parts of the payload."""
LANES = 16
FLAT, VOLUME_TYPE, CUBE = 1, 2, 3
_PLAIN = (LD, RESINFO, LD_LZ, TYPED_LOAD, TYPED_STORE, TYPED_SPLIT)
"""Messages without a sampler state."""


class Case(NamedTuple):
    """What a message is about."""

    message: int
    """Of the sampler, or a typed one."""
    form: int
    kind: int
    """1 two-dimensional, 2 a volume, 3 a cube."""
    tiling: int
    array: bool
    size: tuple[int, int, int]
    levels: int
    sampler: tuple[int, int, bool, bool]
    """Address mode, mip filter, linear, texel coordinates."""
    seed: int
    lowest: int = 0
    """The view's lowest level."""
    anisotropy: int = 1
    """The highest ratio."""
    channel: int = 0
    """That gathers take."""


cases = st.builds(
    Case,
    st.sampled_from([*SAMPLERS_OPS, LD, RESINFO, LD_LZ, TYPED_LOAD, TYPED_STORE]),
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0, 1, 3]),
    st.booleans(),
    st.tuples(st.integers(1, 24), st.integers(1, 10), st.integers(1, 4)),
    st.integers(1, 3),
    st.tuples(
        st.integers(0, 5).filter(lambda mode: mode != 3), st.sampled_from([0, 1, 3]), st.booleans(), st.booleans()
    ),
    st.integers(0, 1 << 30),
    st.just(0),
    st.sampled_from([1, 1, 2, 16]),
    st.integers(0, 3),
)


def surface(case: Case) -> tuple[int, ...]:
    """RENDER_SURFACE_STATE."""
    width, height, depth = case.size
    height = width if case.kind == CUBE else height
    array = case.array and case.kind in (FLAT, CUBE)
    q_pitch = 0 if case.kind == VOLUME_TYPE and case.tiling == 1 else 64
    swizzle = 4 << 25 | 5 << 22 | 6 << 19 | 7 << 16
    return (
        case.kind << 29 | array << 28 | (0x3F if case.kind == CUBE else 0) | case.form << 18 | 1 << 16 | 1 << 14 | case.tiling << 12, q_pitch >> 2,
        width - 1 | height - 1 << 16, PITCHES[case.tiling] - 1 | depth - 1 << 21, (depth - 1) << 7,
        case.levels - 1 | case.lowest << 4 | NO_TAIL << 8, 0, swizzle, IMAGE & 0xFFFFFFFF, IMAGE >> 32, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


def sampler(case: Case) -> tuple[int, ...]:
    """SAMPLER_STATE."""
    mode, mip, linear, texels = case.sampler
    minify = 2 if case.anisotropy > 1 else int(linear)
    return (
        mip << 20 | linear << 17 | minify << 14,
        14 << 16 | 1 << 1 | (case.seed & 1),
        SURFACES + BORDER,
        mode << 6
        | mode << 3
        | mode
        | texels << 10
        | (case.seed >> 1 & 0x3F) << 13
        | max(0, case.anisotropy // 2 - 1) << 19,
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
    return b"".join(column.tobytes() for column in sampled(case, random))


def sampled(case: Case, random: np.random.Generator) -> list[np.ndarray[tuple[int, ...], np.dtype[Any]]]:
    """Parameters of a message that takes a sampler state: coordinates some of which are outside, offsets, levels."""
    width, height, depth = case.size
    cube = case.kind == CUBE
    scale = (width, height, depth) if case.sampler[3] and not cube else (1, 1, 1)
    axes = dict(zip("uvr", [random.uniform(-0.5, 1.5, LANES) * length for length in scale], strict=True))
    if cube:
        axes = {name: random.uniform(-1, 1, LANES) for name in "uvr"}
    elif case.array and case.kind == FLAT:
        axes["r"] = random.uniform(-1, depth, LANES)
    columns: list[np.ndarray[tuple[int, ...], np.dtype[Any]]] = []
    for name in FORMS[SamplerOp(case.message)].names:
        if "off" in name:
            level = random.uniform(-1, case.levels, LANES).astype(np.float32).view(np.uint32) & ~np.uint32(0xFFF)
            low = random.integers(0, 1 << 12, LANES, dtype=np.uint32)
            layer = random.integers(0, 3, LANES, dtype=np.uint32)
            columns.append(low << 12 | layer if name.endswith("_r") else low | level if "_" in name else low)
            continue
        values = random.uniform(-1, case.levels, LANES)
        if name in axes:
            values = axes[name]
        elif name.startswith("d"):
            values = random.uniform(-0.5, 0.5, LANES)
        elif name == "ref":
            values = random.uniform(0, 1, LANES)
        columns.append(values.astype(np.float32))
    return columns


def header(case: Case) -> str:
    """Offsets in texels, the channel that gathers take; sampler states are where those of the stage are."""
    words = (0, 0, case.channel << 16 | case.seed >> 1 & 0xFFF, SURFACES + SAMPLERS)
    return "".join(f"mov (1|M0)  r40.{number}<1>:ud  0x{word:x}:ud\n" for number, word in enumerate(words))


def kernel(case: Case) -> str:
    """Loads the parameters, sends the message, stores what it answers."""
    text = LINEAR + address(30, 1).replace("r2.1", "r1.1")
    headed = case.message not in _PLAIN and case.channel > 0
    count = 4 if case.message in _PLAIN else len(FORMS[SamplerOp(case.message)].names)
    for number in range(count):
        register = 80 + number if case.message == TYPED_SPLIT and number else 41 + number
        text += f"send.ugm (16|M0)  r{register}  r30  null:0  0x{0x40 * number << 12:08x}  {LOAD}\n"
    descriptor = (count + headed) << 25 | 4 << 20 | headed << 19 | 1 << 17
    descriptor |= (case.message & 0x1F) << 12 | case.message >> 5 << 31
    if case.message == TYPED_STORE:
        text += "send.tgm (16|M0)  null  r41  r44:1  0x0  0x66001506\n"  # red
    if case.message == TYPED_SPLIT:
        text += "send.tgm (16|M0)  r60  r41  r81:2  0x0  0x6240f502\n"
    elif case.message in (TYPED_LOAD, TYPED_STORE):
        text += "send.tgm (16|M0)  r60  r41  null:0  0x0  0x6640f502\n"
    else:
        first = "r40" if headed else "r41"
        text += header(case) + f"send.smpl (16|M0)  r60  {first}  null:0  0x0  0x{descriptor & 0xFFFFFFFF:08x}\n"
    for number in range(4):
        result = store(0, f"r{60 + number}").replace("r2.0", "r1.0")
        text += result.replace("0x0  ", f"0x{0x100 * number << 12:08x}  ")
    return text + EOT


def answer(back_end: str, case: Case) -> bytes:
    """What a back end stores, and the image."""
    if case.form in BLOCKS and case.message in (TYPED_LOAD, TYPED_STORE):
        case = case._replace(message=LD)  # blocks are for the sampler
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
        texels = np.random.default_rng(case.seed + 1).integers(
            0, 256 if case.form in BLOCKS else 64, BYTES, dtype=np.uint8
        )
        job.tables.space().write(IMAGE, texels.tobytes())
        job.submit()
        lab.run()
        assert not lab.engine("ccs0").reports
        (interpreted,) = [one["interpreted"] for one in lab.engines.inspect() if one["name"] == "ccs0"]
        assert not interpreted
        found = b"".join(struct.pack("<16I", *job.data(0x100 * number, LANES)) for number in range(4))
        return found + bytes(job.tables.space().read(IMAGE, BYTES))


VOLUME = Case(SAMPLE_LZ, 0x0C7, 2, 1, False, (13, 9, 4), 1, (4, 0, True, True), 1)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases)
@example(VOLUME)
@example(VOLUME._replace(message=LD, form=0x0CB))
@example(VOLUME._replace(kind=1, array=True, tiling=3, message=GATHER4, channel=2))
@example(VOLUME._replace(kind=3, message=SamplerOp.GATHER4_I, levels=3, sampler=(2, 1, True, False)))
@example(VOLUME._replace(kind=1, message=SamplerOp.LOD, levels=3, sampler=(2, 3, True, False), anisotropy=4))
@example(VOLUME._replace(kind=1, tiling=0, message=SAMPLE, levels=2, sampler=(0, 3, True, False), anisotropy=16))
@example(VOLUME._replace(kind=1, message=SamplerOp.SAMPLE_D, levels=3, sampler=(1, 1, True, False), anisotropy=16))
@example(VOLUME._replace(kind=1, message=SamplerOp.SAMPLE_B, levels=3, sampler=(1, 1, True, False)))
@example(VOLUME._replace(kind=1, message=SamplerOp.SAMPLE_PO_L_C, sampler=(4, 1, True, False), channel=1))
@example(VOLUME._replace(kind=1, array=True, message=SamplerOp.GATHER4_PO_I_C, sampler=(4, 1, True, False), levels=3))
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


@pytest.mark.parametrize("form", BLOCKS)
def test_texels_of_blocks_are_the_same_on_both_back_ends(form: int) -> None:
    for message, tiling in ((LD_LZ, 3), (SAMPLE_LZ, 1)):
        case = Case(message, form, FLAT, tiling, False, (23, 10, 1), 1, (0, 0, True, False), 5)
        found = answer("compiled", case)
        assert any(found[:64])
        assert found == answer("reference", case)


@pytest.mark.parametrize("back_end", ["compiled", "reference"])
def test_a_ratio_of_anisotropy_changes_what_a_sample_gives(back_end: str) -> None:
    case = VOLUME._replace(kind=FLAT, tiling=0, message=SAMPLE, sampler=(0, 1, True, False))
    assert answer(back_end, case._replace(anisotropy=16)) != answer(back_end, case)


@pytest.mark.parametrize("tiling", [0, 1, 3])
def test_the_messages_of_the_comparison_answer_something(tiling: int) -> None:
    assert any(answer("reference", VOLUME._replace(tiling=tiling)))
