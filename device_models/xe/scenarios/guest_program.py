"""The program in the guest: `client/*.c`, which exports memory of VFs as dma-bufs and imports it on GPUs, as told.

    program = Program(guest, "a")
    program.start()
    program.do("vfio v1 0000:01:00.1", "fill v1 0 0x200000 7", "export v1 2 0+0x200000 buffer")
    assert program.step("try import g buffer i").errno == "EINVAL"

Every `Program` is a process of its own in the guest. A command that blocks does not block the guest's other commands.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vfio_user_xe.device_models.xe.scenarios import kernels
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.programs import compile_program
from vfio_user_xe.emulator.scenarios.machine import Shell
from vfio_user_xe.emulator.scenarios.polling import poll

SOURCES = Path(__file__).parent / "client"
NAME = "xe-dmabuf"
GUEST_PATH = f"/usr/bin/{NAME}"

_BLOCKED = 124
_RESULT = re.compile(r"(not )?ok \d+ - (.*)")
_GRACE = 30.0


@dataclass(slots=True)
class Step:
    """How a command ended: `errno` by name ("0" when it succeeded), what it reported, what the kernel logged meanwhile."""

    ok: bool
    command: str
    errno: str = ""
    seconds: float = 0.0
    ago: float = 0.0
    """How long before the report it ended: commands that are sent together are reported together."""
    values: dict[str, str] = field(default_factory=dict)
    kernel: list[str] = field(default_factory=list)

    def number(self, name: str) -> int:
        """A reported value as a number."""
        return int(self.values[name], 0)

    @property
    def running(self) -> bool:
        """Of `join`: the job has not ended. A job that ended with ETIME itself, as a wait can, says how long it took."""
        return self.errno == "ETIME" and "us" not in self.values

    def __str__(self) -> str:
        said = " ".join(f"{key}={value}" for key, value in self.values.items())
        return f"{self.command}: {self.errno or 'no result'} {said}".rstrip()


class ProgramError(Exception):
    """A program does not run, or what it said is no report."""


class StepFailed(ProgramError):
    """A command did not end as it should: `step` is the first such."""

    def __init__(self, step: Step) -> None:
        kernel = "".join(f"\n  kernel: {line}" for line in step.kernel)
        super().__init__(f"{step}{kernel}")
        self.step = step


class Blocked(ProgramError):
    """A command did not end in time; `steps` are those before it, `command` is the one."""

    def __init__(self, command: str, seconds: float, steps: list[Step]) -> None:
        super().__init__(f"{command}: still blocked after {seconds:g} s")
        self.command = command
        self.steps = steps


class Program:
    """One process of it."""

    def __init__(self, shell: Shell, name: str, observer: Callable[[Step], None] = lambda step: None) -> None:
        """`observer` is told of every step."""
        self.name = name
        self.pid = 0
        self._shell = shell
        self._observer = observer

    def start(self) -> None:
        """Start the process.

        Raises:
            ProgramError: it does not start.
        """
        result = self._shell.run(f"{NAME} --serve {shlex.quote(self.name)}")
        if result.returncode:
            raise ProgramError(f"the program {self.name} does not start: {result.stderr}")
        self.pid = int(result.stdout)

    def do(self, *commands: str, timeout: float = 60) -> list[Step]:
        """Run commands one after the other.

        Raises:
            StepFailed: one is not ok; the rest was not run.
            Blocked: that takes too long.
        """
        steps = self.attempt(*commands, timeout=timeout)
        for step in steps:
            if not step.ok:
                raise StepFailed(step)
        return steps

    def step(self, command: str, timeout: float = 60) -> Step:
        """Run one command that must be ok.

        Raises:
            StepFailed: it is not.
            Blocked: that takes too long.
        """
        return self.do(command, timeout=timeout)[0]

    def attempt(self, *commands: str, timeout: float = 60) -> list[Step]:
        """Run commands and tell how each ended.

        Raises:
            Blocked: that takes longer than `timeout` seconds.
            ProgramError: the program ended.
        """
        quoted = " ".join(shlex.quote(command) for command in commands)
        line = f"{NAME} --to {shlex.quote(self.name)} --timeout {max(1, int(timeout))} {quoted}"
        result = self._shell.run(line, timeout=timeout + _GRACE)
        steps = parse(result.stdout)
        for index, step in enumerate(steps):
            step.ago = sum(later.seconds for later in steps[index + 1 :])
            self._observer(step)
        if result.returncode == _BLOCKED:
            raise Blocked(commands[min(len(steps), len(commands) - 1)], timeout, steps)
        if len(steps) < len(commands):
            raise ProgramError(f"the program {self.name} ended at {commands[len(steps)]!r}: {result.stderr.strip()}")
        return steps

    def send(self, command: str) -> None:
        """Send a command that ends the process, or that nobody waits for."""
        self._shell.run(f"{NAME} --to {shlex.quote(self.name)} --timeout 1 {shlex.quote(command)}")

    def gone(self, timeout: float = 0) -> bool:
        """Whether every thread of the process has ended within `timeout` seconds."""
        # A zombie whose other threads are gone too has ended; one that has some left has not.
        look = f"cat /proc/{self.pid}/task/*/stat 2>/dev/null | sed 's/.*) //' | grep -qv '^[ZX]' || exit 0"
        return poll(self._shell, look, timeout).returncode == 0

    def kill(self) -> None:
        """Send SIGKILL, and wait for nothing."""
        self._shell.run(f"kill -9 {self.pid} 2>/dev/null")

    def end(self, timeout: float = 10) -> bool:
        """Kill the process and wait; whether it is gone."""
        if not self.pid:
            return True
        self.kill()
        return self.gone(timeout)


def compiled(environment: Environment) -> dict[str, Path]:
    """Path in the guest and file of the program, compiled when needed, and of the kernels that it runs on execution units.

    Raises:
        NoCompiler: this host cannot compile it.
    """
    return {GUEST_PATH: compile_program(environment, NAME, sorted(SOURCES.glob("*.c"))), **kernels.assembled()}


def parse(text: str) -> list[Step]:
    """The steps of a report."""
    steps: list[Step] = []
    for line in text.splitlines():
        if match := _RESULT.fullmatch(line):
            steps.append(Step(not match[1], match[2]))
        elif steps and line.startswith("# kernel: "):
            steps[-1].kernel.append(line.removeprefix("# kernel: "))
        elif steps and line.startswith("# "):
            step = steps[-1]
            for word in line[2:].split():
                key, _, value = word.partition("=")
                if key == "errno":
                    step.errno = value
                elif key == "took_us":
                    step.seconds = int(value) / 1e6
                else:
                    step.values[key] = value
    # The last one's report may not be complete.
    return [step for step in steps if step.errno]
