"""The table of commands in `docs/engines.md`, made from their declarations: `python -m vfio_user_xe.device_models.xe.engines.reference`."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines.command import MI, Command
from vfio_user_xe.device_models.xe.engines.commands import COMMANDS


def table() -> str:
    """Every declared command in Markdown: its first dword, its length, what happens to it, its fields."""
    lines = ["| command | first dword | dwords | what happens | fields |", "|---|---|---|---|---|"]
    for command in COMMANDS:
        fields = ", ".join(f"{field.name} {field.dword}:{field.high}:{field.low}" for field in command.fields)
        lines.append(
            f"| {command.name} | `{command.header:08x}` | {_length(command)} | {_effect(command)} | {fields} |"
        )
    return "\n".join(lines)


def _length(command: Command) -> str:
    if command.length:
        return str(command.length)
    return f"{command.length_mask.bit_length() - 1}:0 + 2"


def _effect(command: Command) -> str:
    if command.pipeline:
        return f"executed by `{command.pipeline}/`"
    if command.work:
        return "skipped and reported: no execution units"
    if command.execute is None:
        return "skipped"
    if command.header >> 29 == MI and command.execute.__name__ == "noop":
        return f"nothing: {command.note}" if command.note else "nothing"
    return "executed"


if __name__ == "__main__":
    print(table())
