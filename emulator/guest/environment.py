"""The guest environment: QEMU, a kernel, firmware and a few programs.

`fetch` puts them into the user's cache without root, once; `locate` finds them, without a network.  The folder is
an unpacked set of Debian packages (`root/`) and a `manifest.json`; programs in it run on any x86-64 Linux through
the folder's own dynamic loader.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.filesize import decimal

from vfio_user_xe.emulator.guest import cache
from vfio_user_xe.emulator.guest.debian.downloader import open_downloader
from vfio_user_xe.emulator.guest.debian.packages import Source
from vfio_user_xe.emulator.guest.errors import FetchFailed, MissingEnvironment
from vfio_user_xe.emulator.guest.progress import Progress
from vfio_user_xe.emulator.model.plugin_loading import device_models

# Raise when an environment fetched by an older version of this module no longer serves.
SCHEMA = 2

QEMU_VARIABLE = "VFIO_USER_XE_QEMU"
MINIMUM_QEMU = (10, 1)  # the first release with the vfio-user-pci device
FETCH_COMMAND = "vfio-user-xe guest fetch"

QEMU_PACKAGES = ("qemu-system-x86", "seabios")
GUEST_PACKAGES: tuple[str, ...] = (
    "linux-image-amd64",
    "linux-libc-dev",  # the uAPI headers of that kernel, for programs compiled for the guest
    "ovmf",
    "busybox-static",
    "kmod",
    "pciutils",
    "zstd",
)

LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = f"{LIBRARIES}/ld-linux-x86-64.so.2"
_PACKAGED_QEMU = "usr/bin/qemu-system-x86_64"


@dataclass(frozen=True)
class Manifest:
    """The content of an environment: versions by package name, sizes in bytes, when it was made (UTC)."""

    packages: dict[str, str]
    kernel: str
    qemu: str | None
    downloaded_bytes: int
    installed_bytes: int
    created: str
    schema: int = SCHEMA

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode()

    @staticmethod
    def from_json(data: bytes) -> Manifest:
        """The manifest that `data` is the JSON text of.

        Raises:
            ValueError: `data` is not a manifest of this schema.
        """
        fields = json.loads(data)
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            raise ValueError(f"not a manifest of schema {SCHEMA}")
        try:
            return Manifest(**fields)
        except TypeError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True)
class Qemu:
    """A QEMU that has vfio-user-pci: the start of its command line, variables it needs, and where it is from."""

    command: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    version: str = ""
    origin: str = ""

    def __str__(self) -> str:
        return f"QEMU {self.version} ({self.origin})"


@dataclass(frozen=True)
class Environment:
    """A fetched environment; `root` is where the packages were unpacked."""

    root: Path
    manifest: Manifest
    qemu: Qemu

    def path(self, name: str) -> Path:
        """The file `name` (relative to the root).

        Raises:
            MissingEnvironment: it is not there.
        """
        found = self.root / name.lstrip("/")
        if not found.exists():
            raise MissingEnvironment(
                f"The guest environment in {self.root.parent} lacks {name}. "
                f"Run `{FETCH_COMMAND} --update` to fetch it again."
            )
        return found

    def firmware(self, name: str) -> Path:
        """A firmware file as the kernel asks for it, a path below /lib/firmware."""
        return self.path(f"usr/lib/firmware/{name}")

    def command(self, program: str, argv0: str = "") -> list[str]:
        """The start of a command line that runs a dynamic program of the environment on this host."""
        libraries = str(self.path(LIBRARIES))
        name = ["--argv0", argv0] if argv0 else []
        return [str(self.path(LOADER)), "--library-path", libraries, *name, str(self.path(program))]

    @property
    def ovmf_code(self) -> Path:
        """OVMF's read-only code flash image."""
        return self.path("usr/share/OVMF/OVMF_CODE_4M.fd")

    @property
    def ovmf_variables(self) -> Path:
        """OVMF's variable store; a guest gets a copy of its own."""
        return self.path("usr/share/OVMF/OVMF_VARS_4M.fd")


