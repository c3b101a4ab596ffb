"""docs/bisecting.md: a bisection of a stand-in for a kernel tree, with guests that are played."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kernel_tree import make_tree

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bisecting.md"
HISTORY = ("good", "good", "does-not-boot", "creaks", "red")


def git(tree: Path, *words: str, **variables: str) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    done = subprocess.run(
        ["git", *words], cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    return done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_the_page_s_line_finds_the_commit_that_brought_a_defect(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "linux")
    git(tree, "init", "-q")
    for number, behaviour in enumerate(HISTORY):
        (tree / "behaviour").write_text(f"{behaviour}\n")
        (tree / "changes").write_text(f"{number}\n")
        git(tree, "add", ".")
        git(tree, "commit", "-qm", f"{number}: {behaviour}")
    program = tmp_path / "bin" / "vfio-user-xe"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.support.played_program "$@"\n')
    program.chmod(0o755)
    match = re.search(r"git bisect run sh -c '\n(.*?)'\n", PAGE.read_text(), re.DOTALL)
    assert match is not None
    script = match[1].replace("run 17 --bisect", "run scenario-1 --bisect --bad creaks --bad fail")
    git(tree, "bisect", "start", "HEAD", "HEAD~4")
    said = git(tree, "bisect", "run", "sh", "-c", script, PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    # The one before it cannot be tested, so git can say only that it is one of the two.
    assert "We cannot bisect more!" in said, said
    commits = {git(tree, "log", "-1", "--format=%s", sha).strip() for sha in re.findall(r"^[0-9a-f]{40}$", said, re.M)}
    assert commits == {"2: does-not-boot", "3: creaks"}
