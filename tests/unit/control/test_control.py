from __future__ import annotations

import json
import os
import select
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support import logs
from vfio_user_xe.device_models.edu import DMA_SOURCE, LIVENESS, STATUS, Edu
from vfio_user_xe.emulator.control import dispatch
from vfio_user_xe.emulator.control.dispatch import Control, inline
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.model.memory import PAGE_SIZE, Memory
from vfio_user_xe.emulator.model.registers import RO, Register, field, not_modelled
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport
from vfio_user_xe.emulator.vfio_user import control_server
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient
from vfio_user_xe.emulator.vfio_user.control_server import serve_control
from vfio_user_xe.emulator.vfio_user.server import socket_folder


@pytest.fixture
def card() -> Iterator[Card]:
    made = Card(CardConfig.default("edu"))
    made.start()
    made.functions[0].attached(FakeTransport())
    made.functions[0].config.write(COMMAND, 2, COMMAND_MASTER)
    yield made
    made.stop()


@pytest.fixture
def control(card: Card) -> Control:
    return Control(card)


def refusal(control: Control, command: str, **arguments: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        control.call(command, arguments)
    return caught.value


def test_status_tells_what_the_card_is_and_who_is_attached(control: Control, card: Card) -> None:
    status = control.call("status", {})
    assert (status["card"], status["model"], status["interconnects"]) == ("edu", "edu", ["iov", "p2p", "host_dma"])
    (function,) = status["functions"]
    assert (function["name"], function["attached"], function["bus_master"]) == ("edu", True, True)
    card.functions[0].detached()
    assert not control.call("status", {})["functions"][0]["attached"]
    json.dumps(status)


@pytest.mark.parametrize("error", [SystemExit(7), ZeroDivisionError("1/0")])
@pytest.mark.parametrize("mark", [inline, lambda command: command])
def test_a_command_that_fails_or_wants_to_end_the_process_is_answered(
    error: BaseException, mark: Any, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    def leave() -> None:
        raise error

    card.commands["leave"] = mark(leave)
    control = Control(card)
    assert f"leave: internal error: {type(error).__name__}" in refusal(control, "leave").message
    assert control.call("status", {})["card"] == "edu"


def test_memory_is_read_and_written_as_a_function_sees_it_and_is_accounted(control: Control) -> None:
    where = {"function": "edu", "space": "system", "address": "0x1000"}
    assert control.call("write", {**where, "data": "0102030405"}) == 5
    assert control.call("read", {**where, "length": 6}) == "010203040500"
    (entry,) = control.call("ledger", {"clear": True})
    assert 0 < entry.pop("first") <= entry.pop("last")
    assert entry == {
        "spans": 2,
        "initiator": "edu",
        "owner": "guest",
        "interconnect": "host_dma",
        "way": "legacy",
        "kind": "control",
        "reads": 1,
        "bytes_read": 6,
        "writes": 1,
        "bytes_written": 5,
    }
    assert control.call("ledger", {}) == []


def test_open_windows_are_listed(control: Control, card: Card) -> None:
    held = card.executor.run_sync(
        lambda: card.fabric.window(card.functions[0], "system", 0x2000, 16, write=True, kind="ring")
    )
    assert control.call("windows", {}) == [
        {
            "initiator": "edu",
            "space": "system",
            "address": 0x2000,
            "length": 16,
            "owner": "guest",
            "interconnect": "host_dma",
            "kind": "ring",
        }
    ]
    assert held.valid


def test_registers_are_found_by_pattern_and_by_offset_with_their_fields(control: Control, card: Card) -> None:
    assert isinstance(card.model, Edu)
    card.model.registers.write(DMA_SOURCE, 8, 0x1_0000_0002)
    card.model.registers.write(STATUS, 4, 0x80)
    found = control.call("registers", {"name": "dma_*"})
    assert [register["name"] for register in found] == [
        "DMA_SOURCE", "DMA_DESTINATION", "DMA_COUNT", "DMA_COMMAND", "DMA_COMMAND_HIGH",
    ]  # fmt: skip
    assert found[0]["value"] == 0x1_0000_0002
    (status,) = control.call("registers", {"function": "edu", "offset": "0x20"})
    assert (status["name"], status["value"], status["fields"]) == ("STATUS", 0x80, {"COMPUTING": 0, "INTERRUPT": 1})


def test_registers_are_computed_only_when_asked_to(control: Control, card: Card) -> None:
    assert isinstance(card.model, Edu)
    reads = iter(range(5, 10))
    card.model.registers.add([Register("TICKS", 0x200, access=RO, read=lambda: next(reads))])
    (stored,) = control.call("registers", {"name": "TICKS"})
    assert (stored["value"], stored["computed"]) == (0, True)
    (live,) = control.call("registers", {"name": "TICKS", "live": True})
    assert live["value"] == 5


def test_named_values_and_bits_that_are_not_modelled_are_told(control: Control, card: Card) -> None:
    assert isinstance(card.model, Edu)
    fields = [field(0, 1, "MODE", {0: "SLOW", 2: "FAST"}), not_modelled(4, "TURBO")]
    card.model.registers.add([Register("SPEED", 0x200, fields=fields)])
    card.model.registers.write(0x200, 4, 0x12)
    (speed,) = control.call("registers", {"name": "SPEED"})
    assert (speed["fields"], speed["meanings"]) == ({"MODE": 2, "TURBO": 1}, {"MODE": "FAST"})
    (bits,) = control.call("unmodelled_bits", {"function": "edu"})
    assert (bits["register"], bits["bits"], bits["names"]) == ("SPEED", 0x10, ["TURBO"])
    assert "TURBO" in control.call("unmodelled", {"format": "text"})


def test_undeclared_registers_are_told_as_data_and_as_text(control: Control, card: Card) -> None:
    assert isinstance(card.model, Edu)
    card.model.registers.read(0x40, 4)
    assert [entry["offset"] for entry in control.call("unmodelled", {})] == [0x40]
    assert "0x40" in control.call("unmodelled", {"format": "text"})


def test_memories_are_told_with_what_they_cost(control: Control, card: Card) -> None:
    memory = Memory(4 * PAGE_SIZE, "vram")
    memory.view[0] = 1
    card.memories["vram"] = memory
    report = control.call("memory", {})
    assert report["memories"]["vram"]["size"] == 4 * PAGE_SIZE
    assert report["resident"] == memory.resident() > 0


def test_faults_are_injected_and_healed(control: Control, card: Card) -> None:
    point = card.faults.point("edu.late", "be late")
    assert control.call("faults", {}) == [{"name": "edu.late", "help": "be late", "armed": False, "taken": 0}]
    control.call("inject", {"fault": "edu.late", "times": 0, "arguments": {"seconds": 3}})
    assert point.take() == {"seconds": 3}
    control.call("heal", {"fault": "edu.late"})
    assert point.take() is None


def test_the_trace_is_switched_on_and_off(control: Control, card: Card, tmp_path: Path) -> None:
    assert isinstance(card.model, Edu)
    assert control.call("trace_on", {"categories": ["mmio"], "file": str(tmp_path / "t")}) == ["mmio"]
    card.model.registers.read(LIVENESS, 4)
    control.call("trace_off", {})
    assert "register=LIVENESS" in (tmp_path / "t").read_text()
    assert control.call("trace", {})["on"] == []


def test_stalls_are_told_with_a_sentence(control: Control, card: Card) -> None:
    assert isinstance(card.model, Edu)
    for step in range(60):
        card.model.registers.read(STATUS, 4)
        card.watchdog.sample(step * 0.05)
    (stall,) = control.call("stalls", {})
    assert stall["register"] == "STATUS"
    assert stall["text"].startswith("edu polls STATUS")


def test_help_names_every_command_with_arguments_and_a_sentence(control: Control, card: Card) -> None:
    def lamp(bright: bool, colour: str = "red") -> None:
        """Switch the lamp."""

    card.commands["lamp"] = lamp
    listed = {entry["command"]: entry for entry in control.call("help", {})}
    assert set(listed) == set(control.commands)
    assert all(entry["help"] for entry in listed.values())
    assert control.call("help", {"command": "lamp"}) == [
        {"command": "lamp", "arguments": "bright: bool, colour: str = red", "help": "Switch the lamp."}
    ]


def test_commands_of_a_model_run_on_the_executor_unless_they_are_inline(control: Control, card: Card) -> None:
    def where() -> bool:
        return card.executor.is_current()

    card.commands |= {"on_executor": where, "beside": inline(where)}
    assert control.call("on_executor", {}) is True
    assert control.call("beside", {}) is False


def test_core_commands_answer_while_the_executor_is_busy(control: Control, card: Card) -> None:
    release = threading.Event()
    card.executor.submit(lambda: release.wait(30) and None)
    assert control.call("status", {})["card"] == "edu"
    assert control.call("registers", {"name": "STATUS"})
    release.set()


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("stauts", {}, 'no command "stauts"; did you mean "status"'),
        ("read", {}, 'needs the argument "function"'),
        ("ledger", {"claer": True}, 'no argument "claer"; did you mean "clear"'),
        ("ledger", {"clear": "yes"}, 'ledger: clear: "yes" is a string, wanted is a boolean'),
        ("ledger", {"clear": 1}, "ledger: clear: 1 is an integer, wanted is a boolean"),
        ("registers", {"offset": True}, "registers: offset: true is a boolean, wanted is an integer"),
        ("registers", {"name": 4}, "registers: name: 4 is an integer, wanted is a string"),
        ("registers", {"function": ["edu"]}, 'registers: function: ["edu"] is a list, wanted is a string'),
        ("inject", {"fault": "x", "arguments": [1]}, "inject: arguments: [1] is a list, wanted is an object"),
        ("inject", {"fault": "x", "times": None}, "inject: times: null is null, wanted is an integer"),
        ("trace_on", {"categories": [1], "file": "/tmp/x"}, "[1] is a list, wanted is a list of strings"),
        ("registers", {"offset": "twenty"}, 'offset: "twenty" is not a number'),
        ("registers", {"name": "nothing*"}, 'no register of edu is called "nothing*"; '),
        ("registers", {"name": "DMA_SORUCE"}, "did you mean DMA_SOURCE"),
        ("registers", {"name": "interrupt"}, "did you mean INTERRUPT_"),
        ("registers", {"offset": 0x44}, "no register is at 0x44; the nearest: "),
        ("registers", {"function": "edw"}, 'no register file "edw"; did you mean "edu"'),
        ("unmodelled", {"format": "xml"}, 'no format "xml"'),
        ("inject", {"fault": "x"}, 'no fault "x"'),
        ("trace_on", {"categories": ["x"], "file": "/tmp/x"}, 'no trace category "x"'),
        (
            "trace_on",
            {"categories": "mmio", "file": "/tmp/x"},
            'categories: "mmio" is a string, wanted is a list of strings; write ["mmio"]',
        ),
        ("read", {"function": "pf", "space": "system", "address": 0, "length": 4}, 'no function "pf"'),
        ("read", {"function": "edu", "space": "io", "address": 0, "length": 4}, 'no address space "io"'),
        ("read", {"function": "edu", "space": "device", "address": 0, "length": 4}, "no interconnect reaches it"),
        ("read", {"function": "edu", "space": "system", "address": 0, "length": 0}, "not between 1 and"),
        ("write", {"function": "edu", "space": "system", "address": 0, "data": "xyz"}, 'data "xyz" is not hexadecimal'),
        ("write", {"function": "edu", "space": "system", "address": -4, "data": "00"}, "[-0x4, +0x1) is not inside"),
        ("read", {"function": "edu", "space": "system", "address": 1 << 64, "length": 4}, "is not inside the 64 bits"),
        ("read", {"function": "edu", "space": "system", "address": (1 << 64) - 2, "length": 4}, "is not inside the 64"),
        ("interrupt", {"function": "edu", "vector": -1}, "vector -1: edu has vector 0 only"),
        ("inject", {"fault": "edu.late", "times": -1}, "after (0) and times (-1) must not be negative"),
        (
            "trace_on",
            {"categories": ["mmio"], "file": "/dev/null/x"},
            "/dev/null/x cannot be written by the server",
        ),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_wrong(
    control: Control,
    card: Card,
    caplog: pytest.LogCaptureFixture,
    command: str,
    arguments: dict[str, Any],
    message: str,
) -> None:
    card.faults.point("edu.late", "be late")
    assert message in str(refusal(control, command, **arguments))
    assert not logs.records(caplog, dispatch.log)


def test_an_unknown_command_or_argument_comes_with_those_there_are(control: Control) -> None:
    assert "ledger" in refusal(control, "x").allowed
    assert refusal(control, "ledger", x=1).allowed == ["clear: bool = False"]


@pytest.mark.parametrize(
    "error", [KeyError("slot"), ValueError("negative shift count"), OSError(9, "bad"), TypeError()]
)
def test_what_a_command_does_not_expect_is_logged_with_its_traceback_and_no_mistake_of_the_one_who_asked(
    control: Control, card: Card, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def broken() -> None:
        raise error

    card.commands["broken"] = broken
    told = str(refusal(control, "broken"))
    assert told.startswith(f"broken: internal error: {type(error).__name__}: ")
    assert "server's log" in told
    assert f"in broken\n    raise error\n{type(error).__name__}" in logs.text(caplog, dispatch.log)


def test_what_a_command_of_a_model_refuses_is_answered_with_what_is_allowed(
    control: Control, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    def lamp(colour: str) -> None:
        raise CommandError(f"no lamp is {colour}", ["red", "green"])

    card.commands["lamp"] = lamp
    refused = refusal(control, "lamp", colour="blue")
    assert (refused.message, refused.allowed) == ("lamp: no lamp is blue", ["red", "green"])
    assert not logs.records(caplog, dispatch.log)


def test_a_command_whose_annotations_cannot_be_read_is_a_defect_and_the_socket_lives(
    control: Control, card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(value: Unknown) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Takes nothing that there is."""

    card.commands["odd"] = odd
    line = b'{"id": 1, "command": "odd", "arguments": {"value": 1}}'
    assert "internal error: NameError" in answer(control, line)["error"]["message"]
    assert "NameError" in logs.text(caplog, dispatch.log)


def test_a_command_of_a_card_that_is_not_started_says_so(caplog: pytest.LogCaptureFixture) -> None:
    control = Control(Card(CardConfig.default("edu")))
    assert "has not been started" in str(refusal(control, "verdicts"))
    assert "Traceback" not in logs.text(caplog, dispatch.log)


def answer(control: Control, line: bytes) -> dict[str, Any]:
    reply = control.handle(line)
    assert reply.endswith(b"\n")
    assert reply.count(b"\n") == 1
    decoded: dict[str, Any] = json.loads(reply)
    return decoded


def test_a_line_is_answered_with_its_id_and_a_result_or_an_error(control: Control) -> None:
    assert answer(control, b'{"id": 7, "command": "ledger"}') == {"id": 7, "result": []}
    error = answer(control, b'{"id": "x", "command": "ledge"}')
    assert error["id"] == "x"
    assert "did you mean" in error["error"]["message"]
    assert "ledger" in error["error"]["allowed"]


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"3", b"{}", b'{"command": 3}', b'{"command": "status", "arguments": []}',
             b'{"command": "status", "argument": {}}', b"\xff\xfe", b"[" * 200_000]
)  # fmt: skip
def test_what_is_no_request_is_answered_with_an_error(control: Control, line: bytes) -> None:
    assert answer(control, line)["error"]["message"]


def test_a_result_that_is_not_json_is_an_error(control: Control, card: Card) -> None:
    card.commands["odd"] = lambda: {1, 2}
    assert "odd: internal error: TypeError" in answer(control, b'{"id": 1, "command": "odd"}')["error"]["message"]


# The socket


class Served:
    """A control socket on a thread with an event loop of its own."""

    def __init__(self, control: Control, folder: Path) -> None:
        self.path = folder / "control.sock"
        self._control = control
        self._folder = folder
        self._ready = threading.Event()
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=trio.run, args=(self._run,))
        self._thread.start()
        assert self._ready.wait(30)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with socket_folder(self._folder) as folder:
                listener = folder.listen("control")
                self._ready.set()
                await serve_control(self._control, listener)

    def stop(self) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def served(control: Control, tmp_path: Path) -> Iterator[Served]:
    made = Served(control, tmp_path / "s")
    yield made
    made.stop()
    assert not made.path.exists()


def test_the_socket_answers_its_owner_only(served: Served) -> None:
    assert stat.S_IMODE(os.stat(served.path).st_mode) == 0o600
    with ControlClient(served.path) as client:
        assert client.call("ledger") == []
        with pytest.raises(CommandError, match="did you mean") as caught:
            client.call("ledgre")
        assert "ledger" in caught.value.allowed
        assert client.call("status")["card"] == "edu"


def test_several_clients_are_answered_at_once(served: Served, card: Card) -> None:
    release = threading.Event()
    card.commands["wait"] = inline(lambda: release.wait(30))
    with ControlClient(served.path) as first, ControlClient(served.path) as second:
        results: list[Any] = []
        waiting = threading.Thread(target=lambda: results.append(first.call("wait")))
        waiting.start()
        assert second.call("ledger") == []
        release.set()
        waiting.join(30)
    assert results == [True]


def test_requests_in_pieces_and_several_in_one_piece_are_answered_in_order(served: Served) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(served.path))
        raw.settimeout(30)
        for byte in b'{"id": 1, "command": "ledger"}':
            raw.send(bytes([byte]))
        raw.send(b'\n\n{"id": 2, "command": "ledger"}\nnonsense\n{"id": 3, "command": "ledger"}\n')
        lines = raw.makefile("rb")
        answers = [json.loads(lines.readline()) for _ in range(4)]
    assert [reply["id"] for reply in answers] == [1, 2, None, 3]
    assert "error" in answers[2]


def test_a_client_that_sends_2000_requests_before_it_reads_gets_every_answer(served: Served) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(served.path))
        raw.settimeout(30)
        for number in range(2000):
            raw.sendall(b'{"id": %d, "command": "status"}\n' % number)
        raw.shutdown(socket.SHUT_WR)
        lines = list(raw.makefile("rb"))
    assert [json.loads(line)["id"] for line in lines] == list(range(2000))


def test_a_client_that_never_reads_its_answers_is_disconnected(
    served: Served, card: Card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control_server, "MAX_KEPT", 1 << 20)
    card.commands["much"] = inline(lambda: "x" * 100_000)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(served.path))
        raw.settimeout(30)
        raw.sendall(b'{"id": 1, "command": "much"}\n' * 100)
        ended = select.poll()
        ended.register(raw, 0)
        assert ended.poll(30_000), "the server ends the connection, though nothing is read"
        assert len(list(raw.makefile("rb"))) < 100
    (line,) = logs.messages(caplog, control_server.log)
    assert line.startswith("control: a client is disconnected, because it does not read its answers: more than 1048576")
    with ControlClient(served.path) as client:
        assert client.call("ledger") == []


def test_a_client_that_goes_in_the_middle_of_a_request_harms_nobody(served: Served) -> None:
    for start in (b"", b'{"id": 1', b'{"id": 1, "command": "status"}\n'):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(served.path))
            raw.send(start)
    with ControlClient(served.path) as client:
        assert client.call("ledger") == []


def test_a_client_learns_that_the_server_is_gone(control: Control, tmp_path: Path) -> None:
    served = Served(control, tmp_path / "s")
    client = ControlClient(served.path)
    assert client.call("ledger") == []
    served.stop()
    with pytest.raises((ConnectionError, BrokenPipeError)):
        client.call("ledger")
    client.close()
    with pytest.raises(OSError, match="cannot connect to"):
        ControlClient(served.path)
