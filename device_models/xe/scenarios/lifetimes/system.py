"""Commands of the system that a step starts: in the background, since they may wait for users of a VF."""

from __future__ import annotations

import itertools

from vfio_user_xe.device_models.xe.scenarios.background import stack_of
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.emulator.scenarios.polling import poll


class Command:
    """One command that was started."""

    def __init__(self, machine: XeMachine, text: str, words: str, number: int) -> None:
        self.text = text
        self.said = ""
        """Its exit code, with what it wrote when that is not 0."""
        self._machine = machine
        self._file = f"/tmp/explore.{number}"
        started = machine.run(
            f"rm -f {self._file}; ( ({words}) > {self._file}.out 2>&1; echo $? > {self._file} ) 3>&- 1>&- & echo $!"
        )
        self._pid = started.stdout.strip()

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, or does within `seconds`."""
        look = f"test -s {self._file} && {{ cat {self._file}; head -c 300 {self._file}.out; exit 0; }}"
        result = poll(self._machine, look, seconds)
        if result.returncode == 0:
            code, _, said = result.stdout.partition("\n")
            self.said = code if code == "0" else f"exit code {code}: {' '.join(said.split())}"
        return result.returncode == 0

    def stack(self) -> str:
        """Where in the kernel its processes sleep, in whatever way; empty: it has ended, or runs."""
        return stack_of(self._machine, self._pid)


class SystemCommands:
    """Starts commands, and knows the card's addresses by the names of the model."""

    def __init__(self, machine: XeMachine) -> None:
        self._machine = machine
        self._numbers = itertools.count(1)

    def start(self, text: str, words: str) -> Command:
        """Start a command of the shell; `text` is the step that wants it."""
        return Command(self._machine, text, words, next(self._numbers))

    def value(self, name: str) -> str:
        """What a place in a command stands for.

        Raises:
            LookupError: nothing is known by that name.
        """
        card = self._machine.card
        if name.startswith("bind:"):
            _, vf, driver = name.split(":")
            device = card.vf(int(vf[1:]))
            folder = f"/sys/bus/pci/devices/{device}"
            return (
                f"echo {driver} > {folder}/driver_override && {{ test -e {folder}/driver || echo {device} >"
                f' /sys/bus/pci/drivers_probe; }} && test "$(basename $(readlink {folder}/driver))" = {driver}'
            )
        if name in ("v1", "v2"):
            return card.vf(int(name[1:]))
        if name == "pf":
            return card.pf
        if name == "sysfs":
            return card.sysfs
        if name == "debugfs":
            return card.debugfs
        if name.startswith("n:"):
            return f"vf{name[3:]}"
        if name.startswith("quota:"):
            return str(self._machine.quota // 2 if name == "quota:half" else self._machine.quota)
        raise LookupError(f"nothing is known by the name {name!r}")
