"""Two commits under one benchmark, in turn: `python -m tests.bench.compare BEFORE AFTER -- MODULE [ARGUMENTS]`.

    python -m tests.bench.compare main~20 main -- tests.bench.bench_engines
    python -m tests.bench.compare v0.1 . --rounds 9 -- tests.bench --only '4 B' --idle 0

A commit is whatever git knows it by; `.` is this checkout as it is. Each round runs the benchmark once for each, so that a
busy moment of the machine hits both. The benchmark's code is AFTER's for both, unless `--own` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = "."


@dataclass(frozen=True, slots=True)
class Tree:
    """A commit's files."""

    commit: str
    folder: Path
    packages: Path
    """A folder in which the tree is the package `vfio_user_xe`."""


@contextmanager
def tree(commit: str, work: Path) -> Iterator[Tree]:
    """The files of `commit` in `work`, for as long as they are needed.

    Raises:
        SystemExit: git does not know the commit.
    """
    packages = work / "packages"
    packages.mkdir(parents=True)
    folder = ROOT if commit == HERE else work / "tree"
    (packages / "vfio_user_xe").symlink_to(folder)
    if commit == HERE:
        yield Tree(commit, folder, packages)
        return
    added = _git("worktree", "add", "--detach", str(folder), commit)
    if added.returncode:
        raise SystemExit(f"compare: {commit}: {added.stderr.strip()}")
    try:
        yield Tree(commit, folder, packages)
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)


def run(product: Tree, benchmark: Tree, module: str, arguments: Sequence[str], result: Path) -> dict[str, float]:
    """The figures of one run of `module`, as `benchmark` has it, with the package that `product` has.

    Raises:
        SystemExit: the benchmark failed; what it said was printed.
    """
    path = os.pathsep.join((str(product.packages), str(benchmark.folder)))
    command = [sys.executable, "-m", module, *arguments, "--json", str(result)]
    done = subprocess.run(
        command,
        cwd=benchmark.folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"compare: {module} with {product.commit} ended with {done.returncode}:\n{done.stdout}")
    return figures(json.loads(result.read_text()))


def figures(found: Any) -> dict[str, float]:
    """What a benchmark wrote by `--json`, by name: a list of figures, or the rows of `tests.bench`."""
    if isinstance(found, list):
        return {f"{figure['name']}, {figure['unit']}": figure["value"] for figure in found}
    named: dict[str, float] = {}
    for client in ("rows", "python_client"):
        for row in found[client]:
            samples = row["samples"]["ours"]
            name = row["name"] if client == "rows" else f"{row['name']} (client in Python)"
            named[f"{name}, /s"] = median(sample["rate"] for sample in samples)
            named[f"{name}, µs of processor time"] = median(sample["cpu"] for sample in samples)
    return named


def table(before: list[dict[str, float]], after: list[dict[str, float]]) -> str:
    """Medians of both, and the median of the rounds' ratios, AFTER to BEFORE; figures that both have."""
    lines = [f"{'':72} {'before':>12} {'after':>12} {'ratio':>7}"]
    for name in before[0]:
        pairs = [(old[name], new[name]) for old, new in zip(before, after, strict=True) if name in old and name in new]
        ratios = [new / old for old, new in pairs if old]
        if ratios:
            old, new = (median(column) for column in zip(*pairs, strict=True))
            lines.append(f"{name:72} {old:12.2f} {new:12.2f} {median(ratios):7.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--rounds", type=int, default=5, help="runs for each commit (default 5)")
    parser.add_argument("--own", action="store_true", help="each commit runs the benchmark that it has")
    parser.add_argument("benchmark", nargs="+", metavar="MODULE [ARGUMENTS]", help="behind --")
    options = parser.parse_args(arguments)
    # Told to stop, it removes its worktrees still.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    module, *others = options.benchmark
    results: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vux-compare-")))
        trees = [
            stack.enter_context(tree(commit, work / name))
            for name, commit in (("before", options.before), ("after", options.after))
        ]
        for number in range(options.rounds):
            for product, found in zip(trees, results, strict=True):
                benchmark = product if options.own else trees[1]
                found.append(run(product, benchmark, module, others, work / "result.json"))
            print(f"round {number + 1} of {options.rounds} is done", file=sys.stderr)
    print(table(*results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
