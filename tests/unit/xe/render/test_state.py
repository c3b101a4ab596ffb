"""State commands that change a part of what is kept."""

from __future__ import annotations

from typing import Any
from unittest.mock import NonCallableMock

import pytest

from tests.support.xe.commands import END, sdi
from tests.support.xe.engine_lab import DATA_VA, PPHWSP
from tests.support.xe.render_lab import RenderLab
from vfio_user_xe.device_models.xe.engines import turns
from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
from vfio_user_xe.device_models.xe.engines.context import FAILED
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, RENDER
from vfio_user_xe.device_models.xe.render import state
from vfio_user_xe.device_models.xe.render.clip import ClipState
from vfio_user_xe.device_models.xe.render.depth_stencil import DepthStencilState
from vfio_user_xe.device_models.xe.render.pixel_state import PixelState
from vfio_user_xe.device_models.xe.render.setup import SetupState
from vfio_user_xe.device_models.xe.render.setup_backend import SetupBackend
from vfio_user_xe.device_models.xe.render.state import Op
from vfio_user_xe.device_models.xe.render.vertex_fetch import VertexState


def streamer() -> Any:
    return NonCallableMock(spec=CommandStreamer, lrc=NonCallableMock(spec=Lrc, state={}))


def put(handler: Any, on: Any, *words: int) -> None:
    handler(on, memoryview(b"".join(word.to_bytes(4, "little") for word in words)).cast("I"), 0, len(words))


def test_vertex_buffers_are_kept_one_by_one() -> None:
    on = streamer()
    put(state.vertex_buffers, on, 0x78080003, 1 << 26 | 16, 0x1000, 0, 64)
    put(state.vertex_buffers, on, 0x78080003, 0 << 26 | 8, 0x2000, 0, 32)
    assert on.lrc.state[Op.VERTEX_BUFFERS][1:] == [8, 0x2000, 0, 32, 1 << 26 | 16, 0x1000, 0, 64]


def test_constants_of_all_stages_go_to_those_that_are_named() -> None:
    on = streamer()
    put(state.constant_all, on, 0x786D0000 | 1 << 8 | 1 << 12 | 2, 0b101 << 16, 0x1002, 0, 0x3001, 0)
    assert state.constants(on.lrc, Op.CONSTANT_VS) == [(0x1000, 64), (0x3000, 32)]
    assert state.constants(on.lrc, Op.CONSTANT_PS) == [(0x1000, 64), (0x3000, 32)]
    assert state.constants(on.lrc, Op.CONSTANT_GS) == []
    put(state.constant_all, on, 0x786D0000 | 1 << 12, 0)
    assert state.constants(on.lrc, Op.CONSTANT_PS) == []


def test_constants_of_one_stage_are_kept_in_the_same_form() -> None:
    on = streamer()
    put(state.constant_stage, on, 0x78170009, 2 | 1 << 16, 0, 0x1000, 0, 0x2000, 1, 0, 0, 0, 0)
    assert state.constants(on.lrc, Op.CONSTANT_PS) == [(0x1000, 64), (0x1_0000_2000, 32)]


def test_what_modify_disable_bits_name_stays() -> None:
    on = streamer()
    put(state.wm_depth_stencil, on, 0x784E0002, 0xFFFFFFFF, 0x11223344, 0x5566)
    put(state.wm_depth_stencil, on, 0x784E0002 | 0b01101 << 8, 0, 0, 0)
    kept = on.lrc.state[Op.WM_DEPTH_STENCIL]
    assert kept[3] == 0x5566  # reference values
    assert kept[2] == 0x00220044  # write masks; test masks are new


def test_instancing_is_kept_by_element() -> None:
    on = streamer()
    put(state.vf_instancing, on, 0x78490001, 2 | 1 << 8, 3)
    put(state.vf_instancing, on, 0x78490001, 0, 0)
    assert on.lrc.state[Op.VF_INSTANCING][1:] == [0, 0, 0, 0, 2 | 1 << 8, 3]


@pytest.mark.parametrize("seconds", [turns.SLICE, 0.0], ids=["a slice", "slices of one command"])
@pytest.mark.parametrize(("engine_class", "pages"), [(RENDER, 3), (COMPUTE, 2)])
def test_state_beyond_the_image_costs_its_context_and_nothing_behind_the_image(
    engine_class: int, pages: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SLICE", seconds)
    lab = RenderLab()
    job, other = lab.job(engine_class=engine_class), lab.job(engine_class=engine_class)
    behind = PPHWSP + (1 + pages) * 0x1000
    job.dwords(job.at(behind), *[0x5A5A5A5A] * 0x400)
    states = (Op.VS, Op.GS, Op.CLIP, Op.SF, Op.WM, Op.SBE, Op.PS, Op.RASTER, Op.PS_EXTRA, Op.PS_BLEND, Op.DEPTH_BUFFER)
    longest = [op << 16 | 0xFF for op in states]
    commands = [word for header in longest for word in (header, *[header] * 0x100)]
    job.batch(*commands, END)
    job.ring(*job.start())
    other.ring(*sdi(DATA_VA, 1))
    job.submit()
    other.submit()
    lab.run()
    assert job.context.state is FAILED
    assert other.data() == [1]
    assert {job.function.ggtt_space.read32(job.at(behind) + 4 * index) for index in range(0x400)} == {0x5A5A5A5A}


class _Watched(dict[int, list[int]]):
    """State that notes which commands of it are looked at."""

    def __init__(self, state: dict[int, list[int]]) -> None:
        super().__init__(state)
        self.seen: set[int] = set()

    def get(self, op: int, default: object = None) -> Any:
        self.seen.add(op)
        return super().get(op, default)


@pytest.mark.parametrize("kind", [ClipState, DepthStencilState, PixelState, SetupBackend, SetupState, VertexState])
@pytest.mark.parametrize("enabled", [{}, {Op.MESH_CONTROL: [0, 1 << 31, 0]}])
def test_what_is_remembered_of_a_state_depends_on_no_other(kind: Any, enabled: dict[int, list[int]]) -> None:
    watched = _Watched(enabled)
    kind.of.__func__.__wrapped__(kind, NonCallableMock(spec=Lrc, state=watched))
    read, watched.seen = watched.seen, set()
    kind.of(NonCallableMock(spec=Lrc, state=watched))
    assert read <= watched.seen
