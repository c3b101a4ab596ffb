"""DEVICE_FEATURE, MIG_DATA_READ and MIG_DATA_WRITE: migration and DMA logging, or their proper refusal."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import (
    INVALID,
    MALFORMED,
    NO_FEATURE,
    OUT_OF_RANGE,
    TOO_LARGE,
    WRONG_STATE,
)
from vfio_user_xe.emulator.vfio_user import wire

FEATURE = "VFIO_USER_DEVICE_FEATURE"
MIGRATION = "VFIO_DEVICE_FEATURE_MIGRATION"
STATE = "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE"
LOGGING = "VFIO_DEVICE_FEATURE_DMA_LOGGING_START / STOP"
REPORT = "VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT"
DATA_READ = "VFIO_USER_MIG_DATA_READ"
DATA_WRITE = "VFIO_USER_MIG_DATA_WRITE"

GET, SET, PROBE = wire.FEATURE_GET, wire.FEATURE_SET, wire.FEATURE_PROBE
PAGE = 4096
BASE = 0x3000_0000


def _body(flags: int, data: bytes = b"", argsz: int | None = None) -> bytes:
    size = wire.DEVICE_FEATURE_BODY.size + len(data) if argsz is None else argsz
    return wire.DEVICE_FEATURE_BODY.pack(size, flags) + data


def _has_migration(t: Context) -> bool:
    return t.client.has_feature(wire.FEATURE_MIGRATION, GET)


def needs_logging(t: Context) -> None:
    """Skip where the device does not log DMA."""
    for feature in (wire.FEATURE_DMA_LOGGING_START, wire.FEATURE_DMA_LOGGING_STOP):
        if not t.client.has_feature(feature, SET):
            t.skip("the device does not log DMA")


def _control(page_size: int = PAGE, *ranges: tuple[int, int], count: int | None = None) -> bytes:
    data = wire.DMA_LOGGING_CONTROL.pack(page_size, len(ranges) if count is None else count, 0)
    return data + b"".join(wire.DMA_LOGGING_RANGE.pack(*piece) for piece in ranges)


def _report(address: int, length: int, page_size: int = PAGE, argsz: int = 1 << 16) -> bytes:
    return _body(GET | wire.FEATURE_DMA_LOGGING_REPORT, wire.DMA_LOGGING_REPORT.pack(address, length, page_size), argsz)


# The command itself.


@case(FEATURE)
def unknown_feature_is_refused(t: Context) -> None:
    """A feature that does not exist is refused, for every method."""
    for methods in (GET, SET, PROBE, PROBE | GET, PROBE | SET):
        t.refused(t.client, wire.DEVICE_FEATURE, _body(methods | 0xFFFF), NO_FEATURE)


@case(FEATURE)
def feature_without_a_method_is_refused(t: Context) -> None:
    """One of get, set and probe must be asked for."""
    t.refused(t.client, wire.DEVICE_FEATURE, _body(wire.FEATURE_MIGRATION), NO_FEATURE)


@case(FEATURE)
def get_and_set_exclude_each_other(t: Context) -> None:
    """Get and set together are for probing only."""
    for feature in (wire.FEATURE_MIGRATION, wire.FEATURE_MIG_DEVICE_STATE):
        t.refused(t.client, wire.DEVICE_FEATURE, _body(GET | SET | feature, bytes(8)), NO_FEATURE)


@case(FEATURE)
def short_feature_request_is_refused(t: Context) -> None:
    """A request that is cut off is refused."""
    for length in (0, 4, 7):
        body = _body(PROBE | wire.FEATURE_MIGRATION)[:length]
        t.refused(t.client, wire.DEVICE_FEATURE, body, INVALID | MALFORMED)


@case(FEATURE)
def too_small_feature_argsz_is_refused(t: Context) -> None:
    """argsz must have room for the fixed part."""
    for argsz in (0, 7):
        body = _body(PROBE | wire.FEATURE_MIGRATION, argsz=argsz)
        t.refused(t.client, wire.DEVICE_FEATURE, body, INVALID | NO_FEATURE | MALFORMED)


@case(FEATURE, silent=True)
def undefined_methods_do_no_harm(t: Context) -> None:
    """Undefined flag bits are refused or ignored."""
    t.tolerated(t.client, wire.DEVICE_FEATURE, _body(PROBE | 0x80000000 | wire.FEATURE_MIGRATION))


@case(FEATURE)
def probe_reply_is_the_request(t: Context) -> None:
    """The reply to a probe that succeeds has the payload of the request."""
    for feature in range(1, 9):
        body = _body(PROBE | feature)
        reply = t.exchange(t.client, wire.DEVICE_FEATURE, body)
        if not reply.failed:
            t.equal(reply.body, body, f"the payload of the reply to a probe of feature {feature}")
    t.usable(t.client)


@case(FEATURE)
def probe_for_methods_agrees_with_the_methods(t: Context) -> None:
    """A probe with get or set succeeds only if that method is there."""
    for feature in (wire.FEATURE_MIGRATION, wire.FEATURE_MIG_DEVICE_STATE):
        if not t.client.has_feature(feature, GET):
            t.refused(t.client, wire.DEVICE_FEATURE, _body(GET | feature, argsz=64), NO_FEATURE)
    if t.client.has_feature(wire.FEATURE_MIGRATION):
        t.check(not t.client.has_feature(wire.FEATURE_MIGRATION, SET), "MIGRATION can be set, says the probe")


# A device that cannot migrate.


def _cannot_migrate(t: Context) -> None:
    if _has_migration(t):
        t.skip("the device can migrate")


@case(MIGRATION)
def migration_is_refused_where_there_is_none(t: Context) -> None:
    """A device that cannot migrate says so to get and probe."""
    _cannot_migrate(t)
    for methods in (GET, PROBE):
        t.refused(t.client, wire.DEVICE_FEATURE, _body(methods | wire.FEATURE_MIGRATION, argsz=64), NO_FEATURE)


@case(STATE)
def migration_state_is_refused_where_there_is_none(t: Context) -> None:
    """A device that cannot migrate has no migration state."""
    _cannot_migrate(t)
    t.refused(t.client, wire.DEVICE_FEATURE, _body(GET | wire.FEATURE_MIG_DEVICE_STATE, argsz=64), NO_FEATURE)
    for state in (wire.MIG_STATE_STOP, wire.MIG_STATE_PRE_COPY, wire.MIG_STATE_RESUMING):
        body = _body(SET | wire.FEATURE_MIG_DEVICE_STATE, wire.MIG_STATE.pack(state, 0))
        t.refused(t.client, wire.DEVICE_FEATURE, body, NO_FEATURE)


@case(DATA_READ)
def migration_data_are_not_read_while_running(t: Context) -> None:
    """Data are there in the saving states only."""
    t.refused(t.client, wire.MIG_DATA_READ, wire.MIG_DATA.pack(wire.MIG_DATA.size + 64, 64), WRONG_STATE)


@case(DATA_WRITE)
def migration_data_are_not_written_while_running(t: Context) -> None:
    """Data are taken in the resuming state only."""
    t.refused(t.client, wire.MIG_DATA_WRITE, wire.MIG_DATA.pack(wire.MIG_DATA.size + 4, 4) + b"data", WRONG_STATE)


@case(DATA_READ)
def short_migration_data_requests_are_refused(t: Context) -> None:
    """Requests that are cut off are refused."""
    for length in (0, 7):
        for command in (wire.MIG_DATA_READ, wire.MIG_DATA_WRITE):
            t.refused(t.client, command, wire.MIG_DATA.pack(8, 0)[:length], MALFORMED | WRONG_STATE)


@case(DATA_READ)
def enormous_migration_data_request_is_refused(t: Context) -> None:
    """4 GiB of data at once are refused."""
    body = wire.MIG_DATA.pack(0xFFFFFFFF, 0xFFFFFFF0)
    t.refused(t.client, wire.MIG_DATA_READ, body, TOO_LARGE | WRONG_STATE)


# A device that can.


@case(MIGRATION)
def migration_has_stop_copy(t: Context) -> None:
    """A device that can migrate has at least the stop-copy state, and is running."""
    if not _has_migration(t):
        t.skip("the device cannot migrate")
    flags = int.from_bytes(t.client.device_feature(GET | wire.FEATURE_MIGRATION, argsz=16)[:8], "little")
    t.check(flags & 1, f"flags {flags:#x} lack stop-copy (1)")
    data = t.client.device_feature(GET | wire.FEATURE_MIG_DEVICE_STATE, argsz=16)
    t.equal(wire.MIG_STATE.unpack_from(data)[0], wire.MIG_STATE_RUNNING, "the migration state")


@case(STATE)
def migration_saves_and_goes_on(t: Context) -> None:
    """Stop, copy the data out, run again."""
    if not _has_migration(t):
        t.skip("the device cannot migrate")
    for state in (wire.MIG_STATE_STOP, wire.MIG_STATE_STOP_COPY):
        t.client.set_migration_state(state)
    for _ in range(1 << 16):
        if len(t.client.mig_data_read(4096)) < 4096:
            break
    for state in (wire.MIG_STATE_STOP, wire.MIG_STATE_RUNNING):
        t.client.set_migration_state(state)
    t.usable(t.client)


@case(STATE)
def undefined_migration_states_are_refused(t: Context) -> None:
    """States that do not exist cannot be set; neither can ERROR."""
    for state in (0, 8, 0xFFFFFFFF):
        body = _body(SET | wire.FEATURE_MIG_DEVICE_STATE, wire.MIG_STATE.pack(state, 0))
        t.refused(t.client, wire.DEVICE_FEATURE, body, NO_FEATURE)


# DMA logging.


@case(LOGGING)
def logging_is_all_there_or_not_at_all(t: Context) -> None:
    """Start, stop and report belong together."""
    has = [
        t.client.has_feature(wire.FEATURE_DMA_LOGGING_START, SET),
        t.client.has_feature(wire.FEATURE_DMA_LOGGING_STOP, SET),
        t.client.has_feature(wire.FEATURE_DMA_LOGGING_REPORT, GET),
    ]
    t.check(len(set(has)) == 1, f"start, stop and report are there: {has}")


@case(LOGGING)
def logging_starts_and_stops(t: Context) -> None:
    """Logging can be started and stopped, again and again."""
    needs_logging(t)
    for _ in range(3):
        t.client.start_dma_logging(PAGE)
        t.client.stop_dma_logging()


@case(LOGGING)
def start_reply_has_the_page_size(t: Context) -> None:
    """The reply to start is the request, with the page size that was chosen."""
    needs_logging(t)
    data = t.client.device_feature(SET | wire.FEATURE_DMA_LOGGING_START, _control(PAGE, (BASE, 16 * PAGE)))
    t.client.stop_dma_logging()
    page_size, count, _ = wire.DMA_LOGGING_CONTROL.unpack_from(data)
    t.check(page_size and page_size & (page_size - 1) == 0, f"page size {page_size:#x} is not a power of two")
    t.equal(count, 1, "the number of ranges")
    t.equal(data[16:], wire.DMA_LOGGING_RANGE.pack(BASE, 16 * PAGE), "the ranges")


@case(REPORT)
def report_without_logging_is_refused(t: Context) -> None:
    """There is nothing to report before logging was started, or after it was stopped."""
    needs_logging(t)
    t.refused(t.client, wire.DEVICE_FEATURE, _report(BASE, 16 * PAGE), WRONG_STATE)
    t.client.start_dma_logging(PAGE)
    t.client.stop_dma_logging()
    t.refused(t.client, wire.DEVICE_FEATURE, _report(BASE, 16 * PAGE), WRONG_STATE)


@case(REPORT)
def report_has_a_bit_for_every_page(t: Context) -> None:
    """The bitmap has whole 64-bit words, the bits outside of the range are 0, argsz says how much came."""
    needs_logging(t)
    t.client.start_dma_logging(PAGE)
    for pages in (1, 64, 65, 200):
        reply = t.accepted(t.client, wire.DEVICE_FEATURE, _report(BASE, pages * PAGE))
        fixed = wire.DEVICE_FEATURE_BODY.size + wire.DMA_LOGGING_REPORT.size
        t.equal(len(reply.body) - fixed, -(-pages // 64) * 8, f"the bitmap's size for {pages} pages")
        t.equal(wire.DEVICE_FEATURE_BODY.unpack_from(reply.body)[0], len(reply.body), "argsz")
        bitmap = int.from_bytes(reply.body[fixed:], "little")
        t.equal(bitmap >> pages, 0, f"the bits behind {pages} pages")


@case(REPORT)
def written_page_is_reported(t: Context) -> None:
    """Pages that the device wrote are in the next report, and not in the one after it."""
    device = t.device()
    needs_logging(t)
    t.client.map_memory(BASE, 64 * PAGE)
    t.client.map_memory(BASE + 64 * PAGE, 64 * PAGE, shared=False)
    t.client.start_dma_logging(PAGE)
    for page in (3, 40, 64 + 9):
        device.write_memory(BASE + page * PAGE + 100, b"dirty")
    bitmap = int.from_bytes(t.client.dma_logging_report(BASE, 128 * PAGE, PAGE), "little")
    missing = [page for page in (3, 40, 73) if not bitmap >> page & 1]
    t.equal(missing, [], "the list of written pages that are not reported")
    t.check(bitmap.bit_count() < 128, "every page is reported, though three were written")
    again = int.from_bytes(t.client.dma_logging_report(BASE, 128 * PAGE, PAGE), "little")
    t.equal(again, 0, "the bitmap of the second report")


@case(REPORT)
def read_page_is_not_reported(t: Context) -> None:
    """Only writes are logged."""
    device = t.device()
    needs_logging(t)
    t.client.map_memory(BASE, 64 * PAGE)
    t.client.start_dma_logging(PAGE)
    device.read_memory(BASE, 5 * PAGE)
    t.equal(int.from_bytes(t.client.dma_logging_report(BASE, 64 * PAGE, PAGE), "little"), 0, "the bitmap")


@case(REPORT)
def report_in_larger_pages_holds_the_smaller_ones(t: Context) -> None:
    """The page size of a report need not be the one of the log."""
    device = t.device()
    needs_logging(t)
    t.client.map_memory(BASE, 64 * PAGE)
    t.client.start_dma_logging(PAGE)
    device.write_memory(BASE + 37 * PAGE, b"x")
    bitmap = int.from_bytes(t.client.dma_logging_report(BASE, 64 * PAGE, 16 * PAGE), "little")
    t.equal(bitmap, 1 << 2, "the bitmap of four pages of 64 KiB")


def _bad_report(name: str, rule: str, length: int, page_size: int) -> None:
    def check(t: Context) -> None:
        needs_logging(t)
        t.client.start_dma_logging(PAGE)
        t.refused(t.client, wire.DEVICE_FEATURE, _report(BASE, length, page_size), INVALID | OUT_OF_RANGE | TOO_LARGE)

    check.__name__ = name
    check.__doc__ = rule
    case(REPORT, silent=True)(check)


_bad_report("report_with_page_size_0_is_refused", "The page size must be a power of two.", 16 * PAGE, 0)
_bad_report("report_with_an_odd_page_size_is_refused", "The page size must be a power of two.", 16 * PAGE, 5000)
_bad_report("report_of_nothing_is_refused", "A report is of a range that has bytes.", 0, PAGE)
_bad_report("report_of_everything_is_refused", "2^63 bytes have too many pages for a message.", 1 << 63, PAGE)


@case(REPORT)
def report_that_does_not_fit_is_refused(t: Context) -> None:
    """argsz must have room for the bitmap."""
    needs_logging(t)
    t.client.start_dma_logging(PAGE)
    t.refused(t.client, wire.DEVICE_FEATURE, _report(BASE, 64 * PAGE, argsz=8 + 24 + 7), INVALID | TOO_LARGE)


@case(LOGGING)
def short_logging_requests_are_refused(t: Context) -> None:
    """Requests that are cut off, or announce more ranges than they have, are refused."""
    needs_logging(t)
    for data in (b"", _control()[:15], _control(PAGE, (BASE, PAGE), count=2), _control(PAGE, count=0xFFFFFFFF)):
        body = _body(SET | wire.FEATURE_DMA_LOGGING_START, data, argsz=1 << 16)
        t.refused(t.client, wire.DEVICE_FEATURE, body, INVALID | MALFORMED | TOO_LARGE)
    t.client.start_dma_logging(PAGE)
    for length in (0, 23):
        data = wire.DMA_LOGGING_REPORT.pack(BASE, PAGE, PAGE)[:length]
        body = _body(GET | wire.FEATURE_DMA_LOGGING_REPORT, data, argsz=1 << 16)
        t.refused(t.client, wire.DEVICE_FEATURE, body, INVALID | MALFORMED)


@case("Client Disconnection", silent=True)
def logging_ends_with_its_client(t: Context) -> None:
    """The next client starts without a log."""
    needs_logging(t)
    t.client.start_dma_logging(PAGE)
    t.drop(t.client)
    t.client.start_dma_logging(PAGE)
    t.client.stop_dma_logging()
