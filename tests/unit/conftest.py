"""A unit test leaves no thread behind: one that runs on logs, and holds files and memory, in the tests that follow."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.support.wait import eventually

OF_THE_PROCESS = ("eu_", "Trio thread ")
"""Threads that are kept for whoever needs one next: the pool of compiled kernels, and trio's workers."""


@pytest.fixture(scope="module", autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """After the last test of a module no thread runs that was not there before its first one."""
    before = set(threading.enumerate())
    yield

    def left() -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if thread not in before and not thread.name.startswith(OF_THE_PROCESS)
        ]

    eventually(lambda: not left(), lambda: f"threads that no test has ended: {left()}", seconds=5)
