"""A shader stage of a draw: its kernel, and what its threads' messages reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.state import ComputeState
from vfio_user_xe.device_models.xe.compute.surfaces import Surfaces
from vfio_user_xe.device_models.xe.compute.units import fetch_code
from vfio_user_xe.device_models.xe.render.fields import Words, address, bits
from vfio_user_xe.device_models.xe.render.state import Op, constants, kept

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer

REGISTER = 64
_WORDS = REGISTER // 4
_ROUNDING: dict[int, tuple[int, int, int]] = {
    Op.PS: (3, 15, 14),
    Op.TASK_SHADER: (4, 23, 22),
    Op.MESH_SHADER: (4, 23, 22),
}
_DENORMALS = 1 << 6 | 1 << 7 | 1 << 10
"""cr0.0: denormals of double, single and half are kept."""


@dataclass(frozen=True)
class Stage:
    """`compute.units.Dispatched` for threads of a shader, with their kernel."""

    name: str
    kernel: int
    """Offset from instruction base."""
    memory: UnitMemory
    """As the execution units see it."""
    state: ComputeState
    surfaces: Surfaces
    sampler_state: int
    first_register: int
    """Where push constants begin, with other data behind them."""
    constants: NDArray[np.uint8]
    """Whole registers."""
    report: Callable[[str], None]
    interpret: Callable[[str, int], None]
    """Takes the kind of an instruction that is left to the reference back end, and of how many threads."""
    ticks: Callable[[], int]
    control: int = field(default=_DENORMALS)
    """cr0.0 of new threads."""

    @property
    def data_register(self) -> int:
        """The first one behind the push constants."""
        return self.first_register + len(self.constants) // REGISTER

    def fetch(self, place: int, length: int) -> bytes:
        """Instruction memory at `place` from instruction base.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        return fetch_code(self.memory, self.state.instruction + place, length)

    def header(self, threads: int) -> NDArray[np.uint32]:
        """[threads, dwords]: r0 with what every stage finds there: .3 sampler states, .4 binding table, .5 scratch."""
        r0 = np.zeros((threads, _WORDS), dtype=np.uint32)
        r0[:, 3] = self.sampler_state
        r0[:, 5] = self.state.scratch
        return r0


@dataclass(frozen=True, slots=True)
class Bindings:
    """Which commands point to a stage's tables and constants; None: there is no such command, and the stage has none."""

    command: Op
    table: Op | None
    samplers: Op | None
    constants: Op | None


VERTEX = Bindings(Op.VS, Op.BINDING_TABLE_VS, Op.SAMPLER_STATE_VS, Op.CONSTANT_VS)
HULL = Bindings(Op.HS, Op.BINDING_TABLE_HS, Op.SAMPLER_STATE_HS, Op.CONSTANT_HS)
DOMAIN = Bindings(Op.DS, Op.BINDING_TABLE_DS, Op.SAMPLER_STATE_DS, Op.CONSTANT_DS)
GEOMETRY = Bindings(Op.GS, Op.BINDING_TABLE_GS, Op.SAMPLER_STATE_GS, Op.CONSTANT_GS)
PIXEL = Bindings(Op.PS, Op.BINDING_TABLE_PS, Op.SAMPLER_STATE_PS, Op.CONSTANT_PS)
TASK = Bindings(Op.TASK_SHADER, None, None, None)
MESH = Bindings(Op.MESH_SHADER, None, None, None)


def stage(
    streamer: CommandStreamer,
    memory: UnitMemory,
    bindings: Bindings,
    *,
    kernel: int,
    first_register: int,
    scratch: int,
) -> Stage:
    """The stage with the context's state as it is now.

    Raises:
        TranslationFault: an address of its constants is not mapped.
        AccessFault: an address of its constants is refused, or leads nowhere.
    """
    lrc = streamer.lrc
    words: Words = kept(lrc, bindings.command)
    state = _with_scratch(ComputeState.of(lrc), scratch)
    table = 0 if bindings.table is None else bits(kept(lrc, bindings.table), 1, 20, 5) << 5
    samplers = 0 if bindings.samplers is None else bits(kept(lrc, bindings.samplers), 1, 31, 5) << 5
    pushed = [] if bindings.constants is None else constants(lrc, bindings.constants)
    made = Stage(
        name=bindings.command.name,
        kernel=kernel,
        memory=memory,
        state=state,
        surfaces=Surfaces(memory, state, table),
        sampler_state=samplers,
        first_register=first_register,
        constants=_constants(pushed, memory),
        report=streamer.engine.report,
        interpret=streamer.engine.interpret,
        ticks=streamer.engine.timestamp,
        control=_control(words),
    )
    kernels = streamer.engine.kernels
    if kernels.tap.on:
        kernels.kernel(lrc.function.pci.name, f"3DSTATE_{made.name}", state.instruction, kernel, made.fetch)
    return made


@lru_cache(maxsize=256)
def _with_scratch(state: ComputeState, scratch: int) -> ComputeState:
    return replace(state, scratch=scratch)


def kernel_of(words: Words, dword: int) -> int:
    """A kernel start pointer."""
    return address(words, dword, 6)


def _control(words: Words) -> int:
    """cr0.0: rounding 5:4 of 3DSTATE_PS, 3DSTATE_TASK_SHADER, 3DSTATE_MESH_SHADER."""
    where = _ROUNDING.get(words[0] >> 16) if words else None
    return _DENORMALS | (0 if where is None else bits(words, *where) << 4)


def _constants(buffers: list[tuple[int, int]], memory: UnitMemory) -> NDArray[np.uint8]:
    data = b"".join(memory.read(where, length) for where, length in buffers)
    data += bytes(-len(data) % REGISTER)
    return np.frombuffer(data, dtype=np.uint8)
