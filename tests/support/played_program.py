"""`vfio-user-xe` with a suite of scenarios whose guests are played: recipes of CI run it in place of the program.

python -m tests.support.played_program scenario run --shard 1/4

What the guests do is what `--kernel` names, an image that `tests.support.kernel_tree` "built": "good", "red", "creaks" (a defect),
"does-not-boot".
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import create_autospec, patch

from tests.support.scenario_plays import FIRST, SECOND, Labs, Tried, scenario
from vfio_user_xe.emulator.cli import kernels
from vfio_user_xe.emulator.cli import scenario as cli
from vfio_user_xe.emulator.cli.main import app
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.scenarios import runner
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Suite


@dataclass
class Played:
    """What the guests do."""

    behaviour: str = "good"


PLAYED = Played()


def behaves(run: Run, machine: Tried) -> None:
    """Pass, fail, or meet a known defect."""
    if PLAYED.behaviour == "creaks":
        run.known("creaks", "it creaks")
    run.check(PLAYED.behaviour != "red", "it is red")


SCENARIOS = [scenario(str(number), behaves, SECOND if number % 3 else FIRST) for number in range(1, 11)]
TIMES = {each.name: 10.0 * int(each.number) for each in SCENARIOS}


def main() -> None:
    """Run the program as the command line says."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # --jobs auto: one, as other processes have no players
    environment = create_autospec(Environment, instance=True)
    labs = Labs()

    def named(name: str, modules: Path | None = None, environment: Environment | None = None) -> Kernel:
        kernel = Kernel.custom(Path(name), modules)
        PLAYED.behaviour = kernel.image.read_bytes()[1024:].decode().strip()
        labs.fail = PLAYED.behaviour == "does-not-boot"
        return kernel

    kernel = Kernel(Path("bzImage"), None)
    kernel.__dict__["release"] = "7.3.4"
    players = {
        f"{cli.__name__}.load_suite": lambda name: Suite("tried", SCENARIOS, {"creaks": "it creaks"}, times=TIMES),
        f"{cli.__name__}.locate": lambda: environment,
        f"{cli.__name__}.named_kernel": named,
        f"{kernels.__name__}.locate": lambda: environment,
        f"{kernels.__name__}.named_kernel": named,
        f"{Kernel.__module__}.Kernel.packaged": lambda environment: kernel,
        f"{runner.__name__}.open_lab": labs.open,
        f"{runner.__name__}.command_line": lambda kernel: "",
    }
    with ExitStack() as stack:
        for name, player in players.items():
            stack.enter_context(patch(name, player))
        app()


if __name__ == "__main__":
    main()
