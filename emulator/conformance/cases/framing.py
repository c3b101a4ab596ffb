"""Headers, sizes, and how messages are cut into pieces by whatever lies between."""

from __future__ import annotations

import contextlib

from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.errnos import INVALID, MALFORMED, TOO_LARGE, UNKNOWN_COMMAND
from vfio_user_xe.emulator.conformance.outcomes import fail
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, Disconnected, ProtocolError, encode

HEADER = "Header"
SIZES = "Message sizes"
INFO = wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, 0, 0, 0)


def _info_message(message_id: int = 0x1234) -> bytes:
    return encode(wire.DEVICE_GET_INFO, INFO, message_id=message_id)


@case(HEADER)
def message_sent_byte_by_byte_is_assembled(t: Context) -> None:
    """A stream has no message boundaries: a message may come one byte at a time."""
    message = _info_message()
    t.client.connection.send_in_pieces(message, [1] * len(message), pause=0.001)
    t.check(not t.reply(t.client, wire.DEVICE_GET_INFO).failed, "DEVICE_GET_INFO sent byte by byte was refused")


@case(HEADER)
def version_sent_byte_by_byte_is_assembled(t: Context) -> None:
    """This holds for the very first message, too."""
    client = t.raw()
    message = encode(wire.VERSION, wire.VERSION_BODY.pack(0, 0) + b'{"capabilities":{}}\0', message_id=0x1234)
    client.connection.send_in_pieces(message, [1] * len(message), pause=0.001)
    t.check(not t.reply(client, wire.VERSION).failed, "VERSION sent byte by byte was refused")
    t.usable(client)


@case(HEADER)
def header_split_at_any_byte_is_assembled(t: Context) -> None:
    """A header may come in two pieces, wherever it is cut."""
    for cut in range(1, wire.HEADER_SIZE + 1):
        t.client.connection.send_in_pieces(_info_message(cut), [cut], pause=0.003)
        t.check(not t.reply(t.client, wire.DEVICE_GET_INFO, cut).failed, f"a header cut after byte {cut} was refused")


@case(HEADER)
def body_split_at_any_byte_is_assembled(t: Context) -> None:
    """A payload may come in two pieces, wherever it is cut; the descriptor is with the first."""
    memory = Memory(4096, "client memory")
    t.finally_(memory.close)
    for number, cut in enumerate(range(wire.HEADER_SIZE + 1, wire.HEADER_SIZE + wire.DMA_MAP_BODY.size)):
        body = wire.DMA_MAP_BODY.pack(32, 3, 0, 0x100000 + 0x1000 * number, 0x1000)
        message = encode(wire.DMA_MAP, body, message_id=cut)
        t.client.connection.send_in_pieces(message, [cut], [memory.fd], pause=0.003)
        t.check(not t.reply(t.client, wire.DMA_MAP, cut).failed, f"DMA_MAP cut after byte {cut} was refused")


@case(HEADER)
def many_messages_in_one_send_are_all_answered(t: Context) -> None:
    """A hundred messages may come at once; each is answered, in order."""
    t.client.send_raw(b"".join(_info_message(number) for number in range(100)))
    for number in range(100):
        t.check(not t.reply(t.client, wire.DEVICE_GET_INFO, number).failed, f"message {number} of 100 was refused")


@case(HEADER)
def message_and_a_half_are_told_apart(t: Context) -> None:
    """A piece may hold the end of one message and the beginning of the next."""
    messages = b"".join(_info_message(number) for number in range(8))
    t.client.connection.send_in_pieces(messages, [44] * 8, pause=0.002)
    for number in range(8):
        t.check(not t.reply(t.client, wire.DEVICE_GET_INFO, number).failed, f"message {number} of 8 was refused")


