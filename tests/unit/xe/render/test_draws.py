"""Whole draws, from commands in a batch to pixels in memory."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from tests.support.xe.commands import sdi, srm
from tests.support.xe.compute_lab import base_addresses
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA
from tests.support.xe.render_lab import (
    DEFAULT,
    DEPTH,
    FLAT,
    INTERPOLATE,
    PIXEL_KERNEL,
    RECTLIST,
    TARGET,
    TRILIST,
    VERTEX_KERNEL,
    VERTICES,
    VIEWPORT,
    WRITE,
    RenderLab,
    element,
    elements,
    pixel_shader,
    primitive,
    setup_backend,
    target_state,
    vertex_buffer,
)
from vfio_user_xe.device_models.xe.render import pipeline, threads, vertex_fetch
from vfio_user_xe.device_models.xe.render import primitive as primitives

RED, HALF_GREEN = (1.0, 0.0, 0.0, 1.0), (0.0, 0.5, 0.0, 0.5)


def corners(left: float, top: float, right: float, bottom: float, colour: tuple[float, ...]) -> list[list[float]]:
    """Vertices of a RECTLIST, in BLORP's order: header, position, colour."""
    return [
        [0, 0, 0, 0, x, y, 0.5, 1, *colour] for x, y in ((right, bottom), (left, bottom), (left, top))
    ]  # fmt: skip


def rectangles(count: int, *more: int) -> tuple[int, ...]:
    """Commands that draw them, the colour flat in the register behind r0."""
    pitch = 12 * 4
    return (
        *vertex_buffer(pitch, 3 * count * pitch),
        *elements(element(0), element(16), element(32)),
        *setup_backend(1, flat=1),
        *pixel_shader(),
        *more,
        *primitive(RECTLIST, 3 * count),
    )


def test_a_rectangle_covers_pixels_whose_centres_are_in_it(lab: RenderLab) -> None:
    job = lab.draw(FLAT.format(1) + WRITE, *rectangles(1), vertices=corners(2, 3.5, 10.5, 8, RED))
    pixels = lab.pixels(job)
    # Left and top edges belong to it, right and bottom ones do not.
    assert (pixels[3:8, 2:10] == [255, 0, 0, 255]).all()
    assert pixels.any(axis=2).sum() == 5 * 8


def test_a_draw_at_the_place_behind_an_earlier_one_sees_what_other_batches_have_set(lab: RenderLab) -> None:
    # Mesa uses the memory of batches again: what stands behind a draw may be another batch's first draw by now.
    blue = (0.0, 0.0, 1.0, 1.0)
    vertices = corners(0, 0, 16, 16, RED) + corners(4, 4, 8, 8, blue)
    job = lab.draw(FLAT.format(1) + WRITE, *rectangles(1), vertices=vertices, submit=False)
    before = (*base_addresses(), *DEFAULT, *rectangles(1))
    behind, other = BATCH_VA + 4 * len(before), BATCH_VA + 0x6000
    job.batch(*before, *job.start(other))
    second = (*primitive(RECTLIST, 3), 0x0500_0000)
    writes = [word for n, value in enumerate(second) for word in sdi(behind + 4 * n, value)]
    job.batch(*vertex_buffer(48, 144, VERTICES + 144), *writes, *job.start(behind), offset=0x6000)
    job.submit()
    lab.run()
    pixels = lab.pixels(job)
    assert (pixels[4:8, 4:8] == [0, 0, 255, 255]).all()
    assert (pixels[:4] == [255, 0, 0, 255]).all()


def test_later_rectangles_are_above_earlier_ones(lab: RenderLab) -> None:
    vertices = corners(0, 0, 16, 16, RED) + corners(4, 4, 8, 8, (0.0, 0.0, 1.0, 1.0))
    pixels = lab.pixels(lab.draw(FLAT.format(1) + WRITE, *rectangles(2), vertices=vertices))
    assert (pixels[4:8, 4:8] == [0, 0, 255, 255]).all()
    assert (pixels[:4] == [255, 0, 0, 255]).all()


def test_a_fast_clear_writes_whole_blocks(lab: RenderLab) -> None:
    # A pixel of the rectangle stands for 64 bytes by 4 rows: 16 pixels by 4.
    commands = (
        *vertex_buffer(48, 144), *elements(element(0), element(16), element(32)), *setup_backend(1, flat=1),
        *pixel_shader(fast_clear=True), *primitive(RECTLIST, 3),
    )  # fmt: skip
    job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=corners(0, 1, 1, 3, RED))
    pixels = lab.pixels(job)
    assert (pixels[4:12] == [255, 0, 0, 255]).all()
    assert not pixels[:4].any()
    assert not pixels[12:].any()


