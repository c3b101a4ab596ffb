"""Vertex shader dispatch: 16 vertices a thread, elements by component in their registers, results in the URB."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.memory.address_space import Fault
from vfio_user_xe.device_models.xe.render import threads
from vfio_user_xe.device_models.xe.render.fields import bits, flag
from vfio_user_xe.device_models.xe.render.shader_port import ShaderPort
from vfio_user_xe.device_models.xe.render.stage import REGISTER, VERTEX, Stage, kernel_of, stage
from vfio_user_xe.device_models.xe.render.state import Op, kept
from vfio_user_xe.device_models.xe.render.urb import Urb
from vfio_user_xe.device_models.xe.render.vertex_fetch import Elements, VertexState

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

WIDTH = 16
"""Vertices of a thread."""
_WORDS = REGISTER // 4
_MOST_ENTRY = 1024
"""Bytes: more than the 64 slots that compilers lay out at most are not looked at."""
_PAIR = 8
"""Dwords that the unit of "URB entry read length" stands for."""


def is_enabled(lrc: Lrc) -> bool:
    """Otherwise elements are vertices as they are."""
    return flag(kept(lrc, Op.VS), 7, 0)


def vertex_stage(streamer: CommandStreamer, memory: UnitMemory) -> Stage:
    """The context's vertex shader now.

    Raises:
        TranslationFault: an address of its constants is not mapped.
        AccessFault: an address of its constants is refused, or leads nowhere.
    """
    words = kept(streamer.lrc, Op.VS)
    return stage(
        streamer,
        memory,
        VERTEX,
        kernel=kernel_of(words, 1),
        first_register=bits(words, 6, 24, 20),
        scratch=bits(words, 4, 31, 10) << 10,
    )


def entry_bytes(lrc: Lrc) -> int:
    """Of a vertex in the URB: 3DSTATE_URB_ALLOC_VS, or the older 3DSTATE_URB_VS."""
    new, old = kept(lrc, Op.URB_ALLOC_VS), kept(lrc, Op.URB_VS)
    size = _MOST_ENTRY
    if new or old:
        size = 64 * ((bits(new, 1, 9, 0) if new else bits(old, 1, 24, 16)) + 1)
    return min(size, _MOST_ENTRY)


def columns(lrc: Lrc, state: VertexState) -> NDArray[np.int64]:
    """[registers]: which component of all elements is in each register of attributes."""
    words = kept(lrc, Op.VS)
    if state.packing is None:
        packed = np.arange(4 * len(state.elements))
    else:
        enabled = [
            4 * number + component
            for number in range(len(state.elements))
            for component in range(4)
            if number >= len(state.packing) or state.packing[number] >> component & 1
        ]
        packed = np.array(enabled, dtype=np.int64)
    first = bits(words, 6, 9, 4) * _PAIR
    return packed[first : first + bits(words, 6, 16, 11) * _PAIR]


def payload(
    shader: Stage, elements: Elements, chosen: NDArray[np.int64], handles: NDArray[np.uint32]
) -> NDArray[np.uint8]:
    """[threads, bytes]: registers of threads for these vertices."""
    count = -(-len(elements) // WIDTH)
    padded = np.zeros((count * WIDTH, elements.shape[1] * 4), dtype=np.uint32)
    padded[: len(elements)] = elements.reshape(len(elements), -1)
    entries = np.zeros(count * WIDTH, dtype=np.uint32)
    entries[: len(handles)] = handles
    registers = np.zeros((count, max(shader.data_register + len(chosen), 2), _WORDS), dtype=np.uint32)
    registers[:, 0] = shader.header(count)
    registers[:, 1] = entries.reshape(count, WIDTH)
    constants = np.frombuffer(shader.constants.tobytes(), dtype=np.uint32).reshape(-1, _WORDS)
    registers[:, shader.first_register : shader.data_register] = constants
    registers[:, shader.data_register : shader.data_register + len(chosen)] = (
        padded[:, chosen].reshape(count, WIDTH, -1).transpose(0, 2, 1)
    )
    return registers.reshape(count, -1).view(np.uint8)


def shade(
    shader: Stage, elements: Elements, chosen: NDArray[np.int64], entry: int
) -> Generator[Fault | None, None, NDArray[np.uint32]]:
    """Run the shader for vertices; returns what it wrote: [vertices, dwords], as many as an entry of `entry` bytes has."""
    shaded = np.zeros((len(elements), entry // 4), dtype=np.uint32)
    # Handles have 24 bits: so many vertices of the largest size are what the buffer holds.
    most = threads.MOST * WIDTH
    for first in range(0, len(elements), most):
        part = elements[first : first + most]
        urb = Urb(len(part), entry)
        rows = payload(shader, part, chosen, urb.handles(0, len(part)))
        lanes = [(1 << WIDTH) - 1] * len(rows)
        lanes[-1] = (1 << len(part) - (len(rows) - 1) * WIDTH) - 1
        yield from threads.run(shader, rows, lanes, ShaderPort(shader, urb))
        shaded[first : first + most] = urb.entries
        yield None
    return shaded
