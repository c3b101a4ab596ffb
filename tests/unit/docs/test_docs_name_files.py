"""Files of the project that the documentation names are there: a renamed module cannot be forgotten in a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FOLDERS = ("device_models", "docs", "emulator", "examples", "plugins", "scripts", "tests")
MODULES = tuple(
    str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.is_file()
)
INVENTED = {"blinker.py", "tests/bug.xz"}
"""Files that a reader makes."""
_PATH = re.compile(rf"(?<![\w/.-])(?:\.\./)*((?:{'|'.join(FOLDERS)})/[\w/.@-]*\w/?)")
_MODULE = re.compile(r"`([\w/]+\.py)`")


def missing_paths(text: str) -> set[str]:
    """Paths from the top of the repository that `text` names and that are not there; a module may stand without ".py"."""
    return {
        path
        for path in _PATH.findall(text)
        if path not in INVENTED and not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists()
    }


def missing_modules(text: str) -> set[str]:
    """Modules in backticks that end no path of the tree: pages may leave out the first folders of a path."""
    return {
        name
        for name in _MODULE.findall(text)
        if name not in INVENTED and not any(f"/{path}".endswith(f"/{name}") for path in MODULES)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not missing_paths(text)
    assert not missing_modules(text)


def test_a_file_that_is_gone_is_found_wherever_the_page_names_it() -> None:
    text = "See emulator/gone.py, [a folder](../tests/gone/), `plugins/gone.toml`, `emulator/api.py` and `guc/gone.py`."
    assert missing_paths(text) == {"emulator/gone.py", "tests/gone/", "plugins/gone.toml"}
    assert missing_modules(text) == {"guc/gone.py"}
