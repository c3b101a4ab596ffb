"""DEVICE_GET_INFO, DEVICE_GET_REGION_INFO, DEVICE_GET_IRQ_INFO."""

from __future__ import annotations

import mmap
import os

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import INVALID, MALFORMED, NO_SUCH_INDEX
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Message, RegionInfo

DEVICE = "VFIO_USER_DEVICE_GET_INFO"
REGION = "VFIO_USER_DEVICE_GET_REGION_INFO"
IRQ = "VFIO_USER_DEVICE_GET_IRQ_INFO"
SIZES = "Message sizes"


def _device(argsz: int = 16, *rest: int) -> bytes:
    return wire.DEVICE_INFO.pack(argsz, *(rest or (0, 0, 0)))


def _region(index: int, argsz: int = 32) -> bytes:
    return wire.REGION_INFO.pack(argsz, 0, index, 0, 0, 0)


def _irq(index: int, argsz: int = 16) -> bytes:
    return wire.IRQ_INFO.pack(argsz, 0, index, 0)


# The device.


@case(DEVICE)
def device_is_a_pci_device(t: Context) -> None:
    """The device is a PCI device with the regions and interrupt types of one."""
    flags, regions, irqs = t.client.device_info()
    t.check(flags & wire.DEVICE_FLAG_PCI, f"flags {flags:#x} lack the PCI flag")
    t.check(regions >= wire.CONFIG + 1, f"{regions} regions: configuration space (index 7) is not among them")
    t.check(irqs >= wire.IRQ_MSIX + 1, f"{irqs} interrupt types: MSI-X (index 2) is not among them")


@case(DEVICE)
def device_info_reply_is_16_bytes(t: Context) -> None:
    """The reply says how large it is: 16 bytes."""
    reply = t.accepted(t.client, wire.DEVICE_GET_INFO, _device())
    t.equal(len(reply.body), wire.DEVICE_INFO.size, "the payload's size")
    t.equal(wire.DEVICE_INFO.unpack(reply.body)[0], wire.DEVICE_INFO.size, "argsz")


@case(SIZES)
def larger_device_argsz_gets_the_same_reply(t: Context) -> None:
    """argsz is what the client has room for; more of it changes nothing."""
    small = t.accepted(t.client, wire.DEVICE_GET_INFO, _device(16))
    large = t.accepted(t.client, wire.DEVICE_GET_INFO, _device(0xFFFFFFFF))
    t.equal(large.body, small.body, "the reply to a larger argsz")


@case(SIZES)
def too_small_device_argsz_is_refused(t: Context) -> None:
    """argsz must have room for the fixed part."""
    for argsz in (0, 8, 15):
        t.refused(t.client, wire.DEVICE_GET_INFO, _device(argsz), INVALID | MALFORMED)


@case(DEVICE)
def short_device_request_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 4, 15):
        t.refused(t.client, wire.DEVICE_GET_INFO, _device()[:length], INVALID | MALFORMED)


@case(DEVICE, silent=True)
def reserved_device_fields_do_no_harm(t: Context) -> None:
    """Fields that must be zero and are not are refused or ignored."""
    t.tolerated(t.client, wire.DEVICE_GET_INFO, _device(16, 0xFFFFFFFF, 5, 6))


@case(DEVICE, silent=True)
def longer_device_request_does_no_harm(t: Context) -> None:
    """Bytes behind the request are refused or ignored."""
    t.tolerated(t.client, wire.DEVICE_GET_INFO, _device() + bytes(100))


@case(DEVICE)
def device_info_is_the_same_for_the_next_client(t: Context) -> None:
    """The device's info does not change with the client."""
    first = t.client.device_info()
    t.drop(t.client)
    t.equal(t.client.device_info(), first, "the second client's device info")


# Regions.