def test_what_is_written_to_a_tiled_target_is_where_its_tiling_says(lab: RenderLab) -> None:
    job = lab.draw(
        FLAT.format(1) + WRITE,
        *rectangles(1),
        vertices=corners(0, 0, 4, 1, RED),
        surface=target_state(pitch=128, tiling=3),
    )
    # Tile4: 16 bytes of a row lie together, and those of the row below follow.
    assert job.data(0x4000, 5) == [0xFF0000FF] * 4 + [0]


def test_blending_mixes_with_what_is_there(lab: RenderLab) -> None:
    # Source alpha and one minus it, for colour and alpha.
    entry = 1 << 31 | 3 << 26 | 19 << 21 | 3 << 13 | 19 << 8
    vertices = corners(0, 0, 8, 8, HALF_GREEN)
    before = bytes([200, 100, 50, 255]) * 256
    job = lab.draw(
        FLAT.format(1) + WRITE, *rectangles(1), vertices=vertices, blend=[1 << 30, entry, 3, *[0] * 14], pixels=before
    )
    pixels = lab.pixels(job)
    assert pixels[0, 0].tolist() == [100, 114, 25, 191]
    assert pixels[8, 8].tolist() == [200, 100, 50, 255]


def test_channels_that_are_not_written_keep_what_they_hold(lab: RenderLab) -> None:
    before = bytes([1, 2, 3, 4]) * 256
    job = lab.draw(
        FLAT.format(1) + WRITE,
        *rectangles(1),
        vertices=corners(0, 0, 1, 1, (1.0, 1.0, 1.0, 1.0)),
        blend=[0, 0b1001, 0, *[0] * 14],  # alpha and blue
        pixels=before,
    )
    assert lab.pixels(job)[0, 0].tolist() == [255, 255, 3, 4]


DEPTH_BUFFER = (0x78050006, 1 << 29 | 1 << 28 | 1 << 24 | 127, DEPTH, 0, 15 << 1 | 15 << 17, 0, 3 << 30, 0)
DEPTH_LESS = (0x784E0002, 2 << 5 | 0b11, 0, 0)


def test_what_is_behind_is_not_drawn_and_the_nearer_depth_is_kept(lab: RenderLab) -> None:
    near, far = corners(0, 0, 8, 8, RED), corners(0, 0, 16, 16, (0.0, 0.0, 1.0, 1.0))
    for row in far:
        row[6] = 0.75
    clear = (0x78520004, 1 << 30, 0, 16 | 16 << 16, 1, 0x3F800000)
    commands = rectangles(2, *DEPTH_BUFFER, *DEPTH_LESS, *clear)
    job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=near + far)
    pixels = lab.pixels(job)
    assert (pixels[:8, :8] == [255, 0, 0, 255]).all()
    assert (pixels[8:] == [0, 0, 255, 255]).all()
    depth = np.array(job.data(0x8000, 4), dtype=np.uint32).view(np.float32)
    assert depth.tolist() == [0.5] * 4


VERTEX = """
    mov (16|M0)  r10.0<1>:f  0:f
    mov (16|M0)  r11.0<1>:f  r2.0<8;8,1>:f
    mov (16|M0)  r12.0<1>:f  r3.0<8;8,1>:f
    mov (16|M0)  r13.0<1>:f  0:f
    mov (16|M0)  r14.0<1>:f  1:f
    send.urb (16|M0)  null  r1  r10:1  0x0  0x02000504
    add (16|M0)  r20.0<1>:ud  r1.0<8;8,1>:ud  16:ud
    send.urb (16|M0)  null  r20  r11:4  0x0  0x02003504
    add (16|M0)  r20.0<1>:ud  r1.0<8;8,1>:ud  32:ud
    send.urb (16|M0)  null  r20  r6:4  0x0  0x02003504
    (W) send.gtwy (1|M0)  null  r112  null:0  0x0  0x02000010  {EOT}
"""
"""The first element's x and y (r2, r3) are the position, the second (from r6 on) is the attribute."""


