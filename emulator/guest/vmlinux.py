"""The kernel proper out of a bzImage, unpacked once on the host.

Under TCG a guest spends a second or two on unpacking its own kernel at each boot.  QEMU can start the unpacked ELF
image through its PVH entry point instead (CONFIG_PVH, which distributions set); the kernel is the same, only its
load address is not randomised.  Layout: Documentation/arch/x86/boot.rst (payload_offset, payload_length),
scripts/Makefile.lib (a 4-byte size after all but gzip), xen/interface/elfnote.h (the entry point's note).
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import mmap
import os
import struct
import subprocess
import zlib
from pathlib import Path

from vfio_user_xe.emulator.guest import cache, elf
from vfio_user_xe.emulator.guest.kernel import Kernel

_XEN_ELFNOTE_PHYS32_ENTRY = 18
_KEEP = 6
_IN_USE_SECONDS = 3600
_KASAN = b"kasan_multi_shot"
"""A parameter that only kernels with KASAN have (mm/kasan/report.c)."""


def unpacked(kernel: Kernel) -> Path | None:
    """The ELF image inside `kernel.image`, from the cache or unpacked now; None when it has to be booted as it is."""
    status = kernel.image.stat()
    identity = f"{kernel.image} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
    directory = cache.cache_dir() / "kernels"
    target = directory / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.elf"
    if not _touched(target):
        with cache.lock(directory / "lock"):
            if not _touched(target):
                image = payload(kernel.image.read_bytes(), kernel.zstd)
                # An empty file remembers that there is nothing to unpack.
                cache.write_atomically(target, image if image is not None and _starts_by_pvh(image) else b"")
                _prune(directory)
    return target if target.stat().st_size else None


def contains(kernel: Kernel, text: bytes) -> bool:
    """Whether the kernel proper has these bytes: a parameter's name, say, that only some configurations have."""
    image = unpacked(kernel)
    if image is None:
        return text in (payload(kernel.image.read_bytes(), kernel.zstd) or b"")
    with image.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return mapped.find(text) >= 0


def payload(image: bytes, zstd: tuple[str, ...]) -> bytes | None:
    """The kernel proper in the content of a bzImage; None where it cannot be unpacked. `zstd` is the command for that form."""
    if image[0x202:0x206] != b"HdrS" or struct.unpack_from("<H", image, 0x206)[0] < 0x208:
        return None
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    data = image[start : start + length]
    try:
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            return subprocess.run([*zstd, "-dcq"], input=data[:-4], capture_output=True, check=True).stdout
        if data.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(data)
        if data.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
            return lzma.decompress(data[:-4])
        if data.startswith(b"BZh"):
            return bz2.decompress(data[:-4])
    except (OSError, ValueError, zlib.error, lzma.LZMAError, subprocess.CalledProcessError):
        return None
    return None


def _starts_by_pvh(image: bytes) -> bool:
    # With KASAN that entry point may end in a triple fault: it calls memcmp(), which looks at shadow memory that is not
    # mapped yet (seen with 7.3.4, gcc 12 and -Os).
    if _KASAN in image:
        return False
    try:
        return any(note == (b"Xen", _XEN_ELFNOTE_PHYS32_ENTRY) for note in elf.notes(image))
    except ValueError:
        return False


def _touched(target: Path) -> bool:
    """Whether it is there; `_prune` of another process leaves it from now on."""
    try:
        os.utime(target)
    except FileNotFoundError:
        return False
    return True


def _prune(directory: Path) -> None:
    """Keep the images used last, and every one used within the last hour."""
    for age, image in cache.by_age(directory.glob("*.elf"))[_KEEP:]:
        if age > _IN_USE_SECONDS:
            image.unlink(missing_ok=True)
