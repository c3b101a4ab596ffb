"""Images: formats, texels in tiles, typed messages, the sampler."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from unittest.mock import create_autospec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.xe.compute_kernels import LINEAR, store
from tests.support.xe.compute_lab import DATA, EOT, SURFACES, ComputeLab, base_addresses, walker
from tests.support.xe.engine_lab import Job
from vfio_user_xe.device_models.xe.compute import formats
from vfio_user_xe.device_models.xe.compute.atomics import OPERATIONS
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Image, UnknownImage
from vfio_user_xe.device_models.xe.engines.surface_layout import NO_TAIL
from vfio_user_xe.device_models.xe.engines.tiling import TILE_4, Tiling, tile_64, tile_64_3d
from vfio_user_xe.device_models.xe.eu.messages.message import LscOp

STATE, TABLE, SAMPLERS, BORDER = 0x100, 0x400, 0x600, 0x640
RGBA8_UINT, RGBA32_FLOAT, R32_UINT = 0x0CB, 0x000, 0x0D7
IMAGE = DATA + 0x4000
RESULT = store(0, "r20").replace("r2.0", "r1.0")
PLACES = (
    LINEAR
    + """
    shr (16|M0)  r13.0<1>:ud  r12.0<1;1,0>:ud  2:ud
    and (16|M0)  r14.0<1>:ud  r13.0<1;1,0>:ud  3:ud
    shr (16|M0)  r15.0<1>:ud  r13.0<1;1,0>:ud  2:ud
"""
)
"""r14 and r15: u and v, 0 to 3."""


def image_state(
    form: int, width: int, height: int, pitch: int, tiling: int = 0, kind: int = 1, depth: int = 1
) -> tuple[int, ...]:
    """RENDER_SURFACE_STATE of an image at `IMAGE`, channels as they are."""
    swizzle = 4 << 25 | 5 << 22 | 6 << 19 | 7 << 16
    return (
        kind << 29 | form << 18 | tiling << 12, 0, width - 1 | height - 1 << 16, pitch - 1 | depth - 1 << 21, 0,
        NO_TAIL << 8, 0, swizzle,
        IMAGE & 0xFFFFFFFF, IMAGE >> 32, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


def sampler_state(mode: int, *, linear: bool, texels: bool = True) -> tuple[int, ...]:
    filters = 1 if linear else 0
    return filters << 17 | filters << 14, 0, SURFACES + BORDER, mode << 6 | mode << 3 | mode | texels << 10


def run(lab: ComputeLab, kernel: str, state: tuple[int, ...], image: bytes = b"", sampler: Sequence[int] = ()) -> Job:
    job = lab.compute_job(
        kernel + EOT,
        *walker(inline=[DATA, 0], binding_table=TABLE, sampler=SURFACES + SAMPLERS),
        setup=base_addresses(),
    )
    lab.place(job, SURFACES + STATE, *state)
    lab.place(job, SURFACES + TABLE, STATE)
    if sampler:
        lab.place(job, SURFACES + SAMPLERS, *sampler)
        lab.place(job, SURFACES + BORDER, *struct.unpack("<4I", struct.pack("<4f", 9, 9, 9, 9)))
    job.set_bytes(0x4000, image)
    job.submit()
    lab.run()
    return job


@pytest.mark.parametrize("code", sorted(formats.FORMATS))
def test_what_is_stored_in_a_format_is_loaded_again(code: int) -> None:
    form = formats.FORMATS[code]
    values = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [1, 1, 1, 1]], dtype=float)
    again = formats.decode(form, formats.encode(form, values))
    first_bit = {channel: bit for channel, bit, _ in form.fields}
    for channel in range(4):
        # Channels of luminance and intensity are the same bits: the first of them is stored.
        same = [other for other, bit in first_bit.items() if bit == first_bit.get(channel)]
        expected = values[:, same[0]].tolist() if same else [float(channel == 3)] * 3
        assert again[:, channel].tolist() == expected


@given(st.integers(0, 255))
def test_every_unorm_byte_survives(value: int) -> None:
    form = formats.FORMATS[0x140]
    texel = np.array([[value]], dtype=np.uint8)
    assert formats.encode(form, formats.decode(form, texel)).tolist() == texel.tolist()


def test_values_beyond_a_format_are_clamped() -> None:
    unorm, sint = formats.FORMATS[0x140], formats.FORMATS[0x142]
    high, low = np.full((1, 4), 1e9), np.full((1, 4), -1e9)
    assert [int(formats.encode(unorm, values)[0, 0]) for values in (high, low)] == [255, 0]
    assert [int(formats.encode(sint, values)[0, 0]) for values in (high, low)] == [0x7F, 0x80]


STORE_RED = "send.tgm (16|M0)  null  r14  r13:1  0x00000000  0x64001506\n"


@pytest.mark.parametrize(
    ("tiling", "shape", "pitch"),
    [(0, None, 64), (3, TILE_4, 128), (1, tile_64(4), 512)],
    ids=["linear", "Tile4", "Tile64"],
)
def test_typed_stores_put_texels_where_the_tiling_says(
    lab: ComputeLab, tiling: int, shape: Tiling | None, pitch: int
) -> None:
    job = run(lab, PLACES + STORE_RED, image_state(R32_UINT, 4, 4, pitch, tiling))
    for y in range(4):
        for x in range(4):
            place = y * pitch + 4 * x if shape is None else shape.offset(4 * x, y)
            assert job.data(0x4000 + place, 1) == [4 * y + x]


SLICES = """
    and (16|M0)  r16.0<1>:ud  r15.0<1;1,0>:ud  1:ud
    shr (16|M0)  r15.0<1>:ud  r15.0<1;1,0>:ud  1:ud
