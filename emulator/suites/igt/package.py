"""A user's own build of IGT: its programs, their subtests, and the files that a guest needs to run them.

The folder may be what `meson install` made, a meson build directory, or any folder with the programs and libraries in
it.  Libraries that it lacks are taken from the guest environment or from this host, from whichever has the newer C
library first: a program runs with a newer library than it was linked with, not with an older one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from vfio_user_xe.emulator.guest import elf
from vfio_user_xe.emulator.guest.environment import LIBRARIES, Environment
from vfio_user_xe.emulator.guest.errors import NotUsable
from vfio_user_xe.emulator.suites.igt.results import read_subtests
from vfio_user_xe.emulator.temporary import temporary_folder

PROGRAMS = "/usr/libexec/igt-gpu-tools"
"""Where the programs are in the guest."""

_PROGRAM_FOLDERS = ("", "tests", "libexec/igt-gpu-tools", "libexec/igt-gpu-tools/tests")
_HOST_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib")
_C_LIBRARY = re.compile(r"(ld-linux-x86-64|lib(c|m|mvec|dl|rt|pthread|resolv|util|anl|nss_\w+))\.so\.\d+")
_UNWINDER = "libgcc_s.so.1"
_LIST_TIMEOUT = 30


class IgtNotFound(NotUsable):
    """The folder holds no IGT build, or one that cannot be run; the text says what was looked for."""


class IgtBuild:
    """The IGT build in a folder.

    Raises:
        IgtNotFound: there is none.
    """

    def __init__(self, folder: Path, environment: Environment) -> None:
        self.folder = folder.absolute()
        self._environment = environment
        if not self.programs:
            raise IgtNotFound(
                f"{folder} holds no IGT test programs: looked for executables that list subtests in it and in "
                f"{', '.join(item for item in _PROGRAM_FOLDERS if item)}, also below usr/ and usr/local/. "
                "Name what `meson install` made, or the build directory."
            )

    @cached_property
    def programs(self) -> dict[str, Path]:
        """Test programs by name."""
        found: dict[str, Path] = {}
        for base in ("", "usr", "usr/local"):
            for folder in _PROGRAM_FOLDERS:
                directory = self.folder / base / folder
                if directory.is_dir():
                    for path in sorted(directory.iterdir()):
                        if _is_test_program(path):
                            found.setdefault(path.name, path)
        return found

    def subtests(self, names: Iterable[str]) -> dict[str, list[str]]:
        """What each program lists with `--list-subtests`; [""] for one that has no subtests.

        The programs are run on this host: listing opens no device.

        Raises:
            IgtNotFound: a program cannot be run.
        """
        listed: dict[str, list[str]] = {}
        with temporary_folder() as folder:
            for name in names:
                loader = ""
                for target, source in self._closure(name).items():
                    link = Path(folder, Path(target).name)
                    if not link.is_symlink():
                        link.symlink_to(source)
                    loader = loader or str(link)
                command = [loader, "--library-path", str(folder), str(self.programs[name]), "--list-subtests"]
                try:
                    done = subprocess.run(
                        command, capture_output=True, text=True, timeout=_LIST_TIMEOUT, check=False, cwd=folder
                    )
                except (OSError, subprocess.TimeoutExpired) as error:
                    raise IgtNotFound(f"{name} --list-subtests cannot be run: {error}") from error
                # 79: a test without subtests has nothing to list.
                if done.returncode not in (0, 79):
                    raise IgtNotFound(f"{name} --list-subtests ended with {done.returncode}: {done.stderr.strip()}")
                listed[name] = read_subtests(done.stdout) if done.returncode == 0 else [""]
        return listed

    def guest_files(self, names: Iterable[str]) -> dict[str, Path]:
        """Guest paths and host files of these programs, their libraries and the dynamic loader."""
        files: dict[str, Path] = {}
        programs = sorted(names)
        for name in programs:
            files |= self._closure(name)
        # No program is linked with it, but the C library loads it where a thread ends itself (pthread_exit(3)).
        unwinder = self._find(_UNWINDER)
        if unwinder is not None:
            files.setdefault(f"/{LIBRARIES}/{_UNWINDER}", unwinder)
        return files | {f"{PROGRAMS}/{name}": self.programs[name] for name in programs}

    def _closure(self, name: str) -> dict[str, Path]:
        """Guest paths and files of the loader (first) and libraries of a program."""
        program = self.programs[name]
        found: dict[str, Path] = {}

        def visit(path: Path, needed_by: str) -> str:
            """Add what a file needs, each library after those that it needs itself; returns its interpreter."""
            try:
                dynamic = elf.dynamic(path.read_bytes())
            except (ValueError, OSError) as error:
                raise IgtNotFound(f"{path} cannot be used: {error}") from error
            for library in dynamic.needed:
                target = f"/{LIBRARIES}/{library}"
                if target not in found and library not in visiting:
                    source = self._find(library)
                    if source is None:
                        raise IgtNotFound(
                            f"{needed_by} needs {library}, which is neither in {self.folder} nor in the guest "
                            "environment nor on this host; put it into the folder"
                        )
                    visiting.add(library)
                    visit(source, library)
                    found[target] = source
            return dynamic.interpreter

        visiting: set[str] = set()
        interpreter = visit(program, str(program))
        loader = self._find(Path(interpreter).name) if interpreter else None
        if loader is None:
            raise IgtNotFound(f"{program} is not a dynamic program whose loader ({interpreter or 'none'}) is here")
        # A merged /usr: /lib64 is a link.
        return {interpreter if interpreter.startswith("/usr/") else f"/usr{interpreter}": loader} | found

    def _find(self, library: str) -> Path | None:
        folders = self._systems if _C_LIBRARY.fullmatch(library) else [*self._own_folders, *self._systems]
        return next((folder / library for folder in folders if (folder / library).exists()), None)

    @cached_property
    def _own_folders(self) -> list[Path]:
        """Folders of the build with shared libraries in them."""
        found = []
        for folder, directories, names in os.walk(self.folder):
            directories[:] = sorted(name for name in directories if not name.endswith(".p"))
            if any(".so" in name for name in names):
                found.append(Path(folder))
        return found

    @cached_property
    def _systems(self) -> list[Path]:
        """Folders with a C library, that with the newest first."""
        candidates = [*self._own_folders, self._environment.root / LIBRARIES, *map(Path, _HOST_LIBRARIES)]
        versions = {folder: _c_library_version(folder / "libc.so.6") for folder in candidates}
        present = [folder for folder in candidates if versions[folder]]
        return sorted(present, key=lambda folder: versions[folder], reverse=True)


def host_programs(names: Iterable[str]) -> dict[str, Path]:
    """Guest paths and files of programs of this host; those that it does not have are left out."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    found = {name: shutil.which(name, path=path) for name in names}
    return {f"/usr/sbin/{name}": Path(program).resolve() for name, program in found.items() if program is not None}


def _is_test_program(path: Path) -> bool:
    """An executable that is linked with IGT's library and knows `--list-subtests`."""
    if not path.is_file() or not os.access(path, os.X_OK) or ".so" in path.name:
        return False
    data = path.read_bytes()
    if not elf.is_elf(data):
        return False
    try:
        needed = elf.dynamic(data).needed
    except ValueError:
        return False
    # What igt_main expands to, whether the library is shared or not.
    return any(name.startswith("libigt") for name in needed) or b"igt_subtest_init_parse_opts" in data


def _c_library_version(path: Path) -> tuple[int, int]:
    """The newest GLIBC symbol version in a C library, (0, 0) when there is none."""
    try:
        data = path.read_bytes()
    except OSError:
        return 0, 0
    return max(((int(major), int(minor)) for major, minor in _versions(data)), default=(0, 0))


def _versions(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for match in re.finditer(rb"GLIBC_(\d+)\.(\d+)\0", data):
        yield match[1], match[2]
