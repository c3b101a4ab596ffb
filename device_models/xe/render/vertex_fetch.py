"""VF: vertices of a draw, fetched from vertex buffers and converted into elements of four dwords."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute import formats
from vfio_user_xe.device_models.xe.compute.formats import Format, Kind
from vfio_user_xe.device_models.xe.compute.memory import UNSIGNED, Numbers, UnitMemory, parts
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.device_models.xe.render.draw import Draw
from vfio_user_xe.device_models.xe.render.fields import Words, address, bits, flag
from vfio_user_xe.device_models.xe.render.state import Op, kept, remembered

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

Elements = NDArray[np.uint32]
"""[vertices, elements, 4]"""
Indices = NDArray[np.int64]
_ONE = 0x3F80_0000
_PASSTHRU = {0x021: 2, 0x0A1: 1, 0x1BC: 4, 0x1BD: 3}
"""R64* PASSTHRU: how many qwords are copied as they are."""
_INDEX_BYTES = (1, 2, 4)
_MOST_PACKED = 32
_SPARSE = 4
"""Bytes from the first vertex to the last, for each that is needed, up to which all of them are read."""


class Component(IntEnum):
    """Component controls (genxml 3D_Vertex_Component_Control)."""

    NOSTORE = 0
    SOURCE = 1
    ZERO = 2
    ONE_FLOAT = 3
    ONE_INTEGER = 4
    PRIMITIVE_ID = 7


@dataclass(frozen=True, slots=True)
class VertexBuffer:
    """A VERTEX_BUFFER_STATE."""

    address: int
    size: int
    pitch: int


@dataclass(frozen=True, slots=True)
class Element:
    """A VERTEX_ELEMENT_STATE with what VF_INSTANCING says of it."""

    buffer: int
    format: int
    offset: int
    controls: tuple[int, int, int, int]
    valid: bool
    instanced: bool = False
    step: int = 0
    """Instances that share the data; 0: all do."""
    edge_flag: bool = False
    """Its first component says of each vertex whether the edge that begins there is drawn."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A system-generated value: it replaces a component of an element."""

    element: int
    component: int


