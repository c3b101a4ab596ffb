"""Shaders of the guest's Vulkan program."""

from __future__ import annotations

from tests.support.guest.spirv import HEADER, key


def test_the_header_was_made_of_the_shaders_that_are_there() -> None:
    assert key() in HEADER.read_text().splitlines()[0], "run python -m tests.support.guest.spirv"
