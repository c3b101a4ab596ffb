"""Pages of a PPGTT that are found together: those that single accesses would reach, and no further than these would."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.xe.rig import MIB, PageTables, Rig
from vfio_user_xe.device_models.xe.memory.formats import ppgtt
from vfio_user_xe.device_models.xe.memory.ggtt import TranslationFault
from vfio_user_xe.emulator.fabric.pages import PAGE, Pages, copy_pages

VA = 0x40_0000
SCRATCH, POOL = 32 * MIB, 48 * MIB


@pytest.fixture
def rig() -> Rig:
    rig = Rig(vram=64 * MIB)
    rig.ram.size = 5 * MIB
    for page in range(0, 24 * MIB, PAGE):
        rig.vram.memory.view[page : page + 4] = (page | 1).to_bytes(4, "little")
    for page in range(0, rig.ram.size, PAGE):
        rig.ram.of("pf")[page : page + 4] = (page | 2).to_bytes(4, "little")
    return rig


@pytest.fixture
def tables(rig: Rig) -> PageTables:
    return PageTables(rig, rig.pf, POOL)


def read(rig: Rig, pages: Pages | None) -> list[int]:
    """The first dword of each page, by a copy."""
    assert pages is not None
    view = rig.vram.memory.view[SCRATCH : SCRATCH + len(pages) * PAGE]
    first = np.frombuffer(view, np.uint8).ctypes.data // PAGE - 1
    numbers = np.arange(first, first + len(pages))
    copy_pages(pages, Pages(numbers, [], np.empty(0, np.intp), [view]))
    return [int.from_bytes(view[n * PAGE : n * PAGE + 4], "little") for n in range(len(pages))]


def test_pages_are_found_in_the_order_of_their_addresses_wherever_they_lead(rig: Rig, tables: PageTables) -> None:
    places = [7 * MIB, 3 * MIB + PAGE, 7 * MIB + PAGE, 3 * MIB, 9 * MIB - PAGE, 9 * MIB]
    for n, place in enumerate(places):
        tables.map(VA + n * PAGE, place)
    assert read(rig, tables.space().pages(VA, 100, False)) == [place | 1 for place in places]
    assert read(rig, tables.space().pages(VA + PAGE, 3, False)) == [place | 1 for place in places[1:4]]


def test_pages_of_guest_memory_end_where_it_ends(rig: Rig, tables: PageTables) -> None:
    for n, place in enumerate((4 * MIB, 5 * MIB - PAGE, 5 * MIB, 0)):
        tables.map(VA + n * PAGE, place, system=True)
    assert read(rig, tables.space().pages(VA, 100, True)) == [4 * MIB | 2, 5 * MIB - PAGE | 2]
    assert tables.space().pages(VA + 2 * PAGE, 100, True) is None


@pytest.mark.parametrize("end", ["hole", "null", "other memory", "read-only"])
def test_pages_end_at_one_that_is_another_matter(rig: Rig, tables: PageTables, end: str) -> None:
    tables.map(VA, 3 * MIB, 2 * PAGE)
    if end == "null":
        tables.entry(VA + 2 * PAGE, 0, 3 | ppgtt.NULL)
    elif end == "other memory":
        tables.map(VA + 2 * PAGE, 0, system=True)
    elif end == "read-only":
        tables.map(VA + 2 * PAGE, 4 * MIB, flags=1)
    tables.map(VA + 3 * PAGE, 5 * MIB)
    space = tables.space()
    found = space.pages(VA, 100, True)
    assert found is not None
    assert len(found) == 2
    if end == "other memory":
        assert read(rig, space.pages(VA + 2 * PAGE, 100, True)) == [2]
    else:
        assert space.pages(VA + 2 * PAGE, 100, True) is None
    if end == "read-only":
        assert read(rig, space.pages(VA, 100, False)) == [3 * MIB | 1, 3 * MIB + PAGE | 1, 4 * MIB | 1, 5 * MIB | 1]


def test_pages_of_larger_pages_begin_anywhere_in_them(rig: Rig, tables: PageTables) -> None:
    for n, place in enumerate((8 * MIB, 4 * MIB)):
        tables.entry(VA + n * 2 * MIB, 1, place | 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)
    found = read(rig, tables.space().pages(VA + 2 * MIB - 2 * PAGE, 4, False))
    assert found == [place | 1 for place in (10 * MIB - 2 * PAGE, 10 * MIB - PAGE, 4 * MIB, 4 * MIB + PAGE)]
    assert len(read(rig, tables.space().pages(VA + 3 * PAGE, 600, False))) == 512


def test_nothing_is_found_behind_messages_and_where_windows_were_taken_away(rig: Rig, tables: PageTables) -> None:
    tables.map(VA, 0, 4 * PAGE, system=True)
    space = tables.space()
    assert space.pages(VA, 4, True) is not None
    rig.ram.messages = True
    rig.fabric.revoke()
    assert space.pages(VA, 4, True) is None


@pytest.mark.parametrize(("start", "length"), [(0, 40 * PAGE), (0x123, 39 * PAGE), (PAGE, 9 * PAGE + 5), (0, 0x7FFF)])
def test_long_accesses_of_scattered_pages_are_those_of_each_byte_and_counted_once(
    rig: Rig, tables: PageTables, start: int, length: int
) -> None:
    places = [(7 * n % 41) * PAGE for n in range(41)]
    for n, place in enumerate(places):
        tables.map(VA + n * PAGE, 2 * MIB + place, system=n in (20, 21))
    space = tables.space()
    data = bytes(n * 31 & 0xFF for n in range(length))
    rig.fabric.ledger.clear()
    space.write(VA + start, data)
    assert sum(entry.bytes_written for entry in rig.fabric.ledger) == length
    assert space.read(VA + start, length) == data
    assert sum(entry.bytes_read for entry in rig.fabric.ledger) == length
    each = b"".join(space.read(VA + at, 1) for at in range(start, start + length, 1000))
    assert each == data[::1000]
    assert b"".join(space.read(VA + at, PAGE) for at in range(0, 41 * PAGE, PAGE))[start : start + length] == data


def test_a_long_access_of_scattered_pages_faults_at_the_page_that_is_not_there(rig: Rig, tables: PageTables) -> None:
    for n in range(40):
        if n != 30:
            tables.map(VA + n * PAGE, 2 * MIB + (7 * n % 41) * PAGE)
    space = tables.space()
    with pytest.raises(TranslationFault, match=f"address {VA + 30 * PAGE:#x}"):
        space.read(VA, 40 * PAGE)
    with pytest.raises(TranslationFault, match=f"address {VA + 30 * PAGE:#x}"):
        space.write(VA, bytes(range(256)) * 16 * 40)
    assert space.read(VA + 29 * PAGE, PAGE) == bytes(range(256)) * 16
