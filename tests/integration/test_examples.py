"""The packages in `examples/`: installed as a stranger's are, their own tests run by a pytest of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.packages import run_tests

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/pyproject.toml")))
def test_an_example_passes_its_tests(name: str, tmp_path: Path) -> None:
    run_tests(EXAMPLES / name, tmp_path / "installed", "not guest")


def test_there_are_examples_of_both_kinds() -> None:
    groups = [path.read_text() for path in EXAMPLES.glob("*/pyproject.toml")]
    assert any("vfio_user_xe.device_models" in text for text in groups)
    assert any("vfio_user_xe.interconnects" in text for text in groups)
