"""Mutate the modules that isolation and verdicts rest on: `python -m tests.mutation [--sample 400] [--jobs 2]`.

Each mutant is tested with the unit tests that execute its line. What survives is printed, and written with --json; the
survivors that stay, and why, are in docs/testing.md. Needs `pip install -e '.[mutation]'`. Exits 1 below --wanted.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import sys
import tempfile
import threading
from pathlib import Path

from tests.mutation.modules import MODULES
from tests.mutation.run import Copy, Outcome, Verdict
from tests.mutation.sample import Mutant, all_mutants, spread

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, default=400, help="how many mutants, evenly spread over the code")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--module", action="append", choices=MODULES, help="only this module; may be repeated")
    parser.add_argument("--wanted", type=float, default=90.0, help="percent that must be killed")
    parser.add_argument("--json", type=Path, help="write every outcome to this file, as they come")
    options = parser.parse_args()
    modules = tuple(options.module or MODULES)

    mutants = all_mutants(ROOT, modules)
    chosen = spread(mutants, options.sample)
    print(f"{len(chosen)} of {len(mutants)} mutants of {len(modules)} modules", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copies = [Copy(ROOT, Path(folder) / str(number)) for number in range(options.jobs)]
        covering = copies[0].coverage(modules)
        outcomes = _all(copies, chosen, covering, options.json)
    killed = sum(outcome.verdict in (Verdict.KILLED, Verdict.HANGS) for outcome in outcomes)
    for outcome in outcomes:
        if outcome.verdict in (Verdict.SURVIVED, Verdict.UNCOVERED):
            print(f"{outcome.verdict.value}: {outcome.mutant.name}\n    {outcome.change}")
    for module in modules:
        of = [outcome for outcome in outcomes if outcome.mutant.module == module]
        dead = sum(outcome.verdict in (Verdict.KILLED, Verdict.HANGS) for outcome in of)
        if of:
            print(f"{module:50s} {dead:4d} of {len(of):4d}")
    percent = 100 * killed / len(outcomes)
    print(f"{killed} of {len(outcomes)} killed: {percent:.1f} %")
    sys.exit(percent < options.wanted)


def _all(
    copies: list[Copy], mutants: list[Mutant], covering: dict[tuple[str, int], set[str]], file: Path | None
) -> list[Outcome]:
    todo: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    # In a mixed order, so that a run that is ended early is a smaller sample of the whole.
    for mutant in random.Random(0).sample(mutants, len(mutants)):
        todo.put(mutant)
    outcomes: dict[Mutant, Outcome] = {}
    lock = threading.Lock()

    def work(copy: Copy) -> None:
        while True:
            try:
                mutant = todo.get_nowait()
            except queue.Empty:
                return
            tests = covering.get((mutant.module, mutant.line), set())
            outcome = copy.test(mutant, tests) if tests else Outcome(mutant, Verdict.UNCOVERED, 0, "")
            with lock:
                outcomes[mutant] = outcome
                if outcome.verdict in (Verdict.SURVIVED, Verdict.UNCOVERED):
                    print(f"  {len(outcomes)}: {outcome.verdict.value}: {mutant.name}: {outcome.change}", flush=True)
                if file is not None:
                    with file.open("a") as stream:
                        row = {"mutant": mutant.name, "verdict": outcome.verdict.value, "tests": outcome.tests}
                        stream.write(json.dumps({**row, "change": outcome.change}) + "\n")

    threads = [threading.Thread(target=work, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [outcomes[mutant] for mutant in mutants]


if __name__ == "__main__":
    main()
