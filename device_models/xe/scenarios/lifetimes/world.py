"""The model as the explorer asks for it: all operations over one state."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios.lifetimes import exporting, importing, living, system_wide
from vfio_user_xe.device_models.xe.scenarios.lifetimes.opening import opening
from vfio_user_xe.device_models.xe.scenarios.lifetimes.operation import ACTORS, SYSTEM, Operation
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import State
from vfio_user_xe.emulator.scenarios.exploration.sequence import BadSequence, Step

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (*living.OPERATIONS, *exporting.OPERATIONS, *importing.OPERATIONS, *system_wide.OPERATIONS)
}


class Lifetimes:
    """VFs, processes, dma-bufs and imports: see `vfio_user_xe.emulator.scenarios.exploration.world.World`."""

    def __init__(self) -> None:
        self.state = State()

    def choices(self) -> Sequence[tuple[Step, float]]:
        """Every step that is allowed now, with its weight."""
        found = []
        for name, operation in OPERATIONS.items():
            for actor in self._actors(operation):
                for arguments in operation.candidates(self.state, actor):
                    step = Step(actor, name, arguments)
                    if self.allows(step):
                        found.append((step, operation.weigh(self.state, actor, arguments)))
        return found

    def opening(self, chance: random.Random) -> list[Step]:
        """Steps to begin with; they are applied."""
        return opening(self, self.state, chance)

    def allows(self, step: Step) -> bool:
        """Whether a step is allowed now.

        Raises:
            BadSequence: there is no such operation or actor.
        """
        operation = operation_of(step)
        if step.actor not in self._actors(operation):
            return False
        return operation.allowed(self.state, step.actor, step.arguments)

    def apply(self, step: Step) -> None:
        """Change the state as the step changes it."""
        operation_of(step).apply(self.state, step.actor, step.arguments)
        system_wide.finish_pending(self.state)

    def topics(self, step: Step) -> Iterable[str]:
        """The VFs that it concerns; "-" when it concerns none."""
        return sorted(operation_of(step).vfs(self.state, step.actor, step.arguments)) or ["-"]

    def provokes(self, step: Step) -> Iterator[str]:
        """Defects that it would meet on a kernel that has them."""
        if defect := operation_of(step).meets(self.state, step.actor, step.arguments):
            yield defect
        for vf in operation_of(step).revokes(self.state, step.actor, step.arguments):
            if self.state.idle(vf):
                yield defects.REVOCATION_WAITS
            if self.state.stale_paths(vf, dying(step)):
                yield defects.STALE_FILE
        if self._held_up(step):
            yield defects.REGISTRATION_HELD

    def goes_on(self, step: Step) -> bool:
        """A revocation that waits goes on when importers run a job: where each can, the sequence does too."""
        state = self.state
        if operation_of(step).meets(state, step.actor, step.arguments):
            return True  # a job is refused, and nothing else
        vfs = operation_of(step).revokes(state, step.actor, step.arguments)
        idle = [one for vf in vfs for one in state.idle(vf)]
        stale = self._held_up(step) or any(state.stale_paths(vf, dying(step)) for vf in vfs)
        return not stale and all(
            one.bound
            and not state.dead_in(one.gpu)
            and state.gpus[one.gpu].opener in state.gpus[one.gpu].holders - dying(step)
            for one in idle
        )

    def _held_up(self, step: Step) -> bool:
        """Whether a command that waits for a VF's users would wait for one that has closed all it had but an O_PATH descriptor."""
        state, operation = self.state, operation_of(step)
        if operation.waits_for_users:
            return bool(state.passed_over(operation.vfs(state, step.actor, step.arguments)))
        vfs = set(operation.revokes(state, step.actor, step.arguments)) & state.awaits
        return any(buffer.paths - dying(step) for vf in vfs for buffer in state.stale_paths(vf, dying(step)))

    def for_each_import(self, operation: str) -> list[Step]:
        """A step of this operation by the opener of each import, where it is allowed."""
        state = self.state
        steps = [Step(state.gpus[one.gpu].opener, operation, (one.name,)) for one in state.imports.values()]
        return [step for step in steps if self.allows(step)]

    def _actors(self, operation: Operation) -> Iterable[str]:
        if operation.of_system:
            return (SYSTEM,)
        if isinstance(operation, living.Start):
            return [actor for actor in ACTORS if actor not in self.state.processes]
        return [actor for actor in ACTORS if actor in self.state.processes]


def dying(step: Step) -> set[str]:
    """The process that ends with a step."""
    return {step.actor} if isinstance(OPERATIONS[step.operation], living.Ending) else set()


def operation_of(step: Step) -> Operation:
    """The operation of a step.

    Raises:
        BadSequence: there is none of that name, or no such actor.
    """
    operation = OPERATIONS.get(step.operation)
    if operation is None:
        raise BadSequence(f'there is no operation "{step.operation}" (there are: {", ".join(OPERATIONS)})')
    if step.actor not in (SYSTEM, *ACTORS):
        raise BadSequence(f'there is no actor "{step.actor}" (there are: {", ".join((*ACTORS, SYSTEM))})')
    return operation
