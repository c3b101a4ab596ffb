"""State of the 3-D pipeline: kept with the context as the dwords of the commands that set it, headers included.

`Lrc.state` has them by bits 31:16 of the command, so they are saved in the context's image and move with a VF. Commands
that change a part of a state (a vertex buffer, the constants of a stage) are merged into what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from vfio_user_xe.device_models.xe.render.fields import Words, bits, flag

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc


Kind = TypeVar("Kind")
Found = TypeVar("Found")
_REMEMBERED = 256
"""Words of states of which is kept what was made of them."""


class Op(IntEnum):
    """Bits 31:16 of the commands whose state the pipeline reads."""

    DEPTH_BUFFER = 0x7805
    STENCIL_BUFFER = 0x7806
    VERTEX_BUFFERS = 0x7808
    VERTEX_ELEMENTS = 0x7809
    INDEX_BUFFER = 0x780A
    VF_STATISTICS = 0x780B
    VF = 0x780C
    MULTISAMPLE = 0x780D
    CC_STATE_POINTERS = 0x780E
    SCISSOR_STATE_POINTERS = 0x780F
    VS = 0x7810
    GS = 0x7811
    CLIP = 0x7812
    SF = 0x7813
    WM = 0x7814
    CONSTANT_VS = 0x7815
    CONSTANT_GS = 0x7816
    CONSTANT_PS = 0x7817
    SAMPLE_MASK = 0x7818
    CONSTANT_HS = 0x7819
    CONSTANT_DS = 0x781A
    HS = 0x781B
    TE = 0x781C
    DS = 0x781D
    STREAMOUT = 0x781E
    SBE = 0x781F
    PS = 0x7820
    VIEWPORT_SF_CLIP = 0x7821
    VIEWPORT_CC = 0x7823
    BLEND_STATE_POINTERS = 0x7824
    BINDING_TABLE_VS = 0x7826
    BINDING_TABLE_HS = 0x7827
    BINDING_TABLE_DS = 0x7828
    BINDING_TABLE_GS = 0x7829
    BINDING_TABLE_PS = 0x782A
    SAMPLER_STATE_VS = 0x782B
    SAMPLER_STATE_HS = 0x782C
    SAMPLER_STATE_DS = 0x782D
    SAMPLER_STATE_GS = 0x782E
    SAMPLER_STATE_PS = 0x782F
    URB_VS = 0x7830
    VF_INSTANCING = 0x7849
    VF_SGVS = 0x784A
    VF_TOPOLOGY = 0x784B
    PS_BLEND = 0x784D
    WM_DEPTH_STENCIL = 0x784E
    PS_EXTRA = 0x784F
    RASTER = 0x7850
    SBE_SWIZ = 0x7851
    WM_HZ_OP = 0x7852
    VF_COMPONENT_PACKING = 0x7855
    VF_SGVS_2 = 0x7856
    URB_ALLOC_VS = 0x7858
    URB_ALLOC_HS = 0x7859
    URB_ALLOC_DS = 0x785A
    URB_ALLOC_GS = 0x785B
    SO_BUFFER_INDEX_0 = 0x7860
    SO_BUFFER_INDEX_1 = 0x7861
    SO_BUFFER_INDEX_2 = 0x7862
    SO_BUFFER_INDEX_3 = 0x7863
    CONSTANT_ALL = 0x786D
    DEPTH_BOUNDS = 0x7871
    MESH_CONTROL = 0x7877
    MESH_SHADER = 0x787A
    MESH_SHADER_DATA = 0x787B
    TASK_CONTROL = 0x787C
    TASK_SHADER = 0x787D
    TASK_SHADER_DATA = 0x787E
    URB_ALLOC_MESH = 0x787F
    URB_ALLOC_TASK = 0x7880
    CLIP_MESH = 0x7881
    SBE_MESH = 0x7882
    DRAWING_RECTANGLE_FAST = 0x7800
    DRAWING_RECTANGLE = 0x7900
    SO_DECL_LIST = 0x7917
    POLY_STIPPLE_OFFSET = 0x7906
    POLY_STIPPLE_PATTERN = 0x7907
    LINE_STIPPLE = 0x7908
    SAMPLE_PATTERN = 0x791C
    STATE_BYTE_STRIDE = 0x6005


CONSTANT_BUFFERS = 4
_STAGES = (Op.CONSTANT_VS, Op.CONSTANT_HS, Op.CONSTANT_DS, Op.CONSTANT_GS, Op.CONSTANT_PS)
"""In the order of CONSTANT_ALL's shader update enables, bits 8 to 12."""
_BUFFER_DWORDS = 4
_NOTHING: tuple[int, ...] = ()


def kept(lrc: Lrc, op: Op) -> Words:
    """The command that set this state, header first; empty if it was never set."""
    return lrc.state.get(op, _NOTHING)


def remembered(*ops: Op) -> Callable[[Callable[[Kind, Lrc], Found]], Callable[[Kind, Lrc], Found]]:
    """Of a class method that reads nothing of a context but these states: what it made of the same words it need not make again.

    What it makes is not changed by anybody.
    """

    def decorate(make: Callable[[Kind, Lrc], Found]) -> Callable[[Kind, Lrc], Found]:
        known: dict[tuple[tuple[int, ...], ...], Found] = {}

        @wraps(make)
        def of(cls: Kind, lrc: Lrc) -> Found:
            state = lrc.state
            key = tuple([tuple(state.get(op, _NOTHING)) for op in ops])
            if key in known:
                return known[key]
            if len(known) >= _REMEMBERED:
                known.clear()
            found = known[key] = make(cls, lrc)
            return found

        return of

    return decorate


