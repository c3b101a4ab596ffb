"""Userlands: Debian's programs and libraries for a guest, as one read-only image in the user's cache.

    root = fetch_userland("compute").image
    spec = GuestSpec(root=root)

A userland is resolved as the guest environment is, unpacked without root, and packed into an EROFS image by the
mkfs.erofs among its own packages.  Its packages are those for every card, here, and those that the installed device models
name (`ModelInfo.userland_packages`).
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.filesize import decimal

from vfio_user_xe.emulator.guest import cache
from vfio_user_xe.emulator.guest.debian.downloader import open_downloader
from vfio_user_xe.emulator.guest.debian.packages import SUITES, Downloader, Source
from vfio_user_xe.emulator.guest.environment import FETCH_COMMAND, LIBRARIES, LOADER
from vfio_user_xe.emulator.guest.errors import ExpiredSuites, FetchFailed, MissingEnvironment, UnknownUserland
from vfio_user_xe.emulator.guest.progress import Progress
from vfio_user_xe.emulator.model.plugin_loading import device_models

# Raise when a userland made by an older version of this module no longer serves.
SCHEMA = 1

PACKAGES = {
    "compute": (
        "mesa-opencl-icd",  # rusticl
        "mesa-vulkan-drivers",
        "libegl-mesa0",
        "libgl1-mesa-dri",
        "libze1",
        "clinfo",
        "mesa-utils",  # eglinfo
        "vulkan-tools",  # vulkaninfo
        "python3-numpy",
        "python3-pyopencl",
    ),
    "graphics": (
        "mesa-vulkan-drivers",
        "libegl-mesa0",
        "libgl1-mesa-dri",
        "libglx-mesa0",
        "mesa-utils",
        "vulkan-tools",
        "glmark2-wayland",
        "glmark2-es2-wayland",
        "vkmark",
        "weston",
    ),
    # What test suites of user space need: programs and tests of others, and drivers to compare with.
    "suites": (
        "mesa-opencl-icd",
        "mesa-vulkan-drivers",
        "libegl-mesa0",
        "libgl1-mesa-dri",
        "libglx-mesa0",
        "libze1",
        "clinfo",
        "clpeak",
        "glmark2-es2-drm",
        "hashcat",
        "mesa-utils",
        "piglit",
        "pocl-opencl-icd",
        "python3-mako",
        "python3-numpy",
        "python3-pyopencl",
        "python3-pytest",
        "vkmark",
        "vulkan-tools",
    ),
}
"""By userland, what it holds for every card."""

_IMAGE_TOOL, _MKFS = "erofs-utils", "usr/bin/mkfs.erofs"

# Newer suites, tried in this order until all packages are there: what is in a released suite is preferred.
_NEWER: tuple[tuple[str, ...], ...] = ((), ("forky",), ("forky", "sid"))

# What the packages' maintainer scripts would make with update-alternatives.
_ALTERNATIVES = {
    f"{LIBRARIES}/libblas.so.3": "blas/libblas.so.3",
    f"{LIBRARIES}/liblapack.so.3": "lapack/liblapack.so.3",
}

# What the maintainer scripts of base-passwd would make.
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nvideo:x:44:\nrender:x:105:\nnogroup:x:65534:\n",
}

# Nobody reads them in a guest, and they are a tenth of the files.
_LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian")


@dataclass(frozen=True)
class UserlandManifest:
    """What is in a userland: versions by package name, suites they come from, sizes in bytes, when it was made (UTC)."""

    packages: dict[str, str]
    suites: list[str]
    downloaded_bytes: int
    image_bytes: int
    created: str
    schema: int = SCHEMA


@dataclass(frozen=True)
class Userland:
    """A fetched userland; `image` is its EROFS image."""

    name: str
    image: Path
    manifest: UserlandManifest


def userland_names() -> list[str]:
    """The userlands that can be fetched, sorted."""
    named = {name for model in device_models() for name in model.info.userland_packages}
    return sorted({*PACKAGES, *named})


def userland_packages(name: str) -> list[str]:
    """Debian packages of a userland: those for every card, then those of the installed device models.

    Raises:
        UnknownUserland: no userland has this name.
    """
    if name not in userland_names():
        raise UnknownUserland(f"there is no userland {name!r} (allowed: {', '.join(userland_names())})")
    added = {package for model in device_models() for package in model.info.userland_packages.get(name, ())}
    return [*PACKAGES.get(name, ()), *sorted(added)]


def locate_userland(name: str) -> Userland:
    """The fetched userland, without touching the network.

    Raises:
        MissingEnvironment: it was not fetched, or is of another version; the text has the command that fetches it.
        UnknownUserland: no userland has this name.
    """
    userland_packages(name)
    folder = _userlands() / name
    command = f"{FETCH_COMMAND} --userland {name}"
    try:
        fields = json.loads((folder / "manifest.json").read_bytes())
        if fields.get("schema") != SCHEMA:
            raise MissingEnvironment(f"The userland in {folder} was made by another version. Run `{command}`.")
        found = Userland(name, folder / "root.erofs", UserlandManifest(**fields))
    except FileNotFoundError:
        raise MissingEnvironment(
            f"The userland {name} is not in {folder}. Run `{command}` once; it needs no root and about 220 MB of "
            "download."
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise MissingEnvironment(f"{folder}/manifest.json is damaged ({error}). Run `{command} --update`.") from None
    if not found.image.is_file():
        raise MissingEnvironment(f"{found.image} is gone. Run `{command} --update`.")
    return found


def fetch_userland(
    name: str,
    *,
    update: bool = False,
    source: Source | None = None,
    accept_expired: Sequence[str] = (),
    progress: Progress | None = None,
) -> Userland:
    """Make sure that a userland is in the user's cache, downloading it if it is not.

    Needs no root; `source` says which mirror, and is needed where there is no apt.  With `update` the newest packages are fetched
    even when all is there.  `accept_expired` names suites whose Release file may be past its date.  Safe to call from several
    processes at once, and to kill at any time.

    Raises:
        UnknownUserland: no userland has this name.
        MissingEnvironment: this host has no apt and no mirror is named, or it is not x86-64.
        ExpiredSuites: a suite's Release file is past its date.
        FetchFailed: something could not be downloaded or stored.
    """
    report = progress if progress is not None else Progress()
    if not update and (found := _located(name)) is not None:
        return found
    packages = userland_packages(name)
    if platform.machine() not in ("x86_64", "AMD64"):
        raise MissingEnvironment(f"This machine is {platform.machine()}; userlands are for x86-64 Linux only.")
    folder = _userlands()
    waiting = "another process is fetching a userland; waiting for it"
    with report, cache.lock(folder / "lock", lambda: report.step(waiting)):
        cache.recover(folder / name)
        if not update and (found := _located(name)) is not None:
            return found
        try:
            _build(name, packages, folder, source, tuple(accept_expired), report)
        except OSError as error:
            raise FetchFailed(f"the userland {name} could not be stored in {folder}: {error}") from error
    return locate_userland(name)


def _userlands() -> Path:
    return cache.cache_dir() / "userlands"


def _located(name: str) -> Userland | None:
    try:
        return locate_userland(name)
    except MissingEnvironment:
        return None


def _build(
    name: str,
    packages: list[str],
    folder: Path,
    source: Source | None,
    accept_expired: tuple[str, ...],
    report: Progress,
) -> None:
    wanted = [*packages, _IMAGE_TOOL]
    directory = folder / "apt"
    downloader, newer = _resolver(name, wanted, directory, source, accept_expired, report)
    report.step(f"userland {name}: downloading")
    fetched = downloader.download(
        wanted, lambda fraction, total: report.update(fraction, f"downloading {total}" if total else "downloading")
    )
    downloaded = sum(package.archive.stat().st_size for package in fetched)
    with cache.building(folder / name) as work:
        root = work / "root"
        report.step(f"userland {name}: unpacking {len(fetched)} packages")
        _prepare(root)
        for index, package in enumerate(fetched):
            package.unpack(root)
            report.update((index + 1) / len(fetched), "unpacking")
        _finish(root)
        _compile_python(root)
        report.step(f"userland {name}: making the image")
        image = work / "root.erofs"
        make_erofs(root, root, image)
        shutil.rmtree(root)
        manifest = UserlandManifest(
            packages={package.name: package.version for package in fetched},
            suites=[*SUITES, *newer],
            downloaded_bytes=downloaded,
            image_bytes=image.stat().st_size,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        (work / "manifest.json").write_text(json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n")
        os.sync()  # the rename must not reach the disk before the files
    # Kept until here so that an interrupted fetch goes on where it stopped.
    shutil.rmtree(directory, ignore_errors=True)
    report.step(
        f"userland {name}: {len(fetched)} packages, {decimal(downloaded)} downloaded, {decimal(manifest.image_bytes)} in "
        f"{folder / name}"
    )


def _resolver(
    name: str,
    packages: list[str],
    directory: Path,
    source: Source | None,
    accept_expired: tuple[str, ...],
    report: Progress,
) -> tuple[Downloader, tuple[str, ...]]:
    """apt with the first suites that have all packages, and which newer ones it took."""
    for newer in _NEWER:
        report.step(f"userland {name}: reading the package lists of {', '.join((*SUITES, *newer))}")
        downloader = open_downloader(directory, source, newer, accept_expired)
        try:
            downloader.update()
        except ExpiredSuites as error:
            options = " ".join(f"--accept-expired {suite}" for suite in dict.fromkeys((*accept_expired, *error.suites)))
            raise ExpiredSuites(
                f"{error.message}\nThe userland {name} needs packages of {', '.join(error.suites)}, and the mirror's copy is "
                "past the date until which Debian vouches for it: newer, mended packages may be held back. To take it all the "
                f"same, say so: `{FETCH_COMMAND} --userland {name} {options}`.",
                error.suites,
            ) from None
        if downloader.resolves(packages):
            break
    # When even the last one lacks something, the download says what.
    return downloader, newer


def _prepare(root: Path) -> None:
    """Debian's merged /usr, which its package base-files makes in an installed system."""
    root.mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")


