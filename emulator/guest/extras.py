"""What a guest can be given besides a card, each checked before anything is started: shared folders, huge pages, a debugger, QMP."""

from __future__ import annotations

import shlex
import socket
from dataclasses import dataclass
from pathlib import Path

from vfio_user_xe.emulator.guest import vmlinux
from vfio_user_xe.emulator.guest.errors import NotUsable
from vfio_user_xe.emulator.guest.host import meminfo
from vfio_user_xe.emulator.guest.kernel import Kernel, object_folder

SHARE_MODULES = ("virtio_pci?", "9pnet_virtio?", "9p?")
"""What mounting a shared folder takes, of a kernel that has it as modules."""
_MOST_OF_A_SOCKET = 107
"""Bytes of a Unix socket's path (unix(7))."""


@dataclass(frozen=True, slots=True)
class Share:
    """A folder of the host in the guest, over 9p; what the guest writes is in the folder."""

    folder: Path
    path: str
    tag: str

    @staticmethod
    def parse(text: str, number: int) -> Share:
        """From FOLDER or FOLDER:PATH; without a path it is /mnt/NAME.

        Raises:
            NotUsable: there is no such folder, or the path is not absolute.
        """
        name, colon, path = text.rpartition(":")
        folder = Path(name if colon else text).absolute()
        path = path if colon else f"/mnt/{folder.name}"
        if not folder.is_dir():
            raise NotUsable(f"--share {text}: there is no folder {folder}; want FOLDER or FOLDER:PATH")
        if not path.startswith("/"):
            raise NotUsable(f"--share {text}: the path in the guest must be absolute, such as /mnt/{folder.name}")
        return Share(folder, path, f"share{number}")

    def arguments(self) -> list[str]:
        """The device, for QEMU's command line."""
        path = str(self.folder).replace(",", ",,")
        return [
            *("-fsdev", f"local,id={self.tag},path={path},security_model=none,multidevs=remap"),
            *("-device", f"virtio-9p-pci,fsdev={self.tag},mount_tag={self.tag}"),
        ]

    def mount(self) -> str:
        """Shell for the guest; it fails with a message where the kernel has no 9p."""
        path = shlex.quote(self.path)
        return (
            "for module in virtio_pci 9pnet_virtio 9p; do modprobe $module 2>/dev/null; done\n"
            f"mkdir -p {path} && mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 {self.tag} {path} || "
            "{ echo 'a shared folder needs CONFIG_NET_9P_VIRTIO and CONFIG_9P_FS in the guest' >&2; exit 1; }"
        )


def check_hugepages(memory: int) -> None:
    """Whether the host has free huge pages for `memory` MiB.

    Raises:
        NotUsable: it has not; the text has the command that makes them.
    """
    found = meminfo()
    size, free = found.get("Hugepagesize", 0), found.get("HugePages_Free", 0)
    if not size:
        raise NotUsable("--hugepages: this kernel has no huge pages (CONFIG_HUGETLBFS)")
    wanted = -(-memory * 1024 // size)
    if free < wanted:
        total = found.get("HugePages_Total", 0) + wanted - free
        raise NotUsable(
            f"--hugepages: {memory} MiB are {wanted} pages of {size} kB, and {free} are free: sysctl vm.nr_hugepages={total}"
        )


def gdb_arguments(port: int, *, wait: bool) -> list[str]:
    """QEMU's stub for a debugger, on this machine only; `wait`: the processor stands still until the debugger lets it go.

    Raises:
        NotUsable: the port is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise NotUsable(f"--gdb {port}: {error.strerror}; name another port") from error
    return ["-gdb", f"tcp:127.0.0.1:{port}", *(["-S"] if wait else [])]


def symbols_of(kernel: Kernel) -> tuple[Path | None, bool]:
    """The vmlinux for a debugger, and whether it has symbols: that of the object folder, else the one out of the image."""
    built = object_folder(kernel.image)
    if built is not None and (built / "vmlinux").is_file():
        return built / "vmlinux", True
    return vmlinux.unpacked(kernel), False


def qmp_arguments(path: Path) -> list[str]:
    """A further QMP socket, for `guest plug` and other programs.

    Raises:
        NotUsable: the path is too long for a socket, or cannot be one.
    """
    path = path.absolute()
    if len(str(path).encode()) > _MOST_OF_A_SOCKET:
        raise NotUsable(f"--qmp {path}: a socket's path has at most {_MOST_OF_A_SOCKET} bytes")
    if not path.parent.is_dir():
        raise NotUsable(f"--qmp {path}: there is no folder {path.parent}")
    if path.exists() and not path.is_socket():
        raise NotUsable(f"--qmp {path}: is there, and is no socket")
    name = str(path).replace(",", ",,")
    return ["-qmp", f"unix:{name},server=on,wait=off"]


def words_of(text: str) -> list[str]:
    """QEMU's arguments as a shell splits them.

    Raises:
        NotUsable: a quote is not closed, or the first word is no option.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise NotUsable(f"--qemu-args {text!r}: {error}") from error
    if words and not words[0].startswith("-"):
        raise NotUsable(f"--qemu-args {text!r}: want options of QEMU, such as '-device e1000'")
    return words
