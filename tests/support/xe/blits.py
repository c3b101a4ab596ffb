"""Contexts with two surfaces for blits, mapped in all the ways in which memory can lie."""

from __future__ import annotations

import random

from tests.support.xe.commands import END, SOURCE_VA, TARGET_VA
from tests.support.xe.engine_lab import Job, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.memory.formats import ppgtt

SOURCE, TARGET = 32 * MIB, 40 * MIB
SIZE = 2 * MIB
LAYOUTS = ["large", "pages", "scattered"]


def with_surfaces(lab: Lab, *, source: str = "large", target: str = "large") -> Job:
    """A context with 2 MiB at `SOURCE_VA` and `TARGET_VA`, mapped by a 2 MiB page, 4 KiB pages in a row, or scattered."""
    job = lab.job()
    rng = random.Random(1)
    for va, memory, how in ((SOURCE_VA, SOURCE, source), (TARGET_VA, TARGET, target)):
        if how == "large":
            job.tables.entry(va, 1, memory | 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)
        elif how == "system":
            job.tables.map(va, 0, SIZE, system=True)
        else:
            pages = list(range(SIZE // 4096))
            if how == "scattered":
                rng.shuffle(pages)
            for n, page in enumerate(pages):
                job.tables.map(va + n * 4096, memory + page * 4096)
    return job


def fill_random(job: Job, va: int, length: int, seed: int = 7) -> bytes:
    """Write random bytes by the context's address space; returns them."""
    data = random.Random(seed).randbytes(length)
    job.tables.space().write(va, data)
    return data


def run(lab: Lab, job: Job, *commands: int) -> None:
    """Run `commands` as a batch to its end, which no fault and no report disturbs."""
    job.batch(*commands, END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert not lab.listener.faults
    assert not lab.engine("bcs0").reports