def test_a_triangle_through_a_vertex_shader_interpolates_its_attributes(lab: RenderLab) -> None:
    vertices = [[-1, -1, 0, 1, 1, 0, 0, 1], [3, -1, 0, 1, 0, 1, 0, 1], [-1, 3, 0, 1, 0, 0, 1, 1]]
    commands = (
        *vertex_buffer(32, 96), *elements(element(0), element(16)), *setup_backend(1), *pixel_shader(3, modes=1),
        0x78120002, 0, 1 << 31, 0, 0x78130002, 2, 0, 0, 0x78210000, VIEWPORT,
        0x78580001, 1, 0,
        0x78100007, VERTEX_KERNEL, 0, 0, 0, 0, 2 << 20 | 1 << 11, 1, 0,
        *primitive(TRILIST, 3),
    )  # fmt: skip
    job = lab.draw(INTERPOLATE + WRITE, *commands, vertices=vertices, vertex_kernel=VERTEX)
    pixels = lab.pixels(job).astype(int)
    # Half of each axis is on the screen: colours go from the first vertex's to half of the other two's.
    assert np.abs(pixels[0, 0] - [247, 4, 4, 255]).max() <= 1
    assert np.abs(pixels[0, 15] - [128, 124, 4, 255]).max() <= 1
    assert np.abs(pixels[15, 15] - [8, 124, 124, 255]).max() <= 1


@pytest.mark.parametrize("first_register", [0, 1, 2])
def test_a_vertex_shader_without_attributes_has_its_handles_wherever_its_data_begins(
    lab: RenderLab, first_register: int
) -> None:
    # r1 has the handles of outputs even where 3DSTATE_VS says that its data begins before.
    constant = "".join(f"mov (16|M0)  r{10 + n}.0<1>:f  {value}:f\n" for n, value in enumerate([1, 0, 0, 1]))
    kernel = f"""
        {constant}
        add (16|M0)  r20.0<1>:ud  r1.0<8;8,1>:ud  32:ud
        send.urb (16|M0)  null  r20  r10:4  0x0  0x02003504
        (W) send.gtwy (1|M0)  null  r112  null:0  0x0  0x02000010  {{EOT}}
    """
    commands = (
        *vertex_buffer(32, 96), *elements(element(0), element(16)), *setup_backend(1, flat=1), *pixel_shader(),
        0x78100007, VERTEX_KERNEL, 0, 0, 0, 0, first_register << 20, 1 | 1 << 10, 0,
        *primitive(TRILIST, 3), *srm(0x2320, DATA_VA + 0x3900, 0),
    )  # fmt: skip
    job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=[[0.0] * 8] * 3, vertex_kernel=kernel)
    assert job.data(0x3900, 1) == [3], "threads of three vertices ran"
    assert not lab.engine("rcs0").reports


def test_accesses_of_fixed_functions_have_a_kind_of_their_own_in_the_ledger(lab: RenderLab) -> None:
    lab.draw(FLAT.format(1) + WRITE, *rectangles(1), vertices=corners(0, 0, 2, 2, RED))
    entry = next(entry for entry in lab.fabric.ledger.entries() if entry.kind == "3d vram" and entry.writes)
    assert entry.bytes_written == 4 * 4


def test_a_predicated_draw_that_is_off_draws_nothing(lab: RenderLab) -> None:
    commands = list(rectangles(1))
    commands[-7] |= 1 << 8
    job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=corners(0, 0, 16, 16, RED))
    assert not lab.pixels(job).any()


def test_state_is_saved_with_the_context_and_loaded_again(lab: RenderLab) -> None:
    job = lab.draw(FLAT.format(1) + WRITE, *rectangles(1), vertices=corners(0, 0, 2, 2, RED))
    lrc = job.context.members[0]
    # More than fits into the first page of the image.
    lrc.state[0x7917] = list(range(1, 900))
    before = dict(lrc.state)
    lrc.save()
    lrc.state.clear()
    lrc.adopted = True
    lrc.restore()
    assert lrc.state == before


def test_samples_that_pass_are_counted_where_the_state_says_so(lab: RenderLab) -> None:
    counted = (0x78140000, 1 << 31)  # WM: statistics
    report = (0x7A000004, 2 << 14, (TARGET + 0x800) & 0xFFFFFFFF, 0, 0, 0)  # PIPE_CONTROL writes PS_DEPTH_COUNT
    commands = rectangles(1)
    job = lab.draw(
        FLAT.format(1) + WRITE,
        *commands[:-7], *counted, *commands[-7:], *report, vertices=corners(0, 0, 4, 3, RED),
    )  # fmt: skip
    assert job.data64(TARGET + 0x800 - DATA_VA) == 12


@pytest.mark.parametrize(
    "state",
    [
        (0x7820000A, PIXEL_KERNEL | 1, 0, 0, 0, 0, 0, 7 << 27 | 0 << 16, 0, 0, 0, 0),  # eight primitives in 16 lanes
        (0x7820000A, PIXEL_KERNEL | 1, 0, 0, 0, 0, 0, 250 << 16, 0, 0, 0, 0),  # setup data behind the last register
        (0x781F0004, 63 << 22 | 31 << 11 | 63 << 5, 0xFFFFFFFF, 0, 0, 0),  # attributes behind the vertex
        (0x78090005, 1 << 25 | 0x1FF << 16, 0x7777 << 16, 1 << 25 | 16, 0x1111 << 16, 0, 0),  # no such format
    ],
)
def test_state_that_makes_no_sense_does_not_stop_the_engine(lab: RenderLab, state: tuple[int, ...]) -> None:
    commands = rectangles(1)
    job = lab.draw(FLAT.format(1) + WRITE, *commands[:-7], *state, *commands[-7:], vertices=corners(0, 0, 4, 3, RED))
    assert job.head == job.tail


