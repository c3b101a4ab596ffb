"""The mutants: those of cosmic-ray's that a test could notice, and a sample of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from tests.mutation.places import Place, Places

_WITHOUT_MUTANTS = ("name", "string", "newline", "fstring_string", "fstring_start", "fstring_end")
"""Half of all nodes; no operator changes them."""

_IDENTITY = tuple(
    f"_{before}_{after}" for before in ("Eq", "NotEq", "Lt", "LtE", "Gt", "GtE") for after in ("Is", "IsNot")
)
"""Identity in place of a comparison of values: true or false by the interpreter's cache of small integers."""

_OF_DISJOINT_BITS = ("_BitOr_Add", "_BitOr_BitXor", "_Add_BitOr", "_Add_BitXor")
"""`|`, `+` and `^` of fields that have no bit in common give the same number."""

_OF_NOT_NEGATIVE = ("_Gt_NotEq", "_NotEq_Gt", "_Eq_LtE")
"""The same comparison of a length, a count or an index with 0."""

_OF_SINGLETONS = ("_Is_Eq", "_IsNot_NotEq")
"""Enums' members and objects without `__eq__` are equal when they are the same."""

_OF_THE_CHECKER = ("/RemoveDecorator", "/ReplaceTrueWithFalse")
"""`@abstractmethod` and `dataclass(frozen, slots)` change no behaviour: mypy refuses what they would."""

_OF_SPEED = ("/RemoveDecorator", "/NumberReplacer")
"""`@lru_cache` on a pure function, and how much it keeps."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module."""

    module: str
    operator: str
    occurrence: int
    line: int
    column: int
    nth: int
    """Of the mutants of its operator on lines that read like its own."""
    text: str
    """The line."""
    change: str = field(default="", compare=False)
    """The line before and after."""
    changed: str = field(default="", compare=False, repr=False)
    """The whole module."""

    @property
    def name(self) -> str:
        return f"{self.module}:{self.line}:{self.column} {self.operator.removeprefix('core/')} #{self.occurrence}"

    @property
    def key(self) -> str:
        """The same for as long as the line is the same, wherever it stands in its module."""
        return f"{self.module} {self.operator} {self.nth} {self.text}"


def all_mutants(root: Path, modules: Iterable[str]) -> list[Mutant]:
    """In the order of the code. Not among them: what no test can notice, see the constants above and `Places`."""
    operators = [(name, cosmic_ray.plugins.get_operator(name)) for name in cosmic_ray.plugins.operator_names()]
    mutants: list[Mutant] = []
    for module in modules:
        text = (root / module).read_text("utf-8")
        places, nodes = Places(text), [node for node in ast_nodes(get_ast(text)) if node.type not in _WITHOUT_MUTANTS]
        counts: dict[tuple[str, str], int] = {}
        for operator, made in operators:
            if made.arguments():
                continue
            positions = (start for node in nodes for start, _ in made().mutation_positions(node))
            for occurrence, at in enumerate(positions):
                line = places.lines[at[0] - 1].strip()
                nth = counts[line, operator] = counts.get((line, operator), -1) + 1
                if not _is_idle(operator, at, places):
                    mutants.append(Mutant(module, operator, occurrence, *at, nth, line))
    return mutants


def sample(root: Path, mutants: list[Mutant], count: int) -> list[Mutant]:
    """`count` of `mutants`, spread over the code by a hash of what they change, each with its module's `changed` text.

    So the sample changes little when the code does. Left out are mutants that are no programs, and those that compile to
    the very same code, such as `1 + 0` for `1 << 0`.
    """
    codes: dict[str, object] = {}
    chosen: list[Mutant] = []
    for mutant in sorted(mutants, key=lambda mutant: hashlib.sha256(mutant.key.encode()).digest()):
        if len(chosen) == count:
            break
        text = (root / mutant.module).read_text("utf-8")
        if mutant.module not in codes:
            codes[mutant.module] = _meaning(compile(text, "", "exec"))
        changed = mutate_code(text, cosmic_ray.plugins.get_operator(mutant.operator)(), mutant.occurrence)
        try:
            code = compile(str(changed), "", "exec")
        except SyntaxError:
            continue
        if _meaning(code) != codes[mutant.module]:
            lines = zip(text.splitlines(), changed.splitlines(), strict=False)
            change = next(f"{old.strip()} -> {new.strip()}" for old, new in lines if old != new)
            chosen.append(replace(mutant, changed=changed, change=change))
    return chosen


def _is_idle(operator: str, at: Place, places: Places) -> bool:
    return (
        at in places.never_executed
        or operator.endswith(_IDENTITY)
        or (operator.endswith(_OF_DISJOINT_BITS) and at in places.disjoint)
        or (operator.endswith(_OF_NOT_NEGATIVE) and at in places.with_zero)
        or operator.endswith(_OF_SINGLETONS)
        or (operator.endswith(_OF_THE_CHECKER) and at in places.for_the_checker)
        or (operator.endswith(_OF_SPEED) and at in places.caches)
    )


def _meaning(code: CodeType) -> object:
    """All of `code` but where its lines are."""
    constants = tuple(_meaning(one) if isinstance(one, CodeType) else (type(one), repr(one)) for one in code.co_consts)
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_exceptiontable
