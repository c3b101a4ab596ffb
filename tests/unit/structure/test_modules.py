"""Modules: how long they are and where they lie; what tests may not do."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/decisions/module-size.md"
FOLDERS = ("emulator", "device_models", "plugins", "tests")
LIMIT = 400


def test_every_module_of_more_than_400_lines_is_listed_with_a_reason_and_no_other_is() -> None:
    long = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".c", ".h") and "__pycache__" not in path.parts
        if len(path.read_text("utf-8").splitlines()) > LIMIT
    }
    listed = dict(re.findall(r"^\| `([\w/]+\.(?:py|c|h))` \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE))
    assert set(listed) == long
    assert all(len(reason) > 30 for reason in listed.values())


def test_no_unit_test_lies_loose() -> None:
    assert [path.name for path in (ROOT / "tests/unit").glob("*.py")] == ["conftest.py"]


def test_tests_look_at_one_loggers_lines_and_at_stand_ins_with_a_spec() -> None:
    vague = re.compile(r"caplog\.(?:records|text|messages|record_tuples)\b|SimpleNamespace")
    ours = [Path(__file__), ROOT / "tests/support/logs.py"]
    found = [path.name for path in (ROOT / "tests").rglob("*.py") if vague.search(path.read_text("utf-8"))]
    assert set(found) <= {path.name for path in ours}
