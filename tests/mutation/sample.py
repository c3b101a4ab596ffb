"""The mutants: all that cosmic-ray knows of the modules, less those that change nothing, and an even sample of them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.commands.init import init
from cosmic_ray.work_db import use_db

_NO_CHANGE = ("_Is", "_IsNot")
"""Operators that put identity for a comparison of numbers: true or false by the interpreter's cache of small integers."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module."""

    module: str
    operator: str
    occurrence: int
    line: int

    @property
    def name(self) -> str:
        return f"{self.module}:{self.line} {self.operator.removeprefix('core/')} #{self.occurrence}"


def all_mutants(root: Path, modules: Iterable[str]) -> list[Mutant]:
    """In the order of the code."""
    found = []
    with use_db(":memory:") as database:
        init([root / module for module in modules], database, {})
        for item in database.work_items:
            for mutation in item.mutations:
                module = str(Path(mutation.module_path).relative_to(root))
                line, column = mutation.start_pos
                found.append((module, line, column, mutation.operator_name, mutation.occurrence))
    idle = {module: set(_idle_lines(root / module)) for module in modules}
    return [
        Mutant(module, operator, occurrence, line)
        for module, line, _, operator, occurrence in sorted(found)
        if line not in idle[module] and not operator.endswith(_NO_CHANGE)
    ]


def spread(mutants: list[Mutant], count: int) -> list[Mutant]:
    """`count` of them, evenly spread over the code."""
    if count >= len(mutants):
        return mutants
    return [mutants[index * len(mutants) // count] for index in range(count)]


def _idle_lines(path: Path) -> Iterator[int]:
    """Lines of which no mutant can be seen: annotations (they are never evaluated) and imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # Defaults of arguments stand between annotations; they are few.
            yield from range(node.lineno, node.body[0].lineno)
        elif isinstance(node, ast.AnnAssign) and node.value is None:
            yield node.lineno
