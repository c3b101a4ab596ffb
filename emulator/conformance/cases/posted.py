"""No_reply: commands that must never be answered, not even with an error."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import encode

FLAGS = "Header"
ORDER = "Command Concurrency"
INFO = wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, 0, 0, 0)


def _unanswered(t: Context, command: int, body: bytes, fds: tuple[int, ...] = ()) -> None:
    """Sent with No_reply, a command gets no reply: the next reply is the next command's."""
    t.client.send_raw(encode(command, body, message_id=0x0BAD, flags=wire.FLAG_NO_REPLY), fds)
    t.usable(t.client)


@case(FLAGS)
def posted_write_is_done_without_a_reply(t: Context) -> None:
    """A write with No_reply is done, and not answered."""
    scratch = t.scratch(64)
    t.client.region_write(scratch.region, scratch.offset, b"old!")
    t.client.region_write(scratch.region, scratch.offset, b"new!", posted=True)
    t.equal(t.client.region_read(scratch.region, scratch.offset, 4), b"new!", "the memory")
    t.silent(t.client)


@case(ORDER)
def posted_writes_are_done_before_what_follows(t: Context) -> None:
    """A command with No_reply has been processed when the reply to a later one comes."""
    scratch = t.scratch(64)
    for value in range(1, 200):
        t.client.write(scratch.region, scratch.offset, 4, value, posted=True)
        if value % 20 == 0:
            t.equal(t.client.read(scratch.region, scratch.offset, 4), value, "the value behind posted writes")


@case(ORDER)
def thousands_of_posted_writes_are_done_in_order(t: Context) -> None:
    """However many there are, the last one wins."""
    scratch = t.scratch(64)
    messages = []
    for value in range(5000):
        body = wire.REGION_ACCESS.pack(scratch.offset, scratch.region, 4) + value.to_bytes(4, "little")
        messages.append(encode(wire.REGION_WRITE, body, flags=wire.FLAG_NO_REPLY))
    t.client.send_raw(b"".join(messages))
    t.equal(t.client.read(scratch.region, scratch.offset, 4), 4999, "the value behind 5000 posted writes")


@case(FLAGS)
def large_posted_write_is_done(t: Context) -> None:
    """A large write may be posted, too."""
    size = min(256 << 10, t.client.max_data_xfer_size)
    scratch = t.scratch(size)
    data = bytes(range(256)) * (size // 256)
    t.client.region_write(scratch.region, scratch.offset, data, posted=True)
    t.check(t.client.region_read(scratch.region, scratch.offset, size) == data, f"{size} bytes are not as written")


def _error(name: str, command: int, body: bytes) -> None:
    def check(t: Context) -> None:
        _unanswered(t, command, body)

    check.__name__ = f"posted_{name}_gets_no_error_reply"
    check.__doc__ = "A command with No_reply that fails is not answered either."
    case(FLAGS)(check)


_error("write_to_a_missing_region", wire.REGION_WRITE, wire.REGION_ACCESS.pack(0, 0xFFFF, 4) + bytes(4))
_error("write_behind_the_end", wire.REGION_WRITE, wire.REGION_ACCESS.pack(1 << 40, wire.CONFIG, 4) + bytes(4))
_error("write_without_its_data", wire.REGION_WRITE, wire.REGION_ACCESS.pack(0, wire.CONFIG, 4))
_error("write_that_is_cut_off", wire.REGION_WRITE, bytes(7))
_error("unknown_command", 0x7777, bytes(32))
_error("unmap_of_nothing", wire.DMA_UNMAP, wire.DMA_UNMAP_BODY.pack(24, 0, 0x1000, 0x1000))
_error("empty_map", wire.DMA_MAP, wire.DMA_MAP_BODY.pack(32, 3, 0, 0, 0))
_error("irq_set_of_a_missing_index", wire.DEVICE_SET_IRQS, wire.IRQ_SET.pack(20, 0x21, 99, 0, 0))
_error("second_version", wire.VERSION, wire.VERSION_BODY.pack(0, 0))


@case(FLAGS)
def posted_read_gets_no_reply(t: Context) -> None:
    """No_reply holds for reads, too, odd as that is."""
    _unanswered(t, wire.REGION_READ, wire.REGION_ACCESS.pack(0, wire.CONFIG, 4))
    _unanswered(t, wire.DEVICE_GET_INFO, INFO)
    _unanswered(t, wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(32, 0, 0, 0, 0, 0))


@case(FLAGS)
def posted_map_is_done(t: Context) -> None:
    """DMA_MAP with No_reply maps."""
    _unanswered(t, wire.DMA_MAP, wire.DMA_MAP_BODY.pack(32, 3, 0, 0x10000, 0x1000))
    t.accepted(t.client, wire.DMA_UNMAP, wire.DMA_UNMAP_BODY.pack(24, 0, 0x10000, 0x1000))


@case(FLAGS)
def posted_reset_gets_no_reply(t: Context) -> None:
    """DEVICE_RESET with No_reply resets, without a reply."""
    _unanswered(t, wire.DEVICE_RESET, b"")


@case(FLAGS)
def descriptors_of_a_posted_command_that_fails_are_closed(t: Context) -> None:
    """The error is not reported, but the descriptors are still closed."""
    with t.witness() as (fd, closed):
        _unanswered(t, wire.DMA_MAP, wire.DMA_MAP_BODY.pack(32, 3, 0, 0, 0), (fd,))
        closed()
