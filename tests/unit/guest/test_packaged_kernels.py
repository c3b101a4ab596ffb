"""What users call a kernel: an image of theirs, or the series of one that was fetched."""

from __future__ import annotations

import errno
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.emulator.guest import packaged_kernels
from vfio_user_xe.emulator.guest.debian.downloader import open_downloader
from vfio_user_xe.emulator.guest.debian.packages import Downloader, Package
from vfio_user_xe.emulator.guest.environment import Environment, locate
from vfio_user_xe.emulator.guest.errors import FetchFailed, KernelError, MissingEnvironment
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.packaged_kernels import fetch_kernel, named_kernel

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


def test_a_full_disk_is_told_as_what_it_is(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "linux-image-6.18.15+deb13-amd64"
    package = create_autospec(Package, instance=True)
    package.unpack.side_effect = OSError(errno.ENOSPC, "No space left on device")
    downloader = create_autospec(Downloader, instance=True)
    downloader.names.return_value = [name, name.replace("15", "14")]
    downloader.download_alone.return_value = [package]
    monkeypatch.setattr(packaged_kernels, "locate", create_autospec(locate, return_value=environment))
    monkeypatch.setattr(packaged_kernels, "open_downloader", create_autospec(open_downloader, return_value=downloader))
    with pytest.raises(FetchFailed, match=rf"kernel 6\.18 could not be stored in {tmp_path}: .*No space left"):
        fetch_kernel("6.18")
    package.unpack.assert_called_once()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_kernel_that_a_killed_reader_of_a_bundle_had_put_aside_is_put_back(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = "6.18.15+deb13-amd64"
    aside = tmp_path / f"{release}.aside"
    (aside / f"usr/lib/modules/{release}/kernel").mkdir(parents=True)
    (aside / "boot").mkdir()
    monkeypatch.setattr(packaged_kernels, "locate", create_autospec(locate, return_value=environment))
    download = create_autospec(open_downloader, side_effect=FetchFailed("it is downloaded anew"))
    monkeypatch.setattr(packaged_kernels, "open_downloader", download)
    custom = create_autospec(Kernel.custom, return_value=USUAL)
    monkeypatch.setattr(Kernel, "custom", staticmethod(custom))
    assert fetch_kernel("6.18") is USUAL
    assert custom.call_args.args[0] == tmp_path / release / f"boot/vmlinuz-{release}"
    assert not aside.exists()


def test_what_is_neither_is_no_series(environment: Environment) -> None:
    with pytest.raises(KernelError, match="no kernel series"):
        named_kernel("newest", None, environment)
