"""Soak: `python -m tests.soak --state FILE [--seconds N] [--shard I/N]`; `--report FILE [FILE ...]` says what shards have done."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.soak.report import plot, text
from tests.soak.soak import Soak
from tests.soak.state import State
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.results.shard import Shard


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--state", type=Path, metavar="FILE", help="counts and findings, to go on from the next time")
    parser.add_argument("--seconds", type=float, default=4 * 3600.0, metavar="N", help="how long (default: four hours)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="what comes in which order (default: 1)")
    parser.add_argument("--shard", type=Shard.parse, default=Shard(1, 1), metavar="I/N", help="what this machine does")
    parser.add_argument("--kernel", type=Path, metavar="BZIMAGE", help="your own kernel")
    parser.add_argument("--modules", type=Path, metavar="DIR", help="its modules")
    parser.add_argument("--consoles", type=Path, metavar="DIR", help="keep the guests' consoles here")
    parser.add_argument("--report", type=Path, nargs="+", metavar="FILE", help="say what the states of shards have")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw what the servers held")
    options = parser.parse_args()
    try:
        states = [State.load(path) for path in options.report or [options.state]]
    except ValueError as error:
        parser.error(str(error))
    if not options.report:
        kernel = Kernel.custom(options.kernel, options.modules) if options.kernel else None
        if options.consoles:
            options.consoles.mkdir(parents=True, exist_ok=True)
        try:
            Soak(states[0], options.seed, options.shard.number, kernel, options.consoles).run(
                time.monotonic() + options.seconds
            )
        except KeyboardInterrupt:
            states[0].save()
    print(text(states))
    if options.plot:
        options.plot.write_text(plot(states), "utf-8")
    return 1 if any(state.findings for state in states) else 0


if __name__ == "__main__":
    sys.exit(main())
