"""Commands sent without waiting for replies."""

from __future__ import annotations

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import encode

ORDER = "Command Concurrency"
HEADER = "Header"
INFO = wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, 0, 0, 0)


def _read(offset: int, count: int = 4, region: int = wire.CONFIG) -> bytes:
    return wire.REGION_ACCESS.pack(offset, region, count)


@case(ORDER)
def pipelined_reads_are_answered_in_order(t: Context) -> None:
    """Commands are processed in the order in which they come."""
    for number in range(16):
        t.client.send_raw(encode(wire.REGION_READ, _read(4 * number), message_id=100 + number))
    for number in range(16):
        reply = t.reply(t.client, wire.REGION_READ, 100 + number)
        t.equal(wire.REGION_ACCESS.unpack_from(reply.body)[0], 4 * number, f"the offset in reply {number}")


@case(ORDER)
def replies_can_be_waited_for_in_any_order(t: Context) -> None:
    """Every reply belongs to the command with its message id."""
    want = [t.client.region_read(wire.CONFIG, 4 * number, 4) for number in range(16)]
    ids = [t.client.send(wire.REGION_READ, _read(4 * number)) for number in range(16)]
    for number in (7, 3, 15, 0, 8, 1, 14, 2, 13, 4, 12, 5, 11, 6, 10, 9):
        t.equal(t.client.wait(ids[number]).body[16:], want[number], f"dword {number}")


@case(HEADER)
def message_ids_belong_to_the_sender(t: Context) -> None:
    """Message ids may be used again at once, and mean nothing to the server."""
    for number in range(8):
        t.client.send_raw(encode(wire.REGION_READ, _read(4 * number), message_id=0x5555))
    for number in range(8):
        reply = t.reply(t.client, wire.REGION_READ, 0x5555)
        t.equal(wire.REGION_ACCESS.unpack_from(reply.body)[0], 4 * number, f"the offset in reply {number}")


@case(HEADER)
def every_message_id_is_echoed(t: Context) -> None:
    """The reply has its command's message id: 0, 65535 and all between."""
    for message_id in (0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF):
        t.exchange(t.client, wire.DEVICE_GET_INFO, INFO, message_id=message_id)


@case(ORDER)
def write_is_seen_by_the_read_behind_it(t: Context) -> None:
    """A pipelined read sees the write before it."""
    scratch = t.scratch(64)
    for value in range(50):
        data = value.to_bytes(4, "little")
        write = _read(scratch.offset, 4, scratch.region) + data
        t.client.send_raw(
            encode(wire.REGION_WRITE, write, message_id=1)
            + encode(wire.REGION_READ, _read(scratch.offset, 4, scratch.region), message_id=2)
        )
        t.reply(t.client, wire.REGION_WRITE, 1)
        t.equal(t.reply(t.client, wire.REGION_READ, 2).body[16:], data, "what the read behind the write got")


@case(ORDER)
def error_does_not_disturb_its_neighbours(t: Context) -> None:
    """Of pipelined commands, those that fail fail alone."""
    for number in range(20):
        offset = 1 << 50 if number % 3 == 0 else 4 * number
        t.client.send_raw(encode(wire.REGION_READ, _read(offset), message_id=number))
    for number in range(20):
        reply = t.reply(t.client, wire.REGION_READ, number)
        t.equal(reply.failed, number % 3 == 0, f"whether command {number} failed")


@case(ORDER)
def different_commands_are_answered_in_order(t: Context) -> None:
    """Order holds between commands of different kinds, slow and fast."""
    scratch = t.scratch(4096)
    commands = [
        (wire.DEVICE_GET_INFO, INFO),
        (wire.REGION_READ, _read(0)),
        (wire.DMA_MAP, wire.DMA_MAP_BODY.pack(32, 3, 0, 0x10000, 0x1000)),
        (wire.REGION_WRITE, _read(scratch.offset, 4096, scratch.region) + bytes(4096)),
        (wire.DMA_UNMAP, wire.DMA_UNMAP_BODY.pack(24, 0, 0x10000, 0x1000)),
        (wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, 1, 0)),
        (wire.REGION_READ, _read(scratch.offset, 4096, scratch.region)),
        (wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(32, 0, 7, 0, 0, 0)),
    ]
    for _ in range(5):
        for number, (command, body) in enumerate(commands):
            t.client.send_raw(encode(command, body, message_id=number))
        for number, (command, _) in enumerate(commands):
            t.check(not t.reply(t.client, command, number).failed, f"command {number} of the sequence was refused")


@case(ORDER)
def thousands_of_pipelined_commands_are_answered(t: Context) -> None:
    """However many commands are in flight, each is answered."""
    ids = [t.client.send(wire.REGION_READ, _read(4 * (number % 16))) for number in range(4000)]
    for message_id in ids:
        t.client.wait(message_id)


@case(ORDER)
def both_directions_may_be_full(t: Context) -> None:
    """A client that writes much and reads late does not lock the server up."""
    size = min(64 << 10, t.client.max_data_xfer_size)
    scratch = t.scratch(size)
    write = _read(scratch.offset, size, scratch.region) + bytes(size)
    ids = []
    for _ in range(40):
        ids.append(t.client.send(wire.REGION_WRITE, write))
        ids.append(t.client.send(wire.REGION_READ, _read(scratch.offset, size, scratch.region)))
    for message_id in ids:
        t.client.wait(message_id)
