"""What users call a kernel: an image of theirs, or the series of one that was fetched."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.emulator.guest import packaged_kernels
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import KernelError, MissingEnvironment
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.packaged_kernels import named_kernel

USUAL = create_autospec(Kernel, instance=True)
USUAL.release = "7.3.4+deb13-amd64"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setattr(packaged_kernels, "kernels_dir", lambda: tmp_path)
    monkeypatch.setattr(Kernel, "packaged", staticmethod(lambda environment: USUAL))
    return create_autospec(Environment, instance=True)


@pytest.mark.parametrize("series", ["7.3", "7.3.4"])
def test_the_environment_s_kernel_goes_by_its_series_too(environment: Environment, series: str) -> None:
    assert named_kernel(series, None, environment) is USUAL


def test_a_series_that_was_not_fetched_is_missing_and_the_command_is_named(environment: Environment) -> None:
    with pytest.raises(MissingEnvironment, match=r"guest fetch --kernel 6\.18"):
        named_kernel("6.18", None, environment)


def test_a_path_is_an_image_and_so_is_whatever_has_modules(environment: Environment, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="no such file"):
        named_kernel("./bzImage", None, environment)
    with pytest.raises(KernelError, match="no such file"):
        named_kernel("bzImage", tmp_path, environment)


def test_what_is_neither_is_no_series(environment: Environment) -> None:
    with pytest.raises(KernelError, match="no kernel series"):
        named_kernel("newest", None, environment)
