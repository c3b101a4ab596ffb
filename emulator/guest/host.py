"""This machine's distribution, and the command by which it installs what a check found missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_OS_RELEASE = Path("/etc/os-release")
_MEMINFO = Path("/proc/meminfo")


def meminfo() -> dict[str, int]:
    """What proc(5) says of the host's memory, by its names: kB, and counts of pages for HugePages_*."""
    lines = (line.partition(":") for line in _MEMINFO.read_text("ascii").splitlines())
    return {name: int(value.split()[0]) for name, _, value in lines if value.strip()}


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a family of distributions installs packages; `packages` has their names by what is wanted."""

    name: str
    command: str
    packages: Mapping[str, str]

    def install(self, *wanted: str) -> str:
        """The command that installs these."""
        return self.command.format(" ".join(dict.fromkeys(self.packages[one] for one in wanted)))


DEBIAN = Distribution(
    "Debian",
    "apt-get install {}",
    {
        "cc": "gcc libc6-dev",
        "libstdc++": "libstdc++6",
        "zstd": "zstd",
        "make": "make",
        "flex": "flex",
        "bison": "bison",
        "bc": "bc",
        "libelf": "libelf-dev",
    },
)
FEDORA = Distribution(
    "Fedora",
    "dnf install {}",
    {
        "cc": "gcc glibc-devel glibc-static",
        "libstdc++": "libstdc++",
        "zstd": "zstd",
        "make": "make",
        "flex": "flex",
        "bison": "bison",
        "bc": "bc",
        "libelf": "elfutils-libelf-devel",
    },
)
ARCH = Distribution(
    "Arch",
    "pacman -S --needed {}",
    {
        "cc": "gcc",
        "libstdc++": "gcc-libs",
        "zstd": "zstd",
        "make": "make",
        "flex": "flex",
        "bison": "bison",
        "bc": "bc",
        "libelf": "libelf",
    },
)
NIXOS = Distribution(
    "NixOS",
    "nix-shell -p {}",
    {
        "cc": "gcc glibc.static",
        "libstdc++": "stdenv.cc.cc.lib zlib",
        "zstd": "zstd",
        "make": "gnumake",
        "flex": "flex",
        "bison": "bison",
        "bc": "bc",
        "libelf": "elfutils",
    },
)
_BY_ID = {
    "debian": DEBIAN,
    "ubuntu": DEBIAN,
    "fedora": FEDORA,
    "rhel": FEDORA,
    "centos": FEDORA,
    "arch": ARCH,
    "nixos": NIXOS,
}


def distribution(file: Path = _OS_RELEASE) -> Distribution:
    """That of this machine, by ID and ID_LIKE of os-release(5); Debian's where it is not known."""
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return DEBIAN
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    names = f"{values.get('ID', '')} {values.get('ID_LIKE', '')}".replace('"', "").replace("'", "").split()
    return _first(names)


def _first(names: Iterable[str]) -> Distribution:
    return next((_BY_ID[name] for name in names if name in _BY_ID), DEBIAN)