"""
"""r15 and r16: v and r, 0 and 1, of what was v."""
VOLUME = 2


def test_typed_stores_reach_the_slices_of_a_volume_in_tile_64(lab: ComputeLab) -> None:
    store_red = "send.tgm (16|M0)  null  r14  r13:1  0x00000000  0x66001506\n"
    job = run(lab, PLACES + SLICES + store_red, image_state(R32_UINT, 4, 2, 128, 1, VOLUME, depth=2))
    # By hand: x has bits 2 and 3, y bit 4, z bit 8.
    for number in range(16):
        x, z, y = number & 3, number >> 2 & 1, number >> 3
        assert job.data(0x4000 + (4 * x | y << 4 | z << 8), 1) == [number]


def test_fetches_reach_the_slices_of_a_volume_in_tile_64(lab: ComputeLab) -> None:
    image = bytearray(0x200)
    for number in range(16):
        x, y, z = number & 3, number >> 2 & 1, number >> 3
        struct.pack_into("<I", image, 4 * x | y << 4 | z << 8, 100 + (x | z << 2 | y << 3))
    kernel = PLACES + SLICES + "send.smpl (16|M0)  r20  r14  null:0  0x0  0x0643A000\n"
    job = run(lab, kernel + RESULT, image_state(R32_UINT, 4, 2, 128, 1, VOLUME, depth=2), bytes(image))
    assert job.data(0, 16) == [*range(100, 116)]


@pytest.mark.parametrize(("code", "samples", "said"), [(0x140, 5, "of 32 samples"), (0x197, 1, "texels of 32 bytes")])
def test_surfaces_in_tile64_that_hardware_does_not_have_are_unknown(code: int, samples: int, said: str) -> None:
    words = list(image_state(code, 64, 64, 1024, 1))
    words[4] |= samples << 3
    with pytest.raises(UnknownImage, match=said):
        Image(create_autospec(UnitMemory, instance=True), SurfaceState.of(words))


@pytest.mark.parametrize(("code", "size"), [(0x140, 1), (0x10A, 2), (R32_UINT, 4), (0x085, 8), (RGBA32_FLOAT, 16)])
def test_texels_of_levels_and_slices_of_a_volume_are_where_blits_put_them(code: int, size: int) -> None:
    tiling = tile_64_3d(size)
    wide, high, pitch, q_pitch = tiling.width // size, tiling.height, 2 * tiling.width, 4 * tiling.height
    words = list(image_state(code, 2 * wide, 2 * high, pitch, 1, VOLUME, depth=2 * tiling.depth))
    words[1], words[5] = q_pitch >> 2, 2 << 8 | 4
    surface = SurfaceState.of(words)
    last = Image(create_autospec(UnitMemory, instance=True), surface)
    x, y, z = wide + 3, high + 2, tiling.depth + 1
    # The second tile of the second row of tiles, of the second layer of tiles.
    inside = tiling.slice(1).offset(3 * size, 2)
    place = last.addresses(np.array([x]), np.array([y]), np.array([z]))
    assert place.tolist() == [IMAGE + 2 * 4 * 0x1_0000 + 3 * 0x1_0000 + inside]
    # Level 2 begins the mip tail, beside level 1, in slot 0: the right half of the tile.
    tail = Image(create_autospec(UnitMemory, instance=True), surface, 2)
    place = tail.addresses(np.array([1]), np.array([0]), np.array([tiling.depth // 2 - 1]))
    inside = tiling.slice(tiling.depth // 2 - 1).offset((wide // 2 + 1) * size, 0)
    assert place.tolist() == [IMAGE + (2 * 2 + 1) * 0x1_0000 + inside]


def test_typed_stores_outside_of_the_image_are_dropped(lab: ComputeLab) -> None:
    job = run(lab, PLACES + STORE_RED, image_state(R32_UINT, 4, 2, 16))
    assert job.data(0x4000, 12) == [*range(8), 0, 0, 0, 0]


def test_typed_loads_give_components_in_their_order(lab: ComputeLab) -> None:
    image = b"".join(bytes([n, n + 50, n + 100, n + 150]) for n in range(16))
    kernel = PLACES + "send.tgm (16|M0)  r20  r14  null:0  0x00000000  0x6420A502\n"
    job = run(lab, kernel + RESULT + store(0, "r21").replace("r2.0", "r1.0").replace("0x0  ", "0x00100000  "),
              image_state(RGBA8_UINT, 4, 4, 16), image)  # fmt: skip
    assert job.data(0, 16) == [n + 50 for n in range(16)]
    assert job.data(0x100, 16) == [n + 150 for n in range(16)]


def test_a_fetch_outside_of_the_image_is_zero(lab: ComputeLab) -> None:
    # ld_lz, SIMD16: u, v, r.
    kernel = PLACES + "send.smpl (16|M0)  r20  r14  null:0  0x0  0x0443A000\n"
    image = struct.pack("<8I", *range(100, 108))
    job = run(lab, kernel + RESULT, image_state(R32_UINT, 4, 2, 16), image)
    assert job.data(0, 16) == [*range(100, 108), *[0] * 8]


CENTRES = """
    mov (16|M0)  r14.0<1>:f  r14.0<1;1,0>:d
    mov (16|M0)  r15.0<1>:f  r15.0<1;1,0>:d
