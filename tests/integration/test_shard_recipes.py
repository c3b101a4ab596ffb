"""The recipes that distribute shards: what their services accept, and steps that together have what one run has.

The steps run here as shell, with guests that are played. What installs packages is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest

from tests.support import recipes
from tests.support.played_program import SCENARIOS
from vfio_user_xe.emulator.results import json_file
from vfio_user_xe.emulator.results.journal import read_journal

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "examples" / "shards"
GITHUB, GITLAB = FOLDER / ".github" / "workflows" / "scenarios.yml", FOLDER / ".gitlab-ci.yml"
KUBERNETES, SLURM = FOLDER / "kubernetes.yaml", FOLDER / "slurm.sh"
pytestmark = pytest.mark.timeout(600)

COUNT = 4
TRIED = 2
"""So many shards are run here: each is a process that imports the whole program."""
ALL = sorted(each.name for each in SCENARIOS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--builtin-schema", "vendor.github-workflows", str(GITHUB)],
        ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", str(GITLAB)],
    ],
    ids=["github", "gitlab"],
)
def test_a_recipe_is_what_its_service_accepts(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_manifest_is_what_the_api_of_kubernetes_accepts() -> None:
    manifest = recipes.load(KUBERNETES)
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    assert manifest["spec"]["completionMode"] == "Indexed"
    (shards,) = (each["value"] for each in container()["env"] if each["name"] == "SHARDS")
    assert int(shards) == manifest["spec"]["completions"] == COUNT


def container() -> dict[str, object]:
    found: dict[str, object] = recipes.load(KUBERNETES)["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to work in, with the program in `bin`."""
    program = tmp_path / "bin" / "vfio-user-xe"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.support.played_program "$@"\n')
    program.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    return work


def shell(words: list[str], text: str, folder: Path, **variables: str) -> None:
    path = f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words,
        input=text,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def names(folder: Path) -> list[str]:
    assert "<html" in (folder / "report.html").read_text()[:2000].lower()
    results = json_file.read(folder / "report.json").results
    return sorted(result.case.name for result in results if result.case.number != "up")


def test_the_jobs_of_github_have_together_every_scenario(folder: Path) -> None:
    workflow = recipes.load(GITHUB)
    steps = {job: {step["name"]: step for step in workflow["jobs"][job]["steps"]} for job in workflow["jobs"]}
    shards = workflow["jobs"]["shard"]["strategy"]["matrix"]["shard"]
    assert len(shards) == COUNT
    step = steps["shard"]["Scenarios"]
    for shard in shards[:TRIED]:
        given = step["env"]["SHARD"].replace("${{ matrix.shard }}", str(shard))
        given = given.replace("${{ strategy.job-total }}", str(TRIED))
        shell(["bash", "-e"], step["run"], folder, SHARD=given)
    shell(["bash", "-e"], steps["report"]["Report"]["run"], folder)
    assert names(folder) == ALL


def test_the_jobs_of_gitlab_have_together_every_scenario(folder: Path) -> None:
    jobs = recipes.load(GITLAB)
    assert jobs["shard"]["parallel"] == COUNT
    for index in range(1, TRIED + 1):
        node = {"CI_NODE_INDEX": str(index), "CI_NODE_TOTAL": str(TRIED)}
        shell(["sh", "-e"], "\n".join(jobs["shard"]["script"]), folder, **node)
    shell(["sh", "-e"], "\n".join(jobs["report"]["script"]), folder)
    assert names(folder) == ALL


def test_the_pods_of_kubernetes_have_together_every_scenario_and_go_on_where_they_ended(folder: Path) -> None:
    made = container()
    (script,) = made["args"]  # type: ignore[misc]
    for index in (0, 1, 1):
        given = {"JOB_COMPLETION_INDEX": str(index), "SHARDS": str(TRIED), "RESULTS": str(folder), "SCENARIOS": ""}
        shell([*made["command"], script], "", folder, **given)  # type: ignore[misc]
    found = [result for file in folder.glob("shard-*/results.jsonl") for result in read_journal(file).results]
    assert sorted(result.case.name for result in found if result.case.number != "up") == ALL


def test_the_tasks_of_slurm_have_together_every_scenario(folder: Path) -> None:
    assert f"#SBATCH --array=1-{COUNT}\n" in SLURM.read_text()
    for index in range(1, TRIED + 1):
        task = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_TASK_COUNT": str(TRIED)}
        shell(["sh", str(SLURM)], "", folder, **task)
    merge = next(line for line in SLURM.read_text().splitlines() if "report merge" in line).split("'")[1]
    shell(["sh"], f"{merge} --json report.json", folder)
    assert names(folder) == ALL
