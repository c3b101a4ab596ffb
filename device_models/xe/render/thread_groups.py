"""Thread groups of task and mesh shaders: what they find in their registers, and how they run.

A group has one URB entry. Payload: r0 with .1 the group's number, .2 the thread's in it 7:0 and threads of the group 31:24, .3 extended
parameter 0, .4 groups in Y 15:0 and Z 31:16, .6 31:16 groups in X, .7 the task's URB entry, .8 that of the group; then words of the lanes'
numbers in the group; then inline data (`brw_fs_thread_payload.cpp:task_mesh_thread_payload`, `brw_fs_nir.cpp:fs_nir_emit_task_mesh_intrinsic`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.descriptors import BadDescriptor, slm_bytes
from vfio_user_xe.device_models.xe.compute.payload import local_ids
from vfio_user_xe.device_models.xe.memory.address_space import Fault
from vfio_user_xe.device_models.xe.render import threads
from vfio_user_xe.device_models.xe.render.fields import Words, bits, flag
from vfio_user_xe.device_models.xe.render.shader_port import ShaderPort
from vfio_user_xe.device_models.xe.render.stage import REGISTER, Stage
from vfio_user_xe.device_models.xe.render.urb import ROOM, Urb

Entries = NDArray[np.uint32]
"""[groups, dwords]"""
Indices = NDArray[np.int64]
_WORDS = REGISTER // 4
_INLINE = 8
"""Dwords of inline data."""
_WIDTHS = (16, 32)
"""Lanes of a thread: Xe2 has no threads of 8."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """Fields of 3DSTATE_TASK_SHADER or 3DSTATE_MESH_SHADER that both have; of _DATA, and of URB_ALLOC_."""

    threads: int
    width: int
    """Lanes of a thread."""
    invocations: int
    """Lanes of a group that are in use."""
    last_lanes: int
    """Dispatch mask of the group's last thread."""
    slm_bytes: int
    barriers: bool
    local_ids: bool
    inline: tuple[int, ...] | None
    draw: bool
    """Threads find the draw's number in r0.3."""
    entry: int
    """Dwords of a URB entry."""

    @classmethod
    def of(cls, shader: Words, data: Words, urb: Words) -> GroupState:
        """The dwords of the three commands, headers first.

        Raises:
            BadDescriptor: the SLM size or the width of threads has no meaning.
        """
        width = 8 << bits(shader, 5, 31, 30)
        if width not in _WIDTHS:
            raise BadDescriptor(f"threads of {width} lanes (allowed: {', '.join(map(str, _WIDTHS))})")
        return cls(
            threads=bits(shader, 4, 9, 0),
            width=width,
            invocations=bits(shader, 3, 9, 0) + 1,
            last_lanes=bits(shader, 6, 31, 0),
            slm_bytes=slm_bytes(bits(shader, 4, 20, 16)),
            barriers=flag(shader, 4, 21) or bits(shader, 4, 30, 28) != 0,
            local_ids=flag(shader, 5, 18),
            inline=tuple(bits(data, 2 + n, 31, 0) for n in range(_INLINE)) if flag(shader, 5, 19) else None,
            draw=flag(shader, 5, 22),
            entry=_WORDS * (bits(urb, 1, 9, 0) + 1),
        )

    @property
    def apart(self) -> bool:
        """Groups run one after the other: threads of one wait for each other, or share memory."""
        return self.barriers or self.slm_bytes > 0

    @property
    def lanes(self) -> list[int]:
        """The dispatch mask of each thread of a group."""
        full = (1 << self.width) - 1
        return [full] * (self.threads - 1) + [self.last_lanes & full]


@dataclass(frozen=True)
class Groups:
    """Groups that are to run, with what each finds in r0."""

    number: Indices
    """[groups]: among those of its task, or of the draw."""
    dimensions: NDArray[np.uint32]
    """[groups, 3]: of all of these."""
    task: Indices
    """[groups]: which row of the tasks' entries is its input."""
    draw: int

    def __len__(self) -> int:
        return len(self.number)

    def of(self, part: slice) -> Groups:
        """Some of them."""
        return Groups(self.number[part], self.dimensions[part], self.task[part], self.draw)


