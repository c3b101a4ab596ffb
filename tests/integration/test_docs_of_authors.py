"""What the pages for test authors say is what there is: options, fixtures, marks, commands, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from vfio_user_xe.emulator.cli.main import app
from vfio_user_xe.emulator.testing.lab import guest_settings

ROOT = Path(__file__).parents[2]
PAGES = (
    "testing-with-pytest.md",
    "authoring.md",
    "ci.md",
    "observation.md",
    "recording.md",
    "conformance.md",
    "backends.md",
)
PLUGIN = (ROOT / "emulator" / "testing" / "pytest_plugin.py").read_text("utf-8")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def test_every_option_of_the_plug_in_is_described_and_no_other() -> None:
    there = {f"--vfio-user-xe-{name}" for name in re.findall(r'^    add\(\s*"([a-z]+)"', PLUGIN, re.MULTILINE)}
    described = set(re.findall(r"^\| `(--vfio-user-xe-[a-z]+)", page("testing-with-pytest.md"), re.MULTILINE))
    assert described == there
    for name in PAGES:
        assert set(re.findall(r"--vfio-user-xe-[a-z]+", page(name))) <= there


def test_every_fixture_is_described_and_no_other() -> None:
    there = set(re.findall(r"^@pytest\.fixture\n?.*\n?^def ([a-z]\w*)\(", PLUGIN, re.MULTILINE))
    table = page("testing-with-pytest.md").partition("## Fixtures")[2].partition("## Marks")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == there


def test_settings_of_the_guest_that_are_described_are_there() -> None:
    text = page("testing-with-pytest.md").partition("are settings of the guest:")[2].partition(". Those of")[0]
    described = re.findall(r"`(\w+)`", text)
    assert len(described) > 8
    assert set(described) <= set(guest_settings())


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_their_options_are_there(name: str) -> None:
    # As code: after a backtick, a parenthesis of the shell, or what indents a block.
    program = get_command(app)
    assert isinstance(program, TyperGroup)
    groups = "|".join(name for name, command in program.commands.items() if isinstance(command, TyperGroup))
    pattern = rf"(?:`|\$\(|^ *)vfio-user-xe ((?:(?:{groups}) )?[a-z-]+)([^\n`]*)"
    commands = re.findall(pattern, page(name), re.MULTILINE)
    assert commands
    for command, rest in commands:
        result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert result.exit_code == 0, f"{name}: vfio-user-xe {command}"
        ours = rest.partition(" -- ")[0].partition("|")[0].partition(")")[0]
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours):
            assert option in re.sub(r"\x1b\[[0-9;]*m", "", result.output), f"{name}: {command} {option}"


@pytest.mark.parametrize("name", [*PAGES, "api.md", "tracing.md"])
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page(name)):
        if "://" not in link:
            assert (ROOT / "docs" / link).exists(), f"{name}: {link}"
