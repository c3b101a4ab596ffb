from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.support.guest.samples import RELEASE, bzimage, elf_with_section, environment, module
from vfio_user_xe.emulator.guest import vmlinux
from vfio_user_xe.emulator.guest.errors import KernelError, KernelLacks
from vfio_user_xe.emulator.guest.kernel import Kernel, decompress
from vfio_user_xe.emulator.guest.machine import Machine
from vfio_user_xe.emulator.guest.preparation import GuestSpec, prepare


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A module directory with every compression but zstd."""
    folder = tmp_path / "lib/modules" / RELEASE
    (folder / "kernel/drivers").mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/fs/built-in-one.ko\n")
    drivers = folder / "kernel/drivers"
    (drivers / "plain-top.ko").write_bytes(module("packed_xz,built_in_one"))
    (drivers / "packed-xz.ko.xz").write_bytes(lzma.compress(module("packed_gz")))
    (drivers / "packed-gz.ko.gz").write_bytes(gzip.compress(module()))
    (drivers / "soft.ko").write_bytes(module(softdep="pre: packed-gz absent post: plain-top"))
    (drivers / "broken.ko").write_bytes(module("not_there"))
    (drivers / "foreign.ko").write_bytes(module(release="1.2.3-other"))
    (drivers / "damaged.ko.xz").write_bytes(b"no xz")
    (drivers / "no-elf.ko").write_bytes(b"text")
    return folder


@pytest.fixture
def kernel(tmp_path: Path, modules: Path) -> Kernel:
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage())
    return Kernel.custom(image, modules)


def test_dependencies_come_first_and_built_in_ones_are_left_out(kernel: Kernel) -> None:
    assert list(kernel.closure(["plain-top"])) == ["packed_gz", "packed_xz", "plain_top"]


def test_modules_are_returned_uncompressed(kernel: Kernel) -> None:
    assert kernel.closure(["packed_xz"])["packed_xz"] == module("packed_gz")


def test_hyphen_and_underscore_are_the_same_name(kernel: Kernel) -> None:
    assert list(kernel.closure(["plain_top"])) == list(kernel.closure(["plain-top"]))


def test_soft_dependencies_before_a_module_are_taken_when_they_exist(kernel: Kernel) -> None:
    assert list(kernel.closure(["soft"])) == ["packed_gz", "soft"]


def test_a_built_in_module_needs_nothing(kernel: Kernel) -> None:
    assert kernel.closure(["built-in-one"]) == {}


def test_firmware_can_start_an_image_that_is_an_efi_program_too(tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage())
    assert not Kernel.custom(image, None).efi_stub
    image.write_bytes(b"MZ" + bzimage()[2:])
    assert Kernel.custom(image, None).efi_stub


def test_firmware_that_cannot_start_the_kernel_is_told_before_a_guest_boots(tmp_path: Path) -> None:
    fetched = environment(tmp_path)
    for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"):
        file = fetched.root / "usr/share/OVMF" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with pytest.raises(KernelLacks, match=r"vmlinuz: .* without CONFIG_EFI_STUB"):
        prepare(GuestSpec(accelerator="tcg", environment=fetched, machine=Machine(ovmf=True)))


def test_an_unknown_module_is_named_with_the_kernel(kernel: Kernel) -> None:
    with pytest.raises(KernelError, match=f"kernel {RELEASE} has no module nonsense in "):
        kernel.closure(["nonsense"])


def test_a_module_that_is_optional_is_taken_where_there_is_one(kernel: Kernel) -> None:
    assert list(kernel.closure(["plain-top?", "nonsense?"])) == ["packed_gz", "packed_xz", "plain_top"]
    with pytest.raises(KernelError, match="broken"):
        kernel.closure(["broken?"])


def test_a_missing_dependency_is_named_with_who_needs_it(kernel: Kernel) -> None:
    with pytest.raises(KernelError, match="no module not_there, which broken depends on"):
        kernel.closure(["broken"])


def test_a_module_of_another_kernel_is_refused(kernel: Kernel) -> None:
    with pytest.raises(KernelError, match=r"foreign\.ko is a module of kernel 1\.2\.3-other"):
        kernel.closure(["foreign"])


@pytest.mark.parametrize("name", ["damaged", "no-elf"])
def test_a_damaged_module_is_named(kernel: Kernel, name: str) -> None:
    with pytest.raises(KernelError, match=name):
        kernel.closure([name])


def test_modules_that_depend_on_each_other_do_not_loop(kernel: Kernel, modules: Path) -> None:
    (modules / "kernel/a.ko").write_bytes(module("b"))
    (modules / "kernel/b.ko").write_bytes(module("a"))
    assert set(kernel.closure(["a"])) == {"a", "b"}


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed here; the environment brings its own")
def test_zstd_modules_are_unpacked(tmp_path: Path) -> None:
    packed = subprocess.run(["zstd", "-qc"], input=b"module", capture_output=True, check=True).stdout
    path = tmp_path / "x.ko.zst"
    path.write_bytes(packed)
    assert decompress(path) == b"module"


def test_the_release_is_read_from_the_image(kernel: Kernel) -> None:
    assert kernel.release == RELEASE


def test_the_packaged_kernel_is_found_in_the_environment(tmp_path: Path) -> None:
    kernel = Kernel.packaged(environment(tmp_path))
    assert kernel.release == RELEASE
    assert "top_module" in kernel.module_files


@pytest.mark.parametrize("content", [b"", b"\x7fELF" + bytes(5000), bytes(5000)])
def test_an_image_that_is_no_bzimage_is_refused(tmp_path: Path, content: bytes) -> None:
    image = tmp_path / "vmlinux"
    image.write_bytes(content)
    with pytest.raises(KernelError, match="not a bzImage"):
        Kernel.custom(image, None)


def test_a_missing_image_or_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="nowhere: no such file"):
        Kernel.custom(tmp_path / "nowhere", None)
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage())
    with pytest.raises(KernelError, match="nowhere: no such directory"):
        Kernel.custom(image, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(KernelError, match="holds no modules"):
        Kernel.custom(image, tmp_path / "empty")


@pytest.mark.parametrize("below", ["", "lib/modules", f"lib/modules/{RELEASE}"])
def test_an_installation_root_serves_as_module_directory(tmp_path: Path, modules: Path, below: str) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage())
    assert Kernel.custom(image, tmp_path / below).modules == modules


def test_a_root_with_two_kernels_must_be_narrowed_down(tmp_path: Path, modules: Path) -> None:
    (modules.parent / "other/kernel").mkdir(parents=True)
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage())
    with pytest.raises(KernelError, match="several kernels"):
        Kernel.custom(image, tmp_path)


def pvh_image() -> bytes:
    """An ELF image with a PVH entry note, in a program header."""
    note = struct.pack("<III", 4, 4, 6) + b"GNU\0" + bytes(4) + struct.pack("<III", 4, 4, 18) + b"Xen\0" + bytes(4)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4) + note


@pytest.mark.parametrize(
    "payload",
    [
        gzip.compress(pvh_image()) + b"size",
        lzma.compress(pvh_image()) + b"size",
        lzma.compress(pvh_image(), lzma.FORMAT_ALONE) + b"size",
        bz2.compress(pvh_image()) + b"size",
    ],
    ids=["gzip", "xz", "lzma", "bzip2"],
)
def test_the_kernel_proper_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: bytes) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage(payload=payload))
    unpacked = vmlinux.unpacked(Kernel(image, None))
    assert unpacked is not None
    assert unpacked.read_bytes() == pvh_image()
    again = vmlinux.unpacked(Kernel(image, None))
    assert again == unpacked


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"unknown format",
        lzma.compress(elf_with_section(".text", b"")) + b"size",
        lzma.compress(pvh_image() + b"kasan_multi_shot") + b"size",
    ],
    ids=["nothing", "unknown", "no entry", "KASAN"],
)
def test_a_kernel_that_cannot_be_entered_directly_is_booted_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: bytes
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage(payload=payload))
    assert vmlinux.unpacked(Kernel(image, None)) is None
    assert vmlinux.unpacked(Kernel(image, None)) is None


def test_unpacked_kernels_that_may_be_in_use_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def unpacked(number: int) -> Path:
        image = tmp_path / f"bzImage{number}"
        if not image.exists():
            image.write_bytes(bzimage(payload=gzip.compress(pvh_image()) + b"size"))
        found = vmlinux.unpacked(Kernel(image, None))
        assert found is not None
        return found

    first = [unpacked(number) for number in range(8)]
    assert all(image.exists() for image in first)
    for image in first[:6]:
        os.utime(image, (0, 0))
    assert unpacked(0) == first[0]
    unpacked(8)
    # The six used last are kept, of those that nobody used for an hour.
    assert [image.exists() for image in first].count(True) == 5
    assert all(image.exists() for image in (first[0], *first[6:]))


def test_an_unpacked_kernel_that_is_removed_while_it_is_looked_for_is_unpacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage(payload=gzip.compress(pvh_image()) + b"size"))
    found = vmlinux.unpacked(Kernel(image, None))
    assert found is not None
    touch = os.utime

    def too_late(path: Path) -> None:
        path.unlink(missing_ok=True)
        touch(path)

    monkeypatch.setattr(os, "utime", too_late)
    again = vmlinux.unpacked(Kernel(image, None))
    assert again is not None
    assert again.read_bytes() == pvh_image()
