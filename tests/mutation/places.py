"""Places of a module where certain mutants change nothing that a test could notice."""

from __future__ import annotations

import ast
from collections.abc import Iterator

Place = tuple[int, int]
"""Line, from 1, and column, from 0."""


class Stretches(list[tuple[Place, Place]]):
    """Stretches of text, each with its end beyond it; `in` asks for a place."""

    def __contains__(self, place: object) -> bool:
        return any(start <= place < end for start, end in self)  # type: ignore[operator]


class Places:
    """Of one module."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.never_executed = Stretches()
        """Imports (what they fail of is no behaviour), annotations, bodies of protocols, blocks for the type checker."""
        self.disjoint = Stretches()
        """`|` and `+` of fields that have no bit in common."""
        self.with_zero = Stretches()
        """Comparisons with 0."""
        self.for_the_checker = Stretches()
        """`@abstractmethod`; `frozen` and `slots` of dataclasses."""
        self.caches = Stretches()
        """`@lru_cache`."""
        for node in ast.walk(ast.parse(text)):
            self._note(node)

    def _note(self, node: ast.AST) -> None:
        self.never_executed += map(_whole, _never_executed(node))
        match node:
            case ast.BinOp(op=ast.BitOr()) if _is_field(node.left) or _is_field(node.right):
                self.disjoint.append(_between(node.left, node.right))
            case ast.BinOp(op=ast.Add()) if _is_shifted(node.left) or _is_shifted(node.right):
                self.disjoint.append(_between(node.left, node.right))
            case ast.Compare(comparators=[ast.Constant(value=0) as zero]):
                self.with_zero.append(_between(node.left, zero))
            case ast.FunctionDef() | ast.ClassDef():
                for decorator in node.decorator_list:
                    self._note_decorator(decorator)

    def _note_decorator(self, decorator: ast.expr) -> None:
        (line, column), end = _whole(decorator)
        whole = (line, column - 1), end
        match decorator:
            case ast.Name(id="abstractmethod"):
                self.for_the_checker.append(whole)
            case ast.Call(func=ast.Name(id="dataclass"), keywords=keywords):
                self.for_the_checker += (_whole(keyword) for keyword in keywords if keyword.arg in ("frozen", "slots"))
            case ast.Call(func=ast.Name(id="lru_cache")):
                self.caches.append(whole)


def _never_executed(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Import() | ast.ImportFrom():
            yield node
        case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=ast.expr() as annotation):
            yield annotation
        case ast.FunctionDef(returns=ast.expr() as returns):
            yield returns
        case ast.ClassDef(bases=bases) if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in bases):
            for statement in node.body:
                yield statement
                yield from getattr(statement, "decorator_list", ())
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            yield node


def _is_field(node: ast.AST) -> bool:
    """Whether `node` is written as a part of a number: a flag's name, a mask, a shift, a figure."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.isupper()
        case ast.BinOp(op=ast.LShift() | ast.BitAnd()):
            return True
        case ast.BinOp(op=ast.BitOr()):
            return _is_field(node.left) or _is_field(node.right)
        case ast.IfExp():
            return _is_field(node.body)
        case ast.Constant():
            return isinstance(node.value, int)
    return False


def _is_shifted(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift)


def _whole(node: ast.AST) -> tuple[Place, Place]:
    start, end = _of(node, ""), _of(node, "end_")
    return start, end


def _between(before: ast.AST, after: ast.AST) -> tuple[Place, Place]:
    return _of(before, "end_"), _of(after, "")


def _of(node: ast.AST, which: str) -> Place:
    return getattr(node, f"{which}lineno"), getattr(node, f"{which}col_offset")
