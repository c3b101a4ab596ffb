"""`docs/following-a-write.md` names the files that a submitted job goes through, in their order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.walk import Walk, walk_a_doorbell

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "following-a-write.md").read_text("utf-8")
OUTSIDE = "emulator/vfio_user/"
"""The walk begins behind the socket."""


@pytest.fixture(scope="module")
def walk() -> Walk:
    return walk_a_doorbell()


def rows(title: str) -> Iterator[str]:
    """The rows of the table below a title."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return (line for line in section.splitlines() if line.startswith("| ") and "`" in line)


def full(path: str) -> str:
    return path if path.startswith(("emulator/", "plugins/")) else f"device_models/xe/{path}"


def test_the_stops_are_reached_in_the_order_of_the_page(walk: Walk) -> None:
    stops = [re.findall(r"`([\w/]+\.py)` \(`([\w.]+)`", row)[0] for row in rows("Where to stop")]
    assert len(stops) == 13
    calls = walk.calls()
    at = -1
    for path, function in stops:
        if path.startswith(OUTSIDE):
            assert (ROOT / path).exists()
            continue
        at = next((n for n, call in enumerate(calls) if n > at and call == (full(path), function)), -1)
        assert at >= 0, f"{path}: {function} is not called, or not after the stop before"


def test_what_forwards_is_on_the_way(walk: Walk) -> None:
    reached = {name for name, _ in walk.calls()}
    forwarding = [
        path for row in rows("What only forwards") for path in re.findall(r"`([\w/]+\.py)`", row.split("|")[1])
    ]
    assert forwarding
    for path in forwarding:
        assert full(path) in reached, path


def test_files_of_the_page_exist() -> None:
    for path in re.findall(r"`?([\w/]+/[\w]+\.py)", PAGE):
        assert (ROOT / path).exists() or (ROOT / full(path)).exists(), path


def test_the_figures_are_those_of_the_walk_within_a_twentieth(walk: Walk) -> None:
    """A figure may be a few calls old; one that is further off misleads, and is measured again (`python -m tests.bench.walk`)."""
    told = re.search(r"it has (\d+) calls in (\d+) files.*?changes the file (\d+) times", PAGE, re.DOTALL)
    assert told is not None
    figures = walk.figures()
    measured = [figures[name] for name in ("calls", "files", "changes of file")]
    assert list(map(int, told.groups())) == [pytest.approx(figure, rel=0.05) for figure in measured]
