"""A guest kernel: a bootable image and the directory of its modules.

Dependencies are read from each module's own `.modinfo` section (`depends=`, `softdep=pre:`; written by modpost and
MODULE_SOFTDEP), so a module directory needs no `modules.dep`: Debian's packages and build trees have none.
"""

from __future__ import annotations

import fnmatch
import gzip
import lzma
import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vfio_user_xe.emulator.guest import elf
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import KernelError

_MODULE_FILE = re.compile(r"(?P<name>.+)\.ko(?P<compression>|\.xz|\.zst|\.gz)$")


def object_folder(image: Path) -> Path | None:
    """The folder in which kbuild has made an image, if it lies where kbuild puts it; arch/x86_64 has a link to it."""
    image = image.resolve()
    return image.parents[3] if image.parts[-4:-1] == ("arch", "x86", "boot") else None


@dataclass(frozen=True)
class Kernel:
    """A kernel image (bzImage, or a vmlinuz, which is the same) and the directory that holds its modules.

    `modules` is a `/lib/modules/RELEASE` directory, a directory made by `make modules_install` (which contains
    one), or None for a kernel with everything built in.
    """

    image: Path
    modules: Path | None
    zstd: tuple[str, ...] = ("zstd",)

    @staticmethod
    def packaged(environment: Environment) -> Kernel:
        """The kernel that was fetched with the guest environment."""
        modules = environment.path(f"usr/lib/modules/{environment.manifest.kernel}")
        image = modules / "vmlinuz"
        if not image.exists():  # kernels packaged before 7.x
            image = environment.path(f"boot/vmlinuz-{environment.manifest.kernel}")
        return Kernel(image, modules, zstd_command(environment))

    @staticmethod
    def custom(image: Path, modules: Path | None, environment: Environment | None = None) -> Kernel:
        """One's own kernel: `--kernel BZIMAGE --modules DIR`.

        Raises:
            KernelError: the image or the folder is not there, or they are of different kernels.
        """
        if not image.is_file():
            if image.is_dir():
                raise KernelError(f"kernel image {image}: is a folder; name arch/x86/boot/bzImage in it")
            raise KernelError(f"kernel image {image}: {'is no file' if image.exists() else 'no such file'}")
        if modules is not None:
            if not modules.is_dir():
                raise KernelError(f"module directory {modules}: no such directory")
            modules = _release_directory(modules)
        kernel = Kernel(image.resolve(), modules, zstd_command(environment))
        kernel.release  # noqa: B018  (raises when the image is not one)
        return kernel

    @cached_property
    def release(self) -> str:
        """The release that the image will report as `uname -r`.

        Read from the boot header's version string (Documentation/arch/x86/boot.rst, kernel_version at 0x20e).
        """
        with self.image.open("rb") as file:
            header = file.read(0x10000)
        if len(header) < 0x264 or header[0x202:0x206] != b"HdrS":
            raise KernelError(
                f"{self.image} is not a bzImage (no boot header); name arch/x86/boot/bzImage, not vmlinux"
            )
        (offset,) = struct.unpack_from("<H", header, 0x20E)
        version = header[offset + 0x200 : offset + 0x400].split(b"\0")[0].decode(errors="replace")
        if not offset or not version:
            raise KernelError(f"{self.image}: the boot header names no kernel version")
        return version.split()[0]

    @cached_property
    def efi_stub(self) -> bool:
        """Whether UEFI firmware can start the image: with CONFIG_EFI_STUB it is an EFI program, too (arch/x86/boot/header.S)."""
        with self.image.open("rb") as file:
            return file.read(2) == b"MZ"

    @cached_property
    def module_files(self) -> dict[str, Path]:
        """Module files by module name (with `_` for `-`, as the kernel names them)."""
        found: dict[str, Path] = {}
        if self.modules is not None:
            for folder, directories, names in os.walk(self.modules):
                # `build` and `source` in an installed tree point to the kernel's sources.
                directories[:] = sorted(name for name in directories if name not in ("build", "source"))
                for name in names:
                    if match := _MODULE_FILE.match(name):
                        found.setdefault(normalise(match["name"]), Path(folder, name))
        return found

    @cached_property
    def builtin(self) -> frozenset[str]:
        """Names of the modules compiled into the image, from `modules.builtin`."""
        listing = self.modules / "modules.builtin" if self.modules is not None else None
        if listing is None or not listing.is_file():
            return frozenset()
        return frozenset(normalise(Path(line).stem) for line in listing.read_text().split())

    def closure(self, names: Iterable[str]) -> dict[str, bytes]:
        """The modules `names` with all they depend on, uncompressed, each after its dependencies.

        Built-in modules are left out.  A name with "?" behind it is left out where the kernel has no such module; one
        with "*" stands for all modules that it fits, and may fit none.

        Raises:
            KernelError: this kernel does not have a module; it is named.
        """
        loaded: dict[str, bytes] = {}
        visiting: list[str] = []

        def visit(name: str, needed_by: str, optional: bool) -> None:
            name = normalise(name)
            if name in loaded or name in self.builtin or name in visiting:
                return
            path = self.module_files.get(name)
            if path is None:
                if optional:
                    return
                reason = f", which {needed_by} depends on" if needed_by else ""
                where = f"in {self.modules}" if self.modules else "(no module directory was given)"
                raise KernelError(f"kernel {self.release} has no module {name}{reason} {where}")
            data = decompress(path, self.zstd)
            info = modinfo(data, path)
            built_for = info.get("vermagic", [self.release])[0].split()[0]
            if built_for != self.release:
                raise KernelError(f"{path} is a module of kernel {built_for}, but {self.image} is {self.release}")
            visiting.append(name)
            for dependency in info.get("depends", [""])[0].split(","):
                if dependency:
                    visit(dependency, name, False)
            for line in info.get("softdep", []):
                for dependency in _soft_dependencies_before(line):
                    visit(dependency, name, True)
            visiting.pop()
            loaded[name] = data

        for name in names:
            if "*" in name:
                for found in fnmatch.filter(sorted(self.module_files), normalise(name)):
                    visit(found, "", True)
            else:
                visit(name.removesuffix("?"), "", name.endswith("?"))
        return loaded