@dataclass(frozen=True)
class Launch:
    """What a draw, or each of several task groups, launches: rows of groups in three dimensions."""

    dimensions: NDArray[np.uint32]
    """[rows, 3]"""
    totals: Indices
    """[rows]: how many groups that are."""
    first: int
    """Number of the first group of each row."""
    draw: int

    def pieces(self, most: int) -> Iterator[Groups]:
        """All groups in their order, so many at once at most."""
        ends = np.cumsum(self.totals)
        count = int(ends[-1]) if len(ends) else 0
        for begin in range(0, count, most):
            places = np.arange(begin, min(count, begin + most), dtype=np.int64)
            row = np.searchsorted(ends, places, side="right")
            number = self.first + places - (ends[row] - self.totals[row])
            yield Groups(number, self.dimensions[row], row, self.draw)


def most_groups(state: GroupState, inputs: int = 0) -> int:
    """How many groups are shaded at once at most, if each has an input of so many dwords."""
    return max(1, min(threads.MOST // max(1, state.threads), ROOM // (4 * (state.entry + inputs))))


def shade(
    shader: Stage, state: GroupState, groups: Groups, inputs: Entries | None = None
) -> Generator[Fault | None, None, Entries]:
    """Run the shader for no more than `most_groups` groups; returns what they wrote.

    `inputs` are the entries of all tasks, of which groups see their own.
    """
    if not 0 < state.threads <= threads.MOST:
        shader.report(f"thread groups of {state.threads} threads of {shader.name} are not run: 1 to {threads.MOST} are")
        return np.zeros((len(groups), state.entry), dtype=np.uint32)
    own = len(groups) * state.entry
    needed, place = np.unique(groups.task, return_inverse=True)
    seen = np.zeros((0, 0), dtype=np.uint32) if inputs is None else inputs[needed]
    urb = Urb(1, 4 * (own + seen.size))
    urb.dwords[own:] = seen.reshape(-1)
    task = 4 * (own + place.reshape(-1) * seen.shape[1])
    rows = _payload(shader, state, groups, task)
    every: Sequence[slice] = [slice(0, len(rows))]
    if state.apart:
        every = [slice(begin, begin + state.threads) for begin in range(0, len(rows), state.threads)]
    for part in every:
        lanes = state.lanes * ((part.stop - part.start) // state.threads)
        yield from threads.run(shader, rows[part], lanes, ShaderPort(shader, urb, slm_bytes=state.slm_bytes))
        # A group may end at once, and there may be a thousand of them.
        yield None
    return urb.dwords[:own].reshape(len(groups), state.entry).copy()


def _payload(shader: Stage, state: GroupState, groups: Groups, task: Indices) -> NDArray[np.uint8]:
    """[threads of all groups, bytes]"""
    count = len(groups)
    r0 = shader.header(count * state.threads).reshape(count, state.threads, _WORDS)
    own = np.arange(count, dtype=np.uint32) * np.uint32(4 * state.entry)
    sizes = groups.dimensions & np.uint32(0xFFFF)
    r0[:, :, 1] = groups.number.astype(np.uint32)[:, None]
    r0[:, :, 2] = np.arange(state.threads, dtype=np.uint32) & 0xFF | np.uint32((state.threads & 0xFF) << 24)
    if state.draw:
        r0[:, :, 3] = groups.draw
    r0[:, :, 4] = (sizes[:, 1] | sizes[:, 2] << np.uint32(16))[:, None]
    r0[:, :, 6] = (sizes[:, 0] << np.uint32(16))[:, None]
    r0[:, :, 7] = task.astype(np.uint32)[:, None]
    r0[:, :, 8] = own[:, None]
    parts = [r0]
    if state.local_ids:
        ids = local_ids(state.threads, state.width, (state.invocations, 1, 1), (0, 1, 2))[:, 0]
        parts.append(np.broadcast_to(np.ascontiguousarray(ids).view(np.uint32), r0.shape))
    if state.inline is not None:
        inline = np.zeros(_WORDS, dtype=np.uint32)
        inline[:_INLINE] = state.inline
        parts.append(np.broadcast_to(inline, r0.shape))
    return np.ascontiguousarray(np.concatenate(parts, axis=2)).reshape(count * state.threads, -1).view(np.uint8)
