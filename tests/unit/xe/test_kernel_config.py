"""The kernel's options in docs/your-own-kernel.md are those of the files that users merge."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe.kernel_config import BASE, DEBUG, rows, table

PAGE = Path(__file__).parents[3] / "docs" / "your-own-kernel.md"


@pytest.mark.parametrize("file", [BASE, DEBUG])
def test_the_page_has_the_table_of_the_file(file: Path) -> None:
    assert table(file) in PAGE.read_text(), "run: python -m vfio_user_xe.device_models.xe.kernel_config"


def test_no_option_has_two_values() -> None:
    named = [option.partition("=")[0] for _, _, options in rows(BASE) for option in options]
    assert len(named) == len(set(named))


def test_a_row_says_what_its_options_are_for(tmp_path: Path) -> None:
    file = tmp_path / "some.config"
    file.write_text("# not a row\n\n## locks: slow\nCONFIG_A=y\nCONFIG_B=m\n\n## off\n# CONFIG_C is not set\n")
    assert rows(file) == [("locks", "slow", ["A", "B=m"]), ("off", "", ["C"])]


@pytest.mark.parametrize("text", ["CONFIG_A=y\n", "## a\nA=y\n"])
def test_what_is_no_option_of_a_row_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "some.config"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"some\.config"):
        rows(file)
