"""Archives in the kernel's initramfs format ("newc", Documentation/driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat

_DIRECTORY = stat.S_IFDIR | 0o755


class Cpio:
    """Collects files, symbolic links, device nodes and their parent directories; `to_bytes` gives the archive.

    Owner is root, times are zero and entries are in the order of adding, so the same contents give the same bytes.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def __contains__(self, path: str) -> bool:
        return _relative(path) in self._names

    def directory(self, path: str) -> None:
        """Add a directory (0755) and those above it; adding it again does nothing."""
        name = _relative(path)
        if not name or name in self._names:
            return
        self._parents(name)
        self._entry(name, _DIRECTORY, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file.

        Raises:
            ValueError: the path is taken, or `data` is 4 GiB or more.
        """
        if len(data) >= 1 << 32:
            raise ValueError(f"{path}: {len(data)} bytes do not fit into an initramfs (limit 4 GiB)")
        self._new(path, stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link.

        Raises:
            ValueError: the path is taken.
        """
        self._new(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node.

        Raises:
            ValueError: the path is taken.
        """
        self._new(path, stat.S_IFCHR | mode, b"", major, minor)

    def to_bytes(self) -> bytes:
        """The archive with its trailer."""
        return b"".join([*self._parts, _member(0, "TRAILER!!!", 0, b"")])

    def _new(self, path: str, mode: int, data: bytes, major: int = 0, minor: int = 0) -> None:
        name = _relative(path)
        if name in self._names or not name:
            raise ValueError(f"{path} is in the initramfs already")
        self._parents(name)
        self._entry(name, mode, data, major, minor)

    def _parents(self, name: str) -> None:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/".join(parts[:depth])
            if parent not in self._names:
                self._entry(parent, _DIRECTORY, b"")

    def _entry(self, name: str, mode: int, data: bytes, major: int = 0, minor: int = 0) -> None:
        self._names.add(name)
        self._parts.append(_member(len(self._names), name, mode, data, major, minor))


def _member(inode: int, name: str, mode: int, data: bytes, major: int = 0, minor: int = 0) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    numbers = (inode, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + encoded) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _relative(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"{path}: a path in an initramfs cannot contain ..")
    return "/".join(parts)
