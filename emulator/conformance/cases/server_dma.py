"""DMA_READ and DMA_WRITE: the commands that a server sends, and what clients may do to it in return.

All of these provoke DMA through the conformance device, to memory that came without a descriptor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from vfio_user_xe.emulator.conformance import device as numbers
from vfio_user_xe.emulator.conformance.case import case
from vfio_user_xe.emulator.conformance.context import Context
from vfio_user_xe.emulator.conformance.outcomes import fail
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, DmaMapping, Message, encode

READ = "VFIO_USER_DMA_READ"
WRITE = "VFIO_USER_DMA_WRITE"
LIMITS = "Read and Write Operations"
ORDER = "Command Concurrency"
TWIN = "VFIO_USER_VERSION"

BASE = 0x2000_0000
SIZE = 2 << 20
PATTERN = bytes((index * 13 + 5) & 0xFF for index in range(65536))


def _memory(client: Client) -> DmaMapping:
    """2 MiB at `BASE` that the server can only reach by messages, filled with the pattern."""
    mapping = client.map_memory(BASE, SIZE, shared=False)
    mapping.at(BASE, SIZE)[:] = PATTERN * (SIZE // len(PATTERN))
    return mapping


def _expected(address: int, length: int) -> bytes:
    start = (address - BASE) % len(PATTERN)
    return (PATTERN * (length // len(PATTERN) + 2))[start : start + length]


@case(READ)
def device_reads_by_message(t: Context) -> None:
    """Memory without a descriptor is read by DMA_READ."""
    device = t.device()
    _memory(t.client)
    commands = t.record_commands(t.client)
    t.check(device.read_memory(BASE + 100, 64) == _expected(BASE + 100, 64), "the device read something else")
    t.equal({message.command for message in commands}, {wire.DMA_READ}, "the set of commands that came")


@case(WRITE)
def device_writes_by_message(t: Context) -> None:
    """Memory without a descriptor is written by DMA_WRITE."""
    device = t.device()
    mapping = _memory(t.client)
    commands = t.record_commands(t.client)
    device.write_memory(BASE + 8190, b"over a page's end")
    t.equal(bytes(mapping.at(BASE + 8190, 17)), b"over a page's end", "the memory")
    t.equal({message.command for message in commands}, {wire.DMA_WRITE}, "the set of commands that came")


@case(READ)
def sizes_from_1_byte_to_1_mib_are_read(t: Context) -> None:
    """DMA of any size and alignment brings the right bytes."""
    device = t.device()
    _memory(t.client)
    for offset, length in ((0, 1), (1, 2), (3, 7), (4095, 2), (5, 4096), (0, 65536), (7, 65537), (4096, 1 << 20)):
        got = device.read_memory(BASE + offset, length)
        t.check(got == _expected(BASE + offset, length), f"{length} bytes at +{offset:#x} are not what is there")


@case(WRITE)
def sizes_from_1_byte_to_1_mib_are_written(t: Context) -> None:
    """DMA of any size and alignment writes its bytes, and no others."""
    device = t.device()
    mapping = _memory(t.client)
    for offset, length in ((1, 1), (3, 7), (4095, 2), (5, 4096), (7, 65537), (4096, 1 << 20)):
        data = bytes(length)
        device.write_memory(BASE + offset, data)
        t.check(bytes(mapping.at(BASE + offset, length)) == data, f"{length} bytes at +{offset:#x} are not as written")
        t.check(
            mapping.at(BASE + offset + length, 1)[0] == _expected(BASE + offset + length, 1)[0], "too much was written"
        )
        mapping.at(BASE, SIZE)[:] = PATTERN * (SIZE // len(PATTERN))


def _well_formed(t: Context, commands: list[Message], address: int, length: int, limit: int) -> None:
    """The commands cover `[address, address + length)` exactly once, none with more than `limit` bytes."""
    pieces = []
    for message in commands:
        t.check(not message.flags & ~wire.FLAG_NO_REPLY, f"a command came with flags {message.flags:#x}")
        t.equal(message.error, 0, "the error field of a command")
        at, count = wire.DMA_ACCESS.unpack_from(message.body)
        data = count if message.command == wire.DMA_WRITE else 0
        t.equal(len(message.body), wire.DMA_ACCESS.size + data, f"the payload's size for a count of {count}")
        t.check(0 < count <= limit, f"a count of {count}, the limit is {limit}")
        pieces.append((at, count))
    for at, count in sorted(pieces):
        t.equal(at, address, "the address of the next piece")
        address, length = at + count, length - count
    t.equal(length, 0, "the number of bytes that no command asked for")


@case(LIMITS)
def dma_reads_keep_the_clients_limit(t: Context) -> None:
    """count must not exceed the client's max_data_xfer_size: more is requested in pieces."""
    for limit in (4096, 512):
        client = t.connect(max_data_xfer_size=limit)
        device = t.device(client)
        _memory(client)
        commands = t.record_commands(client)
        t.check(device.read_memory(BASE + 3, 20000) == _expected(BASE + 3, 20000), "the device read something else")
        _well_formed(t, commands, BASE + 3, 20000, limit)
        t.drop(client)


