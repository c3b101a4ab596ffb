"""`vfio-user-xe` with a suite of scenarios whose guests are played: recipes of CI run it in place of the program.

python -m tests.support.played_program scenario run --shard 1/4
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import create_autospec, patch

from tests.support.scenario_plays import FIRST, SECOND, Labs, passes, scenario
from vfio_user_xe.emulator.cli import kernels
from vfio_user_xe.emulator.cli import scenario as cli
from vfio_user_xe.emulator.cli.main import app
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.scenarios import runner
from vfio_user_xe.emulator.scenarios.scenario import Suite

SCENARIOS = [scenario(str(number), passes, SECOND if number % 3 else FIRST) for number in range(1, 11)]
TIMES = {each.name: 10.0 * int(each.number) for each in SCENARIOS}


def main() -> None:
    """Run the program as the command line says."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # --jobs auto: one, as other processes have no players
    environment = create_autospec(Environment, instance=True)
    kernel = Kernel(Path("bzImage"), None)
    kernel.__dict__["release"] = "7.3.4"
    players = {
        f"{cli.__name__}.load_suite": lambda name: Suite("tried", SCENARIOS, {}, times=TIMES),
        f"{cli.__name__}.locate": lambda: environment,
        f"{cli.__name__}.named_kernel": lambda name, modules=None, environment=None: kernel,
        f"{kernels.__name__}.locate": lambda: environment,
        f"{kernels.__name__}.named_kernel": lambda name, modules=None, environment=None: kernel,
        f"{Kernel.__module__}.Kernel.packaged": lambda environment: kernel,
        f"{runner.__name__}.open_lab": Labs().open,
        f"{runner.__name__}.command_line": lambda kernel: "",
    }
    with ExitStack() as stack:
        for name, player in players.items():
            stack.enter_context(patch(name, player))
        app()


if __name__ == "__main__":
    main()
