"""Images: read through samplers, written, and compared with what indexing gives in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyopencl as cl
import pytest
from devices import UNDER_TEST, Device, device

ORDER, TYPE = cl.channel_order, cl.channel_type
FORMATS: dict[str, tuple[int, int, int, Any, str]] = {
    "rgba-float": (ORDER.RGBA, TYPE.FLOAT, 4, np.float32, "f"),
    "rgba-half": (ORDER.RGBA, TYPE.HALF_FLOAT, 4, np.float16, "f"),
    "rgba-unorm8": (ORDER.RGBA, TYPE.UNORM_INT8, 4, np.uint8, "f"),
    "rgba-uint8": (ORDER.RGBA, TYPE.UNSIGNED_INT8, 4, np.uint8, "ui"),
    "rgba-int16": (ORDER.RGBA, TYPE.SIGNED_INT16, 4, np.int16, "i"),
    "rgba-uint32": (ORDER.RGBA, TYPE.UNSIGNED_INT32, 4, np.uint32, "ui"),
    "r-float": (ORDER.R, TYPE.FLOAT, 1, np.float32, "f"),
    "r-uint16": (ORDER.R, TYPE.UNSIGNED_INT16, 1, np.uint16, "ui"),
    "rg-unorm16": (ORDER.RG, TYPE.UNORM_INT16, 2, np.uint16, "f"),
}
"""Channel order and type, channels, element, and the letters of read_image."""
SHAPE = (29, 53)
"""Rows and columns: neither is a multiple of a tile or of a SIMD width."""
MOVE = """
kernel void move(read_only image2d_t from, write_only image2d_t to, sampler_t sampler, int2 by, int2 step) {
    int2 at = (int2)(get_global_id(0), get_global_id(1));
    write_image%s(to, at, read_image%s(from, sampler, at * step + by));
}
"""
BETWEEN = """
kernel void between(read_only image2d_t from, global float4 *to, sampler_t sampler, float2 by) {
    int2 at = (int2)(get_global_id(0), get_global_id(1));
    to[at.y * get_global_size(0) + at.x] = read_imagef(from, sampler, convert_float2(at) + by);
}
"""
SLICES = """
kernel void slices(read_only image3d_t from, global uint4 *to, sampler_t sampler) {
    int4 at = (int4)(get_global_id(0), get_global_id(1), get_global_id(2), 0);
    int4 size = get_image_dim(from);
    to[(at.z * size.y + at.y) * size.x + at.x] = read_imageui(from, sampler, size - 1 - at);
}
"""

TURNED = """
#pragma OPENCL EXTENSION cl_khr_3d_image_writes : enable
kernel void turned(read_only image3d_t from, write_only image3d_t to, sampler_t sampler) {
    int4 at = (int4)(get_global_id(0), get_global_id(1), get_global_id(2), 0);
    write_image%s(to, at, read_image%s(from, sampler, get_image_dim(from) - 1 - at));
}
"""
WITHIN = """
kernel void within(read_only image3d_t from, global float4 *to, sampler_t sampler, float4 by) {
    int4 at = (int4)(get_global_id(0), get_global_id(1), get_global_id(2), 0);
    int4 size = get_image_dim(from);
    to[(at.z * size.y + at.y) * size.x + at.x] = read_imagef(from, sampler, convert_float4(at) + by);
}
"""
LAYERS = """
kernel void layers(read_only image2d_array_t from, write_only image2d_array_t to, sampler_t sampler) {
    int4 at = (int4)(get_global_id(0), get_global_id(1), get_global_id(2), 0);
    int4 last = (int4)(get_image_dim(from), (int)get_image_array_size(from), 0) - 1;
    write_imageui(to, at, read_imageui(from, sampler, last - at));
}
"""


@pytest.fixture
def used() -> Device:
    """The device under test."""
    found = device(UNDER_TEST)
    if not found.device.image_support:
        pytest.skip("it has no images")
    return found


def image_format(used: Device, name: str, flags: int) -> Any:
    """The format; skips the test where images of it do not exist."""
    order, kind, *_ = FORMATS[name]
    wanted = cl.ImageFormat(order, kind)
    if wanted not in cl.get_supported_image_formats(used.context, flags, cl.mem_object_type.IMAGE2D):
        pytest.skip(f"there are no images of {name}")
    return wanted


def texels(name: str, seed: int) -> Any:
    """Rows of an image."""
    _, _, channels, element, _ = FORMATS[name]
    random = np.random.default_rng(seed)
    if np.issubdtype(element, np.floating):
        return random.standard_normal((*SHAPE, channels)).astype(element)
    limits = np.iinfo(element)
    return random.integers(limits.min, limits.max, (*SHAPE, channels), dtype=element, endpoint=True)


def image_of(used: Device, name: str, data: Any) -> Any:
    flags = cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR
    return cl.Image(
        used.context,
        flags,
        image_format(used, name, cl.mem_flags.READ_ONLY),
        SHAPE[::-1],
        hostbuf=np.ascontiguousarray(data),
    )


@pytest.mark.parametrize("mode", ["CLAMP", "CLAMP_TO_EDGE"])
@pytest.mark.parametrize("name", FORMATS)
def test_texels_are_those_of_their_place_and_beyond_the_edge_what_the_sampler_says(
    used: Device, name: str, mode: str
) -> None:
    by, step = (-5, 3), (1, -1)
    data, letters = texels(name, 3), FORMATS[name][4]
    source = image_of(used, name, data)
    target = cl.Image(
        used.context, cl.mem_flags.WRITE_ONLY, image_format(used, name, cl.mem_flags.WRITE_ONLY), SHAPE[::-1]
    )
    sampler = cl.Sampler(used.context, False, getattr(cl.addressing_mode, mode), cl.filter_mode.NEAREST)
    kernel = cl.Kernel(used.built(MOVE % (letters, letters)), "move")
    kernel(used.queue, SHAPE[::-1], None, source, target, sampler, np.array(by, np.int32), np.array(step, np.int32))
    found = np.empty_like(data)
    cl.enqueue_copy(used.queue, found, target, origin=(0, 0), region=SHAPE[::-1])
    y, x = np.indices(SHAPE)
    x, y = x * step[0] + by[0], y * step[1] + by[1]
    wanted = data[np.clip(y, 0, SHAPE[0] - 1), np.clip(x, 0, SHAPE[1] - 1)]
    if mode == "CLAMP":
        inside = (x >= 0) & (x < SHAPE[1]) & (y >= 0) & (y < SHAPE[0])
        wanted = np.where(inside[..., None], wanted, np.zeros_like(wanted))
    assert np.array_equal(found, wanted), f"{np.count_nonzero(found != wanted)} of {found.size} channels differ"


@pytest.mark.parametrize("name", ["rgba-float", "rgba-unorm8", "rgba-half"])
def test_a_linear_filter_weighs_four_texels(used: Device, name: str) -> None:
    data = texels(name, 5)
    sampler = cl.Sampler(used.context, False, cl.addressing_mode.CLAMP_TO_EDGE, cl.filter_mode.LINEAR)
    out = np.zeros((*SHAPE, 4), np.float32)
    buffer = cl.Buffer(used.context, cl.mem_flags.WRITE_ONLY, out.nbytes)
    kernel = cl.Kernel(used.built(BETWEEN), "between")
    # Texels have their centres at halves: these are a quarter of the way to the next column, half to the next row.
    kernel(
        used.queue, SHAPE[::-1], None, image_of(used, name, data), buffer, sampler, np.array([0.75, 1.0], np.float32)
    )
    cl.enqueue_copy(used.queue, out, buffer)
    values = data.astype(np.float64) / (255 if data.dtype == np.uint8 else 1)
    right, below = (np.minimum(np.arange(size) + 1, size - 1) for size in SHAPE[::-1])
    rows = (values + values[below]) / 2
    wanted = rows * 0.75 + rows[:, right] * 0.25
    assert np.allclose(out, wanted, rtol=1e-3, atol=1e-3)


def test_slices_of_a_volume_are_where_they_belong(used: Device) -> None:
    shape = (5, 9, 13)
    data = np.random.default_rng(9).integers(0, 256, (*shape, 4), dtype=np.uint8)
    form = cl.ImageFormat(ORDER.RGBA, TYPE.UNSIGNED_INT8)
    source = cl.Image(
        used.context, cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR, form, shape[::-1], hostbuf=data
    )
    sampler = cl.Sampler(used.context, False, cl.addressing_mode.NONE, cl.filter_mode.NEAREST)
    out = np.zeros((*shape, 4), np.uint32)
    buffer = cl.Buffer(used.context, cl.mem_flags.WRITE_ONLY, out.nbytes)
    cl.Kernel(used.built(SLICES), "slices")(used.queue, shape[::-1], None, source, buffer, sampler)
    cl.enqueue_copy(used.queue, out, buffer)
    assert np.array_equal(out, data[::-1, ::-1, ::-1])


VOLUME = (19, 35, 67)
"""Slices, rows, columns: more than a tile of any format has in each direction, or than half of it."""


@pytest.mark.parametrize("name", ["r-uint16", "rgba-unorm8", "rgba-half", "rgba-float"])
def test_a_kernel_turns_a_volume_around(used: Device, name: str) -> None:
    order, kind, channels, element, letters = FORMATS[name]
    form = cl.ImageFormat(order, kind)
    if form not in cl.get_supported_image_formats(used.context, cl.mem_flags.WRITE_ONLY, cl.mem_object_type.IMAGE3D):
        pytest.skip(f"there are no volumes of {name}")
    random = np.random.default_rng(17)
    whole = random.integers(0, 256, (*VOLUME, channels))
    data = np.ascontiguousarray(whole.astype(element))
    flags = cl.mem_flags
    source = cl.Image(used.context, flags.READ_ONLY | flags.COPY_HOST_PTR, form, VOLUME[::-1], hostbuf=data)
    target = cl.Image(used.context, flags.WRITE_ONLY, form, VOLUME[::-1])
    sampler = cl.Sampler(used.context, False, cl.addressing_mode.NONE, cl.filter_mode.NEAREST)
    kernel = cl.Kernel(used.built(TURNED % (letters, letters)), "turned")
    kernel(used.queue, VOLUME[::-1], None, source, target, sampler)
    found = np.empty_like(data)
    cl.enqueue_copy(used.queue, found, target, origin=(0, 0, 0), region=VOLUME[::-1])
    assert np.array_equal(found, data[::-1, ::-1, ::-1])


def test_a_part_of_a_volume_is_copied_into_another(used: Device) -> None:
    form = cl.ImageFormat(ORDER.RGBA, TYPE.UNSIGNED_INT8)
    data = np.random.default_rng(18).integers(0, 256, (*VOLUME, 4), dtype=np.uint8)
    flags = cl.mem_flags
    source, target = (
        cl.Image(used.context, flags.READ_WRITE | flags.COPY_HOST_PTR, form, VOLUME[::-1], hostbuf=what)
        for what in (data, np.zeros_like(data))
    )
    size = (40, 20, 9)
    cl.enqueue_copy(used.queue, target, source, src_origin=(3, 5, 7), dest_origin=(11, 2, 4), region=size)
    found = np.empty_like(data)
    cl.enqueue_copy(used.queue, found, target, origin=(0, 0, 0), region=VOLUME[::-1])
    wanted = np.zeros_like(data)
    wanted[4:13, 2:22, 11:51] = data[7:16, 5:25, 3:43]
    assert np.array_equal(found, wanted)


def test_a_linear_filter_weighs_eight_texels_of_a_volume(used: Device) -> None:
    shape = (5, 9, 13)
    data = np.random.default_rng(19).standard_normal((*shape, 4)).astype(np.float32)
    flags = cl.mem_flags
    form = cl.ImageFormat(ORDER.RGBA, TYPE.FLOAT)
    source = cl.Image(used.context, flags.READ_ONLY | flags.COPY_HOST_PTR, form, shape[::-1], hostbuf=data)
    sampler = cl.Sampler(used.context, False, cl.addressing_mode.CLAMP_TO_EDGE, cl.filter_mode.LINEAR)
    out = np.zeros((*shape, 4), np.float32)
    buffer = cl.Buffer(used.context, flags.WRITE_ONLY, out.nbytes)
    # A quarter of the way to the next column, half to the next row and to the next slice.
    by = np.array([0.75, 1.0, 1.0, 0.0], np.float32)
    cl.Kernel(used.built(WITHIN), "within")(used.queue, shape[::-1], None, source, buffer, sampler, by)
    cl.enqueue_copy(used.queue, out, buffer)
    values = data.astype(np.float64)
    after = [np.minimum(np.arange(size) + 1, size - 1) for size in shape]
    values = (values + values[after[0]]) / 2
    values = (values + values[:, after[1]]) / 2
    values = values * 0.75 + values[:, :, after[2]] * 0.25
    assert np.allclose(out, values, rtol=1e-3, atol=1e-3)


def test_layers_of_an_array_are_where_they_belong(used: Device) -> None:
    shape = (6, 21, 37)
    data = np.random.default_rng(20).integers(0, 256, (*shape, 4), dtype=np.uint8)
    form, flags = cl.ImageFormat(ORDER.RGBA, TYPE.UNSIGNED_INT8), cl.mem_flags
    how = cl.mem_object_type.IMAGE2D_ARRAY
    if form not in cl.get_supported_image_formats(used.context, flags.WRITE_ONLY, how):
        pytest.skip("there are no arrays of images")
    source = cl.Image(
        used.context, flags.READ_ONLY | flags.COPY_HOST_PTR, form, shape[::-1], is_array=True, hostbuf=data
    )
    target = cl.Image(used.context, flags.WRITE_ONLY, form, shape[::-1], is_array=True)
    sampler = cl.Sampler(used.context, False, cl.addressing_mode.NONE, cl.filter_mode.NEAREST)
    cl.Kernel(used.built(LAYERS), "layers")(used.queue, shape[::-1], None, source, target, sampler)
    found = np.empty_like(data)
    cl.enqueue_copy(used.queue, found, target, origin=(0, 0, 0), region=shape[::-1])
    assert np.array_equal(found, data[::-1, ::-1, ::-1])
