"""DMA_MAP: the descriptor of a range, and the offset in its file."""

from __future__ import annotations

import os

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.dma.ranges import BASE, MAP, PAGE, READ, is_mapped, map_body, memory_of
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import BAD_DESCRIPTOR, EXISTS, OUT_OF_RANGE
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire


@case(MAP)
def two_descriptors_are_not_both_kept(t: Context) -> None:
    """A range has one descriptor; a second is refused, or at least closed."""
    memory = memory_of(t, PAGE)
    with t.witness() as (fd, closed):
        t.tolerated(t.client, wire.DMA_MAP, map_body(BASE, PAGE), [memory.fd, fd])
        closed()


@case(MAP)
def descriptor_that_cannot_be_mapped_is_refused(t: Context) -> None:
    """A pipe cannot be mapped: refused, and closed."""
    with t.witness() as (fd, closed):
        t.refused(t.client, wire.DMA_MAP, map_body(BASE, PAGE), BAD_DESCRIPTOR, [fd])
        closed()
    t.check(not is_mapped(t, t.client, BASE), "the refused range is mapped")


@case(MAP)
def descriptor_of_a_refused_map_is_closed(t: Context) -> None:
    """A range that is refused for another reason does not keep its descriptor."""
    t.client.dma_map(BASE, PAGE)
    with t.witness() as (fd, closed):
        t.refused(t.client, wire.DMA_MAP, map_body(BASE, PAGE), EXISTS | BAD_DESCRIPTOR, [fd])
        closed()


@case(MAP)
def read_only_descriptor_of_a_readable_range_is_mapped(t: Context) -> None:
    """A file that is open for reading serves a range that may be read."""
    t.client.dma_map(BASE, PAGE, flags=READ, fd=_read_only(t, memory_of(t, PAGE)))


@case(MAP, silent=True)
def read_only_descriptor_of_a_writable_range_is_refused(t: Context) -> None:
    """A file that is open for reading cannot serve a range that may be written."""
    fd = _read_only(t, memory_of(t, PAGE))
    t.refused(t.client, wire.DMA_MAP, map_body(BASE, PAGE), BAD_DESCRIPTOR, [fd])


def _read_only(t: Context, memory: Memory) -> int:
    fd = os.open(f"/proc/self/fd/{memory.fd}", os.O_RDONLY | os.O_CLOEXEC)
    t.finally_(lambda: os.close(fd))
    return fd


@case(MAP, silent=True)
def range_beyond_the_files_end_does_no_harm(t: Context) -> None:
    """A range that is larger than its file is refused, or at least never touched behind the end."""
    memory = memory_of(t, PAGE)
    for offset, size in ((0, 2 * PAGE), (PAGE, PAGE), (1 << 40, PAGE)):
        t.tolerated(t.client, wire.DMA_MAP, map_body(BASE + (offset << 8), size, offset=offset), [memory.fd])


@case(MAP, silent=True)
def offset_that_wraps_around_is_refused(t: Context) -> None:
    """offset + size must not exceed 2^64."""
    body = map_body(BASE, 2 * PAGE, offset=(1 << 64) - PAGE)
    t.refused(t.client, wire.DMA_MAP, body, OUT_OF_RANGE | BAD_DESCRIPTOR, [memory_of(t, PAGE).fd])


@case(MAP, silent=True)
def unaligned_offset_does_no_harm(t: Context) -> None:
    """An offset that is not a multiple of the page size is refused or served."""
    t.tolerated(t.client, wire.DMA_MAP, map_body(BASE, PAGE, offset=100), [memory_of(t, 4 * PAGE).fd])


@case(MAP)
def mapping_is_independent_of_the_clients_descriptor(t: Context) -> None:
    """The client may close its descriptor once the range is mapped."""
    device = t.device()
    memory = Memory(PAGE, "client memory")
    view = memory.view
    t.client.dma_map(BASE, PAGE, fd=memory.fd)
    view[:5] = b"alive"
    memory.close()
    t.equal(device.read_memory(BASE, 5), b"alive", "what the device reads")
