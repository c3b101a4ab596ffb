"""`programs/xe_functions.c`: work on several functions of a card at once. Compiled when a test asks for it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from emulator.guest import Environment
from emulator.guest.cache import building, cache_dir, lock
from tests.guest import xe_programs

SOURCE = Path(__file__).parent / "programs" / "xe_functions.c"
GUEST_PATH = "/usr/bin/xe-functions"


def compile_program(environment: Environment) -> Path:
    """The program's binary, from the cache when nothing has changed. Raises as `xe_programs.compile_all` does."""
    compiler = xe_programs._compiler()
    key = hashlib.sha256(f"{xe_programs._key(compiler, environment)}\n{SOURCE.read_text()}".encode()).hexdigest()[:24]
    target = cache_dir() / "guest-programs" / f"functions-{key}"
    if not target.exists():
        with lock(target.parent / "functions.lock"):
            if not target.exists():
                with building(target) as work:
                    _compile(compiler, environment, work / "xe-functions")
    return target / "xe-functions"


def _compile(compiler: list[str], environment: Environment, binary: Path) -> None:
    headers = [f"-isystem{environment.path(path)}" for path in xe_programs._HEADERS]
    shared = [str(xe_programs.FOLDER / name) for name in ("device.c", "xe.c", "batch.c")]
    command = [*compiler, *xe_programs.FLAGS, *headers, str(SOURCE), *shared, "-o", str(binary)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}:\n{done.stderr}")
