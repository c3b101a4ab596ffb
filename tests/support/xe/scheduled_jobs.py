"""Jobs that keep an engine busy until they are told to stop."""

from __future__ import annotations

from typing import Any

from tests.support.xe.commands import ARB_CHECK, USER_INTERRUPT, conditional_end, sdi
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, Job, Lab

COUNTER, STOP = DATA_VA, DATA_VA + 64


def spinner(lab: Lab, *, preemptible: bool = True, **options: Any) -> Job:
    """A context that counts at `COUNTER` for as long as the dword at `STOP` is 0, as IGT's spinners do."""
    job = lab.job(**options)
    job.batch(
        *([ARB_CHECK] if preemptible else []),
        0x1780_0501, COUNTER, 0,
        *conditional_end(STOP, 0, 4),
        *job.start(BATCH_VA),
    )  # fmt: skip
    job.ring(*job.start(), *sdi(DATA_VA + 128, 1), USER_INTERRUPT)
    return job


def spin_for(lab: Lab, job: Job, count: int = 50) -> None:
    target = job.data()[0] + count
    lab.run(until=lambda: job.data()[0] >= target)
