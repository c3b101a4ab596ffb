"""Programs for a guest, compiled on this machine: static, against the uAPI headers of the guest's kernel.

Binaries are kept in the user's cache under the hash of all that goes into them.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vfio_user_xe.emulator.guest.cache import building, cache_dir, lock
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import GuestError

COMPILER_VARIABLE = "CC"
FLAGS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-static", "-pthread", "-s")
SHARED_FLAGS = tuple(flag for flag in FLAGS if flag != "-static")
"""For programs that load libraries of a root file system; its C library has to be as new as this machine's."""
_HEADERS = ("usr/include", "usr/include/x86_64-linux-gnu")


class NoCompiler(GuestError):
    """This machine cannot compile programs for a guest; the text says what to install."""


class CompileError(GuestError):
    """A source does not compile; the text has the compiler's output."""


def compile_program(
    environment: Environment, name: str, sources: Sequence[Path], *, flags: Sequence[str] = FLAGS
) -> Path:
    """The program made of these C sources, from the cache while nothing it is made from has changed.

    Headers in the sources' folders belong to it.

    Raises:
        NoCompiler: this host has no C compiler, or no static C library.
        CompileError: a source does not compile.
    """
    command = compiler()
    folders = {path.parent for path in sources}
    headers = [path for folder in folders for path in folder.glob("*.h")]
    target = cache_dir() / "guest-programs" / source_key([*command, *flags], environment, sorted([*sources, *headers]))
    if not target.exists():
        with lock(target.parent / "lock"):
            if not target.exists():
                with building(target) as work:
                    files = map(str, sources)
                    compile_c([*command, *flags, *include_flags(environment), *files, "-o", str(work / name)])
    return target / name


def compiler() -> list[str]:
    """The C compiler's command.

    Raises:
        NoCompiler: there is none on PATH.
    """
    if named := os.environ.get(COMPILER_VARIABLE):
        return shlex.split(named)
    for candidate in ("cc", "gcc", "clang"):
        if path := shutil.which(candidate):
            return [path]
    raise NoCompiler(
        "programs for guests need a C compiler with a static C library, and there is no cc, gcc or clang on PATH: "
        f"install one (Debian and Ubuntu: apt-get install gcc libc6-dev) or name it in {COMPILER_VARIABLE}"
    )


def include_flags(environment: Environment) -> list[str]:
    """Where the uAPI headers of the guest's kernel are."""
    return [f"-isystem{environment.path(path)}" for path in _HEADERS]


def source_key(command: Sequence[str], environment: Environment, sources: Sequence[Path]) -> str:
    """A hash of all that programs made of `sources` depend on: compiler, flags, headers, text."""
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    parts = [*command, version, *FLAGS, environment.manifest.packages.get("linux-libc-dev", "")]
    parts += [f"{path.name}\n{path.read_text()}" for path in sources]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def compile_c(command: Sequence[str]) -> None:
    """Run a compiler's command.

    Raises:
        NoCompiler: it lacks a static C library.
        CompileError: it failed; with what it printed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if "cannot find -lc" in done.stderr or "cannot find -lpthread" in done.stderr:
        raise NoCompiler(
            "programs for guests are linked statically, and there is no static C library (libc.a) here: "
            "Debian and Ubuntu: apt-get install libc6-dev; Fedora: dnf install glibc-static"
        )
    raise CompileError(f"{shlex.join(command)}:\n{done.stderr}")
