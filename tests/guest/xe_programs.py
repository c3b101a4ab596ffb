"""The C programs that exercise the xe uAPI in a guest: found, compiled when a test asks for them, their output read.

They are compiled with this machine's C compiler, statically, against the uAPI headers of the guest's kernel, which the
guest environment holds. Binaries are kept in the user's cache under the hash of all that goes into them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from emulator.guest import Environment
from emulator.guest.cache import building, cache_dir, lock

FOLDER = Path(__file__).parent / "programs" / "xe"
COMPILER_VARIABLE = "CC"
FLAGS = ("-std=gnu11", "-O1", "-static", "-pthread", "-s")
_HEADERS = ("usr/include", "usr/include/x86_64-linux-gnu")
_CHECK = re.compile(r"^CHECK\((\w+)", re.MULTILINE)
_RESULT = re.compile(r"(not )?ok \d+ - (\S+)(?: # SKIP (.*))?$")


class NoCompiler(Exception):
    """This machine cannot compile the programs; the text says what to install."""


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


def compile_all(environment: Environment) -> dict[str, Path]:
    """The programs' binaries by name, from the cache when nothing they are made from has changed.

    Raises `NoCompiler`, and `AssertionError` with the compiler's output when a source does not compile.
    """
    compiler = _compiler()
    names = [program.name for program in programs()]
    target = cache_dir() / "guest-programs" / _key(compiler, environment)
    if not target.exists():
        with lock(target.parent / "lock"):
            if not target.exists():
                with building(target) as work:
                    _compile(compiler, environment, names, work)
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


def _compiler() -> list[str]:
    if named := os.environ.get(COMPILER_VARIABLE):
        return shlex.split(named)
    for candidate in ("cc", "gcc", "clang"):
        if path := shutil.which(candidate):
            return [path]
    raise NoCompiler(
        "the guest programs need a C compiler with a static C library, and there is no cc, gcc or clang on PATH: "
        f"install one (Debian and Ubuntu: apt-get install gcc libc6-dev) or name it in {COMPILER_VARIABLE}"
    )


def _key(compiler: list[str], environment: Environment) -> str:
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    parts = [*compiler, version, *FLAGS, environment.manifest.packages.get("linux-libc-dev", "")]
    parts += [f"{path.name}\n{path.read_text()}" for path in sorted(FOLDER.glob("*.[ch]"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _compile(compiler: list[str], environment: Environment, names: list[str], folder: Path) -> None:
    command = [*compiler, *FLAGS, *(f"-isystem{environment.path(path)}" for path in _HEADERS)]
    shared = {path: folder / f"{path.stem}.o" for path in FOLDER.glob("*.c") if path.stem not in names}
    objects = [str(path) for path in shared.values()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: _run([*command, "-c", str(path), "-o", str(shared[path])]), shared))
        list(
            pool.map(
                lambda name: _run([*command, str(FOLDER / f"{name}.c"), *objects, "-o", str(folder / name)]), names
            )
        )
    for path in shared.values():
        path.unlink()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if "cannot find -lc" in done.stderr or "cannot find -lpthread" in done.stderr:
        raise NoCompiler(
            "the guest programs are linked statically, and there is no static C library (libc.a) here: "
            "Debian and Ubuntu: apt-get install libc6-dev; Fedora: dnf install glibc-static"
        )
    raise AssertionError(f"{shlex.join(command)}:\n{done.stderr}")


def files_for(binaries: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Where the programs go in a guest: `/usr/bin/xe-NAME`."""
    for name, path in binaries.items():
        yield f"/usr/bin/xe-{name}", path
