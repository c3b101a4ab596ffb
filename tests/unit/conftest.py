"""A unit test leaves no thread behind: one that runs on logs, and holds files and memory, in the tests that follow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.processes import no_threads_left


@pytest.fixture(scope="module", autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """After the last test of a module no thread runs that was not there before its first one."""
    with no_threads_left():
        yield
