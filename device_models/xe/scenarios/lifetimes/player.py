"""Plays steps in a guest: each call in a thread of its process and with a bound, and after each everything is looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.guest_program import Blocked, Program, ProgramError
from vfio_user_xe.device_models.xe.scenarios.guest_program import Step as Answer
from vfio_user_xe.device_models.xe.scenarios.lifetimes import living, system_wide
from vfio_user_xe.device_models.xe.scenarios.lifetimes.blocking import Blocking
from vfio_user_xe.device_models.xe.scenarios.lifetimes.exporting import REFUSED, BadExport, Check
from vfio_user_xe.device_models.xe.scenarios.lifetimes.importing import Job, Stop
from vfio_user_xe.device_models.xe.scenarios.lifetimes.looking import Looking
from vfio_user_xe.device_models.xe.scenarios.lifetimes.operation import Arguments, Operation, address, loop, usable
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import State
from vfio_user_xe.device_models.xe.scenarios.lifetimes.system import Command, SystemCommands
from vfio_user_xe.device_models.xe.scenarios.lifetimes.world import Lifetimes, dying, operation_of
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.device_models.xe.scenarios.patience import Patience
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import Failure
from vfio_user_xe.emulator.scenarios.run import Run

BOUND_MS = 3000
"""How long a call may take before it is looked at whether it blocks: a reset takes some 130 ms."""
_SLOW_MS = 20000
"""How long a call may take whose task does not sleep: the machine is busy."""
_ENDS = 30.0
"""Seconds that a command of the system may take once nothing holds it up."""
_WATCHDOG = 60
"""Seconds after which the kernel itself reports a task that sleeps. Who blocks is found out here, sooner where the machine is not busy."""
_PLACE = re.compile(r"\{([^{}]+)\}")


class LifetimesPlayer:
    """Plays one sequence; its state is what the steps so far made of the model's. Not safe to use from several threads."""

    def __init__(self, run: Run, machine: XeMachine) -> None:
        self._run = run
        self._machine = machine
        self._world = Lifetimes()
        self._programs: dict[str, Program] = {}
        self._fds: dict[tuple[str, str], int] = {}
        patience = Patience(machine)
        self._looking = Looking(run, machine, patience)
        self._blocking = Blocking(run, patience, self._world.state, self._programs)
        self._system = SystemCommands(machine)
        self._pending: Command | None = None
        self._jobs = 0
        self._derailed = False
        self._quiet = False
        """Whether the process that played the step has read the kernel's log, and there was nothing worth a look."""
        machine.card.call("ledger", clear=True)
        machine.watch_for_hung_tasks(_WATCHDOG)

    def play(self, step: Step) -> list[Failure]:
        """Carry a step out, compare its answer, and look at the kernel's log, the ledger and what waits.

        Raises:
            GuestError: the guest is lost.
        """
        operation = operation_of(step)
        self._quiet = not operation.of_system and not isinstance(operation, living.Start | living.Ending)
        concerned = {*self._of(operation.vfs, step), *self._of(operation.revokes, step)}
        self._look_for_paths(dying(step))
        if isinstance(operation, living.Start):
            self._programs[step.actor] = s.started(self._run, self._machine)
            found = []
        elif isinstance(operation, living.Ending):
            found = self._end(step)
        elif operation.of_system:
            found = self._by_system(operation, step)
        else:
            found = self._by_process(operation, step)
        self._world.apply(step)
        if not self._run.given_up:
            found += self._finish_pending()
            found += self._looking.settled(concerned)
            found += self._looking.look(str(step), read=not self._quiet)
        return self._noted(found)

    def finish(self) -> list[Failure]:
        """Use every import once more, end all processes, importers first, and look at what is left.

        Raises:
            GuestError: the guest is lost.
        """
        found = self._stop_loops() + self._use_once_more() + self._read_once_more() + self._export_what_cannot_be()
        if self._run.given_up:
            return found
        found += self._let_go()
        for actor, program in self._programs.items():
            self._look_for_paths({actor})
            program.kill()
        for actor, program in self._programs.items():
            if not program.gone(BOUND_MS / 1000):
                found += self._noted(self._blocking.dying(actor, program, f"the end of {actor}"))
        for actor in self._programs:
            self._world.state.end(actor)
        if self._run.given_up:
            return found
        system_wide.finish_pending(self._world.state)
        found += self._noted(self._finish_pending())
        if not self._run.given_up:
            found += self._let_drivers_go()
        if not self._run.given_up:
            self._machine.watch_for_hung_tasks()
            found += self._looking.settled(["v1", "v2"])
            self._looking.restore()
            found += self._looking.look("the end")
            found += self._looking.left_over()
        return found

    def _noted(self, found: list[Failure]) -> list[Failure]:
        """Failures, of which some may mean that the guest is not as the model says any more."""
        self._derailed = self._derailed or any(failure.derails for failure in found)
        return found

    def _look_for_paths(self, ending: Collection[str]) -> None:
        """Whether a revocation may now touch the file of a dma-buf of which only an O_PATH descriptor is left, or will be."""
        state = self._world.state
        self._looking.path_left |= any(state.stale_paths(vf, ending) for vf in state.vfs)

    def _of(self, ask: Callable[[State, str, Arguments], Collection[str]], step: Step) -> Collection[str]:
        return ask(self._world.state, step.actor, step.arguments)

    # Processes -----------------------------------------------------------------------------------------------------

    def _by_process(self, operation: Operation, step: Step) -> list[Failure]:
        if operation.detached:
            return self._detached(operation, step)
        state, arguments = self._world.state, step.arguments
        before = operation.before(state, arguments)
        first, *rest = map(self._filled_in, operation.commands(state, step.actor, arguments))
        right = operation.answers(state, step.actor, arguments)
        found, answer = self._called(step, first, right, before, [] if operation.in_turn else rest)
        for command in rest if operation.in_turn else []:
            if answer is not None and answer.errno == "0" and not self._run.given_up:
                more, answer = self._called(step, command, ("0",))
                found += more
        return found

    def _called(
        self,
        step: Step,
        command: str,
        right: Collection[str],
        before: Sequence[str] = (),
        compared: Sequence[str] = (),
    ) -> tuple[list[Failure], Answer | None]:
        """What is wrong with a call, and its answer; None: the process or the guest is lost.

        `before` succeeds; `compared` is looked at when the call did.
        """
        self._jobs += 1
        job, program = f"s{self._jobs % 12}", self._programs[step.actor]
        asked = [*before, f"spawn {job} {command}", f"try join {job} {BOUND_MS}", *(f"try {one}" for one in compared)]
        at = len(before) + 1
        try:
            answers = program.attempt(*asked, timeout=60)
            self._quiet = self._quiet and not any(answer.kernel for answer in answers)
            found = []
            if answers[at].running:
                found = self._blocking.of_process(step, program, job)
                if self._run.given_up:
                    return found, None
                answers = program.attempt(f"try join {job} {_SLOW_MS}")
                at = 0
        except (ProgramError, Blocked) as error:
            return self._died(step, error), None
        answer = answers[at]
        self._remember(step, answer)
        if answer.errno not in right:
            found.append(self._wrong(step, answer, right))
        elif answer.errno == "0":
            found += [self._wrong(step, bad, ("0",)) for bad in answers[at + 1 :] if bad.errno != "0"][:1]
        return found, answer

    def _detached(self, operation: Operation, step: Step) -> list[Failure]:
        """Commands about a thread that goes on: its jobs may fail while what they use is revoked, and in no other way."""
        commands = operation.commands(self._world.state, step.actor, step.arguments)
        try:
            answers = self._programs[step.actor].attempt(*(f"try {command}" for command in commands), timeout=60)
            self._quiet = self._quiet and not any(answer.kernel for answer in answers)
        except (ProgramError, Blocked) as error:
            return self._died(step, error)
        found = [self._wrong(step, answer, ("0",)) for answer in answers if answer.errno != "0"]
        right = {"OK", "us", *operation.answers(self._world.state, step.actor, step.arguments)}
        for name in {name for answer in answers for name in answer.values if name.isupper() and name not in right}:
            defect = operation.meets(self._world.state, step.actor, step.arguments, name)
            text = f"{step}: jobs ended with {name}: {answers[-1]}"
            found.append(Failure(defect or f"answer: a job of a loop, {name}", text, defect))
        return found

    def _wrong(self, step: Step, answer: Answer, right: Iterable[str]) -> Failure:
        defect = operation_of(step).meets(self._world.state, step.actor, step.arguments, answer.errno)
        defect = defect or ignored_revocation(step, answer.errno, right, zero_copy=self._machine.zero_copy)
        what = "data" if answer.errno == "EILSEQ" else answer.errno
        wanted = " or ".join(right)
        return Failure(
            defect or f"answer: {step.operation}, {what} instead of {wanted}",
            f"{step}: {answer.errno} instead of {wanted} ({answer})",
            defect,
            derails=not isinstance(operation_of(step), Job | Check),
        )

    def _remember(self, step: Step, answer: Answer) -> None:
        for key in ("fd", "device", "render"):
            if key in answer.values:
                name = step.arguments[1] if step.operation == "export" else step.arguments[0]
                self._fds[step.actor, name] = answer.number(key)

    def _filled_in(self, command: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name in self._programs:
                return str(self._programs[name].pid)
            actor, _, thing = name.partition(".")
            if (actor, thing) in self._fds:
                return str(self._fds[actor, thing])
            return self._system.value(name)

        return _PLACE.sub(value, command)

    def _died(self, step: Step, error: Exception) -> list[Failure]:
        self._run.give_up(f"process {step.actor} does not answer: {error}")
        found = self._looking.look(str(step))
        return found or [Failure(f"process lost: {step.operation}", f"{step}: {error}")]

    def _end(self, step: Step) -> list[Failure]:
        program = self._programs[step.actor]
        if step.operation == "kill":
            program.kill()
        else:
            program.send("exit 0")
        found = [] if program.gone(BOUND_MS / 1000) else self._blocking.dying(step.actor, program, str(step))
        if not self._run.given_up:
            del self._programs[step.actor]
        return found

    def _stop_loops(self) -> list[Failure]:
        """Jobs that go on without end are stopped: how they ended is looked at when a step stops them."""
        found: list[Failure] = []
        for step in self._world.for_each_import(Stop.name):
            if not self._derailed and not self._run.given_up:
                found += self._noted(self._detached(operation_of(step), step))
                self._world.apply(step)
        return found

    def _use_once_more(self) -> list[Failure]:
        """A job of each import that is bound: where the exporter is gone none may run, and else the data must be right.

        A sequence that ends before an importer does something again would not show that it was never told.
        """
        found: list[Failure] = []
        for step in self._world.for_each_import(Job.name):
            # One buffer bound twice is a defect of its own, which sequences meet by themselves.
            if self._derailed or self._run.given_up or any(self._world.provokes(step)):
                continue
            found += self._noted(self._by_process(operation_of(step), step))
            self._world.apply(step)
        return found

    def _read_once_more(self) -> list[Failure]:
        """Each VF's user reads its memory: what a reset should have cleared, or importers have written."""
        found: list[Failure] = []
        for name, vf in self._world.state.vfs.items():
            step = Step(vf.opener, Check.name, (name,))
            if vf.opener and not self._derailed and not self._run.given_up and self._world.allows(step):
                found += self._noted(self._by_process(operation_of(step), step))
        return found

    def _export_what_cannot_be(self) -> list[Failure]:
        """Of a VF that is open, whatever was done with it: all at once, since nothing of it should wait for anything."""
        opener = next((vf for vf in self._world.state.vfs.values() if vf.opener), None)
        if opener is None or self._derailed or self._run.given_up:
            return []
        tried = [Step(opener.opener, BadExport.name, (opener.name, *what)) for what in REFUSED]
        commands = [
            f"try {operation_of(step).commands(self._world.state, step.actor, step.arguments)[0]}" for step in tried
        ]
        try:
            answers = self._programs[opener.opener].attempt(*commands, timeout=60)
        except (ProgramError, Blocked) as error:
            return self._died(Step(opener.opener, "end"), error)
        return self._noted(
            [
                self._wrong(step, answer, right)
                for step, answer, right in zip(tried, answers, REFUSED.values(), strict=False)
                if answer.errno not in right
            ][:1]
        )

    def _let_go(self) -> list[Failure]:
        """Importers let go before their processes die: what happens otherwise is what `kill` and `exit` are for."""
        state = self._world.state
        for actor, program in self._programs.items():
            commands = []
            for gpu in (gpu for gpu in state.gpus.values() if usable(state, gpu.name, actor)):
                for one in state.imports_of(gpu.name):
                    commands += [f"try stop {loop(one)}", f"try join {loop(one)} 20000"] * one.looping
                    length = state.buffers[one.buffer].length
                    commands += [f"try unbind {gpu.name} {address(one):#x} {length:#x}"] * one.bound
                    commands += [f"try gem-close {one.name}"] * one.handle
                commands.append(f"try close {gpu.name}")
            if not commands:
                continue
            try:
                program.attempt(*commands)
            except (ProgramError, Blocked) as error:
                return self._died(Step(actor, "end"), error)
        # Another process may have a descriptor of a file, with which its imports live on.
        shared = any(gpu.holders - {gpu.opener} for gpu in state.gpus.values())
        gone = any(gpu.gone for gpu in state.gpus.values())
        return [] if self._derailed or shared or gone else self._looking.attached()

    # The system ----------------------------------------------------------------------------------------------------

    def _by_system(self, operation: Operation, step: Step) -> list[Failure]:
        state = self._world.state
        waits = operation.waits_for_users and any(state.vfs[vf].open for vf in operation.vfs(state, "", step.arguments))
        if operation.waits_for_users:
            self._looking.before_taking_away()
        (words,) = operation.commands(state, step.actor, step.arguments)
        command = self._system.start(str(step), self._filled_in(words))
        if waits and not command.ended(0.5):
            self._pending = command
            return []
        found = self._ended(command, may_refuse=operation.may_refuse)
        if self._run.given_up:
            return found
        if waits:
            found.append(
                Failure(
                    f"answer: {step.operation} with users", f"{step}: done at once, although VFIO's users have the VF"
                )
            )
        if step.operation == system_wide.Disable.name and not waits:
            found += self._looking.taken_away()
        if step.operation == system_wide.UnbindPf.name:
            self._looking.other_driver()
        return found

    def _let_drivers_go(self) -> list[Failure]:
        """vfio-pci lets go of VFs that nobody has any more: a reference to a device that was never given back shows only then."""
        found: list[Failure] = []
        for name, vf in self._world.state.vfs.items():
            if self._derailed or self._run.given_up or not vf.enabled or vf.driver != "vfio-pci":
                continue
            command = self._system.start(
                f"guest rebind-vf {name} at the end", self._filled_in(system_wide.rebound(name))
            )
            found += self._noted(self._ended(command))
        return found

    def _ended(self, command: Command, *, may_refuse: bool = False) -> list[Failure]:
        """A command that nothing should hold up must end, and do what it was told to."""
        if not command.ended(_ENDS) and (blocked := self._blocking.of_system(command)):
            return blocked
        if may_refuse or command.said == "0":
            return []
        return [Failure(f"answer: {command.text.split()[1]} failed", f"{command.text}: {command.said}")]

    def _finish_pending(self) -> list[Failure]:
        command = self._pending
        if command is None or self._world.state.pending:
            return []
        self._pending = None
        found = self._ended(command)
        if self._run.given_up:
            return found
        if system_wide.Disable.name in command.text:
            found += self._looking.taken_away()
        if system_wide.UnbindPf.name in command.text:
            self._looking.other_driver()
        return found


def ignored_revocation(step: Step, errno: str, right: Iterable[str], *, zero_copy: bool) -> str:
    """The known defect of a job that runs although what it uses is gone; empty: it is none, or not known of such a kernel."""
    ran = isinstance(operation_of(step), Job) and errno == "0" and "0" not in right
    return "D7" if ran and zero_copy else ""
