"""What a docstring says of errors stands in a section of its own, where a reader looks for it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("emulator", "device_models", "plugins", "tests/support")
_IN_PROSE = re.compile(r"\b[Rr]aises (?:`|[A-Z]\w*(?:Error|Fault|Failed)\b)")
_ALWAYS = {"Window.revoke", "Span", "Guest", "Scenario"}
"""Whose docstring tells what *others* raise from then on, or every method of a class."""


def in_prose(source: str) -> Iterator[str]:
    """The functions and classes of `source` whose docstring names an error without a `Raises:` section."""
    pending: list[tuple[str, ast.AST]] = [("", ast.parse(source))]
    while pending:
        prefix, parent = pending.pop()
        for node in ast.iter_child_nodes(parent):
            name = prefix
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}.{node.name}".lstrip(".")
                if name not in _ALWAYS and _IN_PROSE.search(ast.get_docstring(node) or ""):
                    yield name
            pending.append((name, node))


@pytest.mark.parametrize("folder", FOLDERS)
def test_errors_are_named_in_a_section_of_the_docstring(folder: str) -> None:
    found = {
        str(path.relative_to(ROOT)): names
        for path in (ROOT / folder).rglob("*.py")
        if (names := list(in_prose(path.read_text("utf-8"))))
    }
    assert not found


def test_an_error_in_prose_is_found() -> None:
    source = '''
class Box:
    def open(self):
        """Open it. Raises `BoxError`."""

    def close(self):
        """Close it.

        Raises:
            BoxError: it is closed.
        """

def look():
    """Look; raises KeyError."""
'''
    assert sorted(in_prose(source)) == ["Box.open", "look"]
