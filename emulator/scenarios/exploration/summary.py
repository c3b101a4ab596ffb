"""What an exploration came to: as text, as data, and as files that `scenario run` replays."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from vfio_user_xe.emulator.results.evidence import Json
from vfio_user_xe.emulator.scenarios.exploration.coverage import Coverage, reachable
from vfio_user_xe.emulator.scenarios.exploration.explorer import Explored, Found
from vfio_user_xe.emulator.scenarios.exploration.generator import generate
from vfio_user_xe.emulator.scenarios.exploration.sequence import SUFFIX, Kept, Step
from vfio_user_xe.emulator.scenarios.exploration.world import World
from vfio_user_xe.emulator.scenarios.machine import MachineT
from vfio_user_xe.emulator.scenarios.scenario import Exploration

SAMPLE = 40
"""Sequences made without a guest to estimate what there is to cover. A model with many arguments takes 0.2 s for each."""


def kept(found: Found, explored: Explored, suite: str) -> Kept:
    """A failure as a file that can be replayed."""
    fields = {"suite": suite, "failure": found.failure.text}
    if found.failure.defect:
        fields["defect"] = found.failure.defect
    fields |= {
        "kernel": explored.kernel,
        "seed": f"{explored.seed}, sequence {found.sequence}",
        "shown": f"in {found.shown} of {found.trials} shorter ones that were tried; {found.length} steps before",
    }
    return Kept(tuple(found.steps), fields)


def kept_name(found: Found, explored: Explored) -> str:
    """The name of a failure's file: its number, and a few words."""
    words = re.sub(r"[^a-z0-9]+", "-", found.failure.signature.lower()).strip("-")[:60].strip("-")
    return f"{explored.found.index(found) + 1:02}-{words}{SUFFIX}"


def coverable(exploration: Exploration[MachineT], length: int) -> Coverage:
    """What `SAMPLE` sequences of so many steps cover that the model makes alone; it takes seconds."""

    def made(number: int) -> Callable[[World], Sequence[Step]]:
        return lambda world: generate(world, random.Random(f"sample/{number}"), length, Coverage())

    return reachable(exploration.world, map(made, range(SAMPLE)))


def summary(explored: Explored, there: Coverage) -> str:
    """What was found, with its steps, and what was covered of what is `coverable`."""
    lines = []
    for found in explored.found:
        name = f"known: {found.failure.defect}" if found.failure.defect else "NEW"
        lines.append(f"{name}: {found.failure.text}")
        lines.append(
            f"  in {found.seen} of {explored.sequences} sequences; {len(found.steps)} steps of {found.length}"
            f" (sequence {found.sequence}; shorter ones showed it {found.shown} of {found.trials} times):"
        )
        lines += [f"    {step}" for step in found.steps]
        if found.besides:
            lines.append(f"  seen after it: {'; '.join(found.besides)}")
    if not explored.found:
        lines.append("nothing found")
    made = explored.coverage
    lines.append(
        f"\n{explored.sequences} sequences, {explored.steps} steps, {explored.trials} trials to make failures short, seed"
        f" {explored.seed}, {explored.seconds / 60:.1f} min, kernel {explored.kernel}"
    )
    lines.append(
        f"covered: {made.of(1)} of {max(made.of(1), there.of(1))} operations, {made.of(2)} pairs, {made.of(3)} triples"
        f" (the model alone makes {there.of(2)} and {there.of(3)} in {SAMPLE} sequences)"
    )
    return "\n".join(lines)


def exploration_data(explored: Explored, there: Coverage) -> Mapping[str, Json]:
    """All of it, for programs; `there` is what is `coverable`."""
    return {
        "kernel": explored.kernel,
        "seed": explored.seed,
        "steps": explored.length,
        "seconds": round(explored.seconds, 1),
        "sequences": explored.sequences,
        "steps_played": explored.steps,
        "trials": explored.trials,
        "failures": [
            {
                "signature": found.failure.signature,
                "text": found.failure.text,
                "defect": found.failure.defect,
                "steps": [str(step) for step in found.steps],
                "sequence": found.sequence,
                "steps_before": found.length,
                "seen_in": found.seen,
                "besides": list(found.besides),
                "trials": found.trials,
                "shown": found.shown,
            }
            for found in explored.found
        ],
        "coverage": {
            name: {"made": explored.coverage.of(length), "model": there.of(length)}
            for length, name in ((1, "operations"), (2, "pairs"), (3, "triples"))
        },
        "operations": {gram[0]: count for gram, count in sorted(explored.coverage.counts.items()) if len(gram) == 1},
        "pairs": {
            " > ".join(gram): count for gram, count in sorted(explored.coverage.counts.items()) if len(gram) == 2
        },
    }
