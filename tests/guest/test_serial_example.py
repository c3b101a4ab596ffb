"""The examples in a guest: the serial card under the stock 8250_pci, the memory pool under a device's DMA."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.packages import run_tests
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment

pytestmark = pytest.mark.guest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["serial-card", "memory-pool"])
def test_an_example_works_in_a_guest(name: str, tmp_path: Path) -> None:
    try:
        locate()
    except MissingEnvironment as exc:
        pytest.skip(f"{exc} (or run scripts/setup)")
    run_tests(EXAMPLES / name, tmp_path / "installed", "guest")
