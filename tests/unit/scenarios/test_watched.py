"""What the judge wants of a kernel before it boots."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest import vmlinux
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.kernel_reports import parse, reports
from vfio_user_xe.emulator.scenarios.excuses import asked_for
from vfio_user_xe.emulator.scenarios.watched import command_line


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (b"..kasan_multi_shot..", {"kasan_multi_shot", "no5lvl"}),
        (b"\x006Kernel memory leak detector initialized", {"kmemleak=on"}),
        (b"no such thing", set()),
    ],
)
def test_a_kernel_with_kasan_or_kmemleak_is_told_to_report_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: bytes, wanted: set[str]
) -> None:
    unpacked = tmp_path / "vmlinux"
    unpacked.write_bytes(image)
    monkeypatch.setattr(vmlinux, "unpacked", lambda kernel: unpacked)
    words = command_line(Kernel(Path("bzImage"), None)).split()
    assert set(words) & {"kasan_multi_shot", "no5lvl", "kmemleak=on"} == wanted
    assert "log_buf_len=4M" in words


def test_kmemleak_that_is_switched_off_may_say_so_once() -> None:
    assert asked_for("quiet kmemleak=on") == []
    (excuse,) = asked_for("kmemleak=on quiet kmemleak=off")
    (said,) = reports(parse("kmemleak: Kernel memory leak detector disabled"))
    assert excuse.covers(said)
    assert excuse.count == 1