def has_meshes(lrc: Lrc) -> bool:
    """Primitives come from a mesh shader, and the stages behind it take their commands for meshes (3DSTATE_MESH_CONTROL)."""
    return flag(kept(lrc, Op.MESH_CONTROL), 1, 31)


def keep(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """A command whose state replaces what was there."""
    streamer.lrc.state[words[index] >> 16] = words[index : index + length].tolist()
    return None


def drawing_rectangle(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """3DSTATE_DRAWING_RECTANGLE and its fast form: one state."""
    streamer.lrc.state[Op.DRAWING_RECTANGLE] = words[index : index + length].tolist()
    return None


def vertex_buffers(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """3DSTATE_VERTEX_BUFFERS: kept by buffer, four dwords each behind the header."""
    buffers = streamer.lrc.state.setdefault(Op.VERTEX_BUFFERS, [words[index]])
    for at in range(index + 1, index + length - _BUFFER_DWORDS + 1, _BUFFER_DWORDS):
        place = 1 + (words[at] >> 26) * _BUFFER_DWORDS
        if len(buffers) < place + _BUFFER_DWORDS:
            buffers.extend([0] * (place + _BUFFER_DWORDS - len(buffers)))
        buffers[place : place + _BUFFER_DWORDS] = words[at : at + _BUFFER_DWORDS].tolist()
    return None


def vf_instancing(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """3DSTATE_VF_INSTANCING: kept by vertex element, as its two dwords behind the header."""
    if length < 3:
        return None
    elements = streamer.lrc.state.setdefault(Op.VF_INSTANCING, [words[index]])
    place = 1 + 2 * (words[index + 1] & 0x3F)
    if len(elements) < place + 2:
        elements.extend([0] * (place + 2 - len(elements)))
    elements[place : place + 2] = words[index + 1 : index + 3].tolist()
    return None


def constant_all(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """3DSTATE_CONSTANT_ALL: the stages that it names get these buffers, in the form that `constants` reads."""
    mask = bits(words[index : index + length], 1, 19, 16) if length > 1 else 0
    buffers = [0] * (2 * CONSTANT_BUFFERS)
    at = index + 2
    for number in range(CONSTANT_BUFFERS):
        if mask >> number & 1 and at + 2 <= index + length:
            buffers[2 * number : 2 * number + 2] = words[at : at + 2].tolist()
            at += 2
    for number, stage in enumerate(_STAGES):
        if words[index] >> 8 + number & 1:
            streamer.lrc.state[stage] = [words[index], *buffers]
    return None


def constant_stage(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """3DSTATE_CONSTANT_VS and its like: four lengths of 16 bits, then four addresses; kept as CONSTANT_ALL has them."""
    body = words[index + 1 : index + length].tolist()
    body += [0] * (10 - len(body))
    buffers: list[int] = []
    for number in range(CONSTANT_BUFFERS):
        count = body[number // 2] >> 16 * (number % 2) & 0xFFFF
        low, high = body[2 + 2 * number : 4 + 2 * number]
        buffers += [low & ~0x1F | min(count, 31), high]
    streamer.lrc.state[words[index] >> 16] = [words[index], *buffers]
    return None


def wm_depth_stencil(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """3DSTATE_WM_DEPTH_STENCIL: what its "modify disable" bits name stays as it was."""
    new = words[index : index + length].tolist()
    new += [0] * (4 - len(new))
    old = streamer.lrc.state.get(Op.WM_DEPTH_STENCIL, [0, 0, 0, 0])
    masks = [0, 0, 0]
    for bit, part in _UNMODIFIED:
        if flag(new, 0, bit):
            masks = [mask | more for mask, more in zip(masks, part, strict=True)]
    merged = [was & mask | is_now & ~mask for was, is_now, mask in zip(old[1:], new[1:4], masks, strict=True)]
    streamer.lrc.state[Op.WM_DEPTH_STENCIL] = [new[0], *merged]
    return None


_DEPTH = 0b11 | 0b111 << 5
_UNMODIFIED: tuple[tuple[int, tuple[int, int, int]], ...] = (
    (8, (0, 0, 0xFFFF)),
    (9, (0, 0xFF00FF00, 0)),
    (10, (0, 0x00FF00FF, 0)),
    (11, (0xFFFF_FFFF & ~_DEPTH, 0, 0)),
    (12, (_DEPTH, 0, 0)),
)
"""Bits of the header, and what each says is not to be modified: reference values, test masks, write masks, stencil, depth."""


def constants(lrc: Lrc, stage: Op) -> list[tuple[int, int]]:
    """(address, bytes) of the push constants of a stage, in the order in which they are in registers."""
    words = kept(lrc, stage)
    found: list[tuple[int, int]] = []
    for at in range(1, len(words) - 1, 2):
        count = words[at] & 0x1F
        if count:
            found.append((((words[at] | words[at + 1] << 32) & 0xFFFF_FFFF_FFE0), 32 * count))
    return found
