"""What `vfio-user-xe new` writes, seen in a guest: each package's own guest tests, run by a pytest of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.packages import run_tests
from vfio_user_xe.emulator.authoring.new import new_package
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("kind", ["device", "interconnect"])
def test_a_new_package_works_in_a_guest(kind: str, tmp_path: Path) -> None:
    try:
        locate()
    except MissingEnvironment as exc:
        pytest.skip(f"{exc} (or run scripts/setup)")
    new_package(kind, f"first-{kind}", tmp_path)
    run_tests(tmp_path / f"first-{kind}", tmp_path / "installed", "guest")
