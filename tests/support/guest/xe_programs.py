"""The C programs that exercise the xe uAPI in a guest: found, compiled when a test asks for them, their output read.

They are compiled with this machine's C compiler, statically, against the uAPI headers of the guest's kernel, which the
guest environment holds. Binaries are kept in the user's cache under the hash of all that goes into them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from vfio_user_xe.emulator.guest.cache import building, cache_dir, lock
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.programs import FLAGS, NoCompiler, compile_c, compiler, include_flags, source_key

__all__ = [
    "NoCompiler",
    "Outcome",
    "Program",
    "compile_all",
    "files_for",
    "parse_tap",
    "problem_of",
    "programs",
    "shared",
]

FOLDER = Path(__file__).parents[2] / "guest" / "programs" / "xe"
_CHECK = re.compile(r"^CHECK\((\w+)", re.MULTILINE)
_RESULT = re.compile(r"(not )?ok \d+ - (\S+)(?: # SKIP (.*))?$")


@dataclass(frozen=True)
class Program:
    """A program and the names of its checks, in their order."""

    name: str
    checks: tuple[str, ...]


@dataclass
class Outcome:
    """How a check ended; `skipped` is the reason when it was, `details` what the program says about it."""

    passed: bool
    skipped: str | None = None
    details: list[str] = field(default_factory=list)


def programs() -> list[Program]:
    """Every program in the folder: a source file with checks in it; the others are shared by them all."""
    found = [(path.stem, tuple(_CHECK.findall(path.read_text()))) for path in sorted(FOLDER.glob("*.c"))]
    return [Program(name, checks) for name, checks in found if checks]


def shared() -> list[Path]:
    """The sources without checks that other programs over the uAPI are linked with, but for `main` and the checks."""
    return [FOLDER / name for name in ("device.c", "xe.c", "batch.c")]


def compile_all(environment: Environment) -> dict[str, Path]:
    """The programs' binaries by name, from the cache when nothing they are made from has changed.

    Raises:
        NoCompiler: this host cannot compile them.
        CompileError: a source does not compile; with the compiler's output.
    """
    names = [program.name for program in programs()]
    key = source_key(compiler(), environment, sorted(FOLDER.glob("*.[ch]")))
    target = cache_dir() / "guest-programs" / key
    if not target.exists():
        with lock(target.parent / "lock"):
            if not target.exists():
                with building(target) as work:
                    _compile(environment, names, work)
    return {name: target / name for name in names}


def parse_tap(text: str) -> dict[str, Outcome]:
    """Results by check; a check that is not there was not reported: see `problem_of`."""
    results: dict[str, Outcome] = {}
    last: Outcome | None = None
    for line in text.splitlines():
        if match := _RESULT.match(line):
            last = results[match[2]] = Outcome(passed=not match[1], skipped=match[3])
        elif line.startswith("# ") and last is not None:
            last.details.append(line[2:])
    return results


def problem_of(text: str, code: int) -> str:
    """Why a program that ended with `code` reported less than it should have."""
    bail_out = next((line for line in text.splitlines() if line.startswith("Bail out!")), None)
    return bail_out or f"the program ended with exit code {code} and reported no result for it"


def _compile(environment: Environment, names: list[str], folder: Path) -> None:
    """The shared sources once, then every program."""
    command = [*compiler(), *FLAGS, *include_flags(environment)]
    shared = {path: folder / f"{path.stem}.o" for path in FOLDER.glob("*.c") if path.stem not in names}
    objects = [str(path) for path in shared.values()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: compile_c([*command, "-c", str(path), "-o", str(shared[path])]), shared))
        list(
            pool.map(
                lambda name: compile_c([*command, str(FOLDER / f"{name}.c"), *objects, "-o", str(folder / name)]), names
            )
        )
    for path in shared.values():
        path.unlink()


def files_for(binaries: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Where the programs go in a guest: `/usr/bin/xe-NAME`."""
    for name, path in binaries.items():
        yield f"/usr/bin/xe-{name}", path
