"""Messages for the fuzz tests: valid ones, nearly valid ones, and how they are cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st

from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import encode

PAGE = 4096
SCRATCH = 512
"""Bytes at the start of the conformance device's trapped memory that messages read and write."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One message's bytes; whether it brings a descriptor, and whether it is answered."""

    data: bytes
    with_fd: bool = False
    answered: bool = True


def _access(command: int, region: int, offset: int, count: int, data: bytes, posted: bool) -> Sent:
    flags = wire.FLAG_NO_REPLY if posted else 0
    body = wire.REGION_ACCESS.pack(offset, region, count) + data
    return Sent(encode(command, body, flags=flags), answered=not posted)


def _info(command: int, body: bytes) -> Sent:
    return Sent(encode(command, body))


def _map(page: int, pages: int, with_fd: bool) -> Sent:
    body = wire.DMA_MAP_BODY.pack(32, 3, 0, page * PAGE, pages * PAGE)
    return Sent(encode(wire.DMA_MAP, body), with_fd)


def _unmap(page: int, pages: int) -> Sent:
    return Sent(encode(wire.DMA_UNMAP, wire.DMA_UNMAP_BODY.pack(24, 0, page * PAGE, pages * PAGE)))


def _irqs(vector: int, with_fd: bool) -> Sent:
    flags = wire.IRQ_SET_DATA_EVENTFD | wire.IRQ_SET_ACTION_TRIGGER
    return Sent(encode(wire.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, flags, wire.IRQ_MSIX, vector, 1)), with_fd)


_counts = st.sampled_from([1, 2, 3, 4, 8, 16, 100])
_offsets = st.integers(0, SCRATCH)
_pages, _lengths = st.integers(0, 20), st.integers(1, 3)

reads = st.builds(
    lambda offset, count: _access(wire.REGION_READ, device.SCRATCH, offset, count, b"", False), _offsets, _counts
)
writes = st.builds(
    lambda offset, data, posted: _access(wire.REGION_WRITE, device.SCRATCH, offset, len(data), data, posted),
    _offsets,
    st.binary(min_size=1, max_size=SCRATCH),
    st.booleans(),
)
infos = st.sampled_from(
    [
        _info(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0)),
        _info(wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(32, 0, wire.CONFIG, 0, 0, 0)),
        _info(wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, wire.IRQ_MSI, 0)),
        # Refused ones are valid messages, too.
        _info(wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(32, 0, 1000, 0, 0, 0)),
        _info(0x7000, b"unknown"),
        _info(wire.DEVICE_RESET, b""),
    ]
)
maps = st.builds(_map, _pages, _lengths, st.booleans())
unmaps = st.builds(_unmap, _pages, _lengths)
irqs = st.builds(_irqs, st.integers(0, 20), st.booleans())

messages = st.one_of(reads, writes, infos, maps, unmaps, irqs)
conversations = st.lists(messages, min_size=1, max_size=25)


def numbered(conversation: Sequence[Sent]) -> list[Sent]:
    """The same messages with the ids 1, 2, 3, ..."""
    return [
        Sent(number.to_bytes(2, "little") + sent.data[2:], sent.with_fd, sent.answered)
        for number, sent in enumerate(conversation, 1)
    ]


def pieces(conversation: Sequence[Sent], cuts: Sequence[int]) -> list[tuple[bytes, bool]]:
    """The conversation's bytes cut at `cuts`, and before and behind every message that brings a descriptor.

    Each piece is what one system call sends; its second item says whether a descriptor goes with its first byte. It
    must hold no other message then: the kernel does not say which byte of what it delivers a descriptor came with.
    """
    stream = b"".join(sent.data for sent in conversation)
    starts, ends, at = set(), set(), 0
    for sent in conversation:
        if sent.with_fd:
            starts.add(at)
            ends.add(at + len(sent.data))
        at += len(sent.data)
    points = sorted({0, len(stream), *starts, *ends, *(cut % (len(stream) + 1) for cut in cuts)})
    return [(stream[start:end], start in starts) for start, end in pairwise(points)]


# Messages that no honest client sends: any command, flags and size, any body.
headers = st.tuples(
    st.integers(0, 0xFFFF),
    st.one_of(st.sampled_from(sorted(wire.COMMAND_NAMES)), st.integers(0, 0xFFFF)),
    st.one_of(st.sampled_from([0, 0, 0, wire.FLAG_NO_REPLY, 1, 0x21]), st.integers(0, 0xFFFFFFFF)),
)
_numbers = st.one_of(
    st.sampled_from([0, 1, 4, 7, 8, 16, 20, 24, 32, 40, 0x1000, 0x10000, 1 << 31, (1 << 32) - 1]),
    st.integers(0, 1 << 32),
)
bodies = st.one_of(
    st.binary(max_size=80),
    st.lists(_numbers, max_size=12).map(lambda n: b"".join((value & 0xFFFFFFFF).to_bytes(4, "little") for value in n)),
)


def _strange(header: tuple[int, int, int], body: bytes, surplus: int) -> bytes:
    message_id, command, flags = header
    return wire.HEADER.pack(message_id, command, max(0, wire.HEADER_SIZE + len(body) + surplus), flags, 0) + body


strange_messages = st.builds(_strange, headers, bodies, st.one_of(st.just(0), st.just(0), st.integers(-40, 40)))
