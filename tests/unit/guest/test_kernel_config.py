"""Fragments of a configuration, and what a kernel lacks of them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest.kernel_config import (
    ConfigError,
    Loss,
    Row,
    missing,
    parse,
    read_config,
    rows,
    table,
)

FRAGMENT = """# not a row

## boot: by hand
#! PCI: no device is found
#- FAST: it is slow
#- something is lost
CONFIG_PCI=y
CONFIG_FAST=y
CONFIG_PORTS=4
CONFIG_MORE=m

## off
#- HARMFUL: KASAN is disabled
# CONFIG_HARMFUL is not set
# CONFIG_LARGE is not set
"""


@pytest.fixture
def fragment(tmp_path: Path) -> Path:
    file = tmp_path / "some.config"
    file.write_text(FRAGMENT)
    return file


def test_a_row_says_what_its_options_are_for_and_what_is_lost_without_them(fragment: Path) -> None:
    boot, off = rows(fragment)
    assert boot == Row(
        "boot",
        "by hand",
        {"PCI": "y", "FAST": "y", "PORTS": "4", "MORE": "m"},
        (
            Loss("no device is found", ("PCI",), fatal=True),
            Loss("it is slow", ("FAST",)),
            Loss("something is lost"),
        ),
    )
    assert off.wanted == {"HARMFUL": "n", "LARGE": "n"}


def test_the_table_has_a_line_a_row(fragment: Path) -> None:
    assert table(fragment).splitlines()[2] == (
        "| boot | `PCI FAST PORTS=4 MORE=m`; by hand | `PCI`: no device is found; `FAST`: it is slow; something is lost |"
    )


def lacks(text: str, fragment: Path) -> list[tuple[str, str, bool]]:
    return [(item.option, item.loss, item.fatal) for item in missing(parse(text), rows(fragment))]


WHOLE = "CONFIG_PCI=y\nCONFIG_FAST=y\nCONFIG_PORTS=32\nCONFIG_MORE=y\n"


def test_a_configuration_with_everything_lacks_nothing(fragment: Path) -> None:
    assert lacks(WHOLE, fragment) == []
    assert lacks(WHOLE.replace("FAST=y", "FAST=m").replace("MORE=y", "MORE=m"), fragment) == []
    assert lacks(f"{WHOLE}CONFIG_LARGE=y\n", fragment) == [], "what is only to be off costs nothing"


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        (WHOLE.replace("CONFIG_PCI=y", "# CONFIG_PCI is not set"), ("PCI", "no device is found", True)),
        (WHOLE.replace("PCI=y", "PCI=m"), ("PCI", "no device is found", True)),
        (WHOLE.replace("CONFIG_FAST=y", ""), ("FAST", "it is slow", False)),
        (WHOLE.replace("32", "2"), ("PORTS", "something is lost", False)),
        (WHOLE.replace("CONFIG_MORE=y", ""), ("MORE", "something is lost", False)),
        (f"{WHOLE}CONFIG_HARMFUL=y\n", ("HARMFUL", "KASAN is disabled", False)),
    ],
)
def test_what_is_lost_is_told_for_each_option(fragment: Path, text: str, lost: tuple[str, str, bool]) -> None:
    assert lacks(text, fragment) == [lost]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CONFIG_A=y\n", "belongs to no row"),
        ("## a\nA=y\n", "is no option"),
        ("## a\n#- B: gone\nCONFIG_A=y\n", "a loss names B"),
    ],
)
def test_what_is_no_fragment_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "some.config"
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"some\.config.*{said}"):
        rows(file)


def image(payload: bytes) -> bytes:
    """A bzImage of version 9.9.9 with a gzip payload."""
    packed = gzip.compress(payload)
    header = bytearray(0x400)
    header[0x1F1] = 1
    header[0x202:0x208] = b"HdrS\x0f\x02"
    struct.pack_into("<H", header, 0x20E, 0x100)
    struct.pack_into("<II", header, 0x248, 0, len(packed))
    header[0x300:0x306] = b"9.9.9\0"
    return bytes(header) + packed


def test_an_image_that_has_its_configuration_tells_it(tmp_path: Path) -> None:
    file = tmp_path / "bzImage"
    file.write_bytes(image(b"\0" * 99 + b"IKCFG_ST" + gzip.compress(WHOLE.encode()) + b"IKCFG_ED" + b"\0" * 9))
    found, place = read_config(file)
    assert (found["PORTS"], place) == ("32", f"{file} (CONFIG_IKCONFIG)")


@pytest.mark.parametrize("beside", ["config-9.9.9", "../../../.config"])
def test_the_configuration_of_another_image_lies_beside_it(tmp_path: Path, beside: str) -> None:
    file = tmp_path / "arch" / "x86" / "boot" / "bzImage"
    file.parent.mkdir(parents=True)
    file.write_bytes(image(b"no configuration"))
    with pytest.raises(ConfigError, match=r"there is none beside it.*config-9\.9\.9"):
        read_config(file)
    (file.parent / beside).write_text(WHOLE)
    assert read_config(file)[0]["MORE"] == "y"


def test_the_configuration_of_an_image_is_found_by_kbuild_s_link_to_it(tmp_path: Path) -> None:
    made = tmp_path / "arch" / "x86" / "boot" / "bzImage"
    made.parent.mkdir(parents=True)
    made.write_bytes(image(b"no configuration"))
    link = tmp_path / "arch" / "x86_64" / "boot" / "bzImage"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../x86/boot/bzImage")
    (tmp_path / ".config").write_text(WHOLE)
    assert read_config(link)[0]["MORE"] == "y"


def test_what_is_neither_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing of it")
    with pytest.raises(ConfigError, match=r"notes\.txt: is neither"):
        read_config(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "gone")
