"""Build the handlers (`runtime/*.c`) for this machine's processor, once, into the user's cache folder.

The shared object is named by a hash of what it is made from: sources, flags, compiler, processor.
scripts/setup builds it ahead of the first kernel (`main`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from vfio_user_xe.device_models.xe.eu.registers import ACC0, ARF_BASE, CE0, CR0, F0, SR0
from vfio_user_xe.emulator.guest import cache
from vfio_user_xe.emulator.temporary import temporary_folder

SOURCES = Path(__file__).with_name("runtime")

# Floating point is part of the specification (semantics.py): no contraction, no reordering, denormals as they are.
_FLAGS = (
    "-std=gnu11",
    "-O2",
    "-fPIC",
    "-w",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    f"-DFLAGS={F0}",
    f"-DENABLES={CE0}",
    f"-DCONTROL={CR0}",
    f"-DACCUMULATOR={ACC0}",
    f"-DSTATE={SR0}",
    f"-DREGISTER_FILE={ARF_BASE}",
)
_LINK = ("-shared", "-Wl,-Bsymbolic", "-lm")

# What is copied here are some lanes of registers, some hundred bytes at most, of a size that the compiler mostly knows: for some
# processors GCC copies these by `rep movs`, which takes some ten times as long as vectors do.
_BY_VECTORS = tuple(f"-mmem{what}-strategy=vector_loop:8192:noalign,libcall:-1:noalign" for what in ("cpy", "set"))


class NoCompiler(Exception):
    """No C compiler was found, or none could build the handlers; the text says which were tried and what they said."""


def library() -> Path:
    """The shared object with the handlers, built now if this machine has none yet (some seconds).

    May be called from any thread and process: one builds, the others wait for it.

    Raises:
        NoCompiler: there is no shared object and none can be built.
    """
    said: list[str] = []
    for compiler, flags, path in _candidates():
        if path.exists():
            return path
        with cache.lock(path.with_suffix(".lock")):
            if path.exists():
                return path
            problem = _build(compiler, flags, path)
            if problem is None:
                return path
            said.append(f"{shlex.join([*compiler, *flags[len(_FLAGS) :]])}: {problem}")
    tried = "; ".join(said) or "none of CC, cc, gcc, clang is there, nor the package ziglang (vfio-user-xe[compute])"
    raise NoCompiler(f"the execution units' handlers cannot be built: {tried}")


def is_built() -> bool:
    """Whether this machine has the handlers, so that `library` returns at once. May be called from any thread."""
    return any(path.exists() for _, _, path in _candidates())


def _candidates() -> Iterator[tuple[list[str], tuple[str, ...], Path]]:
    """Compilers with their flags, the best first, and where what they build is kept."""
    for compiler in _compilers():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=60, check=True).stdout
            for target in _targets():
                flags = (*_FLAGS, *_copies(version), *target)
                yield (
                    compiler,
                    flags,
                    cache.cache_dir() / "eu" / f"handlers-{_key((*compiler[1:], *flags), version)}.so",
                )


def _compilers() -> list[list[str]]:
    candidates = [shlex.split(os.environ.get("CC", "")), ["cc"], ["gcc"], ["clang"]]
    found = [candidate for candidate in candidates if candidate and shutil.which(candidate[0])]
    if importlib.util.find_spec("ziglang") is not None:
        found.append([sys.executable, "-m", "ziglang", "cc"])
    return found


def _targets() -> list[tuple[str, ...]]:
    """The processor that is here, and what every one of its kind has."""
    return [("-march=native",), ()]


def _copies(version: bytes) -> tuple[str, ...]:
    """How small copies are made, of compilers that can be told: GCC's for x86."""
    is_gcc = b"Free Software Foundation" in version
    return _BY_VECTORS if is_gcc and platform.machine() in ("x86_64", "AMD64") else ()


def _key(flags: tuple[str, ...], version: bytes) -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update("\0".join((*flags, *_LINK, platform.machine())).encode() + version)
    digest.update(_processor())
    return digest.hexdigest()[:32]


def _processor() -> bytes:
    """What the processor can do, as far as the kernel tells: a cache folder may be shared by machines."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_bytes().splitlines():
            if line.startswith((b"flags", b"Features")):
                return line
    return b""


def _build(compiler: list[str], flags: tuple[str, ...], target: Path) -> str | None:
    """Compile and link; what the compiler said if it failed."""
    with temporary_folder() as work:
        # The longest first, or the last one would be waited for alone.
        sources = sorted(SOURCES.glob("*.c"), key=lambda path: path.stat().st_size, reverse=True)
        objects = [str(work / f"{source.stem}.o") for source in sources]
        built = work / target.name
        compiles = [
            [*compiler, *flags, "-c", str(source), "-o", name] for source, name in zip(sources, objects, strict=True)
        ]
        for commands in (compiles, [[*compiler, *objects, *_LINK, "-o", str(built)]]):
            if problem := _run(commands):
                return problem
        cache.write_atomically(target, built.read_bytes())
    return None


def _run(commands: list[list[str]]) -> str | None:
    """Run compilers, as many at a time as there are processors; what the first one said that failed. None outlives the call."""
    waiting = iter(commands)
    running: deque[subprocess.Popen[bytes]] = deque()

    def start(count: int) -> None:
        for command in itertools.islice(waiting, count):
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))

    try:
        start(len(os.sched_getaffinity(0)))
        while running:
            output, _ = running[0].communicate()
            if running.popleft().returncode:
                return _last_lines(output) or "failed without a word"
            start(1)
    finally:
        for job in running:
            _kill(job)
    return None


def _kill(job: subprocess.Popen[bytes]) -> None:
    """End a compiler with its parts, which a signal to its driver alone would leave behind.

    Not by a process group of their own: a signal to ours has to reach them.
    """
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children")
    with contextlib.suppress(OSError):
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGKILL)
    job.kill()
    job.communicate()


def main() -> None:
    """Build the handlers, and say where they are or why there are none; that is no failure, since kernels run without."""
    try:
        print(f"execution units: handlers in {library()}")
    except NoCompiler as error:
        print(f"execution units: kernels will run on the slow reference back end: {error}", file=sys.stderr)


def _last_lines(output: bytes) -> str:
    return " | ".join(output.decode(errors="replace").strip().splitlines()[-3:])
