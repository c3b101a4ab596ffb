"""What `scenario explore` and `scenario run FILE` refuse before a guest is booted."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from vfio_user_xe.emulator.cli import explore as cli


def test_a_kept_file_that_the_model_does_not_allow_is_a_wrong_argument(tmp_path: Path) -> None:
    file = tmp_path / "x.steps"
    file.write_text("a fill v1 1\n")
    result = CliRunner().invoke(cli.app, ["run", str(file)])
    assert result.exit_code == 2
    file.write_text("a burn v1\n")
    assert CliRunner().invoke(cli.app, ["run", str(file)]).exit_code == 2


def test_a_suite_without_a_model_cannot_be_explored() -> None:
    assert CliRunner().invoke(cli.app, ["explore", "--suite", "judge"]).exit_code == 2
