"""Mutate the modules that isolation and verdicts rest on: `python -m tests.mutation FOLDER [--sample 400] [--jobs 2]`.

Each mutant is tested with the unit tests that execute its line. FOLDER keeps what was measured and every outcome, so that a
run goes on where it was ended; with --again, what survived is tested once more, with the tests that there are now. The
survivors that stay, and why, are in docs/testing.md. Needs `pip install -e '.[mutation]'`. Exits 1 below --wanted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tests.mutation.modules import MODULES, TESTS
from tests.mutation.run import Copy, Covering, Outcome, Verdict
from tests.mutation.sample import Mutant, all_mutants, sample

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the run is kept")
    parser.add_argument("--sample", type=int, default=400, help="how many mutants, spread over the code")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--module", action="append", choices=MODULES, help="only this module; may be repeated")
    parser.add_argument(
        "--again", action="store_true", help="test the survivors once more, with the tests that there are now"
    )
    parser.add_argument("--wanted", type=float, default=90.0, help="percent that must be killed")
    options = parser.parse_args()
    modules = tuple(options.module or MODULES)
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "outcomes.jsonl"

    chosen = _chosen(modules, options.sample, options.folder / "sample.json")
    known = _known(file, chosen, again=options.again)
    todo = [mutant for mutant in chosen if mutant not in known]
    print(f"{len(todo)} to be tested", flush=True)
    outcomes = known | (_run(todo, modules, options.jobs, options.folder) if todo else {})
    _report(outcomes, modules)
    dead = sum(outcome.verdict.is_dead for outcome in outcomes.values())
    percent = 100 * dead / len(outcomes)
    print(f"{dead} of {len(outcomes)} killed: {percent:.1f} %")
    sys.exit(percent < options.wanted)


def _chosen(modules: tuple[str, ...], count: int, kept: Path) -> list[Mutant]:
    """The sample; it takes a minute to find, and stays the same as long as the modules do."""
    code = _digest([*modules, *(f"tests/mutation/{name}.py" for name in ("modules", "places", "sample"))])
    if kept.exists():
        known = json.loads(kept.read_text())
        if (known["code"], known["count"]) == (code, count):
            return [Mutant(**mutant) for mutant in known["mutants"]]
    mutants = all_mutants(ROOT, modules)
    chosen = sample(ROOT, mutants, count)
    print(f"{len(chosen)} of {len(mutants)} mutants of {len(modules)} modules", flush=True)
    kept.write_text(json.dumps({"code": code, "count": count, "mutants": [asdict(mutant) for mutant in chosen]}))
    return chosen


def _run(todo: list[Mutant], modules: tuple[str, ...], jobs: int, folder: Path) -> dict[Mutant, Outcome]:
    with tempfile.TemporaryDirectory(prefix="mutation-") as temporary:
        copies = [Copy(ROOT, Path(temporary) / str(number)) for number in range(jobs)]
        try:
            covering = _covering(copies[0], modules, jobs, folder / "covering.json")
            return _all(copies, todo, covering, folder / "outcomes.jsonl")
        finally:
            for copy in copies:
                copy.close()


def _covering(copy: Copy, modules: tuple[str, ...], jobs: int, kept: Path) -> Covering:
    """What was measured before, and measured now of test files that are newer, or of all when the modules are others."""
    code, now = _digest(modules), time.time()
    known = json.loads(kept.read_text()) if kept.exists() else {"code": "", "time": 0.0, "lines": {}}
    if known["code"] != code:
        known = {"code": code, "time": 0.0, "lines": {}}
    files = [file for folder in TESTS for file in sorted((ROOT / folder).rglob("test_*.py"))]
    newer = [str(file.relative_to(ROOT)) for file in files if file.stat().st_mtime > known["time"]]
    if newer:
        found = copy.covering(modules, jobs, newer)
        for module, lines in known["lines"].items():
            for line, tests in lines.items():
                others = [test for test in tests if test.partition("::")[0] not in newer]
                found.setdefault(module, {}).setdefault(int(line), []).extend(others)
        known = {"code": code, "time": now, "lines": found}
        kept.write_text(json.dumps(known))
    return {module: {int(line): tests for line, tests in lines.items()} for module, lines in known["lines"].items()}


def _digest(files: Iterable[str]) -> str:
    return hashlib.sha256("".join((ROOT / file).read_text("utf-8") for file in files).encode()).hexdigest()


def _all(copies: list[Copy], mutants: list[Mutant], covering: Covering, file: Path) -> dict[Mutant, Outcome]:
    todo: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        todo.put(mutant)
    outcomes: dict[Mutant, Outcome] = {}
    lock = threading.Lock()

    def work(copy: Copy) -> None:
        while True:
            try:
                mutant = todo.get_nowait()
            except queue.Empty:
                return
            outcome = copy.test(mutant, covering.get(mutant.module, {}).get(mutant.line, []))
            with lock:
                outcomes[mutant] = outcome
                if not outcome.verdict.is_dead:
                    print(f"  {len(outcomes)}: {outcome.verdict.value}: {mutant.name}: {mutant.change}", flush=True)
                with file.open("a") as stream:
                    row = {"key": mutant.key, "name": mutant.name, "verdict": outcome.verdict.value}
                    row |= {"change": mutant.change, "tests": outcome.tests, "killer": outcome.killer}
                    stream.write(json.dumps(row) + "\n")

    threads = [threading.Thread(target=work, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _known(file: Path, mutants: list[Mutant], *, again: bool) -> dict[Mutant, Outcome]:
    """The outcomes of earlier runs."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    by_key = {row["key"]: row for row in rows}
    known = {}
    for mutant in mutants:
        row = by_key.get(mutant.key)
        if row is not None:
            verdict = Verdict(row["verdict"])
            if verdict.is_dead or not again:
                known[mutant] = Outcome(mutant, verdict, row["tests"], row["killer"])
    return known


def _report(outcomes: dict[Mutant, Outcome], modules: tuple[str, ...]) -> None:
    for mutant, outcome in sorted(outcomes.items(), key=lambda item: (item[0].module, item[0].line)):
        if not outcome.verdict.is_dead:
            print(f"{outcome.verdict.value}: {mutant.name}\n    {mutant.change}")
    for module in modules:
        of = [outcome for mutant, outcome in outcomes.items() if mutant.module == module]
        if of:
            print(f"{module:50s} {sum(outcome.verdict.is_dead for outcome in of):4d} of {len(of):4d}")


if __name__ == "__main__":
    main()
