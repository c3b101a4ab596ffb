"""DMA by messages: how an access is cut, how replies find it, and what its caller is told when none comes."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence

import pytest

from tests.unit.vfio_user.conftest import TIMEOUT
from vfio_user_xe.emulator.pci.transport import DmaError
from vfio_user_xe.emulator.vfio_user import dma_messages, wire
from vfio_user_xe.emulator.vfio_user.dma_messages import MAX_CHUNK, MAX_OUTSTANDING, DmaMessages

BASE = 0x1_0000_0000
REPLY = wire.TYPE_REPLY


class Client:
    """Takes what is sent. `answer(message_id, command, address, count, data)` is called in `send`; by default it waits."""

    def __init__(self, limit: int = wire.DEFAULT_MAX_DATA_XFER) -> None:
        self.messages = DmaMessages(self.send, limit)
        self.sent: list[tuple[int, int, int, int, bytes]] = []
        self.senders: list[threading.Thread] = []
        self.arrived = threading.Condition()
        self.answer: Callable[[int, int, int, int, bytes], None] = lambda *sent: None
        self.gone = False

    def send(self, pieces: Sequence[bytes | memoryview]) -> None:
        if self.gone:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        message = b"".join(pieces)
        message_id, command, size, flags, number = wire.HEADER.unpack_from(message)
        assert (size, flags, number) == (len(message), wire.TYPE_COMMAND, 0)
        address, count = wire.DMA_ACCESS.unpack_from(message, wire.HEADER_SIZE)
        data = message[wire.HEADER_SIZE + wire.DMA_ACCESS.size :]
        with self.arrived:
            self.senders.append(threading.current_thread())
            self.sent.append((message_id, command, address, count, data))
            self.arrived.notify_all()
        self.answer(message_id, command, address, count, data)

    def reply(self, message_id: int, command: int, body: bytes, flags: int = REPLY, error: int = 0) -> None:
        self.messages.reply(message_id, command, flags, error, memoryview(body))

    def wait_for(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.sent) >= count, TIMEOUT)

    def serve(self, memory: bytes | bytearray) -> None:
        """Answer from `memory`, which lies at `BASE`."""

        def answer(message_id: int, command: int, address: int, count: int, data: bytes) -> None:
            at = address - BASE
            if command == wire.DMA_WRITE:
                assert isinstance(memory, bytearray)
                memory[at : at + count] = data
                self.reply(message_id, command, wire.DMA_ACCESS.pack(address, count))
            else:
                self.reply(message_id, command, wire.DMA_ACCESS.pack(address, count) + memory[at : at + count])

        self.answer = answer


class Caller(threading.Thread):
    """Runs an access on a thread of its own; `result` is what it returned, or the `DmaError` it raised."""

    def __init__(self, access: Callable[[], bytes | None]) -> None:
        super().__init__(daemon=True)
        self._access = access
        self._result: bytes | DmaError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._access()
        except DmaError as error:
            self._result = error

    def result(self) -> bytes | None:
        self.join(TIMEOUT)
        assert not self.is_alive()
        assert not isinstance(self._result, DmaError)
        return self._result

    def error(self) -> DmaError:
        self.join(TIMEOUT)
        assert not self.is_alive()
        assert isinstance(self._result, DmaError)
        return self._result


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """It is waited for, however long a test takes on a busy machine."""
    monkeypatch.setattr(dma_messages, "TIMEOUT", 3600.0)
    return Client()


def pattern(length: int) -> bytes:
    return bytes((7 * at + at // 251) & 0xFF for at in range(length))


@pytest.mark.parametrize("length", [1, MAX_CHUNK, MAX_CHUNK + 1, 5 * MAX_CHUNK + 3])
def test_a_read_of_any_length_comes_in_chunks(client: Client, length: int) -> None:
    memory = pattern(length + 10)
    client.serve(memory)
    assert client.messages.read(BASE + 10, length) == memory[10:]
    assert [count for *_, count, _ in client.sent[:-1]] == [MAX_CHUNK] * (len(client.sent) - 1)
    assert sum(count for *_, count, _ in client.sent) == length


def test_a_write_carries_its_data_in_chunks(client: Client) -> None:
    memory, data = bytearray(3 * MAX_CHUNK), pattern(2 * MAX_CHUNK + 100)
    client.serve(memory)
    client.messages.write(BASE + 5, memoryview(data))
    assert memory[5 : 5 + len(data)] == data
    assert [(command, count) for _, command, _, count, _ in client.sent] == [
        (wire.DMA_WRITE, MAX_CHUNK),
        (wire.DMA_WRITE, MAX_CHUNK),
        (wire.DMA_WRITE, 100),
    ]


def test_data_of_larger_elements_is_written_as_its_bytes(client: Client) -> None:
    memory = bytearray(16)
    client.serve(memory)
    client.messages.write(BASE, memoryview(b"\1\2\3\4\5\6\7\10").cast("I"))
    assert memory[:9] == b"\1\2\3\4\5\6\7\10\0"


def test_no_chunk_is_larger_than_the_client_takes() -> None:
    client = Client(limit=1000)
    memory = pattern(2500)
    client.serve(memory)
    assert client.messages.read(BASE, 2500) == memory
    assert [count for *_, count, _ in client.sent] == [1000, 1000, 500]


def test_an_access_of_no_bytes_sends_nothing(client: Client) -> None:
    assert client.messages.read(BASE, 0) == b""
    client.messages.write(BASE, b"")
    assert client.sent == []


def test_few_requests_are_under_way_and_replies_may_come_in_any_order(client: Client) -> None:
    memory = pattern(4 * MAX_CHUNK)
    reader = Caller(lambda: client.messages.read(BASE, len(memory)))
    for last in range(MAX_OUTSTANDING, 5, MAX_OUTSTANDING):
        client.wait_for(last)
        assert len(client.sent) == last, "no more until these are answered"
        for message_id, command, address, count, _ in reversed(client.sent[last - MAX_OUTSTANDING :]):
            body = memory[address - BASE : address - BASE + count]
            client.reply(message_id, command, wire.DMA_ACCESS.pack(address, count) + body)
    assert reader.result() == memory


def test_who_brings_a_reply_sends_the_next_request(client: Client) -> None:
    reader = Caller(lambda: client.messages.read(BASE, 4 * MAX_CHUNK))
    client.wait_for(MAX_OUTSTANDING)
    while len(client.sent) < 4:
        message_id, command, address, count, _ = client.sent[len(client.sent) - MAX_OUTSTANDING]
        client.reply(message_id, command, wire.DMA_ACCESS.pack(address, count) + bytes(count))
    assert client.senders == [reader] * MAX_OUTSTANDING + [threading.current_thread()] * (4 - MAX_OUTSTANDING)
    client.messages.close()
    assert reader.error().errno == errno.ENOTCONN


def test_a_request_that_cannot_be_sent_after_a_reply_fails_the_access_and_not_the_reply(client: Client) -> None:
    writer = Caller(lambda: client.messages.write(BASE, bytes(4 * MAX_CHUNK)))
    client.wait_for(MAX_OUTSTANDING)
    client.gone = True
    message_id, command, address, count, _ = client.sent[0]
    client.reply(message_id, command, wire.DMA_ACCESS.pack(address, count))
    error = writer.error()
    assert (error.errno, str(error)) == (errno.ENOTCONN, "the client has disconnected: [Errno 32] Broken pipe")
    assert client.messages.waiting == 0


@pytest.mark.parametrize(
    ("error", "expected"), [(errno.EFAULT, errno.EFAULT), (0, errno.EIO), (0xFFFF_FFFF, errno.EIO)]
)
def test_an_error_of_the_client_is_the_caller_s(client: Client, error: int, expected: int) -> None:
    client.answer = lambda message_id, command, *_: client.reply(
        message_id, command, b"", REPLY | wire.FLAG_ERROR, error
    )
    with pytest.raises(DmaError, match="DMA_READ of 4 bytes at 0x100000000: the client answered") as caught:
        client.messages.read(BASE, 4)
    assert caught.value.errno == expected


@pytest.mark.parametrize("length", [0, 3, 5])
def test_a_reply_with_more_or_less_data_than_was_asked_for_is_an_error(client: Client, length: int) -> None:
    client.answer = lambda message_id, command, address, count, _: client.reply(
        message_id, command, wire.DMA_ACCESS.pack(address, count) + bytes(length)
    )
    with pytest.raises(DmaError, match=f"DMA_READ of 4 bytes at 0x100000000: {length} came back") as caught:
        client.messages.read(BASE, 4)
    assert caught.value.errno == errno.EIO


def test_replies_that_nobody_waits_for_are_dropped(client: Client) -> None:
    client.reply(5, wire.DMA_READ, bytes(20))
    reader = Caller(lambda: client.messages.read(BASE, 4))
    client.wait_for(1)
    ((message_id, *_),) = client.sent
    body = wire.DMA_ACCESS.pack(BASE, 4)
    client.reply(message_id, wire.DMA_WRITE, body)
    client.reply(message_id ^ 1, wire.DMA_READ, body + b"else")
    client.reply(message_id, wire.DMA_READ, body + b"data")
    client.reply(message_id, wire.DMA_READ, body + b"more")
    assert reader.result() == b"data"
    client.serve(pattern(8))
    assert client.messages.read(BASE, 8) == pattern(8)


def test_the_reply_to_an_access_that_was_given_up_is_not_taken_for_a_later_one(client: Client) -> None:
    reader = Caller(lambda: client.messages.read(BASE, 2 * MAX_CHUNK))
    client.wait_for(2)
    given_up = list(client.sent)
    client.messages.abort()
    assert reader.error().errno == errno.ECANCELED
    later = Caller(lambda: client.messages.read(BASE, 4))
    client.wait_for(3)
    for message_id, command, address, count, _ in given_up:
        client.reply(message_id, command, wire.DMA_ACCESS.pack(address, count) + bytes(count))
    message_id, command, *_ = client.sent[2]
    client.reply(message_id, command, wire.DMA_ACCESS.pack(BASE, 4) + b"data")
    assert later.result() == b"data"


def test_message_ids_are_not_used_again_while_their_reply_is_due(client: Client) -> None:
    """Ids have 16 bits: after 65536 messages they begin anew."""
    reader = Caller(lambda: client.messages.read(BASE, 4))
    client.wait_for(1)
    waiting = client.sent[0][0]
    client.serve(bytearray(4))
    for _ in range(0x10000):
        client.messages.write(BASE, b"x")
    later = [message_id for message_id, *_ in client.sent[1:]]
    assert waiting not in later
    assert {*later, waiting} == set(range(0x10000))
    client.reply(waiting, wire.DMA_READ, wire.DMA_ACCESS.pack(BASE, 4) + b"data")
    assert reader.result() == b"data"


def test_an_abort_ends_what_is_under_way_and_nothing_later(client: Client) -> None:
    client.messages.abort()
    writer = Caller(lambda: client.messages.write(BASE, b"data"))
    client.wait_for(1)
    client.messages.abort()
    assert str(writer.error()) == "DMA_WRITE at 0x100000000: given up, the device was reset"
    client.serve(pattern(4))
    assert client.messages.read(BASE, 4) == pattern(4)


def test_a_client_that_goes_ends_what_is_under_way_and_whatever_follows(client: Client) -> None:
    readers = [Caller(lambda: client.messages.read(BASE, 4)) for _ in range(3)]
    client.wait_for(3)
    client.messages.close()
    assert [reader.error().errno for reader in readers] == [errno.ENOTCONN] * 3
    assert Caller(lambda: client.messages.read(BASE, 4)).error().errno == errno.ENOTCONN


def test_what_cannot_be_sent_says_that_the_client_is_gone(client: Client) -> None:
    client.gone = True
    for access in (lambda: client.messages.read(BASE, 4), lambda: client.messages.write(BASE, b"data")):
        with pytest.raises(DmaError, match=r"the client has disconnected: .*Broken pipe") as caught:
            access()
        assert caught.value.errno == errno.ENOTCONN


def test_a_client_that_does_not_answer_is_waited_for_a_while(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dma_messages, "TIMEOUT", 0.01)
    with pytest.raises(DmaError, match=r"DMA_READ at 0x100000000: no answer within 0\.01 s") as caught:
        client.messages.read(BASE, 4)
    assert caught.value.errno == errno.ETIMEDOUT


def test_accesses_of_several_threads_do_not_mix(client: Client) -> None:
    memory = pattern(8 * 3000)
    client.serve(memory)
    readers = [Caller(lambda at=3000 * n: client.messages.read(BASE + at, 3000)) for n in range(8)]  # type: ignore[misc]
    assert [reader.result() for reader in readers] == [memory[3000 * n : 3000 * (n + 1)] for n in range(8)]
