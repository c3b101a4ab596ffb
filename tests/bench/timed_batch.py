"""The time of one batch on engines without a guest."""

from __future__ import annotations

import time

from tests.support.xe.engine_lab import Job, Lab


def timed(lab: Lab, job: Job, engine: str) -> tuple[float, float]:
    """Submit the job and run it to its end: wall and processor time, in seconds.

    Raises:
        RuntimeError: it met a fault, or the engine reported something.
    """
    start, used = time.perf_counter(), time.process_time()
    job.submit()
    lab.run(limit=10_000_000)
    elapsed = time.perf_counter() - start, time.process_time() - used
    reports = lab.engine(engine).reports
    if lab.listener.faults or reports:
        raise RuntimeError(f"the batch did not run: {lab.listener.faults or dict(reports)}")
    return elapsed