def normalise(name: str) -> str:
    """A module's name as the kernel spells it: `vfio-pci` is `vfio_pci`."""
    return name.replace("-", "_")


def decompress(path: Path, zstd: tuple[str, ...] = ("zstd",)) -> bytes:
    """The contents of a `.ko`, `.ko.xz`, `.ko.gz` or `.ko.zst` file."""
    data = path.read_bytes()
    try:
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".gz":
            return gzip.decompress(data)
        if path.suffix == ".zst":
            return subprocess.run([*zstd, "-dcq"], input=data, capture_output=True, check=True).stdout
    except (lzma.LZMAError, zlib.error, OSError, EOFError, subprocess.CalledProcessError) as error:
        raise KernelError(f"{path} cannot be decompressed: {error}") from error
    return data


def zstd_command(environment: Environment | None) -> tuple[str, ...]:
    """How to run zstd: the host's own, else the environment's."""
    if environment is None or shutil.which("zstd"):
        return ("zstd",)
    return tuple(environment.command("usr/bin/zstd"))


def modinfo(module: bytes, path: Path) -> dict[str, list[str]]:
    """The `tag=value` strings of a module's `.modinfo` section.

    Raises:
        KernelError: the file is no kernel module; `path` is named.
    """
    try:
        strings = elf.section(module, ".modinfo")
    except ValueError as error:
        raise KernelError(f"{path} is no kernel module: {error}") from error
    info: dict[str, list[str]] = {}
    for entry in strings.split(b"\0"):
        tag, _, value = entry.decode(errors="replace").partition("=")
        info.setdefault(tag, []).append(value)
    return info


def _soft_dependencies_before(line: str) -> list[str]:
    """The `pre:` part of a softdep line, `pre: a b post: c`."""
    match = re.search(r"pre:([^:]*)(?=post:|$)", line)
    return match[1].split() if match else []


def _release_directory(path: Path) -> Path:
    """Where the modules are in what a user names: the release's directory itself, or a root it was installed to."""
    if any((path / name).exists() for name in ("kernel", "modules.order", "modules.dep", "modules.builtin")):
        return path.resolve()
    below = [*path.glob("lib/modules/*/kernel"), *path.glob("usr/lib/modules/*/kernel"), *path.glob("*/kernel")]
    if len(below) == 1:
        return below[0].parent.resolve()
    if below:
        raise KernelError(f"{path} holds the modules of several kernels; name one of {[str(p.parent) for p in below]}")
    if next(path.rglob("*.ko*"), None) is None:
        raise KernelError(f"{path} holds no modules (*.ko, *.ko.xz, *.ko.zst, *.ko.gz)")
    return path.resolve()