def environment_dir() -> Path:
    """Where the environment of this user is or would be."""
    return cache.cache_dir() / "environment"


def locate() -> Environment:
    """The fetched environment, without touching the network.

    Raises:
        MissingEnvironment: it is not there, or damaged; the text has the command that cures it.
    """
    directory = environment_dir()
    try:
        manifest = Manifest.from_json((directory / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise MissingEnvironment(
            f"The guest environment (QEMU, kernel, firmware, tools) is not in {directory}. "
            f"Run `{FETCH_COMMAND}` once; it needs no root and about 180 MB of download."
        ) from None
    except ValueError as error:
        raise MissingEnvironment(
            f"The guest environment in {directory} was made by another version ({error}). Run `{FETCH_COMMAND}`."
        ) from None
    root = directory / "root"
    return Environment(root, manifest, find_qemu(root, manifest))


def find_qemu(root: Path, manifest: Manifest) -> Qemu:
    """The QEMU to use: the one the environment variable names, else a suitable one on PATH, else the fetched one."""
    if named := os.environ.get(QEMU_VARIABLE):
        qemu, problem = probe_qemu(named)
        if qemu is None:
            raise MissingEnvironment(f"{QEMU_VARIABLE} names {named}, which does not serve: {problem}.")
        return qemu
    installed = qemu_on_path()
    if installed is not None:
        return installed
    if manifest.qemu is None or not (root / _PACKAGED_QEMU).exists():
        raise MissingEnvironment(
            "The qemu-system-x86_64 that was on PATH when the guest environment was fetched is gone or no longer "
            f"suitable, and none was fetched. Run `{FETCH_COMMAND}`, or name one in {QEMU_VARIABLE}."
        )
    libraries = root / LIBRARIES
    command = [str(root / LOADER), "--library-path", str(libraries), str(root / _PACKAGED_QEMU)]
    for data in ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"):
        command += ["-L", str(root / data)]
    # The accelerators are modules, looked up by this variable before the path compiled in.
    return Qemu(tuple(command), {"QEMU_MODULE_DIR": str(libraries / "qemu")}, manifest.qemu, "fetched")


def qemu_on_path() -> Qemu | None:
    """A qemu-system-x86_64 on PATH that is new enough and has vfio-user-pci, if there is one."""
    path = shutil.which("qemu-system-x86_64")
    return probe_qemu(path)[0] if path else None


def probe_qemu(path: str) -> tuple[Qemu | None, str]:
    """Ask the QEMU at `path` for its version and for vfio-user-pci; returns it, or None and what is wrong."""
    try:
        version = _output([path, "--version"])
        devices = _output([path, "-device", "help"])
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"it cannot be run ({error})"
    match = re.search(r"version (\d+)\.(\d+)(\S*)", version)
    if match is None:
        return None, "it prints no version"
    number = "".join([match[1], ".", match[2], match[3]])
    if (int(match[1]), int(match[2])) < MINIMUM_QEMU:
        return None, f"it is QEMU {number}, and vfio-user-pci came with {'.'.join(map(str, MINIMUM_QEMU))}"
    if '"vfio-user-pci"' not in devices:
        return None, f"QEMU {number} was built without vfio-user-pci"
    return Qemu((path,), {}, number, path), ""


def fetch(
    *,
    update: bool = False,
    source: Source | None = None,
    accept_expired: Sequence[str] = (),
    progress: Progress | None = None,
) -> Environment:
    """Make sure that the environment is in the user's cache, downloading it if it is not (about 180 MB).

    Needs no root; `source` says which mirror, and is needed where there is no apt.  Without a network it still succeeds when
    everything is there.  With `update` the newest packages are fetched even then.  `accept_expired` names suites whose Release
    file may be past its date.  Safe to call from several processes at once, and to kill at any time.

    Raises:
        MissingEnvironment: this host has no apt and no mirror is named, or it is not x86-64.
        ExpiredSuites: a suite's Release file is past its date.
        FetchFailed: a download failed.
    """
    report = progress if progress is not None else Progress()
    if not update and (found := _located()) is not None:
        return found
    if platform.machine() not in ("x86_64", "AMD64"):
        raise MissingEnvironment(
            f"This machine is {platform.machine()}; the guest environment's programs run on x86-64 Linux only."
        )
    base = cache.cache_dir()

    def waiting() -> None:
        report.step("another process is fetching the guest environment; waiting for it")

    with report, cache.lock(base / "environment.lock", waiting):
        cache.recover(base / "environment")
        if not update and (found := _located()) is not None:
            return found
        try:
            _build(base / "environment", base / "apt", source, accept_expired, report)
        except OSError as error:
            raise FetchFailed(f"the guest environment could not be stored in {base}: {error}") from error
    return locate()


def _located() -> Environment | None:
    try:
        return locate()
    except MissingEnvironment:
        return None


def _build(
    target: Path, directory: Path, source: Source | None, accept_expired: Sequence[str], report: Progress
) -> None:
    installed = qemu_on_path()
    packages = [*GUEST_PACKAGES, *firmware_packages()]
    if installed is None:
        packages += QEMU_PACKAGES
    else:
        report.step(f"QEMU: using {installed}")
    report.step("guest environment: reading Debian's package lists")
    downloader = open_downloader(directory, source, (), accept_expired)
    downloader.update()
    contents = "kernel, firmware and tools" if installed else "QEMU, kernel, firmware and tools"
    report.step(f"guest environment: downloading {contents}")
    fetched = downloader.download(
        packages,
        lambda fraction, total: report.update(fraction, f"downloading {contents}, {total}" if total else "downloading"),
    )
    report.step(f"guest environment: unpacking {len(fetched)} packages")
    downloaded = sum(package.archive.stat().st_size for package in fetched)
    with cache.building(target) as work:
        root = work / "root"
        root.mkdir()
        for index, package in enumerate(fetched):
            package.unpack(root)
            report.update((index + 1) / len(fetched), "unpacking")
        versions = {package.name: package.version for package in fetched}
        size = sum(path.lstat().st_size for path in root.rglob("*") if not path.is_dir())
        manifest = Manifest(
            packages=versions,
            kernel=_kernel_release(root),
            qemu=_upstream_version(versions["qemu-system-x86"]) if installed is None else None,
            downloaded_bytes=downloaded,
            installed_bytes=size,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        (work / "manifest.json").write_bytes(manifest.to_json())
        # So that the machine may lose power, too: the rename must not reach the disk before the files.
        os.sync()
    # Kept until here so that an interrupted fetch goes on where it stopped.
    shutil.rmtree(directory, ignore_errors=True)
    report.step(
        f"guest environment: kernel {manifest.kernel}, {decimal(downloaded)} downloaded, {decimal(size)} in {target}"
    )


def firmware_packages() -> list[str]:
    """Debian packages with the firmware that the installed device models' drivers ask for, sorted."""
    return sorted({package for model in device_models() for package in model.info.firmware_packages})


def _kernel_release(root: Path) -> str:
    modules = root / "usr/lib/modules"
    releases = sorted(path.name for path in modules.iterdir()) if modules.is_dir() else []
    if len(releases) != 1:
        raise FetchFailed(f"expected one kernel in {modules}, found {releases}")
    return releases[0]


def _upstream_version(debian: str) -> str:
    """`1:11.1.3+ds-1~bpo13+1` is QEMU 11.1.3."""
    return re.sub(r"^\d+:", "", debian).split("+")[0].split("-")[0]


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, stdin=subprocess.DEVNULL)
    return done.stdout
