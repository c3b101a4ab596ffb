"""What clients answer to DMA_READ and DMA_WRITE: errors, too little, too much, twice, out of order."""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.cases.server_dma.memory import BASE, READ, WRITE, by_messages, expected
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Message, encode

Answer = Callable[[Message], bytes]


def _reply(message: Message, body: bytes, *, message_id: int | None = None, command: int | None = None) -> bytes:
    return encode(
        message.command if command is None else command,
        body,
        message_id=message.id if message_id is None else message_id,
        flags=wire.TYPE_REPLY,
    )


def _error_reply(message: Message, errno: int) -> bytes:
    return encode(message.command, message_id=message.id, flags=wire.TYPE_REPLY | wire.FLAG_ERROR, error=errno)


def _refuse(t: Context, command: int, answer: Answer) -> None:
    """The device's command fails for `answer`; afterwards DMA works."""
    device = t.device()
    by_messages(t.client)
    t.client.region_write(numbers.MAPPED, 0, bytes(64))
    t.client.dma_handler = answer
    t.check(device.dma(command, BASE, 64), "the device takes the access for a success")
    t.client.dma_handler = t.client.answer_dma
    t.check(device.read_memory(BASE, 64) == expected(BASE, 64), "DMA does not work afterwards")


@case(READ)
def error_of_the_client_fails_the_read(t: Context) -> None:
    """An error reply to DMA_READ is an error for the device."""
    _refuse(t, numbers.DMA_READ, lambda message: _error_reply(message, 14))


@case(WRITE)
def error_of_the_client_fails_the_write(t: Context) -> None:
    """An error reply to DMA_WRITE is an error for the device."""
    _refuse(t, numbers.DMA_WRITE, lambda message: _error_reply(message, 14))


@case(READ)
def error_without_a_number_is_an_error(t: Context) -> None:
    """The error flag counts; the errno may be 0."""
    _refuse(t, numbers.DMA_READ, lambda message: _error_reply(message, 0))


@case(READ, silent=True)
def reply_with_too_little_data_is_an_error(t: Context) -> None:
    """Fewer bytes than were requested are not taken for all of them."""
    head = wire.DMA_ACCESS.pack(BASE, 64)
    _refuse(t, numbers.DMA_READ, lambda message: _reply(message, head + bytes(10)))


@case(READ, silent=True)
def reply_without_data_is_an_error(t: Context) -> None:
    """A reply to DMA_READ without data is not taken for a success."""
    _refuse(t, numbers.DMA_READ, lambda message: _reply(message, wire.DMA_ACCESS.pack(BASE, 64)))


@case(READ, silent=True)
def empty_reply_is_an_error(t: Context) -> None:
    """A reply to DMA_READ without any payload is not taken for a success."""
    _refuse(t, numbers.DMA_READ, lambda message: _reply(message, b""))


@case(READ, silent=True)
def reply_with_too_much_data_does_no_harm(t: Context) -> None:
    """More bytes than were requested are an error, or the surplus is ignored."""
    device = t.device()
    by_messages(t.client)
    t.client.dma_handler = lambda message: _reply(message, message.body[:16] + b"\x77" * 4096)
    t.client.region_write(numbers.MAPPED, 0, bytes(128))
    error = device.dma(numbers.DMA_READ, BASE, 64)
    got = t.client.region_read(numbers.MAPPED, 0, 128)
    t.check(got[64:] == bytes(64), "the device took bytes that it had not requested")
    t.check(error or got[:64] == b"\x77" * 64, "the device takes the access for a success, but has other bytes")
    t.client.dma_handler = t.client.answer_dma
    t.check(device.read_memory(BASE, 64) == expected(BASE, 64), "DMA does not work afterwards")


@case(WRITE, silent=True)
def write_reply_with_a_32_bit_count_is_accepted(t: Context) -> None:
    """The specification draws the reply to DMA_WRITE with a count of 4 bytes; clients send 4 or 8."""
    device = t.device()
    by_messages(t.client)
    t.client.dma_handler = lambda message: (t.client.answer_dma(message), _reply(message, message.body[:12]))[1]
    device.write_memory(BASE, b"short")


def _surplus(name: str, rule: str, extra: Answer) -> None:
    """The client sends a reply without a request, and then the right one."""

    def check(t: Context) -> None:
        device = t.device()
        by_messages(t.client)

        def answer(message: Message) -> bytes:
            return extra(message) + t.client.answer_dma(message)

        t.client.dma_handler = answer
        t.check(device.read_memory(BASE, 64) == expected(BASE, 64), "the device read something else")
        t.usable(t.client)

    check.__name__ = name
    check.__doc__ = rule
    case(READ, silent=True)(check)


_surplus(
    "reply_with_an_unknown_id_is_dropped",
    "A reply without a request is dropped; the right one counts.",
    lambda message: _reply(message, message.body + b"\x66" * 64, message_id=message.id ^ 0x4000),
)
_surplus(
    "reply_to_another_command_is_dropped",
    "A reply with the right id and the wrong command is not taken for the answer.",
    lambda message: _reply(message, message.body, command=wire.DMA_WRITE),
)


@case(READ, silent=True)
def second_reply_is_dropped(t: Context) -> None:
    """A reply that comes twice counts once."""
    device = t.device()
    by_messages(t.client)
    t.client.dma_handler = lambda message: 2 * t.client.answer_dma(message)
    for offset in (0, 64, 128):
        t.check(device.read_memory(BASE + offset, 64) == expected(BASE + offset, 64), "the device read something else")
    t.usable(t.client)


@case(READ, silent=True)
def replies_out_of_order_are_matched_by_id(t: Context) -> None:
    """Where a server has several requests in flight, their replies may come in any order."""
    device = t.device()
    by_messages(t.client)
    held: list[Message] = []
    most = 0

    def answer(message: Message) -> None:
        held.append(message)

    t.client.dma_handler = answer
    done = device.start_dma(numbers.DMA_READ, BASE, 512 << 10)

    def release() -> bool:
        nonlocal most
        if held:
            t.client.idle(0.005)
            most = max(most, len(held))
            while held:
                t.client.send_raw(t.client.answer_dma(held.pop()))
        return device.get(numbers.REG_DMA_DONE) == done

    t.client.serve(release, 15, "the end of a DMA command")
    t.equal(device.get(numbers.REG_DMA_ERRNO), 0, "the errno of the DMA command")
    t.check(t.client.region_read(numbers.MAPPED, 0, 512 << 10) == expected(BASE, 512 << 10), "the bytes are mixed up")
    if most < 2:
        t.skip("the server sends one request after the other")
