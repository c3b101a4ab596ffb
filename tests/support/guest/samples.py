"""Small made-up files for the tests of the guest runner: ELF modules and programs, a cpio reader, an environment."""

from __future__ import annotations

import struct
from pathlib import Path

from vfio_user_xe.emulator.guest.environment import LIBRARIES, LOADER, Environment, Manifest, Qemu

RELEASE = "7.0.0-test"


def elf_with_section(name: str, content: bytes) -> bytes:
    """A 64-bit ELF file with one section of that name and a section name table."""
    names = b"\0" + name.encode() + b"\0.shstrtab\0"
    content_at = 64
    names_at = content_at + len(content)
    table_at = names_at + len(names)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 3, 2)

    def section(name_at: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name_at, 1, 0, 0, offset, size, 0, 0, 1, 0)

    table = bytes(64) + section(1, content_at, len(content)) + section(2 + len(name), names_at, len(names))
    return header + content + names + table


def module(depends: str = "", softdep: str = "", release: str = RELEASE, comment: str = "") -> bytes:
    """A kernel module as far as its `.modinfo` section goes."""
    entries = [f"vermagic={release} SMP preempt mod_unload ", f"depends={depends}", f"description={comment}"]
    if softdep:
        entries.append(f"softdep={softdep}")
    return elf_with_section(".modinfo", b"".join(entry.encode() + b"\0" for entry in entries))


def bzimage(release: str = RELEASE, payload: bytes = b"") -> bytes:
    """A kernel image as far as its boot header goes; `payload` is the compressed kernel."""
    image = bytearray(0x1000)
    image[0x1F1] = 4
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    struct.pack_into("<H", image, 0x20E, 0x600)
    text = f"{release} (builder@host) #1 SMP\0".encode()
    image[0x800 : 0x800 + len(text)] = text
    struct.pack_into("<II", image, 0x248, len(image) - 5 * 512, len(payload))
    return bytes(image) + payload


def program(needed: list[str], interpreter: str = "/lib64/ld-linux-x86-64.so.2") -> bytes:
    """A dynamic program as far as its dynamic section goes; no interpreter and nothing needed is a static one."""
    strings = b"\0"
    tags = []
    for name in needed:
        tags.append((1, len(strings)))
        strings += name.encode() + b"\0"
    interp = interpreter.encode() + b"\0" if interpreter else b""
    interp_at = 64 + 3 * 56
    strings_at = interp_at + len(interp)
    dynamic_at = (strings_at + len(strings) + 15) // 16 * 16
    # Loaded elsewhere than it lies in the file, as real programs are.
    base = 0x400000
    tags += [(5, base + strings_at), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
    end = dynamic_at + len(dynamic)

    def segment(kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, 4, offset, base + offset, base + offset, size, size, 8)

    segments = segment(1, 0, end)
    segments += segment(3, interp_at, len(interp)) if interp else segment(0, 0, 0)
    segments += segment(2, dynamic_at, len(dynamic)) if needed or interpreter else segment(0, 0, 0)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 64, 0, 0)
    data = header + segments + interp + strings
    return data + bytes(dynamic_at - len(data)) + dynamic


def read_cpio(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content by name of a newc archive, read by the format's own rules."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701", f"no header at {at}"
        numbers = [int(archive[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        assert archive[at + 110 + name_size - 1] == 0
        start = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            assert len(archive) == start
            return found
        assert name not in found, f"{name} twice"
        found[name] = (mode, archive[start : start + size])
        at = (start + size + 3) & ~3


def environment(directory: Path) -> Environment:
    """A guest environment whose programs are stand-ins; its dynamic loader plays depmod."""
    root = directory / "root"
    manifest = Manifest({"kmod": "1"}, RELEASE, "11.1", 1, 2, "2026-01-01T00:00:00+00:00")
    modules = root / "usr/lib/modules" / RELEASE
    files = {
        LOADER: b'#!/bin/sh\nfor last; do :; done\necho indexed >"$7/lib/modules/$last/modules.dep.bin"\n',
        f"{LIBRARIES}/libc.so.6": program([], ""),
        f"{LIBRARIES}/libkmod.so.2": program(["libc.so.6"], ""),
        "usr/bin/kmod": program(["libkmod.so.2", "libc.so.6"]),
        "usr/bin/lspci": program(["libc.so.6"]),
        "usr/bin/setpci": program(["libc.so.6"]),
        "usr/bin/busybox": b"#!/bin/sh\nprintf 'sh\\nls\\nmodprobe\\nlspci\\n'\n",
        "usr/lib/firmware/xe/bmg_guc_70.bin": b"firmware",
        f"usr/lib/modules/{RELEASE}/vmlinuz": bzimage(),
        f"usr/lib/modules/{RELEASE}/modules.builtin": b"kernel/lib/crc-thing.ko\n",
        f"usr/lib/modules/{RELEASE}/kernel/drivers/top-module.ko": module("middle,crc_thing"),
        f"usr/lib/modules/{RELEASE}/kernel/drivers/middle.ko": module("bottom"),
        f"usr/lib/modules/{RELEASE}/kernel/lib/bottom.ko": module(),
        f"usr/lib/modules/{RELEASE}/kernel/lib/unused.ko": module(),
    }
    modules.mkdir(parents=True)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name in (LOADER, "usr/bin/busybox"):
        (root / name).chmod(0o755)
    (directory / "manifest.json").write_bytes(manifest.to_json())
    return Environment(root, manifest, Qemu(("/bin/false",), {}, "11.1", "fetched"))
