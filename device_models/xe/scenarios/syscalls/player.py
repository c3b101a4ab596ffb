"""Plays calls in two processes of a guest: whatever a call answers is right, as long as it answers and the kernel has no report."""

from __future__ import annotations

from collections.abc import Mapping

from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.guest_program import Blocked, Program, ProgramError
from vfio_user_xe.device_models.xe.scenarios.guest_program import Step as Answer
from vfio_user_xe.device_models.xe.scenarios.lifetimes.blocking import sleeping_place
from vfio_user_xe.device_models.xe.scenarios.lifetimes.looking import Looking
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.device_models.xe.scenarios.patience import Patience
from vfio_user_xe.device_models.xe.scenarios.syscalls.grammar import FILE
from vfio_user_xe.device_models.xe.scenarios.syscalls.world import ACTORS, EXPORT, commands
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import Failure
from vfio_user_xe.emulator.scenarios.run import Run

_BOUND_MS, _SLOW_MS = 5000, 20000
_JOBS = 12
_HANGS = 60.0
"""Seconds for a call that waits for jobs so that signals wake it: eight queues of random batches may take turns on one engine,
each until its job has run for 5 s (`xe_hw_engine.c`: job_timeout_ms)."""
OF_BATCHES = {Kind.GPU_HANG: "batches and addresses are random"}
"""What random batches may do: their jobs fault and time out, and engines are reset."""


class CallPlayer:
    """Plays one sequence. Not safe to use from several threads."""

    def __init__(self, run: Run, machine: XeMachine, ignore: Mapping[Kind, str] = OF_BATCHES) -> None:
        """Reports of the kernel of the kinds in `ignore` are excused, for the reasons given."""
        self._run = run
        self._ignore = ignore
        self._patience = Patience(machine)
        self._looking = Looking(run, machine, self._patience)
        self._steps = 0
        self.answers: list[Answer] = []
        """What calls answered."""
        machine.card.call("ledger", clear=True)
        self._programs: dict[str, Program] = {}
        for actor in ACTORS:
            self._programs[actor] = program = s.started(run, machine)
            program.do(*(f"raw-open {number} {machine.card.pf}" for number in FILE.slots()))
        # A device of VFIO has one user.
        self._programs[ACTORS[0]].do(f"vfio v {machine.card.vf(1)}")

    def play(self, step: Step) -> list[Failure]:
        """Make a call, and look at the kernel's log and the ledger.

        Raises:
            GuestError: the guest is lost.
        """
        self._steps += 1
        job, program = f"c{self._steps % _JOBS}", self._programs[step.actor]
        *before, call = commands(step)
        asked = [*(f"try {one}" for one in before), f"spawn {job} {call}", f"try join {job} {_BOUND_MS}"]
        found: list[Failure] = []
        try:
            answers = program.attempt(*asked, timeout=60)
            if answers[-1].running:
                found = self._late(step, program, job)
                answers = [] if self._run.given_up else program.attempt(f"try join {job} {_SLOW_MS}")
        except (ProgramError, Blocked) as error:
            self._run.give_up(f"process {step.actor} does not answer: {error}")
            return self._look(str(step)) or [Failure(f"process lost: {step.operation}", f"{step}: {error}")]
        self.answers += answers[-1:]
        if step.operation == EXPORT and step.actor == ACTORS[0]:
            program.attempt("try close d")
        return found if self._run.given_up else found + self._look(str(step))

    def finish(self) -> list[Failure]:
        """End both processes, and look at what is left.

        Raises:
            GuestError: the guest is lost.
        """
        for program in self._programs.values():
            program.kill()
        for actor, program in self._programs.items():
            stacks = self._patience.standing(lambda program=program: program.gone(), program.pid)  # type: ignore[misc]
            if stacks is not None:
                self._run.give_up(f"process {actor} does not end")
                where = stacks or "it neither ends nor sleeps"
                return [Failure(f"the end of a process blocks in {sleeping_place(stacks)}", f"{actor}: {where}")]
        found = self._look("the end")
        return found + self._looking.left_over()

    def _late(self, step: Step, program: Program, job: str) -> list[Failure]:
        """The call has not returned: whether it ever will."""

        def ended() -> bool:
            return not program.attempt(f"try join {job} 1")[-1].running

        stacks = self._patience.standing(ended, program.pid)
        if stacks is None or (not stacks and self._patience.within(_HANGS, ended)):
            return []
        self._run.give_up(f"{step.operation} blocks")
        where = stacks or "it runs, or a signal could wake it"
        return [Failure(f"blocks in {sleeping_place(stacks)}", f"{step} does not return: {where}")]

    def _look(self, after: str) -> list[Failure]:
        return self._looking.look(after, ignore=self._ignore)