@case(REGION)
def region_info_is_consistent(t: Context) -> None:
    """Every region says its index, known flags, and no more bytes than it sends."""
    _, count, _ = t.client.device_info()
    for index in range(count):
        reply = t.accepted(t.client, wire.DEVICE_GET_REGION_INFO, _region(index))
        argsz, flags, got, cap_offset, size, _ = wire.REGION_INFO.unpack_from(reply.body)
        t.equal(got, index, "the index in the reply")
        t.check(not flags & ~0xF, f"region {index}: undefined flags in {flags:#x}")
        t.check(argsz >= wire.REGION_INFO.size, f"region {index}: argsz {argsz} is less than the fixed part")
        t.equal(len(reply.body), wire.REGION_INFO.size, f"region {index}: the payload's size for an argsz of 32")
        t.check(cap_offset == 0 or cap_offset >= wire.REGION_INFO.size, f"region {index}: cap_offset {cap_offset}")
        t.check(size or not flags & wire.REGION_FLAG_MMAP, f"region {index} is empty, but can be mapped")


@case(REGION)
def configuration_space_is_there(t: Context) -> None:
    """Region 7 is configuration space: 256 or 4096 bytes, readable and writable."""
    info = t.client.region_info(wire.CONFIG)
    t.check(info.size in (256, 4096), f"configuration space has {info.size} bytes, want 256 or 4096")
    t.check(info.readable and info.writable, f"configuration space has flags {info.flags:#x}")


@case(REGION)
def index_behind_the_last_region_is_refused(t: Context) -> None:
    """Indices that DEVICE_GET_INFO does not count do not exist."""
    _, count, _ = t.client.device_info()
    for index in (count, count + 1, 0xFFFFFFFF):
        t.refused(t.client, wire.DEVICE_GET_REGION_INFO, _region(index), NO_SUCH_INDEX)


@case(SIZES)
def too_small_region_argsz_is_refused(t: Context) -> None:
    """argsz must have room for the fixed part."""
    for argsz in (0, 16, 31):
        t.refused(t.client, wire.DEVICE_GET_REGION_INFO, _region(wire.CONFIG, argsz), INVALID | MALFORMED)


@case(REGION)
def short_region_request_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 12, 31):
        t.refused(t.client, wire.DEVICE_GET_REGION_INFO, _region(wire.CONFIG)[:length], INVALID | MALFORMED)


@case(SIZES)
def largest_region_argsz_gets_what_there_is(t: Context) -> None:
    """An argsz of 4 GiB gets a reply of the size that is needed."""
    _, count, _ = t.client.device_info()
    for index in range(count):
        reply = t.accepted(t.client, wire.DEVICE_GET_REGION_INFO, _region(index, 0xFFFFFFFF))
        argsz = wire.REGION_INFO.unpack_from(reply.body)[0]
        t.equal(len(reply.body), argsz, f"region {index}: the payload's size against its argsz")


def _with_capabilities(t: Context) -> RegionInfo:
    for info in t.regions(t.client):
        if info.flags & wire.REGION_FLAG_CAPS:
            return info
    t.skip("no region has capabilities")


def _fixed(reply: Message) -> tuple[int, int, int]:
    argsz, flags, _, cap_offset, _, _ = wire.REGION_INFO.unpack_from(reply.body)
    return argsz, flags, cap_offset


@case(SIZES)
def capabilities_that_do_not_fit_are_left_out(t: Context) -> None:
    """With room for the fixed part only, the reply is that, and its argsz says what to ask with."""
    info = _with_capabilities(t)
    reply = t.accepted(t.client, wire.DEVICE_GET_REGION_INFO, _region(info.index, 32))
    argsz, _, _ = _fixed(reply)
    t.equal(len(reply.body), 32, "the payload's size")
    t.equal(argsz, info.argsz, "argsz")


@case(SIZES)
def capabilities_come_whole_or_not_at_all(t: Context) -> None:
    """One byte less than is needed gets the fixed part only."""
    info = _with_capabilities(t)
    reply = t.accepted(t.client, wire.DEVICE_GET_REGION_INFO, _region(info.index, info.argsz - 1))
    argsz, _, _ = _fixed(reply)
    t.check(len(reply.body) <= info.argsz - 1, f"{len(reply.body)} bytes came where {info.argsz - 1} fit")
    t.equal(argsz, info.argsz, "argsz")


