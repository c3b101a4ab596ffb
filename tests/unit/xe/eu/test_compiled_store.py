"""Compiled kernels in the cache folder."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest

from tests.unit.xe.eu.compiled_rig import loaded
from tests.unit.xe.eu.kernel import END, reader
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.compiled import build, kernel, store
from vfio_user_xe.device_models.xe.eu.compiled.kernel import load_kernel
from vfio_user_xe.device_models.xe.eu.compiled.layout import Reason
from vfio_user_xe.device_models.xe.eu.compiled.memory import Map
from vfio_user_xe.device_models.xe.eu.compiled.slot import Slot, Walk
from vfio_user_xe.device_models.xe.eu.decode import Reader, decode

TEXT = """
    mov (16|M0)  r20.0<1>:d  0:w
loop:
    add (16|M0)  r20.0<1>:d  r20.0<1;1,0>:d  {step}:w
    cmp (16|M0) (lt)f0.0  null<1>:d  r20.0<1;1,0>:d  100:w
    (f0.0) goto (16|M0)  loop  loop
"""


@pytest.fixture
def decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """An empty cache folder; a mock in place of `decode` that decodes, and counts."""
    library = loaded()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "library", lambda: library)
    counted = create_autospec(decode, side_effect=decode)
    monkeypatch.setattr(kernel, "decode", counted)
    return counted


def result(read: Reader, entry: int) -> int:
    """What the kernel at `entry` leaves in r20."""
    slot = Slot(Map(loaded()), 1)
    compiled = load_kernel(read, entry, loaded())
    slot.begin(Walk(compiled, np.zeros((1, 64), np.uint8), [0xFFFF], entry, (1, 1, 1)))
    assert slot.run(1 << 20) is Reason.GONE
    return int(slot.registers[0, 20 * 64 : 20 * 64 + 4].view(np.int32)[0])


def test_same_code_is_decoded_once_wherever_it_lies(decodes: object) -> None:
    code = assemble(TEXT.format(step=7) + END)
    assert result(reader(code), 0) == 105
    assert result(reader(code), 0) == 105
    assert result(reader(code, base=0x1_4000), 0x1_4000) == 105
    assert decodes.call_count == 1  # type: ignore[attr-defined]


def test_other_code_behind_the_same_beginning_is_not_mistaken(decodes: object) -> None:
    beginning = "mov (16|M0)  r21.0<1>:d  0:w\n" * 40
    first = assemble(beginning + TEXT.format(step=7) + END)
    other = assemble(beginning + TEXT.format(step=30) + END)
    assert result(reader(first), 0) == 105
    assert result(reader(other), 0) == 120
    assert decodes.call_count == 2  # type: ignore[attr-defined]


def test_damaged_file_is_not_believed(decodes: object, tmp_path: Path) -> None:
    code = assemble(TEXT.format(step=7) + END)
    result(reader(code), 0)
    (file,) = (tmp_path / "vfio-user-xe" / "eu" / "kernels").iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert result(reader(code), 0) == 105
    file.write_bytes(b"short")
    assert result(reader(code), 0) == 105
    assert decodes.call_count == 3  # type: ignore[attr-defined]


def test_folder_does_not_grow_for_ever(decodes: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FILES_AT_MOST", 4)
    for step in range(1, 12):
        result(reader(assemble(TEXT.format(step=step) + END)), 0)
    assert len(list((tmp_path / "vfio-user-xe" / "eu" / "kernels").iterdir())) <= 4


def test_full_disk_is_no_failure(decodes: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "keep", full)
    assert result(reader(assemble(TEXT.format(step=7) + END)), 0) == 105
