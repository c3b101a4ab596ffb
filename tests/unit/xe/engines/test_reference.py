"""The command table of the documentation is the declarations'."""

from __future__ import annotations

from pathlib import Path

from vfio_user_xe.device_models.xe.engines.reference import table

DOCUMENT = Path(__file__).parents[4] / "docs" / "engines.md"


def test_the_documented_table_is_current() -> None:
    assert table() in DOCUMENT.read_text("utf-8"), "run python -m vfio_user_xe.device_models.xe.engines.reference"
