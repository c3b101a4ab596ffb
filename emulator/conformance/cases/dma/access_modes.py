"""DMA_MAP: the flags that say how a descriptor is to be used, MMAP and FILE_IO.

They came with libvfio-user of April 2026 (`vfio-user.h`); a server that does not know them refuses them as undefined.
"""

from __future__ import annotations

import ctypes
import os

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.dma.ranges import (
    BASE,
    MAP,
    PAGE,
    READ,
    RW,
    is_mapped,
    map_body,
    memory_of,
)
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import BAD_DESCRIPTOR, INVALID
from vfio_user_xe.emulator.vfio_user import wire

MMAP, FILE_IO = wire.DMA_MMAP, wire.DMA_FILE_IO


def _needs(t: Context, flag: int) -> None:
    """Skip where the server does not know `flag`."""
    memory = memory_of(t, PAGE)
    if t.exchange(t.client, wire.DMA_MAP, map_body(BASE, PAGE, flags=RW | flag), [memory.fd]).failed:
        t.skip("the server does not know the flag")
    t.client.dma_unmap(BASE, PAGE)


def _without_a_descriptor(name: str, flag: int) -> None:
    def check(t: Context) -> None:
        t.refused(t.client, wire.DMA_MAP, map_body(BASE, PAGE, flags=RW | flag), INVALID)
        t.check(not is_mapped(t, t.client, BASE), "the refused range is mapped")

    check.__name__ = f"{name}_flag_without_a_descriptor_is_refused"
    check.__doc__ = "The flag says how to use a descriptor: without one there is nothing to use."
    case(MAP, silent=True)(check)


_without_a_descriptor("mmap", MMAP)
_without_a_descriptor("file_io", FILE_IO)


@case(MAP, silent=True)
def mmap_and_file_io_flags_exclude_each_other(t: Context) -> None:
    """A descriptor is mapped, or read and written."""
    body = map_body(BASE, PAGE, flags=RW | MMAP | FILE_IO)
    t.refused(t.client, wire.DMA_MAP, body, INVALID, [memory_of(t, PAGE).fd])
    t.check(not is_mapped(t, t.client, BASE), "the refused range is mapped")


@case(MAP, silent=True)
def mmap_flag_is_as_a_descriptor_without_flags(t: Context) -> None:
    """A descriptor with the MMAP flag is used as one without."""
    device = t.device()
    _needs(t, MMAP)
    mapping = t.client.map_memory(BASE, 4 * PAGE, flags=RW | MMAP)
    mapping.at(BASE + 10, 5)[:] = b"plain"
    t.equal(device.read_memory(BASE + 10, 5), b"plain", "what the device reads")
    device.write_memory(BASE + PAGE - 2, b"over")
    t.equal(bytes(mapping.at(BASE + PAGE - 2, 4)), b"over", "what the client sees")


@case(MAP, silent=True)
def mmap_flag_of_a_descriptor_that_cannot_be_mapped_is_refused(t: Context) -> None:
    """A pipe cannot be mapped: refused, and closed."""
    _needs(t, MMAP)
    with t.witness() as (fd, closed):
        t.refused(t.client, wire.DMA_MAP, map_body(BASE, PAGE, flags=RW | MMAP), BAD_DESCRIPTOR, [fd])
        closed()


@case(MAP, silent=True)
def file_io_reaches_a_file(t: Context) -> None:
    """A descriptor with the FILE_IO flag is read and written at its offset, without messages."""
    device = t.device()
    _needs(t, FILE_IO)
    memory = memory_of(t, 8 * PAGE)
    memory.view[3 * PAGE + 7 : 3 * PAGE + 12] = b"there"
    t.client.dma_map(BASE, 4 * PAGE, flags=RW | FILE_IO, fd=memory.fd, offset=3 * PAGE)
    asked = t.record_commands(t.client)
    t.equal(device.read_memory(BASE + 7, 5), b"there", "what the device reads")
    device.write_memory(BASE + PAGE - 3, b"across")
    t.equal(bytes(memory.view[4 * PAGE - 3 : 4 * PAGE + 3]), b"across", "what the client sees")
    t.equal(len(asked), 0, "the number of DMA messages")


