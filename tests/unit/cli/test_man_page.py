"""The manual page and the completions that are installed beside the program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vfio_user_xe.emulator.cli.main import app
from vfio_user_xe.emulator.cli.man_page import manual

SHARE = Path(__file__).parents[3] / "share"
PAGE = SHARE / "man" / "man1" / "vfio-user-xe.1"


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text("utf-8") == manual(app), "vfio-user-xe man-page > share/man/man1/vfio-user-xe.1"


def test_what_is_bold_in_a_terminal_is_bold_in_the_page() -> None:
    assert "Serve a card: \\fBpf.sock\\fR, \\fBvf1.sock\\fR ... in a folder" in manual(app)
    assert "[bold]" not in manual(app)


@pytest.mark.skipif(shutil.which("man") is None, reason="man(1) is not installed")
def test_man_reads_the_page_without_a_warning() -> None:
    done = subprocess.run(
        ["man", "--warnings=w", "-l", str(PAGE)],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat", "MANROFFOPT": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if not done.stdout.strip():
        pytest.skip("man(1) of this machine shows no pages")
    assert "vfio-user-xe guest fetch" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    program = tmp_path / "vfio-user-xe"
    program.write_text(f"#!{sys.executable}\nfrom vfio_user_xe.emulator.cli.main import main\n\nmain()\n")
    program.chmod(0o755)
    script = (
        f"source {SHARE}/bash-completion/completions/vfio-user-xe\n"
        "COMP_WORDS=(vfio-user-xe guest f) COMP_CWORD=2; _vfio_user_xe vfio-user-xe; echo ${COMPREPLY[@]}\n"
        "COMP_WORDS=(vfio-user-xe guest fetch --mi) COMP_CWORD=3; _vfio_user_xe vfio-user-xe; echo ${COMPREPLY[@]}\n"
        "complete -p vfio-user-xe\n"
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["fetch", "--mirror", "complete -o default -F _vfio_user_xe vfio-user-xe"]
