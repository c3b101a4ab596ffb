"""Draws in slices: preemption, pausing, reset of a draw that never ends."""

from __future__ import annotations

import pytest

from tests.support.xe.compute_kernels import LOOP
from tests.support.xe.engine_lab import Job
from tests.support.xe.render_lab import (
    FLAT,
    RECTLIST,
    WRITE,
    RenderLab,
    element,
    elements,
    pixel_shader,
    primitive,
    setup_backend,
    vertex_buffer,
)
from vfio_user_xe.device_models.xe.engines import turns

COLOUR = (0.0, 1.0, 0.0, 1.0)
CORNERS = [[0, 0, 0, 0, x, y, 0.5, 1, *COLOUR] for x, y in ((16, 16), (0, 16), (0, 0))]
DRAW = (
    *vertex_buffer(48, 144), *elements(element(0), element(16), element(32)), *setup_backend(1, flat=1), *pixel_shader(),
    *primitive(RECTLIST, 3),
)  # fmt: skip
COUNTS = """
    (W) mov (1|M0)  r90.0<1>:ud  0:ud
    again:
    (W) add (1|M0)  r90.0<1>:ud  r90.0<0;1,0>:ud  1:ud
    (W) cmp (16|M0)  (lt)f0.0  null<1>:ud  r90.0<0;1,0>:ud  400:ud
    (W&f0.0) jmpi (1|M0)  again
"""
"""400 rounds of each thread."""


def job_of(lab: RenderLab, shader: str, **policy: int) -> Job:
    """A draw over the whole target, not yet submitted."""
    job = lab.draw(shader, *DRAW, vertices=CORNERS, submit=False)
    for name, value in policy.items():
        setattr(job.context, name, value)
    return job


def is_drawn(lab: RenderLab, job: Job) -> bool:
    return bool((lab.pixels(job) == [0, 255, 0, 255]).all())


def test_an_endless_draw_makes_room_when_its_quantum_is_over(lab: RenderLab) -> None:
    endless = job_of(lab, LOOP + WRITE, quantum_us=2000)
    endless.submit()
    lab.run(lambda: endless.context.resident, limit=50)
    other = job_of(lab, FLAT.format(1) + WRITE, quantum_us=2000)
    other.submit()
    lab.run(lambda: is_drawn(lab, other))
    lab.run(lambda: endless.context.resident, limit=200)
    assert not lab.pixels(endless).any()


def test_preempted_draws_go_on_where_they_were(lab: RenderLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)  # slices of one step, however fast the host is
    jobs = [job_of(lab, COUNTS + FLAT.format(1) + WRITE, quantum_us=1) for _ in range(2)]
    for job in jobs:
        job.submit()
    lab.run(lambda: all(is_drawn(lab, job) for job in jobs))
    assert lab.engines.scheduler.slices > 2


def test_an_engine_reset_drops_the_draw(lab: RenderLab) -> None:
    endless = job_of(lab, LOOP + WRITE)
    endless.submit()
    lab.run(lambda: endless.context.members[0].bulk is not None, limit=50)
    lab.engines.remove(endless.context)
    lab.run()
    assert not lab.engines.has_work()
    assert endless.context.members[0].bulk is None


def test_an_endless_draw_leaves_when_its_context_is_disabled(lab: RenderLab) -> None:
    endless = job_of(lab, LOOP + WRITE, preempt_us=10_000_000)
    endless.submit()
    lab.run(lambda: endless.context.members[0].bulk is not None, limit=50)
    done: list[str] = []
    lab.engines.disable(endless.context, lambda: done.append("done"))
    lab.run(lambda: bool(done), limit=1_000_000)
    assert not endless.context.resident


def test_the_executor_has_its_turn_while_a_draw_runs(lab: RenderLab) -> None:
    endless = job_of(lab, LOOP + WRITE)
    endless.submit()
    lab.run(lambda: endless.context.members[0].bulk is not None, limit=50)
    turns: list[int] = []

    def count() -> None:
        turns.append(len(turns))

    for _ in range(20):
        lab.executor.submit(count)
    lab.run(lambda: len(turns) == 20, limit=200)
    assert endless.context.members[0].bulk is not None
