"""The CI recipes of `examples/kernel-ci`, as data: what their steps run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

PROJECT = Path(__file__).parents[2] / "examples" / "kernel-ci"
GITHUB = PROJECT / ".github" / "workflows" / "xe.yml"
GITLAB = PROJECT / ".gitlab-ci.yml"


def load(path: Path) -> Any:
    """The YAML as plain data."""
    return YAML(typ="safe", pure=True).load(path)


def github_steps() -> dict[str, str]:
    """The shell of each step of the workflow, by its name."""
    return {step["name"]: step["run"] for step in load(GITHUB)["jobs"]["xe"]["steps"] if "run" in step}


def gitlab_script() -> list[str]:
    """The shell of the job: before_script, then script."""
    job = load(GITLAB)["xe"]
    return [*job["before_script"], *job["script"]]
