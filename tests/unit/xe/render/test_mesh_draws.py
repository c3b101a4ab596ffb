"""Draws of task and mesh shaders, and draws whose parameters come from memory, from commands in a batch to pixels."""

from __future__ import annotations

import itertools
from unittest.mock import create_autospec

import pytest

from tests.support.xe.commands import sdi, srm
from tests.support.xe.compute_lab import EOT
from tests.support.xe.engine_lab import DATA_VA, Job
from tests.support.xe.render_lab import (
    FLAT,
    RECTLIST,
    VERTEX_KERNEL,
    WRITE,
    RenderLab,
    element,
    elements,
    pixel_shader,
    setup_backend,
    vertex_buffer,
)
from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace
from vfio_user_xe.device_models.xe.render import indirect

TASK_KERNEL = VERTEX_KERNEL + 0x800
PARAMETERS = 0x3000
"""Offset in the data of parameters of draws."""
STORE, STORE4, LOAD = "0x02000504", "0x02003504", "0x02100500"
RED, GREEN, BLUE = [255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]
PLACES = """
    mov (16|M0)  r10.0<1>:ud  r1.0<1;1,0>:uw
    shl (16|M0)  r11.0<1>:ud  r10.0<1;1,0>:ud  6:ud
    add (16|M0)  r11.0<1>:ud  r11.0<1;1,0>:ud  r0.8<0;1,0>:ud
    and (16|M0)  r13.0<1>:ud  r10.0<1;1,0>:ud  1:ud
    shl (16|M0)  r13.0<1>:ud  r13.0<1;1,0>:ud  5:ud
    shl (16|M0)  r15.0<1>:ud  r0.1<0;1,0>:ud  3:ud
    add (16|M0)  r13.0<1>:ud  r13.0<1;1,0>:ud  r15.0<1;1,0>:ud
    mov (16|M0)  r20.0<1>:f  r13.0<1;1,0>:ud
    shr (16|M0)  r14.0<1>:ud  r10.0<1;1,0>:ud  1:ud
    shl (16|M0)  r14.0<1>:ud  r14.0<1;1,0>:ud  5:ud
    mov (16|M0)  r21.0<1>:f  r14.0<1;1,0>:ud
    mov (16|M0)  r22.0<1>:f  0.5:f
    mov (16|M0)  r23.0<1>:f  1:f
    add (16|M0)  r12.0<1>:ud  r11.0<1;1,0>:ud  80:ud
    send.urb (16|M0)  null  r12  r20:4  0x0  0x02003504
    add (16|M0)  r12.0<1>:ud  r11.0<1;1,0>:ud  96:ud
    send.urb (16|M0)  null  r12  r24:4  0x0  0x02003504
    cmp (16|M0)  (eq)f0.0  null<1>:ud  r10.0<1;1,0>:ud  0:ud
    mov (16|M0)  r28.0<1>:ud  1:ud
    mov (16|M0)  r29.0<1>:ud  0x020100:ud
    mov (16|M0)  r12.0<1>:ud  r0.8<0;1,0>:ud
    (f0.0) send.urb (16|M0)  null  r12  r28:2  0x0  0x02001504
"""
"""Three lanes write a vertex each, of a triangle over all pixels at the right of 8 times the group's number; the attribute is in r24 to
r27. Vertices have 16 dwords and begin behind 16 others, of which the first eight are the count and an index."""
COLOUR = "".join(f"mov (16|M0)  r{24 + n}.0<1>:f  {value}:f\n" for n, value in enumerate((1, 0, 0, 1)))
BY_GROUP = (
    COLOUR
    + """
    mov (16|M0)  r24.0<1>:f  r0.1<0;1,0>:ud
    add (16|M0)  r25.0<1>:f  -r24.0<1;1,0>:f  1:f
"""
)
"""Green of group 0, red of group 1."""


