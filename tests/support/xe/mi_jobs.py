"""Jobs of MI commands."""

from __future__ import annotations

from tests.support.xe.engine_lab import Job, Lab

GGTT = 1 << 22


def ring_job(lab: Lab, *commands: int, **options: object) -> Job:
    """Run `commands` from the ring: privileged."""
    job = lab.job(**options)
    job.ring(*commands)
    job.submit()
    lab.run()
    return job