def test_a_long_list_is_drawn_in_parts(lab: RenderLab) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_TOGETHER", 3)
        vertices = corners(0, 0, 16, 16, RED) + corners(4, 4, 8, 8, (0.0, 0.0, 1.0, 1.0))
        pixels = lab.pixels(lab.draw(FLAT.format(1) + WRITE, *rectangles(2), vertices=vertices))
    assert (pixels[4:8, 4:8] == [0, 0, 255, 255]).all()
    assert (pixels[:4] == [255, 0, 0, 255]).all()


def test_a_strip_longer_than_anybody_could_wait_for_is_skipped(lab: RenderLab) -> None:
    commands = list(rectangles(1))
    commands[-7:] = primitive(5, 0xFFFFFFFF)
    job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=corners(0, 0, 16, 16, RED))
    assert job.head == job.tail
    assert not lab.pixels(job).any()


@pytest.mark.parametrize("generates", [False, True])
def test_draws_that_follow_one_another_are_as_if_each_were_alone(lab: RenderLab, generates: bool) -> None:
    vertices = [row for n in range(4) for row in corners(2 * n, n, 2 * n + 5, n + 6, (n / 4, 1 - n / 4, 0.5, 0.5))]
    entry = 1 << 31 | 3 << 26 | 19 << 21 | 3 << 13 | 19 << 8
    commands = list(rectangles(4))[:-7]
    commands[-1] |= 1 << 31  # 3DSTATE_WM counts pixels
    if generates:
        # VertexID in place of the header: each draw counts from its first.
        commands += [0x784A0000, 1 << 15]
    for number in (0, 1, 3, 2):
        commands += primitive(RECTLIST, 3, first=3 * number)
    commands += primitive(RECTLIST, 0)

    def drawn(joins: bool) -> tuple[list[list[list[int]]], dict[int, int], int]:
        with (
            mock.patch.object(primitives, "_following", primitives._following if joins else lambda *_: iter(())),
            mock.patch.object(pipeline.Pipeline, "run", autospec=True, side_effect=pipeline.Pipeline.run) as run,
        ):
            blend = [1 << 30, entry, 3, *[0] * 14]
            job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=vertices, blend=blend)
        return lab.pixels(job).tolist(), dict(job.context.members[0].registers), run.call_count

    one, other = drawn(joins=True), drawn(joins=False)
    assert one[0] == other[0]
    assert any(any(pixel) for row in one[0] for pixel in row)
    assert one[1] == other[1]
    compiled = threads.compiled_back_end() is not None
    assert (one[2], other[2]) == (1 if compiled and not generates else 4, 4)


def test_instances_that_are_fetched_together_are_as_if_each_were_alone(lab: RenderLab) -> None:
    vertices = [row for n in range(4) for row in corners(2, 3, 9, 12, (n / 4, 1 - n / 4, 0.5, 0.25 + n / 8))]
    commands = [
        *vertex_buffer(48, 48 * len(vertices)),
        *elements(element(0), element(16), element(32)),
        *(0x78490001, 1 << 8 | 2, 2),  # VF_INSTANCING: two instances have a colour in common
        *setup_backend(1, flat=1),
        *pixel_shader(),
    ]
    commands[-1] |= 1 << 31  # 3DSTATE_WM counts pixels
    commands += primitive(RECTLIST, 3, instances=9)

    def drawn(most: int) -> tuple[list[list[list[int]]], dict[int, int], int]:
        with (
            mock.patch.object(pipeline, "_INSTANCES_TOGETHER", most),
            mock.patch.object(vertex_fetch, "fetch", side_effect=vertex_fetch.fetch) as fetch,
        ):
            blend = [1 << 30, 1 << 31 | 3 << 26 | 19 << 21 | 3 << 13 | 19 << 8, 3, *[0] * 14]
            job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=vertices, blend=blend)
        return lab.pixels(job).tolist(), dict(job.context.members[0].registers), fetch.call_count

    alone, some, all_of_them = (drawn(most) for most in (0, 12, 100))
    assert any(any(pixel) for row in alone[0] for pixel in row)
    assert alone[:2] == some[:2] == all_of_them[:2]
    assert [alone[2], some[2], all_of_them[2]] == [9, 3, 1]
