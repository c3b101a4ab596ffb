"""Finding a user's IGT build and what its programs need. The programs are small ELF files that the test makes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from tests.support.guest.environments import environment_in
from vfio_user_xe.emulator.guest.environment import LIBRARIES, Environment
from vfio_user_xe.emulator.suites.igt import package as igt_package
from vfio_user_xe.emulator.suites.igt.package import IgtBuild, IgtNotFound


def elf(needed: list[str], interpreter: str = "", text: bytes = b"") -> bytes:
    """A 64-bit ELF file with a dynamic section, and nothing to run."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    interpreter_bytes = interpreter.encode() + b"\0" if interpreter else b""
    headers = 3 if interpreter else 2
    strings_at = 64 + 56 * headers
    interpreter_at = strings_at + len(strings)
    dynamic_at = interpreter_at + len(interpreter_bytes)
    tags, position = [], 1
    for name in needed:
        tags.append((1, position))  # DT_NEEDED
        position += len(name) + 1
    tags += [(5, strings_at), (10, len(strings)), (0, 0)]  # DT_STRTAB, DT_STRSZ, DT_NULL
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
    total = dynamic_at + len(dynamic) + len(text)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = identity + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, headers, 64, 0, 0)
    segments = [(1, 0, total), (2, dynamic_at, len(dynamic))]
    if interpreter:
        segments.append((3, interpreter_at, len(interpreter_bytes)))
    table = b"".join(struct.pack("<IIQQQQQQ", kind, 4, at, at, at, size, size, 8) for kind, at, size in segments)
    return header + table + strings + interpreter_bytes + dynamic + text


LOADER = "/lib64/ld-linux-x86-64.so.2"


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755)
    return path


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A guest environment with a C library, 2.41, and libkmod; the host has 2.36 and libproc2."""
    guest, host = tmp_path / "environment", tmp_path / "host"
    put(guest / LIBRARIES / "libc.so.6", elf([Path(LOADER).name], text=b"GLIBC_2.2.5\0GLIBC_2.41\0"))
    put(guest / LIBRARIES / Path(LOADER).name, elf([]))
    put(guest / LIBRARIES / "libkmod.so.2", elf(["libc.so.6"]))
    put(host / "libc.so.6", elf([], text=b"GLIBC_2.36\0"))
    put(host / "libproc2.so.0", elf(["libc.so.6"]))
    put(host / "libkmod.so.2", elf(["libc.so.6"]))
    monkeypatch.setattr(igt_package, "_HOST_LIBRARIES", (str(host),))
    return environment_in(guest)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    folder = tmp_path / "igt"
    put(folder / "usr/libexec/igt-gpu-tools/xe_query", elf(["libigt.so.0", "libc.so.6"], LOADER))
    put(folder / "usr/libexec/igt-gpu-tools/notes.txt", b"text")
    put(folder / "usr/libexec/igt-gpu-tools/helper", elf(["libc.so.6"], LOADER))
    put(folder / "usr/lib/libigt.so.0", elf(["libkmod.so.2", "libproc2.so.0", "libc.so.6"]))
    return folder


def test_programs_are_those_that_use_igts_library(installed: Path, environment: Environment) -> None:
    assert list(IgtBuild(installed, environment).programs) == ["xe_query"]


def test_a_build_directory_serves(tmp_path: Path, environment: Environment) -> None:
    put(tmp_path / "build/tests/xe_vm", elf(["libigt.so.0"], LOADER))
    put(tmp_path / "build/lib/libigt.so.0", elf([]))
    assert list(IgtBuild(tmp_path / "build", environment).programs) == ["xe_vm"]


def test_a_folder_without_tests_is_refused_with_what_was_looked_for(tmp_path: Path, environment: Environment) -> None:
    with pytest.raises(IgtNotFound, match=r"holds no IGT test programs.*libexec/igt-gpu-tools"):
        IgtBuild(tmp_path, environment)


def test_libraries_come_from_the_build_then_from_where_the_c_library_is_newest(
    installed: Path, environment: Any, tmp_path: Path
) -> None:
    files = IgtBuild(installed, environment).guest_files(["xe_query"])
    sources = {Path(target).name: source.relative_to(tmp_path).parts[0] for target, source in files.items()}
    assert sources == {
        "ld-linux-x86-64.so.2": "environment",
        "libc.so.6": "environment",
        "libkmod.so.2": "environment",
        "libproc2.so.0": "host",
        "libigt.so.0": "igt",
        "xe_query": "igt",
    }
    assert "/usr/lib64/ld-linux-x86-64.so.2" in files
    assert f"/{LIBRARIES}/libigt.so.0" in files
    assert "/usr/libexec/igt-gpu-tools/xe_query" in files


def test_a_newer_c_library_in_the_build_is_used(installed: Path, environment: Environment) -> None:
    newer = put(installed / "usr/lib/libc.so.6", elf([], text=b"GLIBC_2.43\0"))
    files = IgtBuild(installed, environment).guest_files(["xe_query"])
    assert files[f"/{LIBRARIES}/libc.so.6"] == newer


def test_threads_can_end_themselves(installed: Path, environment: Environment) -> None:
    # pthread_exit loads this library when it is called: nothing names it before.
    unwinder = put(environment.root / LIBRARIES / "libgcc_s.so.1", elf(["libc.so.6"]))
    names = list(IgtBuild(installed, environment).guest_files(["xe_query"]).items())
    targets = [target for target, _ in names]
    assert (f"/{LIBRARIES}/libgcc_s.so.1", unwinder) in names
    assert targets.index(f"/{LIBRARIES}/libc.so.6") < targets.index(f"/{LIBRARIES}/libgcc_s.so.1")


def test_libraries_stand_after_those_they_need(installed: Path, environment: Environment) -> None:
    """An initramfs takes each file once, and adds what a library needs with it."""
    names = [Path(target).name for target in IgtBuild(installed, environment).guest_files(["xe_query"])]
    assert names.index("libc.so.6") < names.index("libkmod.so.2") < names.index("libigt.so.0") < names.index("xe_query")


def test_a_missing_library_is_named_with_who_needs_it(installed: Path, environment: Environment) -> None:
    put(installed / "usr/lib/libigt.so.0", elf(["libnowhere.so.3"]))
    with pytest.raises(IgtNotFound, match=r"libigt\.so\.0 needs libnowhere\.so\.3"):
        IgtBuild(installed, environment).guest_files(["xe_query"])


def test_a_program_that_cannot_list_its_subtests_is_named(installed: Path, environment: Environment) -> None:
    with pytest.raises(IgtNotFound, match="xe_query --list-subtests"):
        IgtBuild(installed, environment).subtests(["xe_query"])


def test_programs_of_the_host_are_taken_along_when_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = put(tmp_path / "bin/rtcwake-of-the-test", b"#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    files = igt_package.host_programs(["rtcwake-of-the-test", "no-such-program-anywhere"])
    assert files == {"/usr/sbin/rtcwake-of-the-test": program}
