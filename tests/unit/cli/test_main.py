"""The command as a whole: its version, and errors that name the option."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vfio_user_xe.emulator import API_VERSION
from vfio_user_xe.emulator.cli.main import app


def test_the_version_is_that_of_the_package_and_of_the_api() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout == f"vfio-user-xe {version('vfio-user-xe')}, plug-in API {API_VERSION[0]}.{API_VERSION[1]}\n"


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        ("nosuch:-", '--trace nosuch:-: there is no trace category "nosuch" (allowed: all,'),
        ("mmio:/nonexistent/f", "--trace mmio:/nonexistent/f: /nonexistent/f cannot be written"),
    ],
)
def test_a_wrong_trace_of_serve_names_the_option_and_what_is_wrong(
    trace: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = CliRunner().invoke(app, ["serve", "--model", "edu", "--socket-dir", str(tmp_path / "s"), "--trace", trace])
    assert result.exit_code == 2
    assert said in result.stderr + capfd.readouterr().err
