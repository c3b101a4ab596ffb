"""Flat CCS: memory that the blitter stores compressed, and metadata that says which blocks of it are.

Each block of 256 bytes of VRAM has four bits of metadata at the end of VRAM (`xe_vram.c:get_flat_ccs_offset`), zero
where the block is plain. What pages with a compressing PAT entry (`xe_pat.c`: XE2_COMP_EN) map is stored compressed,
and expanded by reads through such pages; any other access sees what is stored. A plain write makes blocks plain again,
which is what the driver's clears and moves rely on (`xe_migrate.c:xe_migrate_needs_ccs_emit`).

Hardware's formats are not published. Here every block counts as compressible and is stored with its bits inverted in a
pattern, so that who reads it without its metadata, or with wrong metadata, gets what is useless. Only blits compress;
what other commands and the host store does not touch metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vfio_user_xe.device_models.xe.engines import bulk
from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, AddressSpace, Extent, TranslationFault
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE, Vram
from vfio_user_xe.emulator.fabric.interconnect import Space, Window

BLOCK = 256
_PER_BYTE = 2 * BLOCK
"""Bytes of memory that a byte of metadata is for."""
_BOTH = 0x11
_PATTERN = bytes.fromhex("5ac3965a")
_STEP = 4 << 20


def plain(vram: Vram, space: AddressSpace, address: int, length: int) -> bytearray:
    """`length` bytes at `address`, expanded.

    Raises:
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    data = bytearray()
    for extent, window in _windows(space, address, length, write=False):
        piece = window.read(0, window.length)
        data += _expanded(vram, space, extent, piece) if extent.compressed else piece
    return data


def store(
    vram: Vram, space: AddressSpace, address: int, data: bytes | bytearray | memoryview, *, compress: bool = True
) -> None:
    """Store `data` at `address`, compressed where pages are for that.

    Raises:
        TranslationFault: an address is not mapped; all before it was stored.
        AccessFault: an address is refused, or leads nowhere; all before it was stored.
    """
    rest = memoryview(data)
    for extent, window in _windows(space, address, len(rest), write=True):
        piece = rest[: window.length]
        if extent.compressed and compress:
            _compress(vram, space, extent, window, piece)
        else:
            window.write(0, piece)
            _set_metadata(vram, space, extent, window.length, 0)
        rest = rest[window.length :]


def forget(vram: Vram, space: AddressSpace, address: int, length: int) -> None:
    """`[address, address + length)` was written plainly: no block of it is compressed any more."""
    for extent in _pieces(space, address, length, write=True):
        _set_metadata(vram, space, extent, extent.length, 0)


def involved(space: AddressSpace, address: int, length: int) -> bool:
    """Whether any page of `[address, address + length)` compresses. False up to a hole: the access itself reports it."""
    try:
        return any(extent.compressed for extent in space.extents(address, length, False))
    except TranslationFault:
        return False


def copy(
    vram: Vram, source: AddressSpace, source_address: int, target: AddressSpace, address: int, length: int
) -> Bulk:
    """As `bulk.copy`, of memory that may be compressed on either side."""
    if not involved(source, source_address, length) and not involved(target, address, length):
        yield from bulk.copy(source, source_address, target, address, length)
        yield from _retried(lambda: forget(vram, target, address, length))
        return
    done = 0
    while done < length:
        count = min(_STEP, length - done)
        try:
            store(vram, target, address + done, plain(vram, source, source_address + done, count))
        except (TranslationFault, AccessFault) as fault:
            yield fault
            continue
        done += count
        yield None


