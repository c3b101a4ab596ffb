"""A guest's own root file system: an image or a folder of the host, read-only, with a layer in memory for changes.

/init of the initramfs mounts it and lays an overlay over it (`agent.INIT`); the agent stays in the initramfs and runs the
commands inside.  What the initramfs holds is below the root file system: kernel modules, firmware, busybox where the root
has no such program.  Files that the caller gives are above it.

An image is a virtio disk, a folder is 9p; docs/guest.md has the figures that decided it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfio_user_xe.emulator.guest.errors import RootError

TAG = "guest-root"
"""The disk's serial number, the folder's mount tag."""

# A slot that QEMU gives to no device by itself as long as lower ones are free, so the card's place stays what it is.
_ADDRESS = "1e"

FOLDER = "9p"
# By file system, where its magic number is and what: linux/magic.h, and the superblocks' layouts.
_MAGIC = {
    "erofs": (1024, b"\xe2\xe1\xf5\xe0"),
    "squashfs": (0, b"hsqs"),
    "ext4": (1024 + 56, b"\x53\xef"),
}
# noload: a journal cannot be replayed on a read-only disk.
_OPTIONS = {
    FOLDER: "ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000",
    "ext4": "ro,noload",
}
_MODULES = {FOLDER: ("virtio_pci", "9pnet_virtio", "9p")}


@dataclass(frozen=True)
class RootFileSystem:
    """What a guest's root is made of; `type` is the file system's name in the kernel."""

    path: Path
    type: str

    @staticmethod
    def at(path: Path) -> RootFileSystem:
        """The root file system in a folder or an image.

        Raises:
            RootError: `path` is neither, or cannot be read.
        """
        path = path.absolute()
        if path.is_dir():
            return RootFileSystem(path, FOLDER)
        try:
            with path.open("rb") as file:
                head = file.read(2048)
        except OSError as error:
            raise RootError(f"root file system {path}: {error.strerror}") from error
        for kind, (offset, magic) in _MAGIC.items():
            if head[offset : offset + len(magic)] == magic:
                return RootFileSystem(path, kind)
        raise RootError(f"root file system {path}: neither a folder nor an image of {', '.join(_MAGIC)}")

    @property
    def modules(self) -> tuple[str, ...]:
        """Kernel modules that mounting it takes, for a kernel that has them as modules."""
        needed = _MODULES.get(self.type, ("virtio_pci", "virtio_blk", self.type))
        return tuple(f"{name}?" for name in (*needed, "overlay"))

    @property
    def description(self) -> str:
        """Shell assignments for /init."""
        modules = " ".join(name.rstrip("?") for name in self.modules)
        return f"type={self.type}\noptions={_OPTIONS.get(self.type, 'ro')}\ntag={TAG}\nmodules='{modules}'\n"

    def arguments(self) -> list[str]:
        """The device, for QEMU's command line."""
        path = str(self.path).replace(",", ",,")
        place = f"bus=pcie.0,addr={_ADDRESS}"
        if self.type == FOLDER:
            return [
                "-fsdev",
                f"local,id={TAG},path={path},security_model=none,readonly=on,multidevs=remap",
                "-device",
                f"virtio-9p-pci,fsdev={TAG},mount_tag={TAG},{place}",
            ]
        return [
            "-drive",
            f"if=none,id={TAG},file={path},format=raw,readonly=on",
            "-device",
            f"virtio-blk-pci,drive={TAG},serial={TAG},{place}",
        ]
