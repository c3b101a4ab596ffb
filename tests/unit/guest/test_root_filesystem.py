from __future__ import annotations

from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest.errors import RootError
from vfio_user_xe.emulator.guest.root_filesystem import RootFileSystem


@pytest.mark.parametrize(
    ("kind", "offset", "magic"),
    [("erofs", 1024, b"\xe2\xe1\xf5\xe0"), ("squashfs", 0, b"hsqs"), ("ext4", 1080, b"\x53\xef")],
)
def test_an_image_is_known_by_its_magic_number_and_is_a_read_only_disk(
    tmp_path: Path, kind: str, offset: int, magic: bytes
) -> None:
    image = tmp_path / "root,1.img"
    image.write_bytes(bytes(offset) + magic + bytes(4096))
    root = RootFileSystem.at(image)
    assert root.type == kind
    assert f"file={tmp_path}/root,,1.img,format=raw,readonly=on" in root.arguments()[1]
    assert f"{kind}?" in root.modules


def test_a_folder_is_shared_read_only(tmp_path: Path) -> None:
    root = RootFileSystem.at(tmp_path)
    assert root.type == "9p"
    assert "readonly=on" in root.arguments()[1]
    assert "options=ro,trans=virtio" in root.description


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(RootError, match="neither a folder nor an image of erofs, squashfs, ext4"):
        RootFileSystem.at(tmp_path / "text")
    with pytest.raises(RootError, match="No such file"):
        RootFileSystem.at(tmp_path / "absent")