def mesh(
    *,
    threads: int = 1,
    mask: int = 7,
    slm: int = 0,
    barriers: bool = False,
    primitive: int = 1,
    numbered: bool = False,
    width: int = 1,
) -> tuple[int, ...]:
    """Commands of a mesh shader whose entries are as `PLACES` writes them; `primitive` times 32 bytes are data of the primitive."""
    return (
        0x78770001, 3 << 30, 0,
        0x787A0006, VERTEX_KERNEL, 0, 2, threads | slm << 16 | barriers << 28,
        width << 30 | 1 << 28 | 1 << 19 | 1 << 18 | numbered << 22, mask, primitive << 12 | 2 << 20 | 2 << 28 | 1 << 31,
        0x787B0008, 0, 0x1111, 0x2222, 0, 0, 0, 0, 0, 0,
        0x787F0001, 7, 8,
        0x78820000, 1 << 5 | 1, 0x78810000, 0,
        *setup_backend(1, flat=1), *pixel_shader(),
    )  # fmt: skip


def groups(x: int, y: int = 1, z: int = 1) -> tuple[int, ...]:
    """3DMESH_3D."""
    return 0x7B020002, x, y, z


def drawn(lab: RenderLab, kernel: str, *commands: int, task: str = "", pixels: str = FLAT.format(1) + WRITE) -> Job:
    """A batch with these commands, after it has run."""
    job = lab.draw(pixels, *commands, vertex_kernel=kernel, submit=False)
    if task:
        lab.load(job, task, TASK_KERNEL)
    job.submit()
    lab.run()
    assert not lab.engine("rcs0").reports
    return job


def test_a_group_of_a_mesh_shader_draws_its_triangle(lab: RenderLab) -> None:
    job = drawn(lab, COLOUR + PLACES + EOT, *mesh(), *groups(1))
    assert (lab.pixels(job) == RED).all()


def test_groups_are_drawn_in_their_order_and_counted(lab: RenderLab) -> None:
    job = drawn(
        lab,
        BY_GROUP + PLACES + EOT,
        *mesh(),
        *groups(1, 2),
        *srm(0x26E0, DATA_VA + 0x3900, 0),
        *srm(0x26D8, DATA_VA + 0x3904, 0),
    )
    pixels = lab.pixels(job)
    assert (pixels[:, :8] == GREEN).all()
    assert (pixels[:, 8:] == RED).all()
    # Three invocations of each group, and a primitive.
    assert job.data(0x3900, 2) == [6, 2]


def test_threads_find_dimensions_and_inline_data(lab: RenderLab) -> None:
    # 5 in X (r0.6 31:16), 3 in Y and 1 in Z (r0.4); inline data in r2. All but the first group are drawn elsewhere.
    kernel = (
        COLOUR
        + PLACES
        + """
        mov (16|M0)  r12.0<1>:uq  r2.0<0;1,0>:uq
        shr (16|M0)  r30.0<1>:ud  r0.6<0;1,0>:ud  16:ud
        shl (16|M0)  r31.0<1>:ud  r0.4<0;1,0>:ud  8:ud
        or (16|M0)  r30.0<1>:ud  r30.0<1;1,0>:ud  r31.0<1;1,0>:ud
        (W) send.ugm (1|M0)  null  r2  r30:1  0x0  0x0200D584
    """
        + EOT
    )
    address = DATA_VA + 0x3900
    commands = list(mesh())
    at = commands.index(0x1111)
    commands[at : at + 2] = address & 0xFFFF_FFFF, address >> 32
    job = drawn(lab, kernel, *commands, *groups(5, 3))
    assert job.data(0x3900, 1) == [5 | 3 << 8 | 1 << 24]


TASK = """
    mov (16|M0)  r20.0<1>:ud  2:ud
    mov (16|M0)  r21.0<1>:ud  1:ud
    mov (16|M0)  r22.0<1>:ud  2:ud
    mov (16|M0)  r23.0<1>:ud  1:ud
    mov (16|M0)  r12.0<1>:ud  r0.8<0;1,0>:ud
    send.urb (16|M0)  null  r12  r20:4  0x0  0x02003504
    mov (16|M0)  r24.0<1>:f  1:f
    add (16|M0)  r12.0<1>:ud  r0.8<0;1,0>:ud  40:ud
    send.urb (16|M0)  null  r12  r24:1  0x0  0x02000504
"""
"""Two groups in Y; the payload's third dword is 1.0."""
TASKS = (
    0x787C0001, 3 << 30, 0,
    0x787D0005, TASK_KERNEL, 0, 0, 1, 1 << 30 | 1 << 28 | 1 << 19 | 1 << 18, 1,
    0x787E0008, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x78800001, 0, 8,
)  # fmt: skip
READS = """
    add (16|M0)  r12.0<1>:ud  r0.7<0;1,0>:ud  40:ud
    send.urb (16|M0)  r26  r12  null:0  0x0  0x02100500
"""
"""The payload's third dword as blue."""


