"""The command `vfio-user-xe` has what the documentation names."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from vfio_user_xe.emulator.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
# In code: after a prompt, a path, or at the start of a line or of an inline literal.
_CALL = re.compile(r"(?:^ *|`|\$\(|\$ |/bin/)vfio-user-xe ([a-z][a-z-]+)(?: ([a-z][a-z-]+))?", re.MULTILINE)


def test_documented_commands_exist() -> None:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    calls = {(page.name, *match) for page in pages for match in _CALL.findall(page.read_text("utf-8"))}
    assert {"guest", "igt", "serve"} <= {name for _, name, _ in calls}
    missing = sorted(
        f"{page}: vfio-user-xe {name} {second}".rstrip()
        for page, name, second in calls
        if name not in commands
        or (second and hasattr(commands[name], "commands") and second not in commands[name].commands)
    )
    assert not missing
