"""Vertices that are written to buffers, and what is counted of them."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import create_autospec

import numpy as np
import pytest

from tests.support.xe.commands import srm
from tests.support.xe.engine_lab import DATA_VA
from tests.support.xe.render_lab import (
    FLAT,
    TRILIST,
    WRITE,
    RenderLab,
    element,
    elements,
    pixel_shader,
    primitive,
    setup_backend,
    vertex_buffer,
)
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.render.stream_out import Buffer, Declaration, Reorder, StreamOut, StreamOutState
from vfio_user_xe.device_models.xe.render.topology import Topology, assemble

SO_WRITE_OFFSET0, SO_NUM_PRIMS_WRITTEN0, SO_PRIM_STORAGE_NEEDED0 = 0x5280, 0x5200, 0x5240
STATE = StreamOutState(
    renders=0, counts=True, reorder=Reorder.LEADING, read_offsets=(0, 0, 0, 0),
    declarations=((Declaration(0, 0, 0b0001, False),), (), (), ()), buffers=(Buffer(0, 64, 4, None), None, None, None),
)  # fmt: skip


class Written:
    """Stream-out into 64 dwords of memory, which are 0xFF before."""

    def __init__(self, state: StreamOutState, registers: dict[int, int] | None = None) -> None:
        self.memory = np.full(64, 0xFFFF_FFFF, dtype=np.uint32)
        self.registers = {} if registers is None else registers
        memory = create_autospec(UnitMemory, instance=True)
        memory.store.side_effect = self._store
        self.out = StreamOut(self.registers, state, memory)

    def _store(self, where: np.ndarray[tuple[int], np.dtype[np.uint64]], values: object, size: int) -> None:
        assert size == 4
        self.memory[where.astype(np.int64) // 4] = values


def vertices(count: int, dwords: int = 8) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    """Dword d of vertex n is 16 n + d."""
    return (16 * np.arange(count)[:, None] + np.arange(dwords)).astype(np.uint32)


@pytest.mark.parametrize(("reorder", "second"), [(Reorder.LEADING, [16, 48, 32]), (Reorder.TRAILING, [32, 16, 48])])
def test_strips_are_written_as_lists_in_the_order_that_the_state_says(reorder: Reorder, second: list[int]) -> None:
    written = Written(replace(STATE, reorder=reorder))
    written.out.write(0, vertices(4), assemble(Topology.TRISTRIP, 4))
    assert written.memory[:7].tolist() == [0, 16, 32, *second, 0xFFFF_FFFF]


def test_holes_are_left_as_they_are_and_components_are_packed() -> None:
    declarations = (Declaration(0, 1, 0b1010, False), Declaration(0, 0, 0b0001, True), Declaration(0, 0, 0b0100, False))
    state = replace(STATE, declarations=(declarations, (), (), ()), buffers=(Buffer(0, 64, 16, None), None, None, None))
    written = Written(state)
    written.out.write(0, vertices(2), assemble(Topology.POINTLIST, 2))
    assert written.memory[:8].tolist() == [5, 7, 0xFFFF_FFFF, 2, 21, 23, 0xFFFF_FFFF, 18]


def test_a_primitive_that_does_not_fit_as_a_whole_is_counted_only() -> None:
    written = Written(replace(STATE, buffers=(Buffer(0, 20, 4, None), None, None, None)))
    written.out.write(0, vertices(6), assemble(Topology.TRILIST, 6))
    written.out.finish()
    assert written.memory[3] == 0xFFFF_FFFF
    assert written.registers[SO_NUM_PRIMS_WRITTEN0] == 1
    assert written.registers[SO_PRIM_STORAGE_NEEDED0] == 2
    assert written.registers[SO_WRITE_OFFSET0] == 12


def test_nothing_counts_before_the_draw_has_ended() -> None:
    written = Written(STATE, {SO_WRITE_OFFSET0: 8})
    written.out.write(0, vertices(1), assemble(Topology.POINTLIST, 1))
    assert written.registers == {SO_WRITE_OFFSET0: 8}
    assert written.memory[2] == 0
    written.out.finish()
    assert written.registers[SO_WRITE_OFFSET0] == 12


def test_a_buffer_that_is_not_enabled_has_room_for_nothing() -> None:
    written = Written(replace(STATE, buffers=(None,) * 4))
    written.out.write(0, vertices(1), assemble(Topology.POINTLIST, 1))
    written.out.finish()
    assert SO_NUM_PRIMS_WRITTEN0 not in written.registers
    assert written.registers[SO_PRIM_STORAGE_NEEDED0] == 1


OUT, OFFSET = DATA_VA + 0x3000, DATA_VA + 0x3800


def streamout(*, renders: bool, offset: int = 0) -> tuple[int, ...]:
    """Stream 0 into buffer 0: the first two components of the position."""
    return (
        0x7917_0003, 1, 1, 0x13, 0,
        0x7860_0006, 1 << 31 | 1 << 21 | 1 << 20, OUT & 0xFFFF_FFFF, OUT >> 32, 255, OFFSET & 0xFFFF_FFFF, OFFSET >> 32, offset,
        0x781E_0003, 1 << 31 | 1 << 25 | (not renders) << 30, 0, 8, 0,
    )  # fmt: skip


def triangle(*more: int) -> tuple[int, ...]:
    return (
        *vertex_buffer(48, 3 * 48), *elements(element(0), element(16), element(32)), *setup_backend(1, flat=1),
        *pixel_shader(), *more, *primitive(TRILIST, 3),
    )  # fmt: skip


CORNERS = [[0, 0, 0, 0, x, y, 0.5, 1, 1, 0, 0, 1] for x, y in ((0, 0), (16, 0), (0, 16))]


@pytest.mark.parametrize("renders", [True, False])
def test_draws_write_their_vertices_and_are_rendered_if_wanted(lab: RenderLab, renders: bool) -> None:
    commands = triangle(*streamout(renders=renders))
    job = lab.draw(
        FLAT.format(1) + WRITE, *commands, *srm(SO_NUM_PRIMS_WRITTEN0, DATA_VA + 0x3900, 0), vertices=CORNERS
    )
    found = np.array(job.data(0x3000, 6), dtype=np.uint32).view(np.float32)
    assert found.tolist() == [0, 0, 16, 0, 0, 16]
    assert job.data(0x3800) == [24]
    assert job.data(0x3900) == [1]
    assert bool(lab.pixels(job).any()) is renders


def test_the_write_offset_is_loaded_from_memory_where_the_command_says_so(lab: RenderLab) -> None:
    commands = triangle(*streamout(renders=False, offset=0xFFFF_FFFF))
    job = lab.draw(FLAT.format(1) + WRITE, *commands, vertices=CORNERS, submit=False)
    job.set_bytes(0x3800, (40).to_bytes(4, "little"))
    job.submit()
    lab.run()
    assert np.array(job.data(0x3000 + 40, 3), dtype=np.uint32).view(np.float32).tolist() == [0, 0, 16]
    assert job.data(0x3800) == [64]
