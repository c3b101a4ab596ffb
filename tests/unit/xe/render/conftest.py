"""Draws run on both back ends; without a compiler on one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.render_lab import RenderLab, render_labs


@pytest.fixture(params=["reference", "compiled"])
def lab(request: pytest.FixtureRequest) -> Iterator[RenderLab]:
    """A lab with a render target whose execution units are one of the back ends."""
    yield from render_labs(request.param)
