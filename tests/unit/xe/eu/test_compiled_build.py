"""Building the handlers: compilers that are missing or broken, and the cache."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import runs
from tests.support.wait import eventually
from vfio_user_xe.device_models.xe.eu.compiled import build


@pytest.fixture
def compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return folder


def install(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# Writes what it was called with beside itself, and an object wherever it is told to.
WORKING = """
echo "$@" >> "${0%/*}/calls"
while [ $# -gt 0 ]; do [ "$1" = -o ] && echo object > "$2"; shift; done
"""


def test_without_a_compiler_the_error_says_what_would_help(compilers: Path) -> None:
    with pytest.raises(build.NoCompiler, match=r"ziglang \(vfio-user-xe\[compute\]\)"):
        build.library()


def test_compiler_that_fails_is_quoted_and_the_next_one_tried(compilers: Path) -> None:
    install(compilers, "cc", '[ "$1" = --version ] || { echo "no such option"; exit 1; }')
    with pytest.raises(build.NoCompiler, match="cc -march=native: no such option"):
        build.library()
    install(compilers, "gcc", WORKING)
    assert build.library().read_text() == "object\n"


def test_handlers_are_built_once(compilers: Path) -> None:
    install(compilers, "cc", WORKING)
    first = build.library()
    calls = (compilers / "calls").read_text().count(" -c ")
    assert calls == len(list(build.SOURCES.glob("*.c")))
    assert build.library() == first
    assert (compilers / "calls").read_text().count(" -c ") == calls


def test_another_compiler_version_builds_anew(compilers: Path) -> None:
    install(compilers, "cc", f"echo version 1\n{WORKING}")
    first = build.library()
    install(compilers, "cc", f"echo version 2\n{WORKING}")
    assert build.library() != first


def test_options_in_cc_build_anew(compilers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(compilers, "cc", WORKING)
    first = build.library()
    monkeypatch.setenv("CC", "cc -fsanitize=undefined")
    assert build.library() != first
    assert "-fsanitize=undefined" in (compilers / "calls").read_text()


def test_compilers_are_no_more_at_a_time_than_processors(compilers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    # A folder stands for a compiler that runs; each waits for the other one, and notes how many there are.
    install(
        compilers,
        "cc",
        f"""[ "$1" = --version ] && exit
cd "${{0%/*}}" && mkdir -p running && mkdir running/$$ && /bin/sleep 0.1 && ls running | /usr/bin/wc -l >> most && rmdir running/$$
{WORKING}""",
    )
    monkeypatch.setenv("PATH", f"{compilers}:/usr/bin:/bin")
    build.library()
    assert max(map(int, (compilers / "most").read_text().split())) == 2


def test_no_compiler_outlives_one_that_failed(compilers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    longest = max(build.SOURCES.glob("*.c"), key=lambda path: path.stat().st_size).name
    install(
        compilers,
        "cc",
        f"""case "$*" in
--version) exit;;
*{longest}*) while [ ! -s "${{0%/*}}/pids" ]; do :; done; echo broken; exit 1;;
*) /bin/sleep 300 & echo $! >> "${{0%/*}}/pids"; wait;;
esac""",
    )
    with pytest.raises(build.NoCompiler, match="broken"):
        build.library()
    left = [int(word) for word in (compilers / "pids").read_text().split()]
    eventually(lambda: not any(map(runs, left)), f"one of {left} is left")


def test_gcc_for_x86_is_told_to_copy_by_vectors(compilers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    install(compilers, "cc", f"[ $1 = --version ] && echo 'cc (C) Free Software Foundation'\n{WORKING}")
    build.library()
    assert "-mmemcpy-strategy=vector_loop" in (compilers / "calls").read_text()


def test_other_compilers_do_not_hear_of_it(compilers: Path) -> None:
    install(compilers, "cc", WORKING)
    build.library()
    assert "strategy" not in (compilers / "calls").read_text()


GCC = shutil.which("gcc")


@pytest.mark.skipif(GCC is None or platform.machine() != "x86_64", reason="it is about GCC for x86")
def test_loads_and_stores_copy_by_vectors_in_branches_that_gcc_takes_for_rare(tmp_path: Path) -> None:
    assert GCC is not None
    version = subprocess.run([GCC, "--version"], capture_output=True, check=True).stdout
    target = tmp_path / "message.s"
    options = (*build._FLAGS, *build._copies(version), "-march=znver3", "-S", "-o", target)
    subprocess.run([GCC, *options, build.SOURCES / "message.c"], check=True)
    assert not re.findall(r"\trep \w+", target.read_text())
