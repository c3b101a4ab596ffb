"""The reference of the public API, as Markdown, from the docstrings in the sources: `docs/api.md`.

Read from the sources' syntax trees, not from the running objects: so defaults look as they are written, attributes have
their docstrings, and the text is the same whatever Python makes it.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from vfio_user_xe.emulator import API_VERSION, api

_SPECIAL = ("__getitem__", "__iter__")

_LAB = ("LiveCard", "Lab", "GuestSettings", "open_card", "open_guest", "open_lab")
_FIXTURES = ("card", "lab", "guest", "vfio_client", "ledger", "faults")

_INTRODUCTION = """\
# API reference

Made from the docstrings by `vfio-user-xe api-reference`; do not edit. API version {version}.

`vfio_user_xe.emulator.api` is what device models and interconnects may import. It keeps its meaning while the first number of the
API version stays; the second rises when something is added. A plug-in states the version that it was written for as
`API_VERSION`, and one of another first number, or of a newer second number than the emulator's, is refused when it is
loaded, by name and with both versions. Tests may use [`vfio_user_xe.emulator.testing.fake_transport`](#vfio_user_xeemulatortestingfake_transport-a-client-without-a-socket),
[`vfio_user_xe.emulator.testing.lab`](#vfio_user_xeemulatortestinglab-served-cards-and-guests), [`vfio_user_xe.emulator.recording.player`](#vfio_user_xeemulatorrecordingplayer-recordings-as-tests)
and the [fixtures](#fixtures-of-the-pytest-plug-in). Everything else in `emulator` may change at any time. Tutorials: [a device](writing-a-device.md),
[an interconnect](writing-an-interconnect.md), [the kit](authoring.md).
"""


@dataclass(frozen=True)
class _Found:
    """A definition: its node, and the docstring that follows it if it is an assignment."""

    node: ast.stmt
    doc: str
    module: str


_FAKE = "vfio_user_xe.emulator.testing.fake_transport"
_LAB_MODULE = "vfio_user_xe.emulator.testing.lab"
_RECORDING = "vfio_user_xe.emulator.recording"
_PLUGIN = "vfio_user_xe.emulator.testing.pytest_plugin"


def _page() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The sections: title, and the (module, name) of what they describe."""
    for title, names in api.SECTIONS.items():
        yield title, [("vfio_user_xe.emulator.api", name) for name in names]
    yield f"{_FAKE}: a client without a socket", [(_FAKE, "FakeTransport")]
    lab = [(_LAB_MODULE, name) for name in _LAB]
    client = ("vfio_user_xe.emulator.vfio_user.client", "Client")
    yield (
        f"{_LAB_MODULE}: served cards and guests",
        [*lab, client, ("vfio_user_xe.emulator.guest.blocking", "BlockingGuest")],
    )
    yield (
        f"{_RECORDING}.player: recordings as tests",
        [
            (f"{_RECORDING}.player", "replay"),
            (f"{_RECORDING}.format", "RecordingError"),
            *((f"{_RECORDING}.outcome", name) for name in ("Outcome", "Difference")),
        ],
    )
    yield "Fixtures of the pytest plug-in", [(_PLUGIN, name) for name in (*_FIXTURES, "LedgerView", "FaultInjection")]


def reference() -> str:
    """The whole page."""
    parts = [_INTRODUCTION.format(version=".".join(map(str, API_VERSION)))]
    for title, entries in _page():
        parts.append(f"## {title}\n")
        parts += [_entry(module, name, fixture=module == _PLUGIN and name in _FIXTURES) for module, name in entries]
    return "\n".join(parts)


def published() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method of the page, constructors included, by name, with its definition."""
    for _, entries in _page():
        for module, name in entries:
            found = _locate(module, name)
            if isinstance(found.node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, found.node
            elif isinstance(found.node, ast.ClassDef):
                for written in (found.node, *_parts(found.node, found.module)):
                    for member in written.body:
                        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                            if member.name == "__init__" or _public_method(member):
                                yield f"{name}.{member.name}", member


def _entry(module: str, name: str, *, fixture: bool = False) -> str:
    found = _locate(module, name)
    node = found.node
    if isinstance(node, ast.ClassDef):
        return _class(node, found.module)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        returned = ast.unparse(node.returns) if node.returns else ""
        heading = f"{name}: {returned.removeprefix('Iterator[').removesuffix(']')}" if fixture else _signature(node)
        return f"### `{heading}`\n\n{_doc(node)}\n"
    return f"### `{ast.unparse(node)}`\n\n{found.doc}\n"


def _class(node: ast.ClassDef, module: str) -> str:
    bases = [ast.unparse(base) for base in node.bases]
    initializer = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    heading = node.name
    if "Protocol" in bases:
        heading += " (protocol)"
    elif initializer is not None:
        heading += f"({_arguments(initializer)})"
    elif any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        heading += f"({_fields(node)})"
    lines = [f"### `{heading}`\n", _doc(node), ""]
    parts = list(_parts(node, module))
    derived = [base for base in bases if base not in ("ABC", "Protocol", "Generic", *(part.name for part in parts))]
    if derived:
        lines += [f"Derived from `{', '.join(derived)}`.", ""]
    if initializer is not None and ast.get_docstring(initializer):
        lines += [_doc(initializer), ""]
    members: dict[str, str] = {}
    for written in (node, *parts):
        members |= {name: text for name, text in _members(written) if name not in members}
    lines += [f"* {member}" for member in members.values()]
    return "\n".join(lines).rstrip() + "\n"


def _parts(node: ast.ClassDef, module: str) -> Iterator[ast.ClassDef]:
    """The bases of a class that are parts of it, written in modules of their own: their docstrings say so."""
    for base in node.bases:
        if isinstance(base, ast.Name):
            try:
                found = _locate(module, base.id)
            except LookupError:
                continue
            part = found.node
            if isinstance(part, ast.ClassDef) and _doc(part).startswith("The part of `"):
                yield part
                yield from _parts(part, found.module)


def _members(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Name and text of each public member."""
    yield from ((text.split("`")[1].split(":")[0], text) for text in _attributes(node))
    yield from ((name, _method(member)) for member in node.body if (name := _public_method(member)))


def _public_method(node: ast.stmt) -> str:
    """The name of a method that is public, else nothing."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    return node.name if not node.name.startswith("_") or node.name in _SPECIAL else ""


def _method(node: ast.stmt) -> str:
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if "property" in decorators:
        return _member(f"{node.name}: {ast.unparse(node.returns) if node.returns else 'Any'}", _doc(node))
    return _member(_signature(node), _doc(node))


def _attributes(node: ast.ClassDef) -> Iterator[str]:
    """Attributes: those of the class that have a docstring, and those that `__init__` makes."""
    initializers = [n.body for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    for body in (node.body, *initializers):
        for statement, following in zip(body, [*body[1:], None], strict=True):
            doc = _string(following)
            target = statement.target if isinstance(statement, ast.AnnAssign) else None
            if isinstance(statement, ast.Assign):
                target = statement.targets[0] if isinstance(statement.targets[0], ast.Name | ast.Attribute) else None
            if target is None or not (doc or body is not node.body):
                continue
            if isinstance(target, ast.Name) != (body is node.body):
                continue
            name = ast.unparse(target).removeprefix("self.")
            if name.startswith("_") or "." in name:
                continue
            kind = f": {ast.unparse(statement.annotation)}" if isinstance(statement, ast.AnnAssign) else ""
            yield _member(f"{name}{kind}", doc)


def _member(heading: str, doc: str) -> str:
    text = f"`{heading}`" + (f"  \n{doc}" if doc else "")
    return text.replace("\n\n", "\n").replace("\n", "\n  ")


def _fields(node: ast.ClassDef) -> str:
    """A dataclass's arguments."""
    fields = []
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if statement.target.id.startswith("_") or "ClassVar" in ast.unparse(statement.annotation):
                continue
            default = "" if statement.value is None else f" = {ast.unparse(statement.value)}"
            if "default_factory" in default:
                default = " = ..."
            elif "init=False" in default:
                continue
            fields.append(f"{statement.target.id}: {ast.unparse(statement.annotation)}{default}")
    return ", ".join(fields)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({_arguments(node)}){returns}"


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    text = ast.unparse(node.args)
    for receiver in ("self", "cls"):
        text = text.removeprefix(f"{receiver}, ") if text != receiver else ""
    return text.removeprefix("/, ")


def _doc(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return (ast.get_docstring(node) or "").strip()


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""


def _locate(module: str, name: str) -> _Found:
    """Where `name` of `module` is defined; imports are followed inside of this project.

    Raises:
        LookupError: the module neither defines it nor has it from another module of this project.
    """
    body = _tree(module).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return _Found(statement, "", module)
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return _Found(statement, _string(following), module)
        if isinstance(statement, ast.ImportFrom) and _is_ours(statement.module):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _locate(statement.module, alias.name)
    raise LookupError(f"{module} does not define {name}")


def _is_ours(module: str | None) -> TypeGuard[str]:
    return module is not None and module.partition(".")[0] == __name__.partition(".")[0]


@functools.cache
def _tree(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text("utf-8"))
