"""Calls that do not return in time: where they block, what frees them, and which defect that is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios.guest_program import Blocked, Program, ProgramError
from vfio_user_xe.device_models.xe.scenarios.lifetimes.operation import DEAD, TARGET, address, loop
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import Import, State
from vfio_user_xe.device_models.xe.scenarios.lifetimes.system import Command
from vfio_user_xe.device_models.xe.scenarios.patience import Patience
from vfio_user_xe.device_models.xe.scenarios.steps import UNREGISTERS
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import Failure
from vfio_user_xe.emulator.scenarios.run import Run

_FRAME = re.compile(r"\[<0>\] (\w+)")
_GENERIC = re.compile(
    r"^(schedule\w*|__schedule|wait_for_completion\w*|__wait_\w+|dma_fence_\w+|dma_resv_\w+|msleep\w*|__mutex_\w+|mutex_\w+"
    r"|rwsem_\w+|down_\w+|preempt_\w+|do_\w+|__do_\w+|entry_\w+|x64_sys_\w+|__x64_sys_\w+|ret_from\w*|kthread|worker_thread)$"
)
_DEATHS = ("end", "kill", "exit")
_JOB = "a job"
_FREED = 2.0
"""Seconds within which a task goes on once it is free."""
RELEASED = "unbinding and closing all imports"
UNTOLD = "an importer is not told of a revocation"
_EXPORTER = re.compile(r"\bvfio_pci_\w*dma_?buf\w*")


@dataclass(frozen=True)
class _Job:
    """A job that an importer ran while a revocation waited: its answer, and whether all that its VM has bound is of one buffer."""

    name: str
    buffer: str
    answer: str
    alone: bool


class Blocking:
    """What is known of tasks that block in one sequence."""

    def __init__(self, run: Run, patience: Patience, state: State, programs: dict[str, Program]) -> None:
        """`state` and `programs` are those of the player, as they change."""
        self._run = run
        self._patience = patience
        self._state = state
        self._programs = programs
        self._jobs: list[_Job] = []
        self._released = 0
        """Imports that were unbound and closed to free the task."""

    def of_process(self, step: Step, program: Program, job: str) -> list[Failure]:
        """A call of a live process, which runs as `job`. Nothing is found when it ends after all: the machine is busy."""

        def ended() -> bool:
            return not program.step(f"try join {job} 200", timeout=30).running

        stacks = self._patience.standing(ended, program.pid)
        if stacks is None:
            return []
        waits = _revokes(stacks)
        self._excuse(stacks)
        freed = self._free(step, ended)
        return self._failure(str(step), stacks, waits, freed)

    def dying(self, actor: str, program: Program, what: str) -> list[Failure]:
        """A process that does not end."""
        stacks = self._patience.standing(program.gone, program.pid)
        if stacks is None:
            return []
        waits = _revokes(stacks)
        own = [one for one in self._mapped() if actor in self._state.gpus[one.gpu].holders]
        self._excuse(stacks)
        freed = self._free(Step(actor, "end"), program.gone)
        if freed == "nothing" and own:
            freed = "nothing: the importer is the blocked task itself"
        return self._failure(what, stacks, waits, freed)

    def of_system(self, command: Command) -> list[Failure]:
        """A command of the system that nothing should hold up. Nothing is found when it ends after all."""
        stacks = self._patience.standing(lambda: command.ended(0.1))
        if stacks is None:
            return []
        stack = command.stack()
        if not stacks and stack:
            stacks = {command.text: stack}  # who waits so that a signal wakes it waits all the same
        self._excuse(stacks)
        if UNREGISTERS in stack and (freed := self._close_paths(command)):
            self._run.evidence("stacks of blocked tasks", stacks)
            text = f"{command.text}: blocks in {UNREGISTERS}; freed by {freed}"
            return [Failure(defects.REGISTRATION_HELD, text, defects.REGISTRATION_HELD, derails=True)]
        return self._failure(command.text, stacks, _revokes(stacks), "nothing")

    def _close_paths(self, command: Command) -> str:
        """Close the O_PATH descriptors of buffers that the close of their device passed over; what let the command go on and end."""

        def free() -> bool:
            return command.ended(0.1) or UNREGISTERS not in command.stack()

        for buffer in self._state.passed_over(self._state.vfs):
            for actor in sorted(buffer.paths):
                try:
                    self._programs[actor].attempt(f"try close p{buffer.name}", timeout=30)
                except (ProgramError, Blocked):
                    continue
                buffer.paths.discard(actor)
                if self._patience.within(_FREED, free) and self._patience.standing(lambda: command.ended(0.1)) is None:
                    return f"closing the O_PATH descriptor of {buffer.name}, which was closed before its device"
        return ""

    def _failure(self, what: str, stacks: dict[str, str], waits: bool, freed: str) -> list[Failure]:
        self._run.evidence("stacks of blocked tasks", stacks)
        if freed.startswith("nothing"):
            self._run.give_up("a task blocks and nothing frees it")
        if waits and not freed.startswith(_JOB) and (untold := self._untold(freed)):
            return [Failure(UNTOLD, f"{what}: waits for {untold}; freed by {freed}", derails=True)]
        # The cause is what names a defect: a revocation that an importer's doing ends, or whose importer is the blocked task.
        known = waits and freed != "nothing"
        text = f"{what}: blocks in {sleeping_place(stacks)}; freed by {freed}"
        if known:
            # Whatever else frees it takes an import away, of which the steps that come next may be.
            derails = not freed.startswith(_JOB)
            return [Failure(defects.REVOCATION_WAITS, text, defects.REVOCATION_WAITS, derails)]
        return [Failure(f"blocks in {sleeping_place(stacks)}", text)]

    def _excuse(self, stacks: dict[str, str]) -> None:
        """The watchdog's reports of these tasks say what is found here anyway."""
        for stack in stacks.values():
            place = sleeping_place({"": stack})
            if place and all(excuse.place != place for excuse in self._run.excuses):
                self._run.excuse(Kind.HUNG_TASK, "a call that blocks is a failure of its own", place=place, count=50)

    def _free(self, step: Step, ended: Callable[[], bool]) -> str:
        """Let one importer after the other do something, until the task goes on; what did it."""
        self._jobs, self._released = [], 0
        for one in self._mapped():
            opener = self._state.gpus[one.gpu].opener
            for actor in sorted(self._state.gpus[one.gpu].holders):
                program = self._programs.get(actor)
                if program is None or (step.operation in _DEATHS and actor == step.actor):
                    continue
                if actor != opener:
                    tried, what = f"try close h{one.gpu}", "closing a DRM file"
                elif one.bound:
                    tried, what = f"try copy {one.gpu} {TARGET:#x} {address(one):#x} 0x1000", _JOB
                else:
                    tried, what = f"try gem-close {one.name}", "GEM_CLOSE"
                try:
                    steps = program.attempt(tried, timeout=30)
                except (ProgramError, Blocked):
                    continue
                if what == _JOB and steps:
                    self._jobs.append(_Job(one.name, one.buffer, steps[-1].errno, self._alone(one)))
                if actor != opener:
                    self._state.gpus[one.gpu].holders.discard(actor)
                elif not one.bound:
                    one.handle = False
                if self._patience.within(_FREED, ended):
                    return f"{what} of the importer {actor} ({one.name})"
        return self._release_all(step, ended)

    def _release_all(self, step: Step, ended: Callable[[], bool]) -> str:
        """Let all importers unbind and close what they have mapped: a job stops at the first buffer that it cannot map."""
        released = []
        for one in self._mapped():
            gpu = self._state.gpus[one.gpu]
            program = self._programs.get(gpu.opener)
            lives = program is not None and gpu.opener in gpu.holders
            if program is None or not lives or (step.operation in _DEATHS and gpu.opener == step.actor):
                continue
            length = self._state.buffers[one.buffer].length
            # Jobs must not run where nothing is bound any more: the GPU would fault.
            commands = [f"try stop {loop(one)}", f"try join {loop(one)} 20000"] * one.looping
            commands += [f"try unbind {one.gpu} {address(one):#x} {length:#x}"] * one.bound
            commands += [f"try gem-close {one.name}"] * one.handle
            try:
                program.attempt(*commands, timeout=30)
            except (ProgramError, Blocked):
                continue
            released.append(one)
        self._released = len(released)
        for one in released:
            one.bound = one.handle = one.looping = False
        if released and self._patience.within(_FREED, ended):
            return f"{RELEASED} ({', '.join(one.name for one in released)})"
        return "nothing"

    def _untold(self, freed: str) -> str:
        """The import that ran a job in a buffer although its revocation waits, and why it should not have; empty: none did.

        Either another import of the buffer was told: its job was refused. Or nobody was: all jobs ran, and yet the end of these
        imports freed the task, so it waited for one of them. Only the answer of a dead buffer says that an importer was told: a
        job that is late or lacks memory says nothing of it.
        """
        told = [job for job in self._jobs if job.alone and job.answer in DEAD]
        ran = [job for job in self._jobs if job.answer == "0"]
        for first in told:
            for second in ran:
                if first.buffer == second.buffer and first.name != second.name:
                    return f"{second.name}, which ran a job in the buffer, while {first.name} was told"
        if freed.startswith(RELEASED) and ran and len(ran) == len(self._jobs) == self._released:
            return f"{', '.join(job.name for job in ran)}, of which each ran a job in its buffer"
        return ""

    def _alone(self, one: Import) -> bool:
        bound = (other for other in self._state.imports.values() if other.gpu == one.gpu and other.bound)
        return all(other.buffer == one.buffer for other in bound)

    def _mapped(self) -> list[Import]:
        return [one for vf in self._state.vfs for one in self._state.mapped(vf)]


def _revokes(stacks: dict[str, str]) -> bool:
    """Whether one of the tasks waits in the exporter's revocation."""
    return any(_EXPORTER.search(stack) for stack in stacks.values())


def sleeping_place(stacks: dict[str, str]) -> str:
    """The function that says most of where the tasks wait."""
    for stack in stacks.values():
        for frame in _FRAME.findall(stack):
            if not _GENERIC.match(frame):
                return str(frame)
    return "no task that sleeps"