@case(SIZES)
def capabilities_that_fit_come(t: Context) -> None:
    """With exactly the room that is needed, everything comes."""
    info = _with_capabilities(t)
    reply = t.accepted(t.client, wire.DEVICE_GET_REGION_INFO, _region(info.index, info.argsz))
    argsz, flags, cap_offset = _fixed(reply)
    t.equal(len(reply.body), info.argsz, "the payload's size")
    t.equal(argsz, info.argsz, "argsz")
    t.check(flags & wire.REGION_FLAG_CAPS, f"flags {flags:#x} lack the capability flag")
    t.check(cap_offset >= 32, f"cap_offset is {cap_offset}")


@case(REGION)
def sparse_areas_lie_in_their_region(t: Context) -> None:
    """The areas of a sparse region are whole pages inside of it, and do not overlap."""
    info = _with_capabilities(t)
    t.check(info.areas, f"region {info.index} has capabilities, but no area")
    end = 0
    for offset, length in sorted(info.areas):
        where = f"region {info.index}: area [{offset:#x}, {offset + length:#x})"
        t.check(length > 0 and offset % 4096 == 0 and length % 4096 == 0, f"{where} is not made of whole pages")
        t.check(offset >= end, f"{where} overlaps the one before it")
        t.check(offset + length <= info.size, f"{where} is outside of the region of {info.size:#x}")
        end = offset + length


@case(REGION)
def sparse_capability_is_version_1(t: Context) -> None:
    """Capability headers have id, version and the offset of the next."""
    info = _with_capabilities(t)
    reply = t.accepted(t.client, wire.DEVICE_GET_REGION_INFO, _region(info.index, info.argsz))
    at = _fixed(reply)[2]
    kinds = []
    while at:
        kind, version, following = wire.CAPABILITY.unpack_from(reply.body, at)
        kinds.append(kind)
        if kind == wire.CAP_SPARSE_MMAP:
            t.equal(version, 1, "the sparse mmap capability's version")
        t.check(following == 0 or following > at, f"the capability at {at} points back to {following}")
        at = following
    t.check(wire.CAP_SPARSE_MMAP in kinds, f"capabilities {kinds}, none of them sparse mmap (1)")


def _mappable(t: Context) -> list[RegionInfo]:
    found = [info for info in t.regions(t.client) if info.mappable]
    if not found:
        t.skip("no region can be mapped")
    return found


@case(REGION)
def mappable_region_brings_a_descriptor(t: Context) -> None:
    """A region with the mmap flag comes with a descriptor that can be mapped as it says."""
    for info in _mappable(t):
        t.check(info.fd >= 0, f"region {info.index} can be mapped, but no descriptor came")
        access = (mmap.PROT_READ if info.readable else 0) | (mmap.PROT_WRITE if info.writable else 0)
        for offset, length in info.areas:
            try:
                mmap.mmap(info.fd, length, mmap.MAP_SHARED, access, offset=info.offset + offset).close()
            except (OSError, ValueError) as exc:
                t.check(False, f"region {info.index}: area {offset:#x}+{length:#x} cannot be mapped: {exc}")


@case(REGION)
def region_that_cannot_be_mapped_brings_no_descriptor(t: Context) -> None:
    """Without the mmap flag no descriptor comes."""
    _, count, _ = t.client.device_info()
    for index in range(count):
        reply = t.accepted(t.client, wire.DEVICE_GET_REGION_INFO, _region(index, 4096))
        if not _fixed(reply)[1] & wire.REGION_FLAG_MMAP:
            t.equal(len(reply.fds), 0, f"region {index}: the number of descriptors")


@case(REGION)
def descriptor_comes_again_when_asked_again(t: Context) -> None:
    """Asking twice gives two descriptors of the same file."""
    info = _mappable(t)[0]
    again = t.client.region_info(info.index)
    t.check(again.fd >= 0, "no descriptor came the second time")
    first, second = os.fstat(info.fd), os.fstat(again.fd)
    t.equal((second.st_dev, second.st_ino), (first.st_dev, first.st_ino), "the second descriptor's file")


