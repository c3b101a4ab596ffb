"""Operations of processes as a whole: starting and dying."""

from __future__ import annotations

from collections.abc import Collection

from vfio_user_xe.device_models.xe.scenarios.lifetimes.operation import Arguments, Operation
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import State


class Start(Operation):
    """A process; carried out by whoever plays, not by a process."""

    name, weight = "start", 4.0

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.processes.add(actor)
        state.ended.discard(actor)

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        return self.weight / (1 + 4 * len(state.processes))


class Ending(Operation):
    """The end of a process, with all that it has."""

    weight = 0.3

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        has = self.vfs(state, actor, arguments)
        return self.weight * (4 if state.awaits.intersection(has) else 1 if has else 0.2)

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.end(actor)

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        concerned = {name for name, vf in state.vfs.items() if actor in vf.holders}
        concerned |= {buffer.vf for buffer in state.buffers.values() if actor in buffer.holders | buffer.paths}
        for one in state.imports.values():
            if state.alive(one) and actor in state.gpus[one.gpu].holders:
                concerned.add(state.buffers[one.buffer].vf)
        return concerned

    def revokes(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return [name for name, vf in state.vfs.items() if vf.holders == {actor}]


class Exit(Ending):
    name = "exit"


class Kill(Ending):
    name = "kill"


OPERATIONS: tuple[Operation, ...] = (Start(), Exit(), Kill())