@case(MAP, silent=True)
def file_io_reaches_the_memory_of_a_process(t: Context) -> None:
    """What cannot be mapped can be given by FILE_IO: the client's own memory, by `/proc/self/mem`."""
    device = t.device()
    _needs(t, FILE_IO)
    own = ctypes.create_string_buffer(3 * PAGE)
    start = -ctypes.addressof(own) % PAGE
    fd = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    t.finally_(lambda: os.close(fd))
    view = memoryview(own).cast("B")[start:]
    view[100:104] = b"self"
    t.client.dma_map(BASE, 2 * PAGE, flags=RW | FILE_IO, fd=fd, offset=ctypes.addressof(own) + start)
    t.equal(device.read_memory(BASE + 100, 4), b"self", "what the device reads")
    device.write_memory(BASE + 200, b"back")
    t.equal(bytes(view[200:204]), b"back", "what the client sees")


@case(MAP, silent=True)
def file_io_beside_mapped_memory_and_messages_is_reached_in_one_access(t: Context) -> None:
    """Neighbouring ranges are one memory to the device, however each is reached."""
    device = t.device()
    _needs(t, FILE_IO)
    memory = memory_of(t, PAGE)
    asked = t.client.map_memory(BASE, PAGE, shared=False)
    t.client.dma_map(BASE + PAGE, PAGE, flags=RW | FILE_IO, fd=memory.fd)
    mapped = t.client.map_memory(BASE + 2 * PAGE, PAGE)
    data = bytes(number % 251 for number in range(2 * PAGE + 32))
    device.write_memory(BASE + PAGE - 32, data)
    t.equal(bytes(asked.at(BASE + PAGE - 32, 32)), data[:32], "what came by messages")
    t.equal(bytes(memory.view), data[32 : 32 + PAGE], "what came by file I/O")
    t.equal(bytes(mapped.at(BASE + 2 * PAGE, PAGE)), data[32 + PAGE : 32 + 2 * PAGE], "what came to mapped memory")


@case(MAP, silent=True)
def file_io_needs_a_descriptor_that_is_open_for_it(t: Context) -> None:
    """A file that is open for reading only serves no range that may be written: not when mapped, or not when written."""
    device = t.device()
    _needs(t, FILE_IO)
    memory = memory_of(t, PAGE)
    fd = os.open(f"/proc/self/fd/{memory.fd}", os.O_RDONLY | os.O_CLOEXEC)
    t.finally_(lambda: os.close(fd))
    t.client.dma_map(BASE, PAGE, flags=READ | FILE_IO, fd=fd)
    t.equal(device.read_memory(BASE, 4), bytes(4), "what the device reads")
    body = map_body(BASE + PAGE, PAGE, flags=RW | FILE_IO)
    reply = t.tolerated(t.client, wire.DMA_MAP, body, [fd])
    if reply.failed:
        t.is_error(reply, BAD_DESCRIPTOR)
    t.check(device.dma(numbers.DMA_WRITE, BASE + PAGE, 4), "the device wrote a file that is open for reading")


@case(MAP, silent=True)
def file_io_fails_where_the_file_ends(t: Context) -> None:
    """A file that became shorter fails the access, and nothing else."""
    device = t.device()
    _needs(t, FILE_IO)
    fd = os.memfd_create("client memory", os.MFD_CLOEXEC)
    t.finally_(lambda: os.close(fd))
    os.ftruncate(fd, 2 * PAGE)
    t.client.dma_map(BASE, 2 * PAGE, flags=RW | FILE_IO, fd=fd)
    os.ftruncate(fd, PAGE)
    t.check(device.dma(numbers.DMA_READ, BASE + PAGE, 4), "the device read behind the file's end")
    t.equal(device.read_memory(BASE, 4), bytes(4), "what the device reads in front of it")


@case(MAP, silent=True)
def file_io_ranges_of_one_file_cost_no_descriptors(t: Context) -> None:
    """Hundreds of ranges over one file keep it open once, or a few times; unmapping gives it back."""
    _needs(t, FILE_IO)
    memory = memory_of(t, 64 * PAGE)
    before = t.descriptors()
    ids = [
        t.client.send(wire.DMA_MAP, map_body(BASE + n * PAGE, PAGE, RW | FILE_IO, n % 64 * PAGE), [memory.fd])
        for n in range(300)
    ]
    for message_id in ids:
        t.client.wait(message_id)
    t.no_more_descriptors_than(before + 16)
    t.client.dma_unmap(0, 0, wire.DMA_UNMAP_ALL)
    t.no_more_descriptors_than(before)
