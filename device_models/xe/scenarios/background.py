"""A command of the guest that may block, while the scenario goes on."""

from __future__ import annotations

import itertools

from vfio_user_xe.device_models.xe.scenarios.patience import Patience
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run

PATIENCE = 30
"""Seconds that a command in the background may take once nothing holds it up any more."""

FOLDER = "/tmp"
"""Of the guest: what such commands leave."""

_numbers = itertools.count()


class Background:
    """Starts `command`, a line for the shell.

    Raises:
        GuestError: the guest does not answer.
    """

    def __init__(self, machine: Machine, command: str) -> None:
        self._machine = machine
        self._file = f"{FOLDER}/background-{next(_numbers)}"
        self._pid = machine.run(
            f"rm -f {self._file}; (({command}); echo $? > {self._file}.code; mv {self._file}.code {self._file})"
            f" > {self._file}.out 2>&1 3>&- & echo $!"
        ).stdout.strip()

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, or does within `seconds`."""
        # By the clock: on a busy host a short sleep is a long one.
        script = (
            f"now() {{ cut -d. -f1 /proc/uptime; }}; end=$(($(now) + {max(1, round(seconds))}))\n"
            f"until test -e {self._file}; do test $(now) -lt $end || exit 1; sleep 0.1; done"
        )
        return self._machine.run(script, timeout=seconds + 60).returncode == 0

    def standing(self, seconds: float, most_turns: int | None = None) -> dict[str, str] | None:
        """What holds it up when it has not ended within `seconds`: see `Patience.standing`; None: it ends.

        With sanitizers, or on a host that is busy, it may be at work for longer, and nothing is blocked then.
        """
        if self.ended(seconds):
            return None
        return Patience(self._machine).standing(lambda: self.ended(1), most_turns=most_turns)

    def must_end(self, run: Run, otherwise: str) -> None:
        """Fail with `otherwise` and what blocks the guest, unless it ends now that nothing should hold it up any more."""
        stacks = self.standing(PATIENCE)
        if stacks:
            run.evidence("stacks of blocked tasks", stacks)
        run.check(stacks is None, otherwise)

    def stack(self) -> str:
        """Where in the kernel it sleeps, in whatever way; empty: it has ended, or runs."""
        return stack_of(self._machine, self._pid)

    def code(self) -> int:
        """Its exit code, once it has ended.

        Raises:
            CommandFailed: it has not.
        """
        return int(self._machine.sh(f"cat {self._file}"))

    def output(self) -> str:
        """What it has written so far."""
        return self._machine.run(f"cat {self._file}.out").stdout.strip()


def stack_of(machine: Machine, pid: str) -> str:
    """Where in the kernel a shell's process and its children sleep, in whatever way; empty: they have ended, or run."""
    script = (
        f"for p in {pid} $(grep -l '^[0-9]* (.*) . {pid} ' /proc/[0-9]*/stat | tr -dc '0-9\\n'); do\n"
        "grep -qw do_wait /proc/$p/stack || cat /proc/$p/stack; done 2>/dev/null; true"
    )
    return machine.run(script).stdout.rstrip() if pid.isdigit() else ""
