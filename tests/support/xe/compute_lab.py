"""Kernels on the engine lab: assembled, put into memory, and dispatched by a COMPUTE_WALKER in a batch."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.support.xe.commands import END
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, Job, Lab
from vfio_user_xe.device_models.xe.compute import dispatch
from vfio_user_xe.device_models.xe.compute.back_end import units
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE

KERNEL = 0x8000
"""Where kernels are behind `BATCH_VA`, which is instruction base."""
INDIRECT = 0xC000
"""Where indirect data is; `BATCH_VA` is general state base too."""
SURFACES = 0x4000
"""Where surface states and binding tables are."""
EOT = "(W) send.gtwy (1|M0)  null  r112  null:0  0x0  0x02000010  {EOT}\n"


def base_addresses(
    general: int = BATCH_VA, surface: int = BATCH_VA + SURFACES, dynamic: int = BATCH_VA, instruction: int = BATCH_VA
) -> tuple[int, ...]:
    """STATE_BASE_ADDRESS, 22 dwords; bindless surfaces start at surface state base."""

    def base(address: int) -> tuple[int, int]:
        return address & 0xFFFFF000 | 1, address >> 32

    size = 0xFFFFF001
    return (
        0x61010014, *base(general), 0, *base(surface), *base(dynamic), *base(general), *base(instruction),
        size, size, size, size, *base(surface), 0xFFFFF000, *base(dynamic), 0xFFFFF000,
    )  # fmt: skip


def walker(
    *,
    groups: Sequence[int] = (1, 1, 1),
    first: Sequence[int] = (0, 0, 0),
    local: Sequence[int] = (16, 1, 1),
    simd: int = 16,
    kernel: int = KERNEL,
    ids: Sequence[int] = (),
    order: int = 0,
    group_order: int = 0,
    inline: Sequence[int] | None = None,
    slm: int = 0,
    barriers: int = 0,
    binding_table: int = 0,
    indirect: tuple[int, int] = (0, 0),
    post_sync: tuple[int, int, int] = (0, 0, 0),
    flags: int = 0,
    exceptions: int = 0,
    denormals: bool = True,
    sampler: int = 0,
) -> tuple[int, ...]:
    """COMPUTE_WALKER; `ids` are the dimensions whose local ids are made, `groups` the end, `slm` a size code."""
    items = local[0] * local[1] * local[2]
    threads = -(-items // simd)
    last = items - (threads - 1) * simd
    dw4 = {16: 1, 32: 2}[simd] << 30 | order << 22 | group_order << 5 | (1 << 25 if inline is not None else 0)
    if ids:
        dw4 |= 1 << 29 | sum(1 << 26 + dimension for dimension in ids)
    descriptor = (
        kernel,
        0,
        exceptions | denormals << 19,
        sampler,
        binding_table,
        threads | slm << 16 | barriers << 28,
        0,
        0,
    )
    operation, address, immediate = post_sync
    data = list(inline or ())
    return (
        0x72080026 | flags, 0, indirect[1], indirect[0], dw4, (1 << last) - 1,
        local[0] - 1 | local[1] - 1 << 10 | local[2] - 1 << 20, *groups, *first,
        0, 0, 0, 0, 0, 0, *descriptor, operation, address & 0xFFFFFFFF, address >> 32,
        immediate & 0xFFFFFFFF, immediate >> 32, *data, *[0] * (8 - len(data)),
    )  # fmt: skip


class ComputeLab(Lab):
    """A lab whose jobs are compute contexts with a kernel."""

    def compute_job(self, kernel: str, *commands: int, setup: Sequence[int] | None = None, **options: Any) -> Job:
        """A job that sets base addresses, executes `commands`, and ends; `kernel` is assembly."""
        job = self.job(engine_class=COMPUTE, **options)
        self.load(job, kernel)
        job.batch(*(base_addresses() if setup is None else setup), *commands, END)
        job.ring(*job.start())
        return job

    def load(self, job: Job, kernel: str, at: int = KERNEL) -> None:
        """Put a kernel behind `BATCH_VA`."""
        code = assemble(kernel)
        job._view(job.batch_memory + at, len(code))[:] = code

    def dispatch(self, kernel: str, *, setup: Sequence[int] | None = None, **options: Any) -> Job:
        """Run one walker to its end; `options` are those of `walker`, `data` dwords at `DATA_VA`."""
        data = options.pop("data", ())
        job = self.compute_job(kernel, *walker(**options), setup=setup)
        job.set_data(0, *data)
        job.submit()
        self.run()
        return job

    def place(self, job: Job, offset: int, *dwords: int) -> None:
        """Dwords behind `BATCH_VA`."""
        job._view(job.batch_memory + offset, 4 * len(dwords))[:] = struct.pack(f"<{len(dwords)}I", *dwords)


def buffer_state(address: int, size: int) -> tuple[int, ...]:
    """RENDER_SURFACE_STATE of a raw buffer."""
    last = size - 1
    return (
        4 << 29 | 0x1FF << 18, 0, last & 0x7F | (last >> 7 & 0x3FFF) << 16, (last >> 21) << 21, 0, 0, 0, 0,
        address & 0xFFFFFFFF, address >> 32, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


def labs(back_end: str) -> Iterator[ComputeLab]:
    """A lab whose execution units are of "reference" or "compiled"; skips the test where there is no compiler."""
    with pytest.MonkeyPatch.context() as patch:
        if back_end == "reference":
            patch.setattr(dispatch, "units", ReferenceUnits)
        elif isinstance(units(), ReferenceUnits):
            pytest.skip("there is no compiler")
        yield ComputeLab()


DATA = DATA_VA
