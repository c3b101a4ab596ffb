"""The clock of a recording: what `time` answers while a card is recorded or replayed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

real_ns = time.monotonic_ns
"""The clock itself, whatever `time` answers."""


@contextmanager
def replaced_clock(nanoseconds: Callable[[], int | None]) -> Iterator[None]:
    """Let the functions of `time` that tell intervals answer `nanoseconds()`; where that is None, as usual.

    In the module itself, because device models ask it directly; it holds for every thread.
    """
    names = ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
    before = {name: getattr(time, name) for name in names}

    def answer(name: str) -> Callable[[], float | int]:
        real = before[name]

        def ask() -> float | int:
            value = nanoseconds()
            if value is None:
                result: float | int = real()
                return result
            return value if name.endswith("_ns") else value / 1e9

        return ask

    for name in names:
        setattr(time, name, answer(name))
    try:
        yield
    finally:
        for name, real in before.items():
            setattr(time, name, real)
