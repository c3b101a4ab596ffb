"""Build an initramfs from exactly what a run needs, and keep it in the user's cache.

The image is an uncompressed cpio archive: loading more bytes costs a guest less than unpacking them under TCG does.
It is stored under the hash of its contents and never changes, so that a guest may open it at any time; beside it an
index by request remembers which files it was made from, and is believed only while none of them has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vfio_user_xe.emulator.guest import agent, cache, elf
from vfio_user_xe.emulator.guest.cpio import Cpio
from vfio_user_xe.emulator.guest.environment import LIBRARIES, Environment
from vfio_user_xe.emulator.guest.errors import InitramfsError
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.root_filesystem import RootFileSystem
from vfio_user_xe.emulator.model.model_info import firmware_of
from vfio_user_xe.emulator.model.plugin_loading import device_models

# Raise when the same request gives another image than it did.
_LAYOUT = 2

# Debian's search path in the guest's dynamic loader.
_GUEST_LIBRARIES = LIBRARIES
_KMOD_NAMES = ("depmod", "insmod", "lsmod", "modinfo", "modprobe", "rmmod")
_KEEP_IMAGES = 12
_IN_USE_SECONDS = 3600

# Where files for the guest are when it has a root file system of its own; of these the kernel and modprobe read here.
_ABOVE_ROOT = ".files"
_READ_BY_INIT = ("usr/lib/firmware/", "usr/lib/modules/", "etc/modprobe.d/")

Content = Path | bytes | str


def known_firmware(modules: Iterable[str]) -> tuple[str, ...]:
    """Firmware files for `modules`, each a name with or without parameters; nothing for those that need none.

    The installed device models say which (`ModelInfo.firmware`): a module declares the files of every device that it knows.
    """
    return firmware_of((model.info for model in device_models()), modules)


@dataclass(frozen=True)
class Contents:
    """The content of an initramfs besides busybox, the agent, kmod (modprobe) and pciutils (lspci, setpci).

    `modules` can be loaded with modprobe in the guest (dependencies are added; "vgem?": if the kernel has it); `load` are loaded by /init as well,
    in that order, each as modprobe takes it (`vfio_pci disable_idle_d3=1`).  `firmware` are files of the guest environment as the
    kernel asks for them.  `files` maps guest paths to a host file, bytes or text; a program (ELF, or a host file
    that is executable, or a `#!` script) becomes executable, and a dynamic one brings the libraries it needs.
    `root` is mounted by /init, see root_filesystem.py.
    """

    modules: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    files: Mapping[str, Content] = field(default_factory=dict)
    root: RootFileSystem | None = None


def initramfs(environment: Environment, kernel: Kernel, contents: Contents) -> Path:
    """The image for a request, from the cache when its sources are unchanged.

    Raises:
        InitramfsError: a file cannot be put into it; it is named.
        KernelError: a module cannot be put into it; it is named.
    """
    directory = cache.cache_dir() / "initramfs"
    index = directory / f"{_request_key(environment, kernel, contents)}.json"
    found = _cached(index)
    if found is None:
        with cache.lock(directory / "lock"):
            found = _cached(index)
            if found is None:
                found = _store(directory, index, _Builder(environment, kernel, contents, directory))
                _prune(directory)
    return found


class _Builder:
    """Builds one image; only one at a time works in `directory`."""

    def __init__(self, environment: Environment, kernel: Kernel, contents: Contents, directory: Path) -> None:
        self._directory = directory
        self._environment = environment
        self._kernel = kernel
        self._contents = contents
        self._archive = Cpio()
        self.sources: dict[Path, tuple[int, int]] = {}

    def build(self) -> bytes:
        archive = self._archive
        for path in ("proc", "sys", "dev", "run", "tmp", "root", "etc", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"):
            archive.directory(path)
        for name in ("bin", "sbin", "lib", "lib64"):
            archive.symlink(name, f"usr/{name}")
        # The kernel opens it for /init before anything is mounted.
        archive.character_device("dev/console", 5, 1)
        archive.file("init", agent.INIT.encode(), 0o755)
        archive.file("usr/sbin/guest-agent", agent.AGENT.encode(), 0o755)
        for name, content in self._contents.files.items():
            self._add(self._place(name), content)
        if self._contents.root is not None:
            archive.directory(_ABOVE_ROOT)
            for path in ("image", "changes", "merged"):
                archive.directory(f".root/{path}")
            archive.file("etc/guest-root", self._contents.root.description.encode())
        self._modules()
        for name in self._contents.firmware:
            self._add(f"usr/lib/firmware/{name}", self._environment.firmware(name))
        for name in ("usr/bin/lspci", "usr/bin/setpci", "usr/bin/kmod"):
            if name not in archive:
                self._add(name, self._environment.path(name))
        for name in _KMOD_NAMES:
            archive.symlink(f"usr/sbin/{name}", "../bin/kmod")
        self._busybox()
        return archive.to_bytes()

    def _place(self, name: str) -> str:
        """Where a file of the guest is in the image."""
        merged = _merged_usr(name)
        if self._contents.root is None or merged.startswith(_READ_BY_INIT):
            return merged
        return f"{_ABOVE_ROOT}/{merged}"

    def _read(self, path: Path) -> bytes:
        try:
            self.sources[path] = _stamp(path)
            return path.read_bytes()
        except OSError as error:
            raise InitramfsError(f"{path} cannot be read: {error.strerror}") from error

    def _add(self, name: str, content: Content) -> None:
        data = self._read(content) if isinstance(content, Path) else content
        if isinstance(data, str):
            data = data.encode()
        executable = data[:2] == b"#!" or elf.is_elf(data)
        executable = executable or (isinstance(content, Path) and os.access(content, os.X_OK))
        name = _merged_usr(name)
        try:
            self._archive.file(name, data, 0o755 if executable else 0o644)
        except ValueError as error:
            raise InitramfsError(str(error)) from error
        if elf.is_elf(data) and not name.endswith(".ko"):
            self._libraries(name, data)

    def _libraries(self, name: str, data: bytes) -> None:
        """Add what a dynamic program needs; files that the caller gives come before the environment's."""
        source = self._environment.path(LIBRARIES)
        given_files = {_merged_usr(path): content for path, content in self._contents.files.items()}

        def find(library: str) -> Path | None:
            given = given_files.get(f"{_GUEST_LIBRARIES}/{library}")
            path = given if isinstance(given, Path) else source / library
            return path if path.exists() else None

        try:
            interpreter, needed = elf.libraries(data, find)
        except ValueError as error:
            raise InitramfsError(f"{name} cannot run in the guest: {error}; link it statically?") from error
        for library, path in needed.items():
            target = f"{_GUEST_LIBRARIES}/{library}"
            if target not in self._archive:
                self._archive.file(target, self._read(path), 0o755)
        loader = _merged_usr(interpreter)
        if loader and loader not in self._archive:
            loader_path = source / Path(loader).name
            if not loader_path.exists():
                raise InitramfsError(
                    f"{name} asks for the dynamic loader {interpreter}, which is not in the environment"
                )
            self._archive.file(loader, self._read(loader_path), 0o755)

    def _busybox(self) -> None:
        busybox = self._environment.path("usr/bin/busybox")
        if "usr/bin/busybox" not in self._archive:
            self._archive.file("usr/bin/busybox", self._read(busybox), 0o755)
        listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in listed:
            if f"usr/bin/{applet}" not in self._archive and f"usr/sbin/{applet}" not in self._archive:
                self._archive.symlink(f"usr/bin/{applet}", "busybox")

    def _modules(self) -> None:
        kernel = self._kernel
        load = [line.split()[0] for line in self._contents.load if line.strip()]
        mounting = self._contents.root.modules if self._contents.root is not None else ()
        closure = kernel.closure([*self._contents.modules, *load, *mounting])
        for name in closure:
            self.sources[kernel.module_files[name]] = _stamp(kernel.module_files[name])
        self._archive.file("etc/modules", "".join(f"{line}\n" for line in self._contents.load).encode())
        folder = f"usr/lib/modules/{kernel.release}"
        self._archive.directory(folder)
        with _scratch(self._directory / "stage") as temporary:
            stage = temporary / folder
            stage.mkdir(parents=True)
            (temporary / "lib").symlink_to("usr/lib")
            for listing in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
                source = kernel.modules / listing if kernel.modules else None
                data = self._read(source) if source is not None and source.exists() else b""
                (stage / listing).write_bytes(data)
            for name, data in closure.items():
                self._archive.file(f"{folder}/{name}.ko", data)
                (stage / f"{name}.ko").write_bytes(data)
            command = self._environment.command("usr/bin/kmod", argv0="depmod")
            done = subprocess.run(
                [*command, "-b", str(temporary), kernel.release], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise InitramfsError(f"depmod failed for kernel {kernel.release}: {done.stderr.strip()}")
            for path in sorted(stage.glob("modules.*")):
                if path.name not in ("modules.order", "modules.builtin.modinfo"):
                    self._archive.file(f"{folder}/{path.name}", path.read_bytes())


def _request_key(environment: Environment, kernel: Kernel, contents: Contents) -> str:
    def describe(content: Content) -> str:
        if isinstance(content, Path):
            return f"file {content.absolute()}"
        data = content.encode() if isinstance(content, str) else content
        return f"data {hashlib.sha256(data).hexdigest()}"

    request = {
        "layout": _LAYOUT,
        "scripts": hashlib.sha256((agent.INIT + agent.AGENT).encode()).hexdigest(),
        "environment": [str(environment.root), environment.manifest.created],
        "kernel": [str(kernel.image), str(kernel.modules), kernel.release],
        "modules": contents.modules,
        "load": contents.load,
        "firmware": contents.firmware,
        "root": contents.root.description if contents.root is not None else "",
        "files": [[name, describe(content)] for name, content in contents.files.items()],
    }
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()[:32]


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """An empty directory for the block; one that a killed builder left is emptied."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _merged_usr(name: str) -> str:
    """`/sbin/x` is `usr/sbin/x`: the short names are symbolic links in the image."""
    name = name.strip("/")
    return f"usr/{name}" if name.split("/")[0] in ("bin", "sbin", "lib", "lib64") else name


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _cached(index: Path) -> Path | None:
    try:
        entry = json.loads(index.read_bytes())
        image: Path = index.parent / entry["image"]
        unchanged = all(_stamp(Path(path)) == tuple(stamp) for path, stamp in entry["sources"].items())
    except (OSError, ValueError, KeyError):
        return None
    if not unchanged:
        return None
    try:
        os.utime(image)  # so `_prune` leaves it to whoever asks for it
    except FileNotFoundError:
        return None
    return image


def _store(directory: Path, index: Path, builder: _Builder) -> Path:
    data = builder.build()
    image = directory / f"{hashlib.sha256(data).hexdigest()[:32]}.cpio"
    cache.write_atomically(image, data)
    sources = {str(path): stamp for path, stamp in builder.sources.items()}
    cache.write_atomically(index, json.dumps({"image": image.name, "sources": sources}).encode())
    return image


def _prune(directory: Path) -> None:
    """Keep the images used last, and every one used within the last hour; drop the rest and what points to them."""
    for age, image in cache.by_age(directory.glob("*.cpio"))[_KEEP_IMAGES:]:
        if age > _IN_USE_SECONDS:
            image.unlink(missing_ok=True)
    for index in directory.glob("*.json"):
        try:
            alive = (directory / json.loads(index.read_bytes())["image"]).exists()
        except (OSError, ValueError, KeyError):
            alive = False
        if not alive:
            index.unlink(missing_ok=True)
    for age, leftover in cache.by_age(directory.glob(".*.cpio.*")):
        if age > _IN_USE_SECONDS:
            leftover.unlink(missing_ok=True)