def test_a_task_launches_groups_that_read_its_payload(lab: RenderLab) -> None:
    kernel = BY_GROUP + READS + PLACES + EOT
    job = drawn(lab, kernel, *mesh(), *TASKS, *groups(1), *srm(0x26E8, DATA_VA + 0x3900, 0), task=TASK + EOT)
    pixels = lab.pixels(job)
    assert (pixels[:, :8] == [0, 255, 255, 255]).all()
    assert (pixels[:, 8:] == [255, 0, 255, 255]).all()
    assert job.data(0x3900, 1) == [1]


def test_data_of_a_primitive_is_before_that_of_its_vertices(lab: RenderLab) -> None:
    kernel = (
        COLOUR
        + PLACES
        + """
        add (16|M0)  r12.0<1>:ud  r0.8<0;1,0>:ud  32:ud
        mov (16|M0)  r28.0<1>:f  0:f
        mov (16|M0)  r29.0<1>:f  0.5:f
        (f0.0) send.urb (16|M0)  null  r12  r28:2  0x0  0x02001504
    """
        + EOT
    )
    shader = FLAT.format(2) + "mov (16|M0)  r61.0<1>:f  r1.1<0;1,0>:f\n" + WRITE
    commands = list(mesh())
    at = commands.index(0x78820000)
    commands[at + 1] |= 1 << 11
    job = drawn(lab, kernel, *commands, *groups(1), pixels=shader)
    assert (lab.pixels(job) == [255, 128, 0, 255]).all()


def test_threads_of_a_group_wait_for_each_other_and_share_memory(lab: RenderLab) -> None:
    # The second thread leaves 1.0 in shared local memory, which the first takes for blue.
    kernel = (
        COLOUR
        + """
        shr (16|M0)  r40.0<1>:ud  r0.2<0;1,0>:ud  24:ud
        and (16|M0)  r41.0<1>:ud  r0.2<0;1,0>:ud  255:ud
        mov (16|M0)  r42.0<1>:f  r41.0<1;1,0>:ud
        shl (16|M0)  r43.0<1>:ud  r41.0<1;1,0>:ud  2:ud
        send.slm (16|M0)  null  r43  r42:1  0x0  0x02000504
        mov (16|M0)  r50.0<1>:ud  0:ud
        and (1|M0)  r50.2<1>:ud  r0.2<0;1,0>:ud  0xFF000000:ud
        send.gtwy (1|M0)  null  r50  null:0  0x0  0x02000004
        sync.bar  null
        mov (16|M0)  r43.0<1>:ud  4:ud
        send.slm (16|M0)  r26  r43  null:0  0x0  0x02100500
    """
        + PLACES.replace(
            "r1.0<1;1,0>:uw", "r1.0<1;1,0>:uw\n    cmp (16|M0)  (ne)f1.0  null<1>:ud  r41.0<1;1,0>:ud  0:ud"
        ).replace("(f0.0) send", "(f0.0) send")
        + EOT
    )
    job = drawn(lab, kernel, *mesh(threads=2, mask=7, slm=1, barriers=True), *groups(2))
    pixels = lab.pixels(job)
    assert (pixels == [255, 0, 255, 255]).all()


def test_groups_and_the_number_of_the_draw_come_from_registers(lab: RenderLab) -> None:
    kernel = COLOUR + "mov (16|M0)  r26.0<1>:f  r0.3<0;1,0>:ud\n" + PLACES + EOT
    loads = [
        word
        for register, value in ((0x26F0, 1), (0x2694, 1), (0x2698, 1), (0x2690, 1))
        for word in (0x11000001, register, value)
    ]
    job = drawn(lab, kernel, *mesh(numbered=True), *loads, 0x7B020003 | 1 << 10 | 1 << 14, 0, 0, 0, 0)
    assert (lab.pixels(job) == [255, 0, 255, 255]).all()


