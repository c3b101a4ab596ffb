"""The site of docs/: it is built, every link in it leads somewhere, and every page is in its navigation."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support import recipes

ROOT = Path(__file__).parents[2]
HOOK = ROOT / "scripts" / "site_links.py"
_TARGET = re.compile(r'(?:href|src)="([^"]+)"')


def outside_links(markdown: str, folder: str, repository: str = "") -> str:
    spec = importlib.util.spec_from_file_location("site_links", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    said: str = module.outside_links(markdown, folder, repository)
    return said


@pytest.mark.parametrize(
    ("markdown", "folder", "wanted"),
    [
        ("[a](b.md#c)", "", "[a](b.md#c)"),
        ("[a](../b.md)", "sub", "[a](../b.md)"),
        ("[a](https://example.org/x)", "", "[a](https://example.org/x)"),
        ("[recipes](../examples/x)", "", "recipes (`examples/x`)"),
        ("[`examples/x`](../../examples/x)", "sub", "`examples/x`"),
        ("![a](images/b.png)", "", "![a](images/b.png)"),
    ],
)
def test_only_links_that_leave_the_pages_are_replaced(markdown: str, folder: str, wanted: str) -> None:
    assert outside_links(markdown, folder) == wanted


def test_with_a_repository_they_lead_there() -> None:
    assert outside_links("[x](../examples/x)", "", "https://example.org/r/") == (
        "[x](https://example.org/r/blob/main/examples/x)"
    )


def pages(entry: object) -> set[str]:
    """The pages of an entry of the navigation."""
    if isinstance(entry, str):
        return {entry}
    entries = entry.values() if isinstance(entry, dict) else entry
    assert isinstance(entries, Iterable)
    return {page for each in entries for page in pages(each)}


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    site = recipes.load(ROOT / "mkdocs.yml")
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    outside = {page for pattern in site["not_in_nav"].split() for page in there if fnmatch.fnmatch(page, pattern)}
    assert pages(site["nav"]) | outside == there


@pytest.mark.timeout(300)
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the extra docs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 50
    loaded = {
        target
        for page in pages
        for tag in re.findall(r"<(?:script|link rel=\"stylesheet\"|img)[^>]*>", page.read_text("utf-8"))
        for target in _TARGET.findall(tag)
        if target.startswith(("http:", "https:", "//"))
    }
    assert loaded == set()
