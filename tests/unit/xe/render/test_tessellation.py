"""Patches through hull shader, tessellator and domain shader."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.xe.commands import srm
from tests.support.xe.engine_lab import DATA_VA
from tests.support.xe.render_lab import (
    FLAT,
    VERTEX_KERNEL,
    WRITE,
    RenderLab,
    element,
    elements,
    pixel_shader,
    primitive,
    setup_backend,
    vertex_buffer,
)
from vfio_user_xe.device_models.xe.render.hull_shader import factors
from vfio_user_xe.device_models.xe.render.tessellator import Domain

DOMAIN_KERNEL = VERTEX_KERNEL + 0x800
PATCHLIST_3 = 0x22
HULL = """
    and (1|M0)  r10.0<1>:ud  r0.2<0;1,0>:ud  255:ud
    mov (16|M0)  r11.0<1>:f  r10.0<0;1,0>:ud
    shl (16|M0)  r12.0<1>:ud  r10.0<0;1,0>:ud  2:ud
    add (16|M0)  r12.0<1>:ud  r12.0<8;8,1>:ud  r1.0<8;8,1>:ud
    add (16|M0)  r12.0<1>:ud  r12.0<8;8,1>:ud  32:ud
    send.urb (16|M0)  null  r12  r11:1  0x0  0x02000504
    mov (16|M0)  r20.0<1>:ud  0:ud
    and (1|M0)  r20.2<1>:ud  r0.2<0;1,0>:ud  0xFF000000:ud
    send.gtwy (1|M0)  null  r20  null:0  0x0  0x02000004
    sync.bar  null
    add (16|M0)  r12.0<1>:ud  r1.0<8;8,1>:ud  40:ud
    send.urb (16|M0)  r21  r12  null:0  0x0  0x02100500
    mov (16|M0)  r22.0<1>:f  r21.0<8;8,1>:f
    mov (16|M0)  r23.0<1>:f  r21.0<8;8,1>:f
    mov (16|M0)  r24.0<1>:f  r21.0<8;8,1>:f
    send.urb (16|M0)  null  r1  r21:4  0x0  0x02003504
    add (16|M0)  r12.0<1>:ud  r1.0<8;8,1>:ud  16:ud
    send.urb (16|M0)  null  r12  r21:1  0x0  0x02000504 {EOT}
"""
"""Each thread leaves its number in the patch; behind a barrier the last one's, 2, becomes all factors."""
DOMAIN = """
    mov (16|M0)  r10.0<1>:f  0:f
    mov (16|M0)  r11.0<1>:f  0:f
    mov (16|M0)  r12.0<1>:f  0:f
    mov (16|M0)  r13.0<1>:f  1:f
    send.urb (16|M0)  null  r4  r10:4  0x0  0x02003504
    mul (16|M0)  r20.0<1>:f  r1.0<8;8,1>:f  16:f
    mul (16|M0)  r21.0<1>:f  r2.0<8;8,1>:f  16:f
    mov (16|M0)  r22.0<1>:f  0.5:f
    mov (16|M0)  r23.0<1>:f  1:f
    add (16|M0)  r30.0<1>:ud  r4.0<8;8,1>:ud  16:ud
    send.urb (16|M0)  null  r30  r20:4  0x0  0x02003504
    mov (16|M0)  r10.0<1>:f  r5.9<0;1,0>:f
    mov (16|M0)  r13.0<1>:f  1:f
    add (16|M0)  r30.0<1>:ud  r4.0<8;8,1>:ud  32:ud
    send.urb (16|M0)  null  r30  r10:4  0x0  0x02003504 {EOT}
"""
"""Places are 16 times u and v; red is what the second thread has left in the patch."""


