"""Functions of the driver that the kernel can let fail, one call at a time (Documentation/fault-injection)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run

_ERRNO = 54
ERROR = "EXFULL"
"""What the call that fails returns: nothing in xe returns it, so a message that has it is about such a call."""
MESSAGE = rf"(?<![\w-])-({_ERRNO}|{ERROR})(?!\w)"
"""How messages of the kernel have that error, as a word of its own: a number that begins so is another one."""
_FOLDER = "/sys/kernel/debug/fail_function"
_TRACING = "/sys/kernel/tracing"
_EVENTS = "vfio_user_xe"


class FailFunction:
    """The guest's fail_function, set so that one call fails, of a function that is chosen each time, whoever calls.

    It cannot be told a process: a breakpoint counts as an NMI on x86 (`exc_int3`), in which nobody is a task (`fail_task`).
    """

    def __init__(self, run: Run, machine: Machine) -> None:
        """Find the functions, or end the scenario as not applicable.

        Raises:
            NotApplicable: this kernel can make no function of xe fail.
            GuestError: the guest does not answer.
        """
        self._machine = machine
        # A module's functions have its name behind theirs; where xe is built in, it stands in front at the most.
        listed = machine.run(
            f'awk \'($2 == "[xe]" && $3 == "ERRNO") || ($1 ~ /^xe_/ && $2 == "ERRNO") {{ print $1 }}\' {_FOLDER}/injectable'
        )
        self.functions = sorted(set(listed.stdout.split()))
        if listed.returncode or not self.functions:
            run.not_applicable(
                f"{_FOLDER}/injectable has no function of xe: no fault injection in this kernel (FAIL_FUNCTION)"
            )
        machine.sh(
            f"cd {_FOLDER}; echo > inject; echo 0 > times; echo 0 > verbose; echo 100 > probability; echo 0 > interval;"
            " echo 0 > space; echo N > task-filter"
        )

    @contextlib.contextmanager
    def failing(self, function: str) -> Iterator[bool]:
        """Its next call fails, in the block; whether the kernel lets it.

        Raises:
            GuestError: the guest does not answer.
        """
        chosen = self._machine.run(
            f"cd {_FOLDER}; echo {function} > inject && echo {(1 << 64) - _ERRNO:#x} > {function}/retval && echo 1 > times"
        )
        try:
            yield chosen.returncode == 0
        finally:
            self._machine.run(f"cd {_FOLDER}; echo 0 > times; echo '!{function}' > inject")

    def has_failed(self) -> bool:
        """Whether a call of the function of the block has failed by now.

        Raises:
            GuestError: the guest does not answer.
        """
        return int(self._machine.sh(f"cat {_FOLDER}/times")) == 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[dict[str, int]]:
        """How often each function is called in the block, known when it ends; once, of those that the kernel cannot count.

        Raises:
            GuestError: the guest does not answer.
        """
        machine, calls = self._machine, dict[str, int]()
        # What the compiler calls a part of a function has dots, which no event may have.
        events = {function.replace(".", "_"): function for function in self.functions}
        machine.run(f"test -e {_TRACING}/kprobe_events || mount -t tracefs tracefs {_TRACING}")
        probes = " ".join(f"p:{_EVENTS}/{event}={function}" for event, function in events.items())
        machine.run(
            f"cd {_TRACING} && for p in {probes}; do echo ${{p%%=*}} ${{p##*=}} >> kprobe_events; done;"
            f" echo 1 > events/{_EVENTS}/enable"
        )
        try:
            yield calls
        finally:
            profile = machine.run(f"cat {_TRACING}/kprobe_profile").stdout
            # A line has an event, its hits, and the calls that it missed.
            lines = (words for line in profile.splitlines() if len(words := line.split()) == 3)
            counts = {event: int(hits) + int(missed) for event, hits, missed in lines}
            calls |= {function: counts.get(event, 1) for event, function in events.items()}
            machine.run(f"cd {_TRACING} && echo 0 > events/{_EVENTS}/enable; echo > kprobe_events")
