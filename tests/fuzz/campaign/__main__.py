"""Run the campaign: `python -m tests.fuzz.campaign --state FILE [--seconds N] [--cases N] [target ...]`."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

from tests.fuzz.campaign.campaign import Campaign, State
from tests.fuzz.campaign.targets import TARGETS


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--state", type=Path, metavar="FILE", help="counts and findings, to go on from the next time")
    parser.add_argument("--seconds", type=float, metavar="N", help="how long (default: until interrupted)")
    parser.add_argument("--cases", type=int, metavar="N", help="how many cases of each target")
    parser.add_argument("--repeat", type=int, metavar="NUMBER", help="run this case of the one target again")
    options = parser.parse_args()
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]!r} (allowed: {', '.join(TARGETS)})")
    logging.disable(logging.CRITICAL)  # what is refused is told, thousands of times
    targets = [TARGETS[name]() for name in options.targets or TARGETS]
    state = State.load(options.state)
    campaign = Campaign(targets, state)
    if options.repeat is not None:
        if len(targets) != 1:
            parser.error("--repeat wants one target")
        campaign.repeat(targets[0], options.repeat)
        return 0
    until = None if options.seconds is None else time.monotonic() + options.seconds
    found = 0
    try:
        found = campaign.run(until=until, cases=options.cases)
    except KeyboardInterrupt:
        state.save()
    for target in targets:
        count = state.of(target.name)
        print(
            f"{target.name:16} {count.cases:>10,} cases {count.units:>14,} {target.unit:20}"
            f" {count.seconds / 60:>8.1f} min {len(count.findings):>3} findings"
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
