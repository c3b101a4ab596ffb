"""The options of a served card: one set, from the command line and back to it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from vfio_user_xe.emulator.cli.main import app as program
from vfio_user_xe.emulator.cli.options import serve_options
from vfio_user_xe.emulator.guest.serve_options import ServeOptions

EVERY = ServeOptions(
    card="a card.toml",
    model="edu",
    vfs=0,
    topology="split",
    cards=2,
    settings=("vram=1 GiB", "serial=3"),
    interconnects=("iov", "host_dma"),
    poll_us="auto",
    verbose=True,
)
OTHER = ServeOptions(trace="all:t.jsonl", record=Path("r.gz"), backend="libvfio-user", libvfio_user=Path("l.so"))


def parsed(words: list[str]) -> ServeOptions:
    """What a command that takes the options is given for these words."""
    seen: list[Any] = []
    app = typer.Typer()

    @app.command()
    @serve_options()
    def command(serve: ServeOptions, more: str = "no") -> None:
        """Takes them."""
        seen.extend([serve, more])

    result = CliRunner().invoke(app, [*words, "--more", "yes"])
    assert result.exit_code == 0, result.output
    assert seen[1] == "yes"
    assert isinstance(seen[0], ServeOptions)
    return seen[0]


@pytest.mark.parametrize("options", [ServeOptions(), EVERY, OTHER])
def test_what_is_rendered_is_what_is_parsed(options: ServeOptions) -> None:
    assert parsed(options.argv()) == options


def test_every_option_is_rendered_when_it_is_given() -> None:
    assert ServeOptions().argv() == []
    given = {word for options in (EVERY, OTHER) for word in options.argv() if word.startswith("--")}
    assert len(given) == len(fields(ServeOptions))


def test_commands_that_make_a_card_of_their_own_take_the_same_options() -> None:
    def offered(*command: str) -> set[str]:
        text = CliRunner().invoke(program, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
        return {word for word in text.replace("│", " ").split() if word.startswith("--")}

    words = {word for options in (EVERY, OTHER) for word in options.argv() if word.startswith("--")}
    assert words <= offered("serve")
    assert words <= offered("guest", "run")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--backend", "their"], "--backend their: there are own and libvfio-user"),
        (["--libvfio-user", "l.so"], "--libvfio-user is for --backend libvfio-user"),
        (["--cards", "2", "--record", "r.gz"], "--cards 2: --record and --trace are for one card"),
        (["--cards", "2", "--backend", "libvfio-user"], "--cards 2 is for --backend own"),
        (["--poll-us", "9", "--backend", "libvfio-user"], "--poll-us is for --backend own"),
        (["--trace", "mmio"], '--trace "mmio" is not of the form CATEGORY,...:FILE'),
        (["--trace", "mmio:"], '--trace "mmio:" is not of the form CATEGORY,...:FILE'),
    ],
)
@pytest.mark.parametrize("command", [["serve", "--socket-dir", "/nowhere"], ["guest", "run"]])
def test_options_that_do_not_go_together_are_wrong_arguments(
    command: list[str], words: list[str], problem: str
) -> None:
    result = CliRunner().invoke(program, [*command, *words])
    assert result.exit_code == 2
    assert f"vfio-user-xe: {problem}" in result.output
