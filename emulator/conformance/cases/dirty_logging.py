"""DMA logging over mappings that come, go, and are logged in part."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.dma.ranges import is_mapped, map_body, memory_of, unmap_body
from vfio_user_xe.emulator.conformance.cases.features import BASE, LOGGING, PAGE, REPORT, needs_logging
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire

_ROUNDS = 10_000
_UNDER_WAY = 64


def _pages(t: Context, address: int, pages: int) -> list[int]:
    bitmap = int.from_bytes(t.client.dma_logging_report(address, pages * PAGE, PAGE), "little")
    return [page for page in range(pages) if bitmap >> page & 1]


@case(REPORT)
def logging_of_a_part_of_a_mapping_reports_the_part(t: Context) -> None:
    """A range to log need not be a mapping: what is written in it is reported."""
    device = t.device()
    needs_logging(t)
    t.client.map_memory(BASE, 64 * PAGE)
    t.client.start_dma_logging(PAGE, [(BASE + 16 * PAGE, 16 * PAGE)])
    for page in (17, 30):
        device.write_memory(BASE + page * PAGE, b"x")
    t.equal(_pages(t, BASE + 16 * PAGE, 16), [1, 14], "the pages of the part")


@case(REPORT)
def report_of_a_part_leaves_the_rest_for_the_next(t: Context) -> None:
    """A report of some pages does not use up what was written in others."""
    device = t.device()
    needs_logging(t)
    t.client.map_memory(BASE, 64 * PAGE)
    t.client.start_dma_logging(PAGE, [(BASE, 64 * PAGE)])
    for page in (1, 33):
        device.write_memory(BASE + page * PAGE, b"x")
    t.equal(_pages(t, BASE, 32), [1], "the pages of the first half")
    t.equal(_pages(t, BASE + 32 * PAGE, 32), [1], "the pages of the second half, afterwards")
    t.equal(_pages(t, BASE, 64), [], "the pages of both, again")


@case(REPORT)
def logging_over_several_mappings_and_the_gap_between_reports_all(t: Context) -> None:
    """A range to log may hold several mappings, and addresses where nothing is mapped."""
    device = t.device()
    needs_logging(t)
    t.client.map_memory(BASE, 8 * PAGE)
    t.client.map_memory(BASE + 24 * PAGE, 8 * PAGE, shared=False)
    t.client.start_dma_logging(PAGE, [(BASE, 32 * PAGE)])
    device.write_memory(BASE + 7 * PAGE, b"x")
    device.write_memory(BASE + 25 * PAGE, b"x")
    t.equal(_pages(t, BASE, 32), [7, 25], "the pages")


@case(LOGGING, silent=True)
def logging_without_mappings_reports_nothing(t: Context) -> None:
    """Logging may start before anything is mapped, over ranges or without; nothing is dirty then."""
    needs_logging(t)
    for ranges in ([], [(BASE, 64 * PAGE)]):
        t.client.start_dma_logging(PAGE, ranges)
        t.equal(_pages(t, BASE, 64), [], "the pages")
        t.client.stop_dma_logging()


@case(LOGGING, silent=True)
def memory_that_is_mapped_while_logging_is_logged(t: Context) -> None:
    """A mapping that comes later is within a range to log as one that was there."""
    device = t.device()
    needs_logging(t)
    t.client.start_dma_logging(PAGE, [(BASE, 64 * PAGE)])
    t.client.map_memory(BASE + 8 * PAGE, 8 * PAGE)
    device.write_memory(BASE + 9 * PAGE, b"x")
    t.equal(_pages(t, BASE, 64), [9], "the pages")


@case(LOGGING, silent=True)
def report_after_an_unmap_does_no_harm(t: Context) -> None:
    """Pages that were written before their mapping went are reported or forgotten; others never."""
    device = t.device()
    needs_logging(t)
    mapping = t.client.map_memory(BASE, 64 * PAGE)
    t.client.start_dma_logging(PAGE, [(BASE, 64 * PAGE)])
    device.write_memory(BASE + 5 * PAGE, b"x")
    t.client.unmap_memory(mapping)
    t.check(set(_pages(t, BASE, 64)) <= {5}, "a page is reported that was not written")


@case(LOGGING, silent=True, slow=True)
def ranges_come_and_go_ten_thousand_times_while_logging(t: Context) -> None:
    """Mapping and unmapping while logging is on, 10,000 times: the log still works, and no descriptor is left."""
    needs_logging(t)
    memory = memory_of(t, 64 * PAGE)
    t.client.start_dma_logging(PAGE, [(BASE, 1024 * PAGE)])
    before = t.descriptors()
    for first in range(0, _ROUNDS, _UNDER_WAY):
        ids = []
        for number in range(first, min(first + _UNDER_WAY, _ROUNDS)):
            at = BASE + number % 512 * 2 * PAGE
            ids.append(t.client.send(wire.DMA_MAP, map_body(at, PAGE, offset=number % 64 * PAGE), [memory.fd]))
            ids.append(t.client.send(wire.DMA_UNMAP, unmap_body(at, PAGE)))
        for message_id in ids:
            t.client.wait(message_id, timeout=20)
    t.equal(_pages(t, BASE, 1024), [], "the pages")
    t.check(not is_mapped(t, t.client, BASE, 1024 * PAGE), "a range is mapped although all were unmapped")
    t.client.stop_dma_logging()
    t.no_more_descriptors_than(before)