@case(LIMITS)
def dma_writes_keep_the_clients_limit(t: Context) -> None:
    """count must not exceed the client's max_data_xfer_size: more is written in pieces."""
    client = t.connect(max_data_xfer_size=4096)
    device = t.device(client)
    _memory(client)
    commands = t.record_commands(client)
    device.write_memory(BASE + 3, bytes(20000))
    _well_formed(t, commands, BASE + 3, 20000, 4096)


@case(LIMITS)
def large_dma_is_complete(t: Context) -> None:
    """A mebibyte is requested completely and once."""
    device = t.device()
    _memory(t.client)
    commands = t.record_commands(t.client)
    device.read_memory(BASE, 1 << 20)
    _well_formed(t, commands, BASE, 1 << 20, wire.DEFAULT_MAX_DATA_XFER)


@case(READ, silent=True)
def replies_are_small_enough_for_a_socket_buffer(t: Context) -> None:
    """A reply that exceeds the usual socket buffer (212992 bytes) breaks QEMU's stream: servers ask for less."""
    device = t.device()
    _memory(t.client)
    commands = t.record_commands(t.client)
    device.read_memory(BASE, 1 << 20)
    largest = max(wire.DMA_ACCESS.unpack_from(message.body)[1] for message in commands)
    t.check(largest < 212992 - 64, f"the server asks for {largest} bytes at once")


@case(READ)
def dma_by_message_works_beside_a_descriptor(t: Context) -> None:
    """Messages must work for memory with a descriptor, too."""
    device = t.device()
    mapping = t.client.map_memory(BASE, 0x10000)
    mapping.at(BASE, 8)[:] = b"both way"
    t.equal(device.read_memory(BASE, 8, by_message=True), b"both way", "what the device reads by message")


# What clients answer.


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
    _memory(t.client)
    t.client.region_write(numbers.MAPPED, 0, bytes(64))
    t.client.dma_handler = answer
    t.check(device.dma(command, BASE, 64), "the device takes the access for a success")
    t.client.dma_handler = t.client.answer_dma
    t.check(device.read_memory(BASE, 64) == _expected(BASE, 64), "DMA does not work afterwards")


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
    _memory(t.client)
    t.client.dma_handler = lambda message: _reply(message, message.body[:16] + b"\x77" * 4096)
    t.client.region_write(numbers.MAPPED, 0, bytes(128))
    error = device.dma(numbers.DMA_READ, BASE, 64)
    got = t.client.region_read(numbers.MAPPED, 0, 128)
    t.check(got[64:] == bytes(64), "the device took bytes that it had not requested")
    t.check(error or got[:64] == b"\x77" * 64, "the device takes the access for a success, but has other bytes")
    t.client.dma_handler = t.client.answer_dma
    t.check(device.read_memory(BASE, 64) == _expected(BASE, 64), "DMA does not work afterwards")


@case(WRITE, silent=True)
def write_reply_with_a_32_bit_count_is_accepted(t: Context) -> None:
    """The specification draws the reply to DMA_WRITE with a count of 4 bytes; clients send 4 or 8."""
    device = t.device()
    _memory(t.client)
    t.client.dma_handler = lambda message: (t.client.answer_dma(message), _reply(message, message.body[:12]))[1]
    device.write_memory(BASE, b"short")


