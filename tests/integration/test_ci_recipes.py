"""The CI recipes are what their services accept, and their shell is shell. `tests/guest` runs them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support import recipes


@pytest.mark.parametrize(
    "arguments",
    [
        ["--builtin-schema", "vendor.github-workflows", str(recipes.GITHUB)],
        ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci", str(recipes.GITLAB)],
    ],
    ids=["github", "gitlab"],
)
def test_a_recipe_is_what_its_service_accepts(arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_steps_are_shell() -> None:
    for shell, text in [*(("bash", step) for step in recipes.github_steps().values()), ("sh", script())]:
        result = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def script() -> str:
    return "\n".join(recipes.gitlab_script())


def test_both_recipes_run_the_same_tests_the_same_way() -> None:
    def options(text: str) -> list[str]:
        return re.findall(r"--(?:html|junit|self|vfio)[a-z-]+(?:=[\w./-]+)?", text)

    assert options(recipes.github_steps()["Test"]) == options(script())