"""
SAMPLE_LZ = "send.smpl (16|M0)  r20  r14  null:0  0x0  0x04438000\n"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (0, [0, 1, 0, 1]),
        (1, [0, 1, 1, 0]),
        (2, [0, 1, 1, 1]),
        (4, [0, 1, 9, 9]),
        (5, [0, 1, 1, 1]),
    ],
    ids=["wrap", "mirror", "clamp", "border", "mirror once"],
)
def test_address_modes_lead_coordinates_beyond_the_edge(lab: ComputeLab, mode: int, expected: list[int]) -> None:
    image = struct.pack("<8f", 0, 0, 0, 0, 1, 0, 0, 0) * 4
    kernel = PLACES + CENTRES + SAMPLE_LZ
    job = run(lab, kernel + RESULT, image_state(RGBA32_FLOAT, 2, 4, 32), image, sampler_state(mode, linear=False))
    values = np.array(job.data(0, 4), dtype=np.uint32).view(np.float32)
    assert values.tolist() == expected


def test_linear_filtering_weighs_neighbours(lab: ComputeLab) -> None:
    image = struct.pack("<8f", 0, 0, 0, 0, 8, 0, 0, 0) * 4
    kernel = PLACES + CENTRES + "mul (16|M0)  r14.0<1>:f  r14.0<1;1,0>:f  0x3F400000:f\n" + SAMPLE_LZ
    job = run(lab, kernel + RESULT, image_state(RGBA32_FLOAT, 2, 4, 32), image, sampler_state(2, linear=True))
    values = np.array(job.data(0, 4), dtype=np.uint32).view(np.float32)
    # u = 0, 0.75, 1.5, 2.25 with texel centres at 0.5 and 1.5.
    assert values.tolist() == [0, 2, 8, 8]


def test_a_format_that_is_not_known_is_reported_and_reads_zero(lab: ComputeLab) -> None:
    kernel = PLACES + "mov (16|M0)  r20.0<1>:ud  7:ud\n" + "send.tgm (16|M0)  r20  r14  null:0  0x0  0x64101502\n"
    job = run(lab, kernel + RESULT, image_state(0x186, 4, 4, 16))
    assert job.data(0, 16) == [0] * 16
    assert [report for report in lab.engine("ccs0").reports if "surface format 0x186" in report]


def test_typed_atomics_return_what_was_there(lab: ComputeLab) -> None:
    # All lanes add to texel (1, 1); U and V are r14 and r15.
    kernel = (
        PLACES
        + """
        mov (16|M0)  r14.0<1>:ud  1:ud
        mov (16|M0)  r15.0<1>:ud  1:ud
        mov (16|M0)  r16.0<1>:ud  3:ud
        send.tgm (16|M0)  r20  r14  r16:1  0x00000000  0x6410050C
    """
    )
    job = run(lab, kernel + RESULT, image_state(R32_UINT, 4, 4, 16), struct.pack("<16I", *range(16)))
    assert job.data(0x4000 + 16, 4) == [4, 5 + 48, 6, 7]
    assert sorted(job.data(0, 16)) == [5 + 3 * n for n in range(16)]


def test_coordinates_of_an_increment_may_be_in_both_parts_of_its_payload(lab: ComputeLab) -> None:
    kernel = PLACES + "send.tgm (16|M0)  r20  r14  r15:1  0x00000000  0x62100508\n"
    job = run(lab, kernel + RESULT, image_state(R32_UINT, 4, 4, 16), struct.pack("<16I", *range(16)))
    assert job.data(0x4000, 16) == list(range(1, 17))
    assert job.data(0, 16) == list(range(16))


@pytest.mark.parametrize("op", sorted(OPERATIONS))
@pytest.mark.parametrize("returns", [False, True])
def test_typed_atomics_are_those_of_their_operation(lab: ComputeLab, op: LscOp, returns: bool) -> None:
    result, response = ("r20", 0x10) if returns else ("null", 0)
    floats = op.name.startswith("ATOMIC_F")
    # A lane beside the image adds to nothing, and gets zero.
    kernel = (
        PLACES
        + f"""
        mov (1|M0)  r14.3<1>:ud  9:ud
        mov (16|M0)  r20.0<1>:ud  5:ud
        add (16|M0)  r16.0<1>:d  r13.0<1;1,0>:d  -5:d
        {"mov (16|M0)  r16.0<1>:f  r16.0<1;1,0>:d" if floats else ""}
        mov (16|M0)  r17.0<1>:ud  77:ud
        send.tgm (16|M0)  {result}  r14  r16:2  0x00000000  0x64{response:02X}05{op:02X}
    """
    )
    pack = struct.Struct("<f" if floats else "<i").pack
    held = [int.from_bytes(pack(3 * n - 7), "little") for n in range(16)]
    added = [int.from_bytes(pack(n - 5), "little") for n in range(16)]
    job = run(lab, kernel + RESULT, image_state(R32_UINT, 4, 4, 16), struct.pack("<16I", *held))
    expected = [OPERATIONS[op](old, a, 77, 4) for old, a in zip(held, added, strict=True)]
    expected[3] = held[3]
    assert job.data(0x4000, 16) == expected
    assert job.data(0, 16) == ([*held[:3], 0, *held[4:]] if returns else [5] * 16)
    (interpreted,) = [one["interpreted"] for one in lab.engines.inspect() if one["name"] == "ccs0"]
    assert not interpreted


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("samples", [2, 4, 8, 16])
@pytest.mark.parametrize("code", [0x140, 0x10D, 0x0C7, 0x085, 0x000])
def test_every_sample_of_every_texel_has_a_place_of_its_own(code: int, samples: int, depth: bool) -> None:
    size = formats.FORMATS[code].bytes
    surface = SurfaceState(
        type=SurfaceType.D2, format=code, tiling=1, base=0, width=100, height=70, depth=1, pitch=1 << 14, entries=1,
        q_pitch=0, first_element=0, array=False, level=0, levels=1, swizzle=(4, 5, 6, 7), alignment=(3, 1),
        samples=samples, depth_samples=depth,
    )  # fmt: skip
    image = Image(create_autospec(UnitMemory, instance=True), surface)
    y, x = (part.reshape(-1) for part in np.meshgrid(np.arange(70), np.arange(100), indexing="ij"))
    places = np.concatenate([image.sample_addresses(x, y, x * 0, sample) for sample in range(samples)])
    assert len(np.unique(places)) == len(places)
    assert not (places % size).any()


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("tiling", [0, 1, 2, 3], ids=["linear", "tile64", "x", "tile4"])
@pytest.mark.parametrize("code", [0x140, 0x10D, 0x0C7, 0x085, 0x040, 0x000])
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_fill_writes_each_texel_of_its_rows_and_no_other_byte(
    code: int, tiling: int, samples: int, data: st.DataObject
) -> None:
    size = formats.FORMATS[code].bytes
    level = data.draw(st.integers(0, 3)) if samples == 1 else 0
    if size == 12 and tiling:
        tiling = 0  # such texels are in linear surfaces only
    surface = SurfaceState(
        type=SurfaceType.D2, format=code, tiling=tiling, base=0x10000, width=44, height=18, depth=1, pitch=1 << 14,
        entries=1, q_pitch=64, first_element=0, array=False, level=0, levels=4, swizzle=(4, 5, 6, 7), alignment=(0, 1),
        samples=samples,
    )  # fmt: skip
    memory = create_autospec(UnitMemory, instance=True)
    image = Image(memory, surface, level)
    left, right = sorted(data.draw(st.tuples(*[st.integers(0, image.width)] * 2)))
    top, bottom = sorted(data.draw(st.tuples(*[st.integers(0, image.height)] * 2)))
    texel = bytes(range(1, size + 1))
    for sample in range(samples):
        image.fill((left, right), np.arange(top, bottom), 0, sample, texel)
    found: dict[int, int] = {}
    for call in memory.store.call_args_list:
        addresses, values, width = call.args
        for address, value in zip(addresses.tolist(), values.tolist(), strict=True):
            found |= dict(enumerate(value.to_bytes(width, "little"), address))
    y, x = (part.reshape(-1) for part in np.meshgrid(np.arange(top, bottom), np.arange(left, right), indexing="ij"))
    expected: dict[int, int] = {}
    for sample in range(samples):
        for address in image.sample_addresses(x, y, x * 0, sample).tolist():
            expected |= dict(enumerate(texel, address))
    assert found == expected
