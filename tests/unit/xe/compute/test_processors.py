"""Slots on several of the host's processors, of which one comes late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.support.xe.compute_kernels import LINEAR, store
from tests.support.xe.compute_lab import DATA, EOT, ComputeLab, labs
from vfio_user_xe.device_models.xe.compute import compiled_execution, dispatch
from vfio_user_xe.device_models.xe.engines import turns

LONG = f"""
    (W) mov (1|M0)  r60.0<1>:ud  0:ud
    again:
    (W) add (1|M0)  r60.0<1>:ud  r60.0<0;1,0>:ud  1:ud
    (W) cmp (16|M0)  (lt)f0.0  null<1>:ud  r60.0<0;1,0>:ud  2000:ud
    (W&f0.0) jmpi (1|M0)  again
    {LINEAR}
    (W) shl (1|M0)  r61.0<1>:ud  r0.1<0;1,0>:ud  6:ud
    add (16|M0)  r12.0<1>:ud  r12.0<1;1,0>:ud  r61.0<0;1,0>:ud
    mov (16|M0)  r20.0<1>:ud  r60.0<0;1,0>:ud
""" + store(0, "r20").replace("r2.0", "r1.0")
GROUPS = 8


class Late(Future[Any]):
    """Work of a host thread that gets a processor only when somebody waits for it."""

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        super().__init__()
        self._work = lambda: work(*arguments)

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self.set_result(self._work())
        return super().result(timeout)


class Pool:
    """What `compiled_execution` asks of its pool."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Late:
        self.submitted += 1
        return Late(work, *arguments)


@pytest.fixture
def lab() -> Iterator[ComputeLab]:
    yield from labs("compiled")


def test_a_slot_goes_on_while_another_waits_for_a_processor(lab: ComputeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    monkeypatch.setattr(compiled_execution, "_pool", lambda: pool)
    monkeypatch.setattr(compiled_execution, "_processors", lambda: 2)
    monkeypatch.setattr(compiled_execution, "_FIRST_BUDGET", 1000)
    # A step that no host is too slow for: all groups end in it.
    monkeypatch.setattr(turns, "SLICE", 600.0)
    monkeypatch.setattr(dispatch, "_STEP_NS", 600_000_000_000)
    job = lab.dispatch(LONG + EOT, inline=[DATA, 0], groups=(GROUPS, 1, 1))
    assert job.data(0, 16 * GROUPS) == [2000] * 16 * GROUPS
    # One more for each page that is missed; every 2,000 ops of some 50,000 if the first waited for the other.
    assert 1 <= pool.submitted <= 4
