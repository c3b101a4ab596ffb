"""Kernels of other series beside the one of the guest environment: Debian's, by version, in the user's cache.

    kernel = fetch_kernel("6.18")          # the newest 6.18 that can be had whole
    spec = GuestSpec(kernel=kernel)

Debian keeps the image package of an old version longer than the package with its modules, so candidates are tried from the
newest on until one resolves.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from vfio_user_xe.emulator.guest import cache
from vfio_user_xe.emulator.guest.debian.downloader import open_downloader
from vfio_user_xe.emulator.guest.debian.packages import Source
from vfio_user_xe.emulator.guest.environment import Environment, locate
from vfio_user_xe.emulator.guest.errors import FetchFailed, KernelError, MissingEnvironment
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.progress import Progress

_SERIES = re.compile(r"\d+\.\d+(\.\d+)?")
# Not the real-time and cloud flavours, which lack drivers.
_RELEASE = re.compile(r"linux-image-(\d+\.\d+\.\d+\+[^-]+-amd64)$")


def kernels_dir() -> Path:
    """Where they are: a folder a release."""
    return cache.cache_dir() / "packaged-kernels"


def cached_kernels() -> list[str]:
    """Releases that are in the cache, oldest first."""
    folder = kernels_dir()
    names = [path.name for path in folder.iterdir() if _has_modules(path, path.name)] if folder.is_dir() else []
    return sorted(names, key=_version)


def find_kernel(series: str, environment: Environment | None = None) -> Kernel | None:
    """The newest cached kernel of a series ("6.18", "6.18.15"), or None.

    Raises:
        KernelError: the text is not a series.
    """
    if not _SERIES.fullmatch(series):
        raise KernelError(f"{series!r} is no kernel series; want something like 6.18 or 6.18.15")
    for release in reversed(cached_kernels()):
        if _belongs(release, series):
            return _kernel(release, environment or locate())
    return None


def named_kernel(name: str, modules: Path | None = None, environment: Environment | None = None) -> Kernel:
    """What a user calls a kernel: an image with its modules, or the series of one that was fetched.

    Raises:
        KernelError: there is no such image or folder of modules.
        MissingEnvironment: no kernel of the series was fetched.
    """
    is_file = "/" in name or Path(name).exists()
    if modules is not None and not is_file and _SERIES.fullmatch(name):
        raise KernelError(f"--modules {modules} is for an image of your own; the fetched kernel {name} has its modules")
    if is_file or modules is not None:
        return Kernel.custom(Path(name), modules, environment)
    found = find_kernel(name, environment)
    if found is None and _belongs((usual := Kernel.packaged(environment or locate())).release, name):
        return usual
    if found is None:
        raise MissingEnvironment(f"kernel {name} is not in the cache: vfio-user-xe guest fetch --kernel {name}")
    return found


def fetch_kernel(
    series: str, *, source: Source | None = None, accept_expired: Sequence[str] = (), progress: Progress | None = None
) -> Kernel:
    """The newest kernel of a series, from the cache or else from Debian (about 170 MB).

    Needs the guest environment; `source` and `accept_expired` are as for it.

    Raises:
        KernelError: there is no kernel of that series.
        FetchFailed: something could not be downloaded or stored.
    """
    environment = locate()
    if (found := find_kernel(series, environment)) is not None:
        return found
    report = progress if progress is not None else Progress()
    folder = kernels_dir()
    waiting = "another process is fetching a kernel; waiting for it"
    with report, cache.lock(folder / "lock", lambda: report.step(waiting)):
        for aside in cache.left_aside(folder):
            cache.recover(aside)
        if (found := find_kernel(series, environment)) is not None:
            return found
        try:
            release = _fetch(series, folder, source, accept_expired, report)
        except OSError as error:
            raise FetchFailed(f"a kernel {series} could not be stored in {folder}: {error}") from error
    return _kernel(release, environment)


def _fetch(series: str, folder: Path, source: Source | None, accept_expired: Sequence[str], report: Progress) -> str:
    private = folder / "apt"
    downloader = open_downloader(private, source, (), accept_expired)
    report.step(f"kernel {series}: reading Debian's package lists")
    downloader.update()
    releases = [match[1] for name in downloader.names("linux-image-") if (match := _RELEASE.match(name))]
    candidates = sorted((r for r in releases if _belongs(r, series)), key=_version, reverse=True)
    if not candidates:
        series_there = sorted({".".join(map(str, _version(r)[:2])) for r in releases}, key=_version)
        raise KernelError(f"Debian has no kernel {series}; there are {', '.join(series_there)}")
    complaint = ""
    for release in candidates:
        # Split since 7.2; before that one package has the image and the modules.
        for names in (("linux-binary-", "linux-modules-"), ("linux-image-",)):
            report.step(f"kernel {release}: downloading")
            try:
                packages = downloader.download_alone(
                    [name + release for name in names],
                    lambda fraction, total: report.update(fraction, f"downloading {total}"),
                )
                with cache.building(folder / release) as work:
                    for package in packages:
                        package.unpack(work)
                    if not _has_modules(work, release):
                        raise FetchFailed(
                            f"linux-image-{release} holds no modules, and linux-modules-{release} is gone"
                        )
            except FetchFailed as error:
                complaint = str(error)
                continue
            shutil.rmtree(private, ignore_errors=True)
            return release
    raise FetchFailed(f"none of the kernels {', '.join(candidates)} can be had whole any more.\n{complaint}")


def _has_modules(root: Path, release: str) -> bool:
    return (root / "usr/lib/modules" / release / "kernel").is_dir()


def _kernel(release: str, environment: Environment) -> Kernel:
    root = kernels_dir() / release
    modules = root / "usr/lib/modules" / release
    image = modules / "vmlinuz"
    if not image.exists():  # kernels packaged before 7.x
        image = root / f"boot/vmlinuz-{release}"
    return Kernel.custom(image, modules, environment)


def _belongs(release: str, series: str) -> bool:
    return _version(release)[: series.count(".") + 1] == _version(series)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.match(r"[\d.]+", text)[0].rstrip(".").split("."))  # type: ignore[index]
