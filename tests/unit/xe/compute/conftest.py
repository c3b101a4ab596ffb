"""Every test runs on both back ends; without a compiler on one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.compute_lab import ComputeLab, labs


@pytest.fixture(params=["reference", "compiled"])
def lab(request: pytest.FixtureRequest) -> Iterator[ComputeLab]:
    """An engine lab whose execution units are one of the back ends."""
    yield from labs(request.param)