def execute(form: int, most: int, *, count: int | None = None) -> tuple[int, ...]:
    """EXECUTE_INDIRECT_DRAW of the parameters at `PARAMETERS`; the number of draws is at offset `count` there."""
    where, number = DATA_VA + PARAMETERS, 0 if count is None else DATA_VA + PARAMETERS + count
    return (
        0x7C000004 | form << 10, most, number & 0xFFFF_FFFF | (count is not None), number >> 32, where & 0xFFFF_FFFF, where >> 32,
    )  # fmt: skip


def parameters(*words: int) -> tuple[int, ...]:
    """Commands that put them there."""
    return tuple(word for n, value in enumerate(words) for word in sdi(DATA_VA + PARAMETERS + 4 * n, value))


def test_draws_of_meshes_from_memory_are_as_many_as_memory_says(lab: RenderLab) -> None:
    kernel = BY_GROUP + PLACES + EOT
    commands = (*parameters(0, 1, 1, 1, 1, 1, 2, 1, 1, 2), *mesh(), *execute(2, 3, count=36))
    job = drawn(lab, kernel, *commands, *srm(0x26D8, DATA_VA + 0x3904, 0))
    # Two of the three: one without groups, one with a group.
    assert job.data(0x3904, 1) == [1]
    assert (lab.pixels(job) == GREEN).all()


def test_a_stride_of_its_own_lies_between_parameters(lab: RenderLab) -> None:
    commands = (*parameters(2, 0, 99, 99, 1, 1, 99, 99), *mesh(), 0x60050000 | 1 << 8, 16, *execute(3, 2))
    job = drawn(lab, BY_GROUP + PLACES + EOT, *commands)
    pixels = lab.pixels(job)
    # Groups 0 and 1, then group 1 alone.
    assert (pixels[:, :8] == GREEN).all()
    assert (pixels[:, 8:] == RED).all()


def test_draws_of_vertices_from_memory(lab: RenderLab) -> None:
    pitch = 48
    vertices = [
        [0, 0, 0, 0, x, y, 0.5, 1, *colour]
        for left, colour in ((0, (0, 1, 0, 1)), (8, (0, 0, 1, 1)))
        for x, y in ((left + 8, 16), (left, 16), (left, 0))
    ]
    commands = (
        *parameters(3, 1, 3, 0, 3, 1, 0, 0), *vertex_buffer(pitch, 6 * pitch), *elements(element(0), element(16), element(32)),
        *setup_backend(1, flat=1), *pixel_shader(), 0x784B0000, RECTLIST, *execute(0, 2),
    )  # fmt: skip
    job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=vertices)
    pixels = lab.pixels(job)
    assert (pixels[:, :8] == GREEN).all()
    assert (pixels[:, 8:] == BLUE).all()


def test_a_draw_of_meshes_without_a_mesh_shader_is_reported(lab: RenderLab) -> None:
    lab.draw(FLAT.format(1) + WRITE, *pixel_shader(), *groups(1))
    assert any("no mesh shader" in report for report in lab.engine("rcs0").reports)


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        ((*mesh(), *groups(0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF)), "thread groups of meshes is skipped"),
        ((*mesh(width=0), *groups(1)), "threads of 8 lanes"),
        ((*mesh(width=3), *groups(1)), "threads of 64 lanes"),
    ],
)
def test_sizes_that_no_hardware_has_are_reported_and_the_batch_goes_on(
    lab: RenderLab, commands: tuple[int, ...], said: str
) -> None:
    job = lab.draw(FLAT.format(1) + WRITE, *commands, *sdi(DATA_VA + PARAMETERS, 7))
    assert any(said in report for report in lab.engine("rcs0").reports)
    assert job.data(PARAMETERS, 1) == [7]


def test_draws_of_nothing_from_memory_make_room_as_others_do(lab: RenderLab) -> None:
    streamer = create_autospec(CommandStreamer, instance=True)
    streamer.lrc = create_autospec(Lrc, instance=True)
    streamer.lrc.state = {}
    streamer.lrc.space = create_autospec(AddressSpace, instance=True)
    streamer.lrc.space.read.side_effect = lambda where, length: bytes(length)
    draws = indirect._draws(streamer, [2 << 10, 0xFFFF_FFFF, 0, 0, DATA_VA, 0], 0)
    assert list(itertools.islice(draws, 1000)) == [None] * 1000