@case("Read and Write Operations")
def mapped_memory_is_what_messages_read(t: Context) -> None:
    """Messages work on mapped memory too, and see the same bytes."""
    for info in _mappable(t):
        scratch = next((s for s in t.profile.scratch if s.region == info.index), None)
        if scratch is None:
            continue
        mapped = t.client.map_region(info.index)
        offset = info.areas[0][0]
        mapped.at(offset, 8)[:] = b"by mmap!"
        t.equal(t.client.region_read(info.index, offset, 8), b"by mmap!", "what was written through the mapping")
        t.client.region_write(info.index, offset, b"by msg.!")
        t.equal(bytes(mapped.at(offset, 8)), b"by msg.!", "what was written by message")
        return
    t.skip("the profile names no scratch memory in a mappable region")


@case(REGION)
def mapping_outlives_the_connection(t: Context) -> None:
    """A client's mapping of a region outlives its connection, and does no harm to the server."""
    info = _mappable(t)[0]
    mapped = info.map()
    t.finally_(mapped.close)
    t.drop(t.client)
    offset, length = info.areas[0]
    bytes(mapped.at(offset, min(length, 4096)))
    t.serves_next_client()


# Interrupts.


@case(IRQ)
def irq_info_is_consistent(t: Context) -> None:
    """Every interrupt type says its index, known flags, and 16 bytes."""
    _, _, count = t.client.device_info()
    for index in range(count):
        reply = t.accepted(t.client, wire.DEVICE_GET_IRQ_INFO, _irq(index))
        t.equal(len(reply.body), wire.IRQ_INFO.size, f"interrupt {index}: the payload's size")
        argsz, flags, got, vectors = wire.IRQ_INFO.unpack(reply.body)
        t.equal(argsz, wire.IRQ_INFO.size, f"interrupt {index}: argsz")
        t.equal(got, index, "the index in the reply")
        t.check(not flags & ~0xF, f"interrupt {index}: undefined flags in {flags:#x}")
        limit = {wire.IRQ_INTX: 1, wire.IRQ_MSI: 32, wire.IRQ_MSIX: 2048}.get(index, 1 << 32)
        t.check(vectors <= limit, f"interrupt {index}: {vectors} vectors, PCI allows {limit}")


@case(IRQ)
def some_interrupt_takes_eventfds(t: Context) -> None:
    """An interrupt type that has vectors says that they can be signalled by eventfd."""
    info = t.vectors(t.client, 1)
    t.check(info.flags & wire.IRQ_FLAG_EVENTFD, f"interrupt {info.index} has flags {info.flags:#x}")


@case(IRQ)
def index_behind_the_last_interrupt_is_refused(t: Context) -> None:
    """Indices that DEVICE_GET_INFO does not count do not exist."""
    _, _, count = t.client.device_info()
    for index in (count, 0x7FFFFFFF, 0xFFFFFFFF):
        t.refused(t.client, wire.DEVICE_GET_IRQ_INFO, _irq(index), NO_SUCH_INDEX)


@case(SIZES)
def too_small_irq_argsz_is_refused(t: Context) -> None:
    """argsz must have room for the fixed part."""
    for argsz in (0, 8, 15):
        t.refused(t.client, wire.DEVICE_GET_IRQ_INFO, _irq(wire.IRQ_MSI, argsz), INVALID | MALFORMED)


@case(SIZES)
def larger_irq_argsz_gets_the_same_reply(t: Context) -> None:
    """argsz is what the client has room for; more of it changes nothing."""
    small = t.accepted(t.client, wire.DEVICE_GET_IRQ_INFO, _irq(wire.IRQ_MSI))
    large = t.accepted(t.client, wire.DEVICE_GET_IRQ_INFO, _irq(wire.IRQ_MSI, 0xFFFFFFFF))
    t.equal(large.body, small.body, "the reply to a larger argsz")


@case(IRQ)
def short_irq_request_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 8, 15):
        t.refused(t.client, wire.DEVICE_GET_IRQ_INFO, _irq(wire.IRQ_MSI)[:length], INVALID | MALFORMED)
