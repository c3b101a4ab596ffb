"""What pixel shader threads send to the render cache, gathered by lane: colours, depth, stencil, masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.messages.message import RenderTargetMessage
from vfio_user_xe.device_models.xe.eu.port import Request

_REGISTER = 64
_CHANNELS = 4
_Number = TypeVar("_Number", bound=np.generic)

Lanes = NDArray[np.int64]
Reader = Callable[[int, Lanes], NDArray[np.uint32]]
"""(binding table index, lanes) to what a render target holds there: [lanes, 4] as registers have it."""


@dataclass
class Target:
    """What was written to one render target."""

    surface: int
    """Binding table index."""
    colours: NDArray[np.uint32]
    """[lanes, 4]: registers; floats or integers as the target's format says."""
    written: NDArray[np.bool_]
    """[lanes]"""
    second: NDArray[np.uint32] | None = None
    """[lanes, 4]: the second source of dual source blending."""
    alpha: NDArray[np.float32] | None = None
    """[lanes]: alpha of the first target's source, for alpha to coverage."""


@dataclass
class PixelOutput:
    """Of `threads` threads with `width` lanes each; a lane's number is its thread's times `width` and its own."""

    threads: int
    width: int
    reader: Reader | None = None
    first_thread: int = 0
    """Number of the first of those that run now."""
    targets: dict[int, Target] = field(default_factory=dict)
    """By index; those that no thread wrote to are not there."""
    alive: NDArray[np.bool_] = field(init=False)
    """[lanes]: those that sent anything, were it to no target."""
    depth: NDArray[np.float32] | None = None
    stencil: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint16] | None = None
    """[lanes]: samples that the shader leaves (oMask)."""

    def __post_init__(self) -> None:
        self.alive = np.zeros(self.threads * self.width, dtype=np.bool_)

    def write(self, request: Request, message: RenderTargetMessage) -> None:
        """One message of several threads."""
        width = message.width
        numbers = self._numbers(request, width)
        chosen = request.lanes[:, :width]
        lanes = numbers[chosen]
        self.alive[lanes] = True
        columns = _Columns(request.payload, width, _REGISTER if message.header else 0, message.half)
        alpha = columns.floats()[chosen] if message.source0_alpha else None
        if message.output_mask:
            self.mask = self._kept(self.mask, np.uint16)
            self.mask[lanes] = columns.words(request.send.first_lane)[chosen]
        colours = np.stack([columns.raw()[chosen] for _ in range(_CHANNELS)], axis=1)
        dual = message.subtype.is_dual
        second = np.stack([columns.raw()[chosen] for _ in range(_CHANNELS)], axis=1) if dual else None
        if not message.null_target:
            target = self._target(message)
            target.colours[lanes] = colours
            target.written[lanes] = True
            if second is not None:
                if target.second is None:
                    target.second = np.zeros_like(target.colours)
                target.second[lanes] = second
            if alpha is not None:
                if target.alpha is None:
                    target.alpha = np.zeros(len(target.written), dtype=np.float32)
                target.alpha[lanes] = alpha
        if message.depth:
            self.depth = self._kept(self.depth, np.float32)
            self.depth[lanes] = columns.floats()[chosen]
        if message.stencil:
            self.stencil = self._kept(self.stencil, np.uint8)
            self.stencil[lanes] = columns.bytes()[chosen]

    def read(self, request: Request, message: RenderTargetMessage) -> NDArray[np.uint8]:
        """The response to a render target read."""
        width = message.width
        result = np.zeros((len(request.threads), message.response_length * _REGISTER), dtype=np.uint8)
        surface = message.surface.value
        if self.reader is None or surface is None:
            return result
        chosen = request.lanes[:, :width]
        values = np.zeros((*chosen.shape, _CHANNELS), dtype=np.uint32)
        values[chosen] = self.reader(surface, self._numbers(request, width)[chosen])
        step = 4 * width
        for channel in range(_CHANNELS):
            column = np.ascontiguousarray(values[:, :, channel]).view(np.uint8)
            part = result[:, channel * step : (channel + 1) * step]
            part[:] = column[:, : part.shape[1]]
        return result

    def _numbers(self, request: Request, width: int) -> Lanes:
        first = (request.threads[:, None] + self.first_thread) * self.width + request.send.first_lane
        return np.asarray(first + np.arange(width))

    def _target(self, message: RenderTargetMessage) -> Target:
        target = self.targets.get(message.target)
        if target is None:
            lanes = len(self.alive)
            surface = message.surface.value if message.surface.value is not None else message.target
            target = Target(surface, np.zeros((lanes, _CHANNELS), dtype=np.uint32), np.zeros(lanes, dtype=np.bool_))
            self.targets[message.target] = target
        return target

    def _kept(self, array: NDArray[_Number] | None, kind: type[_Number]) -> NDArray[_Number]:
        return np.zeros(len(self.alive), dtype=kind) if array is None else array


class _Columns:
    """Parameters of a payload one after the other; those behind its end are zero."""

    def __init__(self, payload: NDArray[np.uint8], width: int, at: int, half: bool) -> None:
        self._payload = payload
        self._width = width
        self._at = at
        self._half = half

    def _take(self, size: int, skip: int = 0, room: int = 0) -> NDArray[np.uint8]:
        length = size * self._width
        first = self._at + skip
        self._at += max(_REGISTER, length, room)
        part = self._payload[:, first : first + length]
        if part.shape[1] < length:
            part = np.pad(part, ((0, 0), (0, length - part.shape[1])))
        return np.ascontiguousarray(part)

    def raw(self) -> NDArray[np.uint32]:
        """Dwords; of half precision as floats."""
        if self._half:
            return self._take(2).view(np.float16).astype(np.float32).view(np.uint32)
        return self._take(4).view(np.uint32)

    def floats(self) -> NDArray[np.float32]:
        return self._take(4).view(np.float32)

    def words(self, first_lane: int) -> NDArray[np.uint16]:
        """Of all the thread's lanes in one register."""
        return self._take(2, skip=2 * first_lane, room=_REGISTER).view(np.uint16)

    def bytes(self) -> NDArray[np.uint8]:
        return self._take(1)
