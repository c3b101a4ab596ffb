"""The suite of scenarios that a command takes if none is named is the device model's to say."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from typer.testing import CliRunner

from vfio_user_xe.emulator.cli import scenario
from vfio_user_xe.emulator.cli.main import app
from vfio_user_xe.emulator.model.model_info import ModelInfo
from vfio_user_xe.emulator.model.plugin_loading import Plugin, PluginError, default_model
from vfio_user_xe.emulator.scenarios.judge import JUDGE


def given(monkeypatch: pytest.MonkeyPatch, **scenarios: str) -> None:
    """The default device model names these suites; the commands have `_` for a space."""
    named = {command.replace("_", " "): suite for command, suite in scenarios.items()}
    model = create_autospec(Plugin, instance=True, info=ModelInfo(scenarios=named))
    model.name = "blinker"
    monkeypatch.setattr(scenario, "default_model", create_autospec(default_model, return_value=model))


def test_scenarios_are_those_of_the_suite_that_the_model_names(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, scenario="judge")
    done = CliRunner().invoke(app, ["scenario", "list"])
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, len(JUDGE.scenarios))
    assert JUDGE.scenarios[0].name in done.stdout


@pytest.mark.parametrize(("command", "suite"), [("scenario explore", "judge"), ("fuzz kernel", "kunit")])
def test_each_command_has_its_own(command: str, suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, scenario="judge", fuzz_kernel="kunit")
    done = CliRunner().invoke(app, [*command.split(), "--budget", "0"])
    assert done.exit_code == 2
    assert f'the suite "{suite}" has no model to explore' in done.stderr


@pytest.mark.parametrize("command", ["scenario list", "scenario run", "scenario explore", "fuzz kernel"])
def test_a_model_that_names_none_is_told_with_the_suites_that_there_are(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch)
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 2
    assert "the model blinker has no suite for `" in done.stderr
    assert "name one with --suite (allowed: dmabuf, judge," in " ".join(done.stderr.split())


def test_without_a_default_model_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = create_autospec(default_model, side_effect=PluginError("no device model is the default"))
    monkeypatch.setattr(scenario, "default_model", missing)
    done = CliRunner().invoke(app, ["scenario", "list"])
    assert (done.exit_code, "no device model is the default" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "text", ["raise OSError('planned')", "import sys; sys.exit('planned')", "import nothing_like_it"]
)
def test_a_suite_that_cannot_be_loaded_is_told_with_its_reason(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_suite.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("broken", "broken_suite:SUITE", scenario.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    done = CliRunner().invoke(app, ["scenario", "list", "--suite", "broken"])
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert 'the suite "broken" (broken_suite:SUITE) cannot be loaded: ' in said
    assert "planned" in said or "nothing_like_it" in said
