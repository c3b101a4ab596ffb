"""The program that has the VMM's part for a virtual machine (`scenarios/vmm/main.c`), as a process of the host's guest."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

from vfio_user_xe.device_models.xe.scenarios import guest_program
from vfio_user_xe.device_models.xe.scenarios.guest_program import SOURCES as CLIENT
from vfio_user_xe.device_models.xe.scenarios.guest_program import ProgramError
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.programs import compile_program
from vfio_user_xe.emulator.scenarios.machine import Shell
from vfio_user_xe.emulator.scenarios.polling import poll

NAME = "xe-vmm"
GUEST_PATH = f"/usr/bin/{NAME}"
VGPU = "/usr/bin/xe-vgpu"
"""The machine's end of its scan-out (`scenarios/vgpu/main.c`)."""
_PARTS = {
    GUEST_PATH: ("vmm", ("vfio.c", "iommufd.c", "port.c", "report.c", "words.c")),
    VGPU: ("vgpu", ("stream.c", "pages.c", "port.c", "report.c", "words.c")),
}
"""Folder of each program, and what it shares with the client."""
_PATIENCE = 60.0
_RELEASE_MS = 15_000
"""That the compositor has to let go: it is driven from outside of the guest, over a slow port."""


class Vmm:
    """The VMM's part for one virtual machine. Not safe to use from several threads."""

    def __init__(self, shell: Shell, name: str, vf: str, compositor: str, *, by_device: bool = False) -> None:
        """`vf` is the VF's address in the host, `compositor` the path of a socket.

        `by_device`: the VF is opened by its character device, with iommufd, and not by its group.
        """
        self.name = name
        self.pid = 0
        self._shell = shell
        self._line = f"{NAME} {shlex.quote(name)} {vf} {shlex.quote(compositor)} {_RELEASE_MS}{' iommufd' * by_device}"
        self._log = f"/run/{NAME}-{name}.log"

    def start(self) -> None:
        """Start it: the VF is opened and passed on.

        Raises:
            ProgramError: it does not open the VF.
        """
        started = self._shell.run(f"setsid {self._line} > {self._log} 2>&1 < /dev/null 3>&- & echo $!", check=True)
        self.pid = int(started.stdout)
        self.wait_for("open ")

    def log(self) -> list[str]:
        """What it has said since it was started, a line an event."""
        return self._shell.run(f"cat {self._log}", check=True).stdout.splitlines()

    def wait_for(self, pattern: str, count: int = 1, seconds: float = _PATIENCE) -> str:
        """The `count`th line of its log with the pattern.

        Raises:
            ProgramError: it does not come.
        """
        deadline = time.monotonic() + seconds
        while True:
            log = self.log()
            found = [line for line in log if re.search(pattern, line)]
            if len(found) >= count:
                return found[count - 1]
            if time.monotonic() > deadline:
                raise ProgramError(f"{NAME} {self.name}: no {pattern!r} within {seconds:g} s: {'; '.join(log[-5:])}")
            time.sleep(0.1)

    def machine_was_reset(self) -> None:
        """Tell it that the machine was reset; waits for nothing."""
        self._shell.run(f"kill -USR1 {self.pid}", check=True)

    def switch_off(self) -> None:
        """Tell it that the machine was switched off; waits for nothing."""
        self._shell.run(f"kill -TERM {self.pid}", check=True)

    def kill(self) -> None:
        """Send SIGKILL, and wait for nothing."""
        self._shell.run(f"kill -9 {self.pid} 2>/dev/null")

    def gone(self, seconds: float = 30) -> bool:
        """Whether the process has ended within `seconds`."""
        # A child of nobody that reaps it at once may be a zombie for a while.
        look = (
            f"state=$(sed 's/.*) //; s/ .*//' /proc/{self.pid}/stat 2>/dev/null)\n"
            'case "$state" in ""|Z|X) exit 0;; esac'
        )
        return not self.pid or poll(self._shell, look, seconds).returncode == 0


def compiled(environment: Environment) -> dict[str, Path]:
    """Paths in the guest and files of `xe-vmm` and `xe-vgpu`, compiled when needed.

    Raises:
        NoCompiler: this host cannot compile them.
    """
    return {
        path: compile_program(
            environment,
            Path(path).name,
            [*sorted((CLIENT.parent / folder).glob("*.c")), *(CLIENT / name for name in shared)],
        )
        for path, (folder, shared) in _PARTS.items()
    }


def with_clients(environment: Environment) -> dict[str, Path]:
    """The guest program, its kernels, the VMM's part and the machine's, by their paths in the guest.

    Raises:
        NoCompiler: this host cannot compile them.
    """
    return {**guest_program.compiled(environment), **compiled(environment)}
