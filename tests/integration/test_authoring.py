"""The authoring kit: packages that `vfio-user-xe new` writes, and the reference of the public API."""

from __future__ import annotations

import ast
import os
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.packages import install
from vfio_user_xe.emulator import API_VERSION, api
from vfio_user_xe.emulator.authoring.api_reference import published, reference
from vfio_user_xe.emulator.authoring.new import NameRefused, new_package
from vfio_user_xe.emulator.cli.main import app
from vfio_user_xe.emulator.guest.served import served_card

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PUBLIC = {
    "vfio_user_xe.emulator.api",
    "vfio_user_xe.emulator.testing.lab",
    "vfio_user_xe.emulator.testing.fake_transport",
    "vfio_user_xe.emulator.testing.pytest_plugin",
}
MODEL_LINES = 70


@pytest.mark.parametrize("kind", ["device", "interconnect"])
def test_a_new_package_is_installable_and_its_tests_pass(
    kind: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_package(kind, "bright-idea", pytester.path)
    project = pytester.path / "bright-idea"
    install(project, pytester.path / "installed")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path / "installed"), prepend=os.pathsep)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.chdir(project)
    result = pytester.run(
        sys.executable, "-m", "pytest", "-q", "-m", "not guest", "-p", "no:cacheprovider", "--strict-markers"
    )
    outcome = result.parseoutcomes()
    assert result.ret == 0
    assert outcome["passed"] >= 4
    assert outcome["deselected"] >= 1
    assert "failed" not in outcome
    listed = pytester.run(sys.executable, "-m", "vfio_user_xe.emulator", "plugins", "list").stdout.str()
    assert "bright-idea 0.1.0" in " ".join(listed.split())


def test_a_card_is_served_in_a_folder_that_has_modules_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the folder of a plug-in, seen from the one above it."""
    (tmp_path / "trio.py").write_text("raise RuntimeError('of the working directory')")
    monkeypatch.chdir(tmp_path)
    with served_card(["--model", "edu"]) as card:
        assert card.description.model == "edu"


@pytest.mark.parametrize("kind", ["device", "interconnect"])
def test_a_new_package_is_small_states_the_api_version_and_leaves_no_placeholder(kind: str, tmp_path: Path) -> None:
    files = new_package(kind, "thing2", tmp_path)
    assert [file.relative_to(tmp_path / "thing2").as_posix() for file in files] == [
        "README.md",
        "pyproject.toml",
        "tests/test_thing2.py",
        "tests/test_thing2_in_a_guest.py",
        "thing2.py",
    ]
    for file in files:
        assert "@" not in file.read_text().replace("@pytest", "").replace("@dataclass", ""), file
        if file.suffix == ".py":
            compile(file.read_text(), str(file), "exec")
    model = (tmp_path / "thing2" / "thing2.py").read_text()
    assert len(model.splitlines()) <= MODEL_LINES
    assert f"API_VERSION = {API_VERSION}" in model
    entry_points = tomllib.loads((tmp_path / "thing2" / "pyproject.toml").read_text())["project"]["entry-points"]
    assert [list(entries) for entries in entry_points.values()] == [["thing2"]]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("My-Device", "lower-case"),
        ("2fast", "a letter first"),
        ("a--b", "joined by"),
        ("../up", "lower-case"),
        ("edu", "there is a device model of that name already"),
        ("class", "word of Python"),
        ("print", "word of Python"),
        ("setup", "a file setup.py"),
        ("json", "there is a module json already"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_the_reason_and_nothing_is_written(
    name: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(NameRefused, match=reason):
        new_package("device", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(app, ["new", "device", "mine", "--directory", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr == (
        f'vfio-user-xe: new device "mine": the folder {tmp_path / "mine"} is there already and is not empty.'
        " Nothing was written: choose another name, or another place with --directory\n"
    )
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["new", "interconnect", "tube", "--directory", str(tmp_path)])
    assert result.exit_code == 0
    assert str(tmp_path / "tube" / "tube.py") in result.output
    assert f"pip install -e '{tmp_path / 'tube'}[test]'" in result.output


def test_the_reference_in_docs_is_current() -> None:
    written = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert written == reference(), "run: vfio-user-xe api-reference > docs/api.md"


THREADS = (
    "From any thread",
    "From one thread at a time",
    "On the executor",
    "While the card is made",
    "On the transport's thread",
)
"""How the last line of a docstring that says where a function may be called from begins."""


def raised_by(function: ast.AST) -> list[ast.expr]:
    """What the body of a function raises itself: no functions in it, nothing that is only passed on."""
    found: list[ast.expr] = []
    nodes = list(ast.iter_child_nodes(function))
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            found.append(node.exc)
        nodes += ast.iter_child_nodes(node)
    return found


def test_what_is_published_and_raises_says_what_and_from_which_thread_it_may_be_called() -> None:
    wrong = []
    for name, function in published():
        if raised := raised_by(function):
            text = ast.get_docstring(function) or ""
            section, _, _ = text.partition("Raises:\n")[2].partition("\n\n")
            named = {line.strip().split(":")[0] for line in section.splitlines()}
            classes = {
                call.func.id for call in raised if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
            }
            if not named or not classes <= named or not text.splitlines()[-1].startswith(THREADS):
                wrong.append(f"{name} raises {', '.join(sorted(classes)) or '?'}; its docstring names {sorted(named)}")
    assert not wrong, "\n".join(wrong)


def test_what_is_published_and_says_what_it_raises_says_from_which_thread_it_may_be_called() -> None:
    texts = {name: ast.get_docstring(function) or "" for name, function in published()}
    assert not [
        name for name, text in texts.items() if "Raises:\n" in text and not text.splitlines()[-1].startswith(THREADS)
    ]


def test_every_public_name_is_in_the_reference_once_and_has_a_docstring() -> None:
    listed = [name for names in api.SECTIONS.values() for name in names]
    assert sorted([*listed, "SECTIONS"]) == sorted(api.__all__)
    text = reference()
    for name in listed:
        headings = [
            line for line in text.splitlines() if line.startswith((f"### `{name}(", f"### `{name} ", f"### `{name}`"))
        ]
        assert len(headings) == 1, name
        after = text.partition(headings[0])[2].lstrip("\n")
        assert not after.startswith("#"), f"{name} has no docstring"


def _imports(path: Path) -> set[str]:
    """Modules of this project that a file imports."""
    tree = ast.parse(path.read_text("utf-8"))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return {module for module in modules if module.partition(".")[0] == "vfio_user_xe"}


def test_templates_and_examples_use_the_public_api_only(tmp_path: Path) -> None:
    files = [file for kind in ("device", "interconnect") for file in new_package(kind, f"a-{kind}", tmp_path)]
    files += (ROOT / "examples").rglob("*.py")
    checked = 0
    for file in files:
        if file.suffix == ".py":
            assert _imports(file) <= PUBLIC, file
            checked += 1
    assert checked >= 6