def _surplus(name: str, rule: str, extra: Answer) -> None:
    """The client sends a reply without a request, and then the right one."""

    def check(t: Context) -> None:
        device = t.device()
        _memory(t.client)

        def answer(message: Message) -> bytes:
            return extra(message) + t.client.answer_dma(message)

        t.client.dma_handler = answer
        t.check(device.read_memory(BASE, 64) == _expected(BASE, 64), "the device read something else")
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
    _memory(t.client)
    t.client.dma_handler = lambda message: 2 * t.client.answer_dma(message)
    for offset in (0, 64, 128):
        t.check(device.read_memory(BASE + offset, 64) == _expected(BASE + offset, 64), "the device read something else")
    t.usable(t.client)


@case(READ, silent=True)
def replies_out_of_order_are_matched_by_id(t: Context) -> None:
    """Where a server has several requests in flight, their replies may come in any order."""
    device = t.device()
    _memory(t.client)
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
    t.check(t.client.region_read(numbers.MAPPED, 0, 512 << 10) == _expected(BASE, 512 << 10), "the bytes are mixed up")
    if most < 2:
        t.skip("the server sends one request after the other")


# Both directions at once.


@case(ORDER)
def client_commands_are_answered_while_dma_waits(t: Context) -> None:
    """A server that waits for a DMA reply answers commands meanwhile."""
    device = t.device()
    _memory(t.client)
    held: list[Message] = []
    t.client.dma_handler = held.append
    done = device.start_dma(numbers.DMA_READ, BASE, 64)
    t.client.serve(lambda: bool(held), what="a DMA_READ")
    for _ in range(20):
        t.equal(device.get(numbers.REG_MAGIC), numbers.MAGIC, "the magic number while DMA waits")
    t.client.dma_map(0, 4096)
    t.client.dma_unmap(0, 4096)
    t.equal(
        device.get(numbers.REG_DMA_DONE), (done - 1) & 0xFFFFFFFF, "the number of DMA commands done while one waits"
    )
    t.client.dma_handler = t.client.answer_dma
    t.client.send_raw(t.client.answer_dma(held[0]))
    t.equal(device.finish_dma(done), 0, "the errno of the DMA command")


@case(ORDER)
def dma_comes_between_pipelined_commands(t: Context) -> None:
    """Unrelated messages of the server may appear between a command and its reply; nothing is mixed up."""
    device = t.device()
    _memory(t.client)
    done = device.start_dma(numbers.DMA_READ, BASE, 1 << 20)
    ids = []
    for number in range(600):
        body = wire.REGION_ACCESS.pack(4 * (number % 2), numbers.REGISTERS, 4)
        ids.append(t.client.send(wire.REGION_READ, body))
    for number, message_id in enumerate(ids):
        value = int.from_bytes(t.client.wait(message_id).body[16:], "little")
        t.equal(value, numbers.VERSION if number % 2 else numbers.MAGIC, f"register read {number}")
    t.equal(device.finish_dma(done), 0, "the errno of the DMA command")
    t.check(
        t.client.region_read(numbers.MAPPED, 0, 1 << 20) == _expected(BASE, 1 << 20), "the device read something else"
    )


@case(ORDER)
def client_may_send_commands_from_inside_its_dma_handler(t: Context) -> None:
    """The client may need an answer before it gives one."""
    device = t.device()
    _memory(t.client)

    def answer(message: Message) -> bytes:
        t.equal(device.get(numbers.REG_MAGIC), numbers.MAGIC, "the magic number read while a DMA request is open")
        return t.client.answer_dma(message)

    t.client.dma_handler = answer
    t.check(device.read_memory(BASE, 4096) == _expected(BASE, 4096), "the device read something else")


@case(ORDER)
def large_transfers_in_both_directions_do_not_lock_up(t: Context) -> None:
    """A client that writes a mebibyte while the server sends one gets both done."""
    device = t.device()
    mapping = _memory(t.client)
    size = min(1 << 20, t.client.max_data_xfer_size)
    done = device.start_dma(numbers.DMA_WRITE, BASE, 1 << 20, buffer=1 << 20)
    body = wire.REGION_ACCESS.pack(0, numbers.MAPPED, size) + bytes(size)
    ids = [t.client.send(wire.REGION_WRITE, body) for _ in range(4)]
    for message_id in ids:
        t.client.wait(message_id)
    t.equal(device.finish_dma(done), 0, "the errno of the DMA command")
    want = t.client.region_read(numbers.MAPPED, 1 << 20, 1 << 20)
    t.check(bytes(mapping.at(BASE, 1 << 20)) == want, "what the device wrote is not what arrived")


