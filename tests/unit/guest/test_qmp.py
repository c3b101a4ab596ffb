from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from vfio_user_xe.emulator.guest.errors import QmpError
from vfio_user_xe.emulator.guest.qmp import Qmp

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}


class FakeQemu:
    """QEMU's end of a QMP connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def send(self, message: dict[str, Any]) -> None:
        await self._stream.send_all(json.dumps(message).encode() + b"\r\n")

    async def send_raw(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            data = await self._stream.receive_some()
            assert data, "the client closed the connection"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    async def negotiate(self) -> None:
        await self.send(GREETING)
        request = await self.receive()
        assert request["execute"] == "qmp_capabilities"
        await self.send({"return": {}, "id": request["id"]})

    async def close(self) -> None:
        await self._stream.aclose()


def with_qmp(client: Callable[[Qmp], Awaitable[None]], server: Callable[[FakeQemu], Awaitable[None]]) -> None:
    async def main() -> None:
        qmp = Qmp()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(qmp.far.dup()))
        qmp.far.close()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(qmp.serve)
                nursery.start_soon(server, FakeQemu(stream))
                await client(qmp)
                nursery.cancel_scope.cancel()
        qmp.close()

    trio.run(main)


def test_a_command_is_sent_after_negotiation_and_its_value_returned() -> None:
    async def server(qemu: FakeQemu) -> None:
        await qemu.negotiate()
        request = await qemu.receive()
        assert (request["execute"], request["arguments"]) == ("qom-get", {"path": "/x"})
        await qemu.send({"return": 42, "id": request["id"]})

    async def client(qmp: Qmp) -> None:
        assert await qmp.execute("qom-get", {"path": "/x"}) == 42

    with_qmp(client, server)


def test_events_between_command_and_answer_are_kept() -> None:
    async def server(qemu: FakeQemu) -> None:
        await qemu.negotiate()
        request = await qemu.receive()
        await qemu.send({"event": "RESET", "data": {}})
        await qemu.send({"return": {}, "id": request["id"]})

    async def client(qmp: Qmp) -> None:
        assert await qmp.execute("system_reset") == {}
        assert [event["event"] for event in qmp.events] == ["RESET"]

    with_qmp(client, server)


def test_a_message_in_pieces_is_put_together() -> None:
    async def server(qemu: FakeQemu) -> None:
        await qemu.negotiate()
        request = await qemu.receive()
        for byte in json.dumps({"return": "whole", "id": request["id"]}).encode() + b"\n":
            await qemu.send_raw(bytes([byte]))
            await trio.lowlevel.checkpoint()

    async def client(qmp: Qmp) -> None:
        assert await qmp.execute("x") == "whole"

    with_qmp(client, server)


def test_answers_in_another_order_reach_their_commands() -> None:
    async def server(qemu: FakeQemu) -> None:
        await qemu.negotiate()
        requests = [await qemu.receive(), await qemu.receive()]
        for request in reversed(requests):
            await qemu.send({"return": request["execute"], "id": request["id"]})

    async def client(qmp: Qmp) -> None:
        async def execute(name: str) -> None:
            assert await qmp.execute(name) == name

        async with trio.open_nursery() as nursery:
            nursery.start_soon(execute, "one")
            nursery.start_soon(execute, "two")

    with_qmp(client, server)


def test_a_refusal_has_qemus_words() -> None:
    async def server(qemu: FakeQemu) -> None:
        await qemu.negotiate()
        request = await qemu.receive()
        await qemu.send({"error": {"class": "CommandNotFound", "desc": "no such command"}, "id": request["id"]})

    async def client(qmp: Qmp) -> None:
        with pytest.raises(QmpError, match=r"QMP command nonsense failed: no such command \(CommandNotFound\)"):
            await qmp.execute("nonsense")

    with_qmp(client, server)


def test_a_late_answer_is_not_taken_for_the_next_commands() -> None:
    async def server(qemu: FakeQemu) -> None:
        await qemu.negotiate()
        first = await qemu.receive()
        second = await qemu.receive()
        await qemu.send({"return": "late", "id": first["id"]})
        await qemu.send({"return": "right", "id": second["id"]})

    async def client(qmp: Qmp) -> None:
        with pytest.raises(QmpError, match="not answered within"):
            await qmp.execute("slow", timeout=0.05)
        assert await qmp.execute("next") == "right"

    with_qmp(client, server)


@pytest.mark.parametrize("farewell", [b"", b"not json\n"])
def test_a_closed_or_broken_connection_ends_every_command(farewell: bytes) -> None:
    async def server(qemu: FakeQemu) -> None:
        await qemu.negotiate()
        await qemu.receive()
        await qemu.send_raw(farewell)
        await qemu.close()

    async def client(qmp: Qmp) -> None:
        for _ in range(2):
            with pytest.raises(QmpError, match="gone"):
                await qmp.execute("query-status")

    with_qmp(client, server)