def fill(vram: Vram, target: AddressSpace, address: int, length: int, pattern: bytes) -> Bulk:
    """As `bulk.fill`, of memory that may be compressed."""
    if not involved(target, address, length):
        yield from bulk.fill(target, address, length, pattern, vram)
        yield from _retried(lambda: forget(vram, target, address, length))
        return
    done = 0
    step = _STEP // len(pattern) * len(pattern)
    while done < length:
        count = min(step, length - done)
        try:
            store(vram, target, address + done, (pattern * -(-count // len(pattern)))[:count])
        except (TranslationFault, AccessFault) as fault:
            yield fault
            continue
        done += count
        yield None


def metadata_place(vram: Vram, space: AddressSpace, extent: Extent) -> int | None:
    """Where in VRAM the metadata of the block at `extent` is; None for memory that has none."""
    if extent.space != Space.DEVICE or vram.flat_ccs is None:
        return None
    dpa = vram.to_dpa(space.function.pci, extent.address)
    if dpa is None:
        raise AccessFault(space.function.pci, Space.DEVICE, extent.address, "no VRAM there")
    return vram.flat_ccs + dpa // _PER_BYTE


def _pieces(space: AddressSpace, address: int, length: int, *, write: bool) -> Iterator[Extent]:
    """The extents of `[address, address + length)`, cut where LMTT may go on elsewhere: metadata goes by DPA."""
    for extent in space.extents(address, length, write):
        rest = extent
        while rest.length:
            piece = rest._replace(length=min(rest.length, BLOCK_SIZE - rest.address % BLOCK_SIZE))
            yield piece
            rest = rest._replace(address=rest.address + piece.length, length=rest.length - piece.length)


def _windows(space: AddressSpace, address: int, length: int, *, write: bool) -> Iterator[tuple[Extent, Window]]:
    """Each piece with a window on exactly it."""
    for piece in _pieces(space, address, length, write=write):
        rest = piece
        while rest.length:
            window = space.open(rest, write)
            yield rest._replace(length=window.length), window
            rest = rest._replace(address=rest.address + window.length, length=rest.length - window.length)


def _compress(vram: Vram, space: AddressSpace, extent: Extent, window: Window, data: memoryview) -> None:
    """Store `data` compressed; blocks of which it is only a part are expanded and stored anew."""
    head, tail = extent.address % BLOCK, -(extent.address + len(data)) % BLOCK
    if head or tail:
        whole = extent._replace(address=extent.address - head, length=head + len(data) + tail)
        old = _expanded(vram, space, whole, space.open(whole, False).read(0, whole.length))
        data = memoryview(bytes(old[:head]) + bytes(data) + bytes(old[head + len(data) :]))
        extent, window = whole, space.open(whole, True)
    window.write(0, _inverted(data))
    _set_metadata(vram, space, extent, len(data), _BOTH)


def _expanded(vram: Vram, space: AddressSpace, extent: Extent, data: bytes) -> bytes | bytearray:
    """What `data`, as stored at `extent`, means."""
    place = metadata_place(vram, space, extent)
    if place is None:
        return data
    phase = extent.address % _PER_BYTE
    metadata = bytes(vram.memory.view[place : place + (phase + len(data) + _PER_BYTE - 1) // _PER_BYTE])
    if not any(metadata):
        return data
    if metadata.count(_BOTH) == len(metadata):
        return _inverted(data, phase % len(_PATTERN))
    expanded = bytearray(data)
    start = 0
    while start < len(data):
        at = phase + start
        end = min(len(data), start + BLOCK - at % BLOCK)
        if metadata[at // _PER_BYTE] >> (4 if at % _PER_BYTE >= BLOCK else 0) & 0xF:
            expanded[start:end] = _inverted(data[start:end], at % len(_PATTERN))
        start = end
    return expanded


def _inverted(data: bytes | memoryview, phase: int = 0) -> bytes:
    pattern = (_PATTERN * (-(-(phase + len(data)) // len(_PATTERN))))[phase : phase + len(data)]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")).to_bytes(len(data), "little")


def _set_metadata(vram: Vram, space: AddressSpace, extent: Extent, length: int, value: int) -> None:
    """Give every block that `length` bytes at `extent` touch metadata `value` (a byte for two blocks)."""
    place = metadata_place(vram, space, extent)
    if place is None or not length:
        return
    view, low, high = vram.memory.view, 0xF, 0xF0
    start = extent.address % _PER_BYTE
    end = start + length
    first, last = 0, (end - 1) // _PER_BYTE
    if start >= BLOCK:
        view[place] = view[place] & low | value & high
        first = 1
    if last >= first and (end - 1) % _PER_BYTE < BLOCK:
        view[place + last] = view[place + last] & high | value & low
        last -= 1
    if last >= first:
        view[place + first : place + last + 1] = bytes((value,)) * (last + 1 - first)


def _retried(action: Callable[[], None]) -> Bulk:
    while True:
        try:
            action()
        except (TranslationFault, AccessFault) as fault:
            yield fault
            continue
        return
