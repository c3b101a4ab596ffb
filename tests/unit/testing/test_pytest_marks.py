"""Marks of the pytest plug-in: what arrives at `serve`, and what is said of a mark that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.emulator.testing.pytest_marks import CARD_MARK, card_of


def card(*arguments: Any, file: str | None = None, **options: Any) -> tuple[tuple[str, ...], bool]:
    """What a test with this mark, or one without arguments, is given."""
    request = create_autospec(pytest.FixtureRequest, instance=True)
    request.node = create_autospec(pytest.Item, instance=True)
    request.config = create_autospec(pytest.Config, instance=True)
    request.node.get_closest_marker.side_effect = {
        CARD_MARK: pytest.mark.vfio_user_card(*arguments, **options).mark
    }.__getitem__
    request.config.getoption.return_value = file
    return card_of(request)


def test_arguments_are_those_of_a_command_line() -> None:
    assert card("--vfs", "2", "--card", Path("/a/b60.toml")) == (("--vfs", "2", "--card", "/a/b60.toml"), False)
    assert card("--vfs", 2, "--poll-us", 50) == (("--vfs", "2", "--poll-us", "50"), False)


def test_options_by_keyword_have_the_types_of_serve() -> None:
    arguments, fresh = card(
        "--verbose", model="xe", vfs=2, interconnects=["iov", "p2p"], record=Path("r.xz"), fresh=True
    )
    assert arguments == (
        *("--model", "xe", "--vfs", "2", "--interconnect", "iov", "--interconnect", "p2p", "--record", "r.xz"),
        "--verbose",
    )
    assert fresh


def test_options_of_the_device_model_are_typed_values() -> None:
    arguments, _ = card(settings={"vram": 1 << 30, "media": False, "hot": True, "rate": 0.5, "name": "b"})
    assert arguments == (
        *("--set", "vram=1073741824", "--set", "media=false", "--set", "hot=true", "--set", "rate=0.5"),
        *("--set", "name=b"),
    )


def test_the_card_of_the_command_line_is_for_marks_that_name_none() -> None:
    assert card(file="mine.toml", vfs=1)[0] == ("--card", "mine.toml", "--vfs", "1")
    assert card(file="mine.toml", model="edu")[0] == ("--model", "edu")
    assert card("--model", "edu", file="mine.toml")[0] == ("--model", "edu")


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((), {"vsf": 2}, r"has no keyword 'vsf' \(allowed: fresh, card, model, vfs,"),
        ((), {"vfs": "2"}, r"vfs='2' is of type str \(allowed: int\)"),
        ((), {"vfs": True}, r"vfs=True is of type bool \(allowed: int\)"),
        ((), {"verbose": 1}, r"verbose=1 is of type int \(allowed: bool\)"),
        ((), {"record": 7}, r"record=7 is of type int \(allowed: Path\)"),
        ((), {"interconnects": "iov"}, r"interconnects='iov' is not a list of text"),
        ((), {"interconnects": ["iov", 1]}, r"interconnects=\['iov', 1\] is not a list of text"),
        ((), {"settings": ["vram=1"]}, r"settings=\['vram=1'\] is not a dict of options and values"),
        ((), {"settings": {"vram": None}}, r"settings\['vram'\]=None is of type NoneType \(allowed: text, an integer"),
        ((), {"fresh": "yes"}, r"fresh='yes' is of type str \(allowed: True, False\)"),
        (("--verbose", True), {}, r"argument 2, True, is of type bool \(allowed: text,"),
        (("--set", ["vram=1"]), {}, r"argument 2, \['vram=1'\], is of type list \(allowed: text,"),
    ],
)
def test_what_is_wrong_in_a_mark_is_named(arguments: tuple[Any, ...], options: dict[str, Any], said: str) -> None:
    with pytest.raises(pytest.UsageError, match=f"the mark vfio_user_card.*{said}"):
        card(*arguments, **options)