def _write_and_read_back(t: Context, client: Client, size: int, pieces: int, pause: float = 0.0) -> None:
    scratch = t.scratch(size)
    data = bytes((index * 7 + size) & 0xFF for index in range(size))
    body = wire.REGION_ACCESS.pack(scratch.offset, scratch.region, size) + data
    message = encode(wire.REGION_WRITE, body, message_id=0x1234)
    step = -(-len(message) // pieces)
    client.connection.send_in_pieces(message, [step] * pieces, pause=pause)
    t.check(not t.reply(client, wire.REGION_WRITE).failed, f"a REGION_WRITE of {size} bytes was refused")
    t.check(
        client.region_read(scratch.region, scratch.offset, size) == data, f"{size} bytes read back are not as written"
    )


def _large(size: int, text: str) -> None:
    def check(t: Context) -> None:
        if size > t.client.max_data_xfer_size:
            t.skip(f"the server takes {t.client.max_data_xfer_size} bytes at most")
        _write_and_read_back(t, t.client, size, 1)
        t.usable(t.client)

    check.__name__ = f"body_of_{text}_arrives_whole"
    check.__doc__ = f"A write of {text.replace('_', ' ')} arrives whole, and the stream stays in step."
    case(SIZES)(check)


_large(4 << 10, "4_kib")
_large(48 << 10, "48_kib")
_large(64 << 10, "64_kib")
_large(256 << 10, "256_kib")
_large(1 << 20, "1_mib")


@case(SIZES)
def large_body_in_many_pieces_arrives_whole(t: Context) -> None:
    """A large write may come in many pieces with pauses between them."""
    size = min(t.client.max_data_xfer_size, 256 << 10)
    _write_and_read_back(t, t.client, size, 37, pause=0.002)


@case(SIZES)
def small_message_behind_a_large_one_is_answered(t: Context) -> None:
    """A large write and a small request in one send are told apart."""
    size = min(t.client.max_data_xfer_size, 512 << 10)
    scratch = t.scratch(size)
    body = wire.REGION_ACCESS.pack(scratch.offset, scratch.region, size) + bytes(size)
    t.client.send_raw(encode(wire.REGION_WRITE, body, message_id=1) + _info_message(2))
    t.check(not t.reply(t.client, wire.REGION_WRITE, 1).failed, "the large write was refused")
    t.check(not t.reply(t.client, wire.DEVICE_GET_INFO, 2).failed, "the request behind it was refused")


def _bad_size(size: int) -> None:
    def check(t: Context) -> None:
        header = wire.HEADER.pack(0x1234, wire.DEVICE_GET_INFO, size, wire.TYPE_COMMAND, 0)
        t.client.send_raw(header)
        with contextlib.suppress(Disconnected):
            t.is_error(t.reply(t.client, wire.DEVICE_GET_INFO), MALFORMED)
        t.drop(t.client)
        t.serves_next_client()

    check.__name__ = f"size_of_{size}_is_refused"
    check.__doc__ = "The size includes the header: less than 16 is refused, or costs the connection."
    case(HEADER)(check)


_bad_size(0)
_bad_size(8)
_bad_size(15)


@case(HEADER)
def header_alone_is_refused_where_a_payload_is_due(t: Context) -> None:
    """Commands with a payload are refused without one."""
    for command in (wire.DMA_MAP, wire.DMA_UNMAP, wire.DEVICE_GET_INFO, wire.DEVICE_SET_IRQS, wire.REGION_READ):
        t.refused(t.client, command, b"", INVALID | MALFORMED)


@case(SIZES)
def message_above_the_limit_is_refused(t: Context) -> None:
    """A write of more than max_data_xfer_size is refused, or costs the connection."""
    size = t.client.max_data_xfer_size + 4096
    body = wire.REGION_ACCESS.pack(0, wire.BAR0, size) + bytes(size)
    try:
        t.refused_or_closed(t.client, wire.REGION_WRITE, body, TOO_LARGE | MALFORMED)
        t.usable(t.client)
    except Disconnected:
        pass


@case(SIZES, silent=True)
def impossible_size_does_not_take_the_server_down(t: Context) -> None:
    """A header that announces 4 GiB costs at most its own connection."""
    t.client.send_raw(wire.HEADER.pack(1, wire.REGION_WRITE, 0xFFFFFFFF, 0, 0) + bytes(4096))
    with contextlib.suppress(TimeoutError, Disconnected, ProtocolError):
        t.client.recv_message(0.2).close_fds()
    t.drop(t.client)
    t.serves_next_client()


@case(SIZES, silent=True)
def impossible_size_costs_no_memory(t: Context) -> None:
    """A header that announces 4 GiB does not make the server allocate them."""
    before = _resident(t)
    t.client.send_raw(wire.HEADER.pack(1, wire.REGION_WRITE, 0xFFFFFFF0, 0, 0) + bytes(64))
    with contextlib.suppress(TimeoutError, Disconnected, ProtocolError):
        t.client.recv_message(0.2).close_fds()
    grown = _resident(t) - before
    t.check(grown < 256 << 20, f"the server grew by {grown >> 20} MiB")


def _resident(t: Context) -> int:
    try:
        with open(f"/proc/{t.profile.pid}/statm") as file:
            return int(file.read().split()[1]) * 4096
    except OSError:
        t.skip(f"the memory of process {t.profile.pid} cannot be seen")


def _unknown_command(command: int, what: str) -> None:
    def check(t: Context) -> None:
        t.refused(t.client, command, bytes(32), UNKNOWN_COMMAND)

    check.__name__ = f"{what}_is_refused"
    check.__doc__ = f"Command {command} is not one that a client may send: it is refused, the session goes on."
    case("Commands")(check)


_unknown_command(0, "command_0")
_unknown_command(19, "command_19")
_unknown_command(0xFFFF, "command_65535")
_unknown_command(wire.DMA_READ, "dma_read_from_a_client")
_unknown_command(wire.DMA_WRITE, "dma_write_from_a_client")


@case("Commands", silent=True)
def removed_dirty_pages_command_does_no_harm(t: Context) -> None:
    """Command 14 (DIRTY_PAGES of older specifications) is refused, or works as it did; the session goes on."""
    t.tolerated(t.client, 14, wire.DEVICE_FEATURE_BODY.pack(8, 1))
    t.tolerated(t.client, 14, wire.DEVICE_FEATURE_BODY.pack(8, 2))


@case(HEADER)
def unexpected_reply_is_not_answered_as_a_command(t: Context) -> None:
    """A reply to nothing is dropped or refused, and is not carried out as a command."""
    body = INFO
    t.client.send_raw(encode(wire.DEVICE_GET_INFO, body, message_id=7, flags=wire.TYPE_REPLY))
    t.client.send_raw(_info_message(8))
    try:
        message = t.client.recv_message()
        if message.id == 7:
            t.check(message.failed, "a message of type reply was carried out as a command")
            message = t.client.recv_message()
    except Disconnected:
        return
    t.equal(message.id, 8, "the id of the reply to the command behind it")
    t.check(not message.failed, "the command behind it was refused")


@case(HEADER)
def unexpected_error_reply_does_no_harm(t: Context) -> None:
    """An error reply to nothing is dropped, or costs the connection."""
    flags = wire.TYPE_REPLY | wire.FLAG_ERROR
    t.client.send_raw(encode(wire.DMA_READ, message_id=9, flags=flags, error=5) + _info_message(10))
    try:
        message = t.client.recv_message()
        if message.id == 9:
            message = t.client.recv_message()
    except Disconnected:
        return
    t.equal(message.id, 10, "the id of the reply to the command behind it")


@case(HEADER)
def undefined_types_are_refused(t: Context) -> None:
    """Types other than command and reply are refused, ignored, or cost the connection; never carried out."""
    for kind in (2, 8, 15):
        client = t.connect()
        client.send_raw(encode(wire.DEVICE_GET_INFO, INFO, message_id=1, flags=kind))
        try:
            client.send_raw(_info_message(2))
            message = client.recv_message()
            if message.id == 1:
                t.check(message.failed, f"a message of type {kind} was carried out")
                message = client.recv_message()
            t.equal(message.id, 2, "the id of the reply to the command behind it")
        except Disconnected:
            pass
        t.drop(client)


@case(HEADER, silent=True)
def error_field_of_a_command_is_ignored(t: Context) -> None:
    """The error field is reserved in a command; its value does not matter."""
    t.client.send_raw(wire.HEADER.pack(0x1234, wire.DEVICE_GET_INFO, 32, 0, 0xDEAD) + INFO)
    t.check(not t.reply(t.client, wire.DEVICE_GET_INFO).failed, "a command was refused for its error field")


@case(HEADER, silent=True)
def undefined_flags_do_no_harm(t: Context) -> None:
    """Undefined flag bits are ignored or refused; the session goes on."""
    for flags in (wire.FLAG_ERROR, 0x40, 0x80000000):
        t.exchange(t.client, wire.DEVICE_GET_INFO, INFO, flags=flags)
        t.usable(t.client)


@case(HEADER)
def replies_come_whole_to_a_slow_reader(t: Context) -> None:
    """A client that reads late gets every reply whole, though they exceed the socket's buffer by far."""
    size = t.client.region_info(wire.CONFIG).size
    body = wire.REGION_ACCESS.pack(0, wire.CONFIG, size)
    ids = [t.client.send(wire.REGION_READ, body) for _ in range(1000)]
    for number, message_id in enumerate(ids):
        reply = t.client.wait(message_id)
        if len(reply.body) != wire.REGION_ACCESS.size + size:
            fail(f"reply {number} of 1000 has {len(reply.body)} bytes")