def _finish(root: Path) -> None:
    """What maintainer scripts would have done, as far as programs in a guest need it."""
    for link, target in _ALTERNATIVES.items():
        path = root / link
        if (path.parent / target).exists() and not path.is_symlink():
            path.symlink_to(target)
    for account, text in _ACCOUNTS.items():
        (root / account).parent.mkdir(exist_ok=True)
        (root / account).write_text(text)
    for folder in _LEFT_OUT:
        shutil.rmtree(root / folder, ignore_errors=True)


def _compile_python(root: Path) -> None:
    """Compile Python's modules, as its packages' maintainer scripts do: a guest under TCG takes 12 s longer for numpy without.

    A module that does not compile is left to the guest, as there.
    """
    python = root / "usr/bin/python3"
    if not python.exists():
        return
    folders = [str(folder) for folder in sorted((root / "usr/lib").glob("python3*"))]
    loader = [str(root / LOADER), "--library-path", str(root / LIBRARIES)]
    # The image keeps no times that a .pyc could be compared with.
    options = ["-q", "-s", str(root), "-p", "/", "--invalidation-mode", "unchecked-hash"]
    subprocess.run(
        [*loader, str(python), "-S", "-m", "compileall", *options, *folders],
        env={**os.environ, "PYTHONHOME": str(root / "usr")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


def make_erofs(tools: Path, folder: Path, image: Path) -> None:
    """Pack `folder` into an EROFS image with the mkfs.erofs below `tools`, everything owned by root.

    Raises:
        FetchFailed: mkfs.erofs failed; with what it printed.
    """
    libraries = tools / LIBRARIES
    loader = [str(tools / LOADER), "--library-path", str(libraries)]
    command = [*loader, str(tools / _MKFS), "--quiet", "--all-root", str(image), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise FetchFailed(f"mkfs.erofs could not make {image.name}: {(done.stderr or done.stdout).strip()}")
