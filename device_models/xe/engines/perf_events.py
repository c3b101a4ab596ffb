"""Performance events by the number that a performance event select (PES) has for them, and who counts them.

The numbers are those of Intel's metric sets for Battlemage (IGT, `lib/xe/oa-configs/oa-bmg.xml`): a counter's equation says
which PEC it reads, the set's registers which event that PEC counts. Engines count what commands do; what follows from time and
from memory accesses the OA unit computes (`oa/sources.py`). Other events count nothing.
"""

from __future__ import annotations

from enum import IntEnum


class Event(IntEnum):
    """Bits 15:0 of a PES register."""

    GPGPU_THREADGROUP_COUNT = 0x1801
    ASYNC_GPGPU_THREADGROUP_COUNT = 0x1802
    TEST_EVENT1 = 0x3E00
    """A clock of each Xe core."""
    IA_PRIMITIVE = 0x4404
    IA_VERTEX = 0x4405
    COPY_ENGINE_BUSY = 0x5000
    COMPUTE_ENGINE_DISPATCH_KERNEL_COUNT = 0x5008
    COMPUTE_ENGINE_BUSY = 0x5009
    RENDER_ENGINE_DRAW_COUNT = 0x5011
    RENDER_ENGINE_DISPATCH_KERNEL_COUNT = 0x5012
    RENDER_ENGINE_BUSY = 0x5013
    GPU_BUSY = 0x5A00
    GPU_MEMORY_64B_TRANSACTION_READ = 0x5E06
    GPU_MEMORY_64B_TRANSACTION_WRITE = 0x5E07
    GPU_MEMORY_BYTE_READ = 0x5E0A
    """In units of two bytes, as the metric sets multiply it."""
    GPU_MEMORY_BYTE_WRITE = 0x5E0B
    SYSMEM_TRANSACTION_READ = 0x6402
    SYSMEM_TRANSACTION_WRITE = 0x6403
    CLIPPER_PRIMITIVE_OUTPUT = 0x6605
    TEST_EVENT2 = 0x7E00
    """A clock of each slice."""