def tessellation(*, domain: int = 1, output: int = 2, evaluation: int = 5 << 20 | 2 << 11) -> tuple[int, ...]:
    """HS with three threads a patch, TE, DS; `evaluation` is what DS says of its thread's data."""
    return (
        0x7859_0001, 0, 0, 0x785A_0001, 0, 0,
        0x781B_0006, 0, 1 << 31 | 1 << 29 | 2, VERTEX_KERNEL, 0, 0, 0, 5 << 19,
        0x781C_0003, 1 | domain << 4 | output << 8 | 3 << 22, 0x427C_0000, 0x4280_0000, 0,
        0x781D_0009, DOMAIN_KERNEL, 0, 0, 0, 0, evaluation, 1 | 1 << 10, 0, 0, 0,
    )  # fmt: skip


def patches(lab: RenderLab, count: int, *more: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    """Pixels of patches of three vertices, and two counters: of patches, and of points."""
    vertices = [[0.0] * 8] * (3 * count)
    commands = (
        *vertex_buffer(32, 32 * len(vertices)), *elements(element(0), element(16)), *setup_backend(1, flat=1),
        *pixel_shader(), *more, *primitive(PATCHLIST_3, len(vertices)), *srm(0x2300, DATA_VA + 0x3900, 0),
        *srm(0x2308, DATA_VA + 0x3904, 0),
    )  # fmt: skip
    job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=vertices, vertex_kernel=HULL, submit=False)
    lab.load(job, DOMAIN, DOMAIN_KERNEL)
    job.submit()
    lab.run()
    counts = np.array(job.data(0x3900, 2), dtype=np.uint32)
    return np.concatenate([counts, np.array(job.data(0x4000, 256), dtype=np.uint32)])


def test_a_patch_becomes_triangles_over_its_domain(lab: RenderLab) -> None:
    found = patches(lab, 1, *tessellation())
    # Two segments a side: three points a side, and one in the middle.
    assert found[:2].tolist() == [1, 7]
    pixels = found[2:].reshape(16, 16)
    below = np.add.outer(np.arange(16), np.arange(16)) < 15
    assert (pixels[below] == 0xFF0000FF).all()
    assert not pixels[np.add.outer(np.arange(16), np.arange(16)) > 15].any()


def test_more_patches_than_a_thread_has_lanes_are_all_there(lab: RenderLab) -> None:
    assert patches(lab, 20, *tessellation())[:2].tolist() == [20, 140]


def test_points_are_drawn_where_the_output_is_points(lab: RenderLab) -> None:
    pixels = patches(lab, 1, *tessellation(output=0))[2:]
    assert 0 < np.count_nonzero(pixels) <= 7


@pytest.mark.parametrize("first_register", [0, 1, 4])
def test_a_domain_shader_without_inputs_has_its_handles_wherever_its_data_begins(
    lab: RenderLab, first_register: int
) -> None:
    # r1 to r4 have places and handles even where 3DSTATE_DS says that its data begins before.
    found = patches(lab, 1, *tessellation(evaluation=first_register << 20))
    assert found[:2].tolist() == [1, 7]
    assert np.count_nonzero(found[2:]) > 100


def test_patches_without_tessellation_are_skipped_and_reported(lab: RenderLab) -> None:
    assert not patches(lab, 1).any()
    assert [report for report in lab.engine("rcs0").reports if "patches" in report]


@pytest.mark.parametrize(
    ("domain", "layout", "expected"),
    [
        (Domain.QUAD, 0, [7, 6, 5, 4, 3, 2]), (Domain.TRIANGLE, 0, [7, 6, 5, 4]), (Domain.ISOLINE, 0, [6, 7]),
        (Domain.QUAD, 3, [0, 1, 2, 3, 4, 5]), (Domain.TRIANGLE, 2, [0, 1, 2, 3]), (Domain.TRIANGLE, 3, [0, 1, 2, 4]),
        (Domain.ISOLINE, 2, [1, 0]),
    ],
)  # fmt: skip
def test_factors_are_where_the_layout_of_the_patch_header_says(
    domain: Domain, layout: int, expected: list[int]
) -> None:
    header = np.arange(8, dtype=np.float32).view(np.uint32).reshape(1, 8)
    assert factors(domain, layout, header).tolist() == [expected]