@dataclass(frozen=True, slots=True)
class VertexState:
    """What vertex fetch needs of the context's state."""

    buffers: dict[int, VertexBuffer]
    elements: tuple[Element, ...]
    topology: int
    index_address: int
    index_bytes: int
    index_size: int
    cut: int | None
    """Index that ends a strip; None: there is none."""
    vertex_id: Generated | None = None
    instance_id: Generated | None = None
    parameters: tuple[tuple[Generated, bool] | None, ...] = (None, None, None)
    """XP0 to XP2: where, and for the first two whether it is the vertex or instance that the draw begins with."""
    packing: tuple[int, ...] | None = field(default=None)
    """Which components of each element the vertex shader gets; None: all of them."""

    @classmethod
    @remembered(
        Op.VF,
        Op.INDEX_BUFFER,
        Op.VF_INSTANCING,
        Op.VF_SGVS,
        Op.VF_SGVS_2,
        Op.VF_COMPONENT_PACKING,
        Op.VERTEX_BUFFERS,
        Op.VERTEX_ELEMENTS,
        Op.VF_TOPOLOGY,
    )
    def of(cls, lrc: Lrc) -> VertexState:
        """The state that a draw takes from the context now."""
        vf, index, instancing = kept(lrc, Op.VF), kept(lrc, Op.INDEX_BUFFER), kept(lrc, Op.VF_INSTANCING)
        sgvs, sgvs2, packing = kept(lrc, Op.VF_SGVS), kept(lrc, Op.VF_SGVS_2), kept(lrc, Op.VF_COMPONENT_PACKING)
        size = _INDEX_BYTES[min(2, bits(index, 1, 9, 8))]
        return cls(
            buffers=_buffers(kept(lrc, Op.VERTEX_BUFFERS)),
            elements=_elements(kept(lrc, Op.VERTEX_ELEMENTS), instancing),
            topology=bits(kept(lrc, Op.VF_TOPOLOGY), 1, 5, 0),
            index_address=address(index, 2),
            index_bytes=size,
            index_size=bits(index, 4, 31, 0),
            cut=bits(vf, 1, 31, 0) & (1 << 8 * size) - 1 if flag(vf, 0, 8) else None,
            vertex_id=_generated(sgvs, 1, 15, 5, 14),
            instance_id=_generated(sgvs, 1, 31, 21, 30),
            parameters=(
                _parameter(_generated(sgvs2, 1, 15, 5, 14), flag(sgvs2, 1, 12)),
                _parameter(_generated(sgvs2, 1, 31, 21, 30), flag(sgvs2, 1, 28)),
                _parameter(_generated(sgvs2, 2, 15, 5, 14), False),
            ),
            packing=tuple(bits(packing, 1 + n // 8, 4 * (n % 8) + 3, 4 * (n % 8)) for n in range(_MOST_PACKED))
            if flag(vf, 0, 9)
            else None,
        )


def indices(state: VertexState, draw: Draw, memory: UnitMemory) -> Indices:
    """The VertexIDs of one instance, in their order: indices, or numbers from 0; a cut index stays what it is.

    Raises:
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    if not draw.indexed:
        return np.arange(draw.vertices, dtype=np.int64)
    size = state.index_bytes
    found = np.zeros(draw.vertices, dtype=np.int64)
    inside = max(0, min(draw.vertices, state.index_size // size - draw.first))
    if inside:
        data = memory.read(state.index_address + draw.first * size, inside * size)
        found[:inside] = np.frombuffer(data, dtype=UNSIGNED[size])
    return found


def fetch(state: VertexState, draw: Draw, memory: UnitMemory, ids: Indices, instances: Indices) -> Elements:
    """The elements of the vertices with these VertexIDs; `instances` [vertices] says which instance each is of.

    Raises:
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    begins = draw.base_vertex if draw.indexed else draw.first
    vertices = ids + begins
    result = np.zeros((len(vertices), len(state.elements), 4), dtype=np.uint32)
    rows = _Rows(state, memory, vertices)
    for number, element in enumerate(state.elements):
        if element.valid and element.instanced:
            shared = instances // element.step if element.step else np.zeros_like(instances)
            which, of_each = np.unique(draw.first_instance + shared, return_inverse=True)
            own = _Rows(state, memory, which) if len(which) > 1 else None
            result[:, number] = _element(state, element, memory, which, own)[of_each.reshape(-1)]
        elif element.valid:
            result[:, number] = _element(state, element, memory, vertices, rows)
    _generate(state.vertex_id, result, ids)
    _generate(state.instance_id, result, instances)
    starts = (begins, draw.first_instance, 0)
    for number, parameter in enumerate(state.parameters):
        if parameter is not None:
            place, from_draw = parameter
            _generate(place, result, starts[number] if from_draw else draw.extended[number])
    return result


def edge_flags(state: VertexState, elements: Elements) -> NDArray[np.bool_] | None:
    """[vertices]: the edge flags among these elements; None where no element has such."""
    for number, element in enumerate(state.elements):
        if element.edge_flag:
            return np.asarray(elements[:, number, 0] != 0)
    return None


class _Rows:
    """Vertex buffers, each read at once from the first vertex to the last, if the vertices lie near each other in it."""

    def __init__(self, state: VertexState, memory: UnitMemory, vertices: Indices) -> None:
        self._memory = memory
        self._state = state
        self._low, self._high = (int(vertices.min()), int(vertices.max())) if len(vertices) else (0, -1)
        self._count = len(vertices)
        self._read: dict[int, tuple[int, NDArray[np.uint8]] | None] = {}

    def of(self, number: int, buffer: VertexBuffer) -> tuple[int, NDArray[np.uint8]] | None:
        """The place of the first byte in the buffer, and the bytes; None if the vertices are to be fetched one by one."""
        if number not in self._read:
            self._read[number] = self._find(number, buffer)
        return self._read[number]

    def _find(self, number: int, buffer: VertexBuffer) -> tuple[int, NDArray[np.uint8]] | None:
        ends = [element.offset + _size(element) for element in self._state.elements if element.buffer == number]
        low = max(0, self._low * buffer.pitch)
        high = min(buffer.size, self._high * buffer.pitch + max(ends))
        if high <= low or high - low > _SPARSE * self._count * buffer.pitch:
            return None
        try:
            return low, np.frombuffer(self._memory.read(buffer.address + low, high - low), dtype=np.uint8)
        except (TranslationFault, AccessFault):
            # It may be of a page that no vertex lies in.
            return None


def _element(state: VertexState, element: Element, memory: UnitMemory, which: Indices, rows: _Rows | None) -> Elements:
    values = np.zeros((len(which), 4), dtype=np.uint32)
    if Component.SOURCE in element.controls:
        values = _source(state.buffers.get(element.buffer), element, memory, which, rows)
    for component, control in enumerate(element.controls):
        if control != Component.SOURCE:
            one = (
                {Component.ONE_FLOAT: _ONE, Component.ONE_INTEGER: 1}.get(Component(control), 0)
                if control in _KNOWN
                else 0
            )
            values[:, component] = one
    return values


def _size(element: Element) -> int:
    """Bytes of its format; 0 if that means nothing."""
    qwords = _PASSTHRU.get(element.format)
    form = formats.FORMATS.get(element.format)
    return 8 * qwords if qwords else form.bytes if form is not None else 0


def _source(
    buffer: VertexBuffer | None, element: Element, memory: UnitMemory, which: Indices, rows: _Rows | None
) -> Elements:
    """Data of the buffer; outside of it all is zero."""
    values = np.zeros((len(which), 4), dtype=np.uint32)
    size = _size(element)
    if buffer is None or not size:
        return values
    places = which * buffer.pitch + element.offset
    inside = (places >= 0) & (places + size <= buffer.size)
    if not inside.all():
        if inside.any():
            values[inside] = _inside(buffer, element, memory, places[inside], size, rows)
        return values
    return _inside(buffer, element, memory, places, size, rows)


def _inside(
    buffer: VertexBuffer, element: Element, memory: UnitMemory, places: Indices, size: int, rows: _Rows | None
) -> Elements:
    read = None if rows is None else rows.of(element.buffer, buffer)
    if read is not None:
        raw = _picked(read[1], places - read[0], size)
    else:
        raw = _bytes(memory, (places + buffer.address).astype(np.uint64), size)
    form = formats.FORMATS.get(element.format)
    if element.format not in _PASSTHRU and form is not None:
        return _converted(form, raw)
    words = raw.view(np.uint32)
    values = np.zeros((len(places), 4), dtype=np.uint32)
    values[:, : min(4, words.shape[1])] = words[:, :4]
    return values


def _picked(data: NDArray[np.uint8], places: Indices, size: int) -> NDArray[np.uint8]:
    """[vertices, size]: what lies at these places."""
    if size % 4 or (places & 3).any():
        return np.ascontiguousarray(data[places[:, None] + np.arange(size)])
    words = data[: len(data) & -4].view(np.uint32)
    return np.ascontiguousarray(words[(places >> 2)[:, None] + np.arange(size // 4)]).view(np.uint8)


def _bytes(memory: UnitMemory, places: Numbers, size: int) -> NDArray[np.uint8]:
    """[vertices, size]"""
    pieces, at = [], 0
    while at < size:
        unit = next(unit for unit in (8, 4, 2, 1) if unit <= size - at)
        pieces.append(parts(memory.load(places + np.uint64(at), unit), unit))
        at += unit
    return np.ascontiguousarray(np.concatenate(pieces, axis=1))


def _converted(form: Format, raw: NDArray[np.uint8]) -> Elements:
    plain = form.fields[0][2] == 32 and form.kind in (Kind.FLOAT, Kind.SINT, Kind.UINT)
    if plain and all(first == 32 * channel for channel, first, _ in form.fields):
        values = np.zeros((len(raw), 4), dtype=np.uint32)
        values[:, 3] = 1 if form.is_integer else _ONE
        values[:, : len(form.fields)] = raw.view(np.uint32)
        return values
    numbers = formats.decode(form, raw)
    if form.is_integer:
        return np.asarray(numbers.astype(np.int64).astype(np.uint32))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(numbers.astype(np.float32)).view(np.uint32)


def _generate(place: Generated | None, result: Elements, value: Indices | int) -> None:
    if place is not None and place.element < result.shape[1]:
        result[:, place.element, place.component] = np.asarray(value).astype(np.uint32)


_KNOWN = frozenset(int(control) for control in Component)


def _buffers(words: Words) -> dict[int, VertexBuffer]:
    found = {}
    for at in range(1, len(words) - 3, 4):
        null = bits(words, at, 13, 13)
        size = 0 if null else words[at + 3]
        found[at // 4] = VertexBuffer(address(words, at + 1), size, words[at] & 0xFFF)
    return found


def _elements(words: Words, instancing: Words) -> tuple[Element, ...]:
    found = []
    for number in range((len(words) - 1) // 2):
        first, second = words[1 + 2 * number], words[2 + 2 * number]
        found.append(
            Element(
                buffer=first >> 26,
                format=first >> 16 & 0x1FF,
                offset=first & 0xFFF,
                controls=(second >> 28 & 7, second >> 24 & 7, second >> 20 & 7, second >> 16 & 7),
                valid=bool(first >> 25 & 1),
                instanced=flag(instancing, 1 + 2 * number, 8),
                step=bits(instancing, 2 + 2 * number, 31, 0),
                edge_flag=bool(first >> 15 & 1),
            )
        )
    return tuple(found)


def _generated(words: Words, dword: int, enable: int, element: int, component: int) -> Generated | None:
    if not flag(words, dword, enable):
        return None
    return Generated(bits(words, dword, element, element - 5), bits(words, dword, component, component - 1))


def _parameter(place: Generated | None, from_draw: bool) -> tuple[Generated, bool] | None:
    return None if place is None else (place, from_draw)
