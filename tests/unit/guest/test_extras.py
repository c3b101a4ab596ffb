"""What a guest can be given besides a card: each is checked before anything is started."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest import host
from vfio_user_xe.emulator.guest.errors import NotUsable
from vfio_user_xe.emulator.guest.extras import (
    Share,
    check_hugepages,
    gdb_arguments,
    qmp_arguments,
    symbols_of,
    words_of,
)
from vfio_user_xe.emulator.guest.kernel import Kernel


def test_a_folder_is_shared_under_its_name_or_where_one_wants(tmp_path: Path) -> None:
    assert Share.parse(str(tmp_path), 1) == Share(tmp_path, f"/mnt/{tmp_path.name}", "share1")
    assert Share.parse(f"{tmp_path}:/data", 2) == Share(tmp_path, "/data", "share2")


def test_a_comma_in_a_path_is_told_to_qemu(tmp_path: Path) -> None:
    odd = tmp_path / "a,b"
    odd.mkdir()
    assert f"path={tmp_path}/a,,b,security_model=none" in Share.parse(str(odd), 1).arguments()[1]
    assert qmp_arguments(odd / "q")[1].startswith(f"unix:{tmp_path}/a,,b/q,server=on")


@pytest.mark.parametrize(("text", "said"), [("{}/none", "there is no folder"), ("{}:data", "must be absolute")])
def test_a_share_that_cannot_be_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(NotUsable, match=said):
        Share.parse(text.format(tmp_path), 1)


@pytest.mark.parametrize(
    ("free", "memory", "said"),
    [(512, 1024, None), (511, 1023, "sysctl vm.nr_hugepages=513"), (512, 1025, r"are 513 pages.*vm\.nr_hugepages=513")],
)
def test_huge_pages_that_lack_are_counted(
    free: int, memory: int, said: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "meminfo"
    file.write_text(f"MemTotal: 1 kB\nHugePages_Total: 512\nHugePages_Free: {free}\nHugepagesize: 2048 kB\n")
    monkeypatch.setattr(host, "_MEMINFO", file)
    if memory == 1023:  # 512 pages, of which one is in use
        with pytest.raises(NotUsable, match=str(said)):
            check_hugepages(memory)
    elif said is None:
        check_hugepages(memory)
    else:
        with pytest.raises(NotUsable, match=said):
            check_hugepages(memory)


def test_a_port_in_use_is_told_before_qemu_is_started() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NotUsable, match=f"--gdb {port}: Address already in use"):
            gdb_arguments(port, wait=False)
    assert gdb_arguments(port, wait=True) == ["-gdb", f"tcp:127.0.0.1:{port}", "-S"]


def test_a_socket_s_path_is_checked(tmp_path: Path) -> None:
    with pytest.raises(NotUsable, match="at most 107 bytes"):
        qmp_arguments(tmp_path / ("x" * 120))
    with pytest.raises(NotUsable, match="there is no folder"):
        qmp_arguments(tmp_path / "none" / "qmp")
    (tmp_path / "file").touch()
    with pytest.raises(NotUsable, match="is no socket"):
        qmp_arguments(tmp_path / "file")


def test_arguments_of_qemu_are_split_as_a_shell_does() -> None:
    assert words_of("-device 'e1000,id=a b'") == ["-device", "e1000,id=a b"]
    with pytest.raises(NotUsable, match="No closing quotation"):
        words_of("-name 'x")
    with pytest.raises(NotUsable, match="want options of QEMU"):
        words_of("e1000")


def test_the_symbols_of_a_kernel_are_those_of_its_object_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "arch" / "x86" / "boot" / "bzImage"
    image.parent.mkdir(parents=True)
    header = bytearray(0x400)
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, 0x100)
    image.write_bytes(header)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert symbols_of(Kernel(image, None)) == (None, False)
    (tmp_path / "vmlinux").touch()
    assert symbols_of(Kernel(image, None)) == (tmp_path / "vmlinux", True)
