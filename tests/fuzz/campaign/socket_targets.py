"""The sockets beside vfio-user: control.sock, and memory.sock with its exports and leases."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from tests.fuzz.campaign.target import Target, dword
from vfio_user_xe.emulator.control.dispatch import Control
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport
from vfio_user_xe.emulator.vfio_user.memory_server import MAX_PACKET, MemoryServer

_BAR0 = 0xF0_0000_0000
_NAMES = (
    "pf", "vf1", "vf2", "", "x", "ggtt", "ppgtt", "device", "system", "bar2", "json", "guc", "read", "write", "PF", "vf-1", "é", "*",
)  # fmt: skip
_LOOK = 0.2


def value(random: Random, depth: int = 0) -> Any:
    """Anything that JSON can say."""
    kind = random.randrange(10)
    if kind < 3:
        return random.choice(_NAMES)
    if kind < 6:
        return random.choice((dword(random), -dword(random), random.getrandbits(64), random.getrandbits(80)))
    if kind == 6:
        return random.choice((True, False, None, 1.5, 1e300, -0.0))
    if kind == 7:
        return random.randbytes(random.randrange(0, 20)).hex()
    if depth > 3:
        return []
    if kind == 8:
        return [value(random, depth + 1) for _ in range(random.randrange(4))]
    return {random.choice(_NAMES): value(random, depth + 1) for _ in range(random.randrange(4))}


class WithACard(Target):
    """A card in this process with a VF and BARs in place."""

    def open(self) -> None:
        self._stack = ExitStack()
        self.card = Card(CardConfig.default("xe").override(vfs=1, settings=["vram=1GiB", "vf_bar2=16MiB"]))
        self.card.start()
        self._stack.callback(self.card.stop)
        pf = self.card.functions[0]
        pf.attached(FakeTransport())
        pf.config.write(0x10, 4, _BAR0 & 0xFFFFFFFF)
        pf.config.write(0x14, 4, _BAR0 >> 32)
        pf.config.write(COMMAND, 2, 6)
        pf.config.write(0x330, 2, 1)
        pf.config.write(0x328, 2, 9)
        self.card.executor.run_sync(lambda: None)

    def close(self) -> None:
        self._stack.close()

    def check(self) -> None:
        """The executor goes on, and no job of it has failed."""
        self.card.executor.run_sync(lambda: None, 60)
        assert self.card.executor.failures == 0, "a job of the executor failed"


class ControlSocket(WithACard):
    """Lines for every command with any arguments, and lines that are none."""

    name, unit, fresh = "control", "lines", 60
    seconds: ClassVar[float] = 120.0

    def open(self) -> None:
        super().open()
        self._control = Control(self.card)
        # These name files, or wait on purpose.
        self._commands = sorted(set(self._control.commands) - {"trace_on", "inject"})

    def case(self, random: Random) -> int:
        many = random.randrange(10, 80)
        for _ in range(many):
            line = self._line(random)
            answer = json.loads(self._control.handle(line))
            assert set(answer) in ({"id", "result"}, {"id", "error"}), answer
            if "error" in answer:
                text = answer["error"]["message"]
                assert "internal error" not in text, f"{line!r}: {text}"
        self.check()
        return many

    def _line(self, random: Random) -> bytes:
        if random.random() < 0.1:
            return random.randbytes(random.randrange(0, 60)).replace(b"\n", b" ")
        command = random.choice(self._commands) if random.random() < 0.95 else random.choice(_NAMES)
        names = [argument.strip("[]=.") for argument in self._usage(command)]
        arguments = {name: value(random) for name in names if random.random() < 0.8}
        if random.random() < 0.1:
            arguments[random.choice(_NAMES)] = value(random)
        request = {"id": value(random), "command": command, "arguments": arguments}
        if random.random() < 0.05:
            request[random.choice(("id", "command", "arguments", "x"))] = value(random)
        return json.dumps(request).encode()

    def _usage(self, command: str) -> list[str]:
        function = self._control.commands.get(command)
        return list(getattr(function, "__wrapped__", function).__annotations__) if function is not None else []


class Exports(WithACard):
    """Packets for memory.sock, with leases that are opened, read, closed and forgotten."""

    name, unit, fresh = "exports", "packets", 60
    seconds: ClassVar[float] = 120.0

    def open(self) -> None:
        super().open()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-"))
        self._path = str(Path(folder) / "memory.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self._path)
        listener.listen()
        server = MemoryServer(self.card, listener)
        server.start()
        self._stack.callback(server.close)

    def case(self, random: Random) -> int:
        many = random.randrange(5, 60)
        with self._connect() as client:
            with suppress(OSError):
                for _ in range(many):
                    client.send(self._packet(random))
                    if random.random() < 0.3:
                        self._drain(client)
            self._drain(client)
        with self._connect() as client:
            client.send(b'{"id": 1, "op": "hello"}')
            answer, fds, _, _ = socket.recv_fds(client, MAX_PACKET, 4)
            assert json.loads(answer)["functions"] == ["pf", "vf1"]
            assert not fds
        self.check()
        return many

    def _connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(self._path)
        client.settimeout(60)
        return client

    @staticmethod
    def _drain(client: socket.socket) -> None:
        client.settimeout(_LOOK / 20)
        with suppress(TimeoutError, OSError):
            while True:
                data, fds, _, _ = socket.recv_fds(client, MAX_PACKET, 8)
                for fd in fds:
                    os.close(fd)
                if not data:
                    break
        client.settimeout(60)

    @staticmethod
    def _packet(random: Random) -> bytes:
        if random.random() < 0.1:
            return random.randbytes(random.randrange(1, 100))
        request: dict[str, Any] = {
            "id": random.randrange(100) if random.random() < 0.9 else value(random),
            "op": random.choice(("hello", "open", "open", "read", "write", "close", "ack", "x")),
            "function": random.choice(("pf", "vf1", "vf1", value(random))),
            "bar": random.choice((0, 2, 2, 1, value(random))),
            "address": random.choice((0, 4096, 1 << 20, dword(random), value(random))),
            "offset": random.choice((0, 8, 0x1000, dword(random), value(random))),
            "length": random.choice((4, 4096, 1 << 20, dword(random), value(random))),
            "data": random.choice(("00000000", "ff" * 8, "zz", value(random))),
            "lease": random.choice((0, 1, 2, 3, dword(random), value(random))),
        }
        for key in list(request):
            if random.random() < 0.2 and key != "op":
                del request[key]
        return json.dumps(request).encode()