@case("Client Disconnection")
def client_that_dies_owing_a_reply_is_replaced(t: Context) -> None:
    """A server that waits for a DMA reply notices that the client is gone; the next one's DMA works."""
    device = t.device()
    _memory(t.client)
    held: list[Message] = []
    t.client.dma_handler = held.append
    device.start_dma(numbers.DMA_READ, BASE, 1 << 20)
    t.client.serve(lambda: bool(held), what="a DMA_READ")
    t.drop(t.client)
    _memory(t.client)
    t.check(t.device().read_memory(BASE, 64) == _expected(BASE, 64), "the device read something else")


@case("Client Disconnection")
def dma_of_one_client_does_not_reach_the_next(t: Context) -> None:
    """A request to a client that has disconnected is not sent to the next client."""
    device = t.device()
    _memory(t.client)
    held: list[Message] = []
    t.client.dma_handler = held.append
    device.start_dma(numbers.DMA_READ, BASE, 1 << 20)
    t.client.serve(lambda: bool(held), what="a DMA_READ")
    t.drop(t.client)
    t.silent(t.client, 0.3)


@case("VFIO_USER_DEVICE_SET_IRQS")
def interrupt_after_dma_finds_the_data_in_place(t: Context) -> None:
    """Data that were written before an interrupt are in memory when the interrupt arrives."""
    device = t.device()
    irq = t.vectors(t.client, 1)
    (event,) = t.client.enable_irqs(irq.index, 1)
    mapping = t.client.map_memory(BASE, 0x10000)
    for number in range(20):
        t.client.region_write(numbers.MAPPED, 0, bytes([number + 1]) * 256)
        device.start_dma(numbers.DMA_WRITE | numbers.DMA_THEN_MSI, BASE, 256)
        event.wait(5.0)
        t.equal(bytes(mapping.at(BASE, 256)), bytes([number + 1]) * 256, "the memory when the interrupt came")


# Twin sockets.


def _twin(t: Context) -> Client:
    client = t.connect(twin_socket=True)
    if not client.has_twin_socket:
        t.skip("the server has no twin sockets (they are optional)")
    return client


@case(TWIN)
def twin_socket_carries_the_servers_commands(t: Context) -> None:
    """With twin sockets, DMA messages come over the second socket, and only there."""
    client = _twin(t)
    device = t.device(client)
    mapping = _memory(client)
    threads: set[str] = set()

    def answer(message: Message) -> bytes:
        threads.add(threading.current_thread().name)
        return client.answer_dma(message)

    client.dma_handler = answer
    t.check(device.read_memory(BASE, 4096) == _expected(BASE, 4096), "the device read something else")
    device.write_memory(BASE, b"through the twin")
    t.equal(bytes(mapping.at(BASE, 16)), b"through the twin", "the memory")
    t.equal(threads, {"vfio-user-twin"}, "the set of sockets that the commands came over")


@case(TWIN)
def large_dma_goes_over_the_twin_socket(t: Context) -> None:
    """A mebibyte in each direction."""
    client = _twin(t)
    device = t.device(client)
    mapping = _memory(client)
    t.check(device.read_memory(BASE, 1 << 20) == _expected(BASE, 1 << 20), "the device read something else")
    device.write_memory(BASE, bytes(1 << 20))
    t.check(bytes(mapping.at(BASE, 1 << 20)) == bytes(1 << 20), "the device wrote something else")


@case(TWIN, silent=True)
def closed_twin_socket_leaves_the_session(t: Context) -> None:
    """A client that closes the twin socket loses DMA by messages, and nothing else; or its connection."""
    client = _twin(t)
    device = t.device(client)
    _memory(client)
    if client.twin is None:
        fail("no twin socket")
    client.twin.close()
    t.check(device.dma(numbers.DMA_READ, BASE, 64), "the device takes the access for a success")
    t.usable(client)


@case(TWIN, silent=True)
def rubbish_on_the_twin_socket_does_no_harm(t: Context) -> None:
    """An unexpected message is dropped, or ends the connection; the server goes on serving."""
    client = _twin(t)
    assert client.twin is not None
    client.twin.send(encode(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0), message_id=3))
    client.twin.send(b"\xff" * 64)
    t.drop(client)
    t.serves_next_client()
