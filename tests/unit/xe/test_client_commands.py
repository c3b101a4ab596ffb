"""Commands that the scenarios send to the guest's program have as many words as the program's table allows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe import scenarios

FOLDER = Path(scenarios.__file__).parent
TABLE = {
    name: (int(least), None if most == "WORDS" else int(most))
    for name, least, most in re.findall(
        r'\{ "([\w-]+)", do_\w+, (\d+), (\d+|WORDS), ', (FOLDER / "client" / "commands.c").read_text()
    )
}
SENDING = {"do", "step", "attempt", "send"}
WORD, WORDS = "\0", "\1"
"""What stands for an inserted value: one word, or nobody knows how many."""


def text_of(node: ast.expr) -> str:
    """A string as far as it is known; empty: it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            parts.append(WORD if part.format_spec else WORDS)
        else:
            parts.append(text_of(part))
    return "".join(parts)


def commands(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What is sent to a program, with its line."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if not isinstance(call.func, ast.Attribute) or call.func.attr not in SENDING:
            continue
        if isinstance(call.func.value, ast.Name) and call.func.value.id == "run":
            continue  # a step of the scenario, in words
        for argument in call.args:
            yield from texts(argument)


def texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """The strings in an expression, each as a whole."""
    if isinstance(node, ast.JoinedStr | ast.Constant):
        if text := text_of(node):
            yield node.lineno, text
        return
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


def own_words(text: str) -> list[str]:
    """The words of the command itself, without what says how it may end and in which thread it runs."""
    words = text.split()
    while words:
        if words[0] in ("try", "again"):
            words = words[1:]
        elif words[0] in ("expect", "spawn"):
            words = words[2:]
        else:
            break
    return words


def wrong(text: str) -> str:
    """Why the program would refuse it; empty: it would not, as far as can be seen."""
    name, *arguments = own_words(text) or [""]
    if name not in TABLE or not arguments:
        return ""  # a word alone may be an argument of something else
    least, most = TABLE[name]
    unknown = any(word == WORDS for word in arguments)
    if len(arguments) < least and not unknown:
        return f"{name} wants {least} words or more"
    if most is not None and len(arguments) - sum(word == WORDS for word in arguments) > most:
        return f"{name} wants {most} words at most"
    return ""


def test_the_table_is_read() -> None:
    assert len(TABLE) > 40
    assert TABLE["loop"] == (5, 7)


@pytest.mark.parametrize("source", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_commands_have_as_many_words_as_the_program_wants(source: Path) -> None:
    sent = commands(ast.parse(source.read_text()))
    bad = [f"line {line}: {text!r}: {why}" for line, text in sent if (why := wrong(text))]
    assert not bad


def test_a_command_with_a_word_too_few_is_found() -> None:
    ((_, text),) = commands(ast.parse('made.do(f"spawn race{card} loop g{card} {to:#x} {source:#x} {size:#x}")'))
    assert wrong(text) == "loop wants 5 words or more"
