from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.guest.samples import program
from vfio_user_xe.emulator.guest import elf


def test_needed_libraries_and_interpreter_are_read() -> None:
    assert elf.dynamic(program(["libx.so.1", "libc.so.6"])) == elf.Dynamic(
        "/lib64/ld-linux-x86-64.so.2", ("libx.so.1", "libc.so.6")
    )


def test_a_static_program_needs_nothing() -> None:
    assert elf.dynamic(program([], "")) == elf.Dynamic()


def test_a_real_program_is_understood() -> None:
    found = elf.dynamic(Path(sys.executable).resolve().read_bytes())
    assert "ld-linux" in found.interpreter
    assert "libc.so.6" in found.needed


def test_libraries_of_libraries_are_found(tmp_path: Path) -> None:
    (tmp_path / "liba.so").write_bytes(program(["libb.so"], ""))
    (tmp_path / "libb.so").write_bytes(program(["liba.so"], ""))
    _, found = elf.libraries(program(["liba.so"]), lambda name: tmp_path / name)
    assert set(found) == {"liba.so", "libb.so"}


def test_a_missing_library_is_named_with_who_needs_it(tmp_path: Path) -> None:
    (tmp_path / "liba.so").write_bytes(program(["libgone.so"], ""))

    def find(name: str) -> Path | None:
        return tmp_path / name if name == "liba.so" else None

    with pytest.raises(ValueError, match=r"liba\.so needs the library libgone\.so"):
        elf.libraries(program(["liba.so"]), find)


@pytest.mark.parametrize("length", [0, 6, 40, 64, 100])
def test_a_cut_off_file_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="ELF"):
        elf.dynamic(program(["liba.so"])[:length])


def test_of_a_real_program_the_contents_of_a_section_and_the_notes_are_read() -> None:
    data = Path("/proc/self/exe").resolve().read_bytes()
    assert elf.section(data, ".interp").rstrip(b"\0").decode() == elf.dynamic(data).interpreter
    assert elf.section(data, ".there-is-none") == b""
    assert b"GNU" in {owner for owner, _ in elf.notes(data)}


@pytest.mark.parametrize(
    "read", [elf.segments, lambda data: elf.section(data, ".interp"), lambda d: list(elf.notes(d))]
)
def test_tables_that_lie_outside_of_the_file_are_an_error(read: Callable[[bytes], object]) -> None:
    data = Path("/proc/self/exe").resolve().read_bytes()
    assert read(data)
    with pytest.raises(ValueError, match="damaged ELF file"):
        read(data[:0x20] + struct.pack("<QQ", len(data), len(data)) + data[0x30:])
