"""Record and replay, as whole programs: a card is served and recorded, then replayed without anybody."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.served import served
from vfio_user_xe.device_models import conformance
from vfio_user_xe.emulator.cli.main import app
from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.conformance.driver import Driver
from vfio_user_xe.emulator.conformance.profile import Profile
from vfio_user_xe.emulator.conformance.runner import Runner, select_cases
from vfio_user_xe.emulator.model.card import CardConfig
from vfio_user_xe.emulator.recording import format as rec
from vfio_user_xe.emulator.recording.format import Event, Header, Recording, RecordingError
from vfio_user_xe.emulator.recording.player import replay
from vfio_user_xe.emulator.recording.redact import redact
from vfio_user_xe.emulator.results import Verdict
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, RequestError

BASE = 0x1000_0000
SECRET = bytes(range(256)) * 4


def session(socket: str) -> None:
    """A bit of all that a client can do to a device, and a device to a client."""
    with Client(socket) as client:
        driver = Driver(client)
        driver.set(device.REG_SCRATCH, 0x5EED)
        assert driver.get(device.REG_SCRATCH) == 0x5EED
        shared = client.map_memory(BASE, 0x1000)
        shared.at(BASE, 4)[:] = b"ram1"
        assert driver.read_memory(BASE, 4) == b"ram1"
        private = client.map_memory(BASE + 0x1000, 0x1000, shared=False)
        private.at(BASE + 0x1000, 4)[:] = b"ram2"
        assert driver.read_memory(BASE + 0x1000, 4) == b"ram2"
        client.map_region(device.MAPPED).at(0x2000, len(SECRET))[:] = SECRET
        assert driver.dma(device.DMA_WRITE, BASE, len(SECRET), buffer=0x2000) == 0
        assert bytes(shared.at(BASE, len(SECRET))) == SECRET
        assert driver.dma(device.DMA_READ, BASE + 0x8000, 4) == errno.EFAULT
        (event,) = client.enable_irqs(wire.IRQ_MSIX, 1)
        assert driver.trigger(wire.IRQ_MSIX, 0)
        assert event.wait(60) == 1
        with pytest.raises(RequestError):
            driver.get(device.REG_BROKEN)
        with pytest.raises(RequestError):
            driver.set(device.REG_BROKEN, 1)
        client.reset()
        assert driver.get(device.REG_SCRATCH) == 0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "session.gz"
    with served(arguments=["--record", str(path)]) as card:
        session(card.socket)
        session(card.socket)
    return path


def changed(path: Path, change: Callable[[Event], Event]) -> Iterator[Event]:
    """The events of a recording, one by one through `change`."""
    return (change(event) for event in Recording(path).events())


def test_a_session_is_done_again_without_a_client(recorded: Path) -> None:
    outcome = replay(recorded)
    assert outcome.difference is None
    assert outcome.cut_off == ""
    assert outcome.accesses > 80
    assert outcome.jobs >= 10
    assert outcome.interrupts == 2
    # As in the recording: memory that was not read then is not made up.
    assert outcome.unknown_reads == 0


def test_an_access_that_failed_may_end_otherwise_and_fails_again(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object) -> int:
        raise SystemExit(3)

    monkeypatch.setattr(conformance, "_broken_read", leave)
    monkeypatch.setattr(conformance, "_broken_write", leave)
    assert replay(recorded).difference is None


def test_an_access_that_ends_the_interpreter_now_is_a_difference(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(self: object, value: int) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(conformance.ConformanceFunction, "_queue_irq", ends)
    difference = replay(recorded).difference
    assert difference is not None
    assert difference.got == "failed with SystemExit: 3"


def test_a_recorded_card_conforms_and_all_that_was_done_to_it_replays(tmp_path: Path) -> None:
    path = tmp_path / "conformance.gz"
    with served(arguments=["--record", str(path)]) as card:
        runner = Runner(card.socket, Profile.load(Path(__file__).parents[1] / "conformance/our-server.toml"))
        cases = select_cases(["dma.*", "irqs.*", "regions.*", "server_dma.*", "reset.*", "reconnect.*"])
        failed = [
            f"{result.case.label}: {result.reason}" for result in runner.run(cases) if result.verdict is Verdict.FAIL
        ]
        assert failed == []
    outcome = replay(path)
    assert outcome.difference is None
    assert outcome.accesses > 4000


def test_the_first_value_that_is_read_otherwise_is_reported_with_the_register_and_what_came_before(
    recorded: Path,
) -> None:
    def change(event: Event) -> Event:
        is_scratch = event.kind == rec.READ and (event.a, event.x) == (device.REGISTERS, device.REG_SCRATCH)
        return replace(event, y=0x1111) if is_scratch and event.y == 0x5EED else event

    difference = replay(recorded, changed(recorded, change)).difference
    assert difference is not None
    assert "BAR0 at 0x8 (SCRATCH)" in difference.where
    assert (difference.expected, difference.got) == ("0x1111", "read 0x5eed")
    assert difference.before[-1].endswith("write pf: BAR0 at 0x8 (SCRATCH) = 0x5eed")


@pytest.mark.parametrize(
    ("kind", "change", "where"),
    [
        (rec.DMA_WRITE, lambda event: replace(event, data=b"\xee" + event.data[1:]), "guest memory at 0x10000000"),
        (rec.TRIGGER, lambda event: replace(event, kind=rec.CLOCK, x=1), "vector 0 of interrupt index 2"),
        (rec.FAILED, lambda event: replace(event, kind=rec.MAPPED, x=1), "BAR0 at 0xa0 (BROKEN)"),
    ],
    ids=["memory", "interrupt", "failure"],
)
def test_what_the_device_does_to_its_guest_is_compared(
    recorded: Path, kind: int, change: Callable[[Event], Event], where: str
) -> None:
    events = changed(recorded, lambda event: change(event) if event.kind == kind else event)
    difference = replay(recorded, events).difference
    assert difference is not None
    assert where in difference.where


def test_a_write_that_the_device_does_not_make_is_missed(recorded: Path) -> None:
    def change(event: Event) -> Event:
        is_command = event.kind == rec.WRITE and (event.a, event.x) == (device.REGISTERS, device.REG_DMA_COMMAND)
        return replace(event, y=device.DMA_QUERY_WRITE) if is_command and event.y == device.DMA_WRITE else event

    difference = replay(recorded, changed(recorded, change)).difference
    assert difference is not None
    assert "guest memory at 0x10000000" in difference.where
    assert difference.got == "not written"


def test_redacted_bytes_are_gone_and_the_rest_replays(recorded: Path, tmp_path: Path) -> None:
    target = tmp_path / "redacted.xz"
    done = redact(recorded, [SECRET], target)
    # In mapped memory, where the second session changed nothing any more, and in what was written to the guest twice.
    assert done.found == 3 * len(SECRET)
    assert (done.kept, done.kept_at) == (0, [])
    assert any(SECRET[:64] in event.data for event in Recording(recorded).events())
    assert not any(SECRET[at : at + 64] in e.data for e in Recording(target).events() for at in (0, 64, 960))
    assert replay(target).difference is None


def test_bytes_without_which_it_does_not_replay_stay_and_are_named(tmp_path: Path) -> None:
    path, content = tmp_path / "large.gz", random.Random(1).randbytes(rec.LARGEST_DATA + 64)
    with served(arguments=["--record", str(path)]) as card, Client(card.socket) as client:
        client.map_memory(BASE, 0x2000)
        client.map_region(device.MAPPED).at(0, len(content))[:] = content
        # Of so much only a digest is kept, which must come out again.
        assert Driver(client).dma(device.DMA_WRITE, BASE, len(content)) == 0
    done = redact(path, [content[:64]], tmp_path / "redacted.gz")
    assert b"".join(data for _, _, data in done.kept_at) == content[:64]
    assert (done.found, done.kept) == (64, 64)
    assert replay(tmp_path / "redacted.gz").difference is None


def test_a_recording_that_is_cut_off_is_replayed_as_far_as_it_goes(recorded: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gz"
    content = recorded.read_bytes()
    cut.write_bytes(content[: len(content) - 200])
    outcome = replay(cut)
    assert outcome.difference is None
    assert outcome.events > 50
    assert "is cut off or damaged after event" in outcome.cut_off
    result = CliRunner().invoke(app, ["replay", str(cut)])
    assert result.exit_code == 1
    assert "cut off" in result.output


def killed_session(path: Path) -> None:
    with served(arguments=["--record", str(path)]) as card:
        session(card.socket)
        time.sleep(1.1)
        # The next job saves.
        with Client(card.socket) as client:
            client.map_memory(BASE, 0x1000)
            assert Driver(client).dma(device.DMA_READ, BASE, 4) == 0
        os.kill(card.pid, signal.SIGKILL)
        os.waitid(os.P_PID, card.pid, os.WEXITED | os.WNOWAIT)


def test_a_server_that_is_killed_leaves_a_recording_up_to_its_last_second(tmp_path: Path) -> None:
    path = tmp_path / "killed.gz"
    with pytest.raises(RuntimeError, match="died with code -9"):
        killed_session(path)
    outcome = replay(path)
    assert outcome.difference is None
    assert outcome.accesses > 40
    assert "is cut off" in outcome.cut_off


def test_the_command_prints_the_figures_and_ends_with_the_verdict(recorded: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["replay", str(recorded)])
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "no difference")
    wrong = tmp_path / "wrong.xz"
    with rec.create(wrong) as file:
        rec.write_header(file, Recording(recorded).header)
        for event in changed(recorded, lambda e: replace(e, y=e.y ^ 1) if e.kind == rec.READ and e.a == 0 else e):
            rec.write_event(file, event)
    result = CliRunner().invoke(app, ["replay", str(wrong)])
    assert result.exit_code == 1
    assert "recorded was" in result.output
    assert '"difference": {"event":' in CliRunner().invoke(app, ["replay", "--json", str(wrong)]).output


def test_a_recording_of_other_functions_is_refused(recorded: Path, tmp_path: Path) -> None:
    header = Recording(recorded).header
    header.functions = ["pf", "vf1"]
    other = tmp_path / "other.gz"
    with rec.create(other) as file:
        rec.write_header(file, header)
    with pytest.raises(RecordingError, match=r"recorded were pf, vf1; its card now has \w+"):
        replay(other)


def test_a_replay_is_traced_at_the_times_of_the_recording(recorded: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    result = CliRunner().invoke(app, ["replay", str(recorded), "--trace", f"mmio,irq:{trace}"])
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "no difference")
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    registers = {line["fields"].get("register") for line in lines}
    assert {"SCRATCH", "DMA_COMMAND", "IRQ_TRIGGER"} <= registers
    times = [line["time"] for line in lines]
    assert times == sorted(times)
    wrong = CliRunner().invoke(app, ["replay", str(recorded), "--trace", f"nothing:{trace}"])
    assert wrong.exit_code == 2
    assert 'there is no trace category "nothing"' in " ".join(wrong.output.split())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read .*: No such file or directory"),
        (b"text", "is no recording .it is neither a gzip nor an xz file"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\0\0\0\0", "its first line does not describe a card"),
    ],
    ids=["missing", "text", "empty"],
)
def test_what_is_no_recording_is_refused_with_the_reason(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError, match=reason):
        replay(path)


@pytest.mark.parametrize("length", [1 << 31, (1 << 63) - 1])
def test_an_event_whose_length_is_damaged_is_damage_and_no_demand_for_memory(length: int, tmp_path: Path) -> None:
    path = tmp_path / "damaged.gz"
    with rec.create(path) as file:
        rec.write_header(file, Header.of(CardConfig.default("edu"), ["edu"]))
        rec.write_event(file, Event(1, rec.READ, 0, 0, 4, 0, 1))
        rec.write_event(file, Event(2, rec.MEMORY, 0, 0, 0, 0, length, b"data"))
    events = Recording(path).events()
    assert next(events).kind == rec.READ
    with pytest.raises(RecordingError, match="is cut off or damaged after event 2"):
        next(events)


def test_a_recording_that_cannot_be_written_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    arguments = ["serve", "--model", "conformance", "--socket-dir", str(tmp_path / "s"), "--record", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"cannot record to {tmp_path}: Is a directory" in result.output
    assert not (tmp_path / "s").exists()


def test_the_recording_itself_is_not_overwritten_by_redacting(recorded: Path) -> None:
    result = CliRunner().invoke(app, ["redact", str(recorded), str(recorded), "--without", __file__])
    assert result.exit_code == 2
    assert "is the recording itself" in result.output
