"""`--memory` of the commands that boot or describe a guest."""

from __future__ import annotations

import pytest
import typer

from vfio_user_xe.emulator.cli.guest_memory import mebibytes


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2048", 2048),
        ("256", 256),
        ("0x800", 2048),
        ("2_048", 2048),
        ("2G", 2048),
        ("2g", 2048),
        ("512M", 512),
        ("1.5 GiB", 1536),
        (2048, 2048),
    ],
)
def test_a_guest_s_memory_is_a_number_of_mib_or_a_size(text: str | int, wanted: int) -> None:
    assert mebibytes(text) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foo", '"foo" is not a size; want a number of MiB, or a size such as "2G", "512 MiB"; 256 MiB at least'),
        ("-5", '"-5" is not a size; want'),
        ("2GB", '"2GB" has the unknown unit "GB"; write GiB; want'),
        ("255", '"255": want'),
        ("1000k", '"1000k": want'),
        ("300.5M", '"300.5M": want'),
        ("", '"" is not a size; want'),
    ],
)
def test_what_is_no_memory_for_a_guest_is_told_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        mebibytes(text)
    assert str(caught.value).startswith(said)
