"""`vfio-user-xe man-page`: the manual page, out of the commands themselves; see man(7)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from vfio_user_xe.emulator.guest.debian.packages import MIRROR_VARIABLE
from vfio_user_xe.emulator.guest.environment import QEMU_VARIABLE

NAME = "vfio-user-xe"
_BOLD = re.compile(r"\[bold\](.*?)\[/\]")
_ENVIRONMENT = {
    QEMU_VARIABLE: "The QEMU to use.",
    MIRROR_VARIABLE: "A Debian mirror with its path, as --mirror of guest fetch.",
    "XDG_CACHE_HOME": "Where the guest environment, kernels and userlands are kept, in the folder vfio-user-xe; ~/.cache without it.",
}


def manual(app: typer.Typer) -> str:
    """The manual page of the program, in the language of man(7)."""
    command: Any = typer.main.get_command(app)
    # Not command.help, which names the installed device model.
    lines = [
        f'.TH {NAME.upper()} 1 "" "{NAME}"',
        ".SH NAME",
        rf"{_text(NAME)} \- emulates PCI devices for QEMU, over vfio\-user",
        ".SH SYNOPSIS",
        rf".B {_text(NAME)}",
        r".I COMMAND",
        r"[\fIOPTION\fR]... [\fIARGUMENT\fR]...",
        ".SH OPTIONS",
        *_options(command),
        ".SH COMMANDS",
    ]
    for words, each in _commands(command, ()):
        lines += [f".SS {_text(' '.join((NAME, *words)))}{_arguments(each)}", *_paragraphs(each)]
    lines.append(".SH ENVIRONMENT")
    for name, text in _ENVIRONMENT.items():
        lines += [".TP", rf"\fB{_text(name)}\fR", _text(text)]
    lines += [".SH EXIT STATUS", _text(str(command.epilog).removeprefix("Exit codes: "))]
    return "\n".join(lines) + "\n"


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, by its words."""
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


def _arguments(command: Any) -> str:
    said = ""
    for each in command.params:
        if each.param_type_name == "argument":
            name = each.metavar or each.name.upper()
            word = rf"\fI{_text(name.strip('[]'))}\fR" + ("..." if each.nargs == -1 else "")
            said += f" {word}" if each.required else f" [{word}]"
    return said


def _paragraphs(command: Any) -> Iterator[str]:
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    for index, paragraph in enumerate(paragraphs):
        if index:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))
    yield from _options(command)
    if command.epilog:
        yield ".PP"
        yield _text(" ".join(command.epilog.split()))


def _options(command: Any) -> Iterator[str]:
    for each in command.params:
        if each.param_type_name == "argument":
            if getattr(each, "help", None):
                yield ".TP"
                yield rf"\fI{_text((each.metavar or each.name.upper()).strip('[]'))}\fR"
                yield _text(" ".join(each.help.split()))
            continue
        names = ", ".join(rf"\fB{_text(name)}\fR" for name in (*each.opts, *each.secondary_opts))
        value = "" if each.is_flag else rf" \fI{_text(each.metavar or each.name.upper())}\fR"
        yield ".TP"
        yield names + value
        yield _text(" ".join((each.help or "").split()))


def _text(text: str) -> str:
    r"""Text as it is: `\`, `-`, and what would begin a request. What is bold in a terminal is bold."""
    escaped = _BOLD.sub(r"\\fB\1\\fR", text.replace("\\", "\\e").replace("-", "\\-"))
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
