"""The suite itself: it finds what is wrong with a server, and says so."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.right_answers import right_answer
from tests.support.wait import eventually
from vfio_user_xe.emulator.conformance.case import CASES, Case
from vfio_user_xe.emulator.conformance.profile import Profile, ProfileError, Scratch
from vfio_user_xe.emulator.conformance.runner import Runner, ServerGone, load_cases, select_cases
from vfio_user_xe.emulator.conformance.suite import main, report_of, run, summary_of
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.results.junit import junit
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Connection, Disconnected, Message, encode

Behaviour = Callable[[Message], bytes]


@contextmanager
def _server(behaviour: Behaviour) -> Iterator[str]:
    """A server in a thread that answers with `behaviour`; b"" as an answer ends the connection."""
    with tempfile.TemporaryDirectory(prefix="vus-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/s"
        listener.bind(path)
        listener.listen(8)

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                connection = Connection(sock)
                try:
                    while answer := behaviour(connection.receive()):
                        connection.send(answer)
                except Disconnected:
                    pass
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _verdict(behaviour: Behaviour, identity: str, timeout: float = 10.0) -> Result:
    with _server(behaviour) as path:
        (result,) = run(path, Profile(), cases=[identity], timeout=timeout)
    return result


def test_right_answer_passes() -> None:
    assert _verdict(right_answer, "info.device_info_reply_is_16_bytes").verdict is Verdict.PASS


def test_wrong_message_id_fails() -> None:
    def behaviour(message: Message) -> bytes:
        return right_answer(message) if message.id != 0x1234 else b"\x35" + right_answer(message)[1:]

    result = _verdict(behaviour, "info.device_info_reply_is_16_bytes")
    assert result.verdict is Verdict.FAIL
    assert "the reply has message id 0x1235, the command had 0x1234" in result.reason


def test_success_where_an_error_is_due_fails() -> None:
    def behaviour(message: Message) -> bytes:
        if message.command == 0xFFFF:
            return encode(message.command, message_id=message.id, flags=wire.TYPE_REPLY)
        return right_answer(message)

    result = _verdict(behaviour, "framing.command_65535_is_refused")
    assert result.verdict is Verdict.FAIL
    assert "command 65535 succeeded, but must be refused with EINVAL or ENOSYS or" in result.reason


def test_error_with_payload_fails() -> None:
    def behaviour(message: Message) -> bytes:
        if message.command != 0xFFFF:
            return right_answer(message)
        flags = wire.TYPE_REPLY | wire.FLAG_ERROR
        return encode(message.command, b"why", message_id=message.id, flags=flags, error=22)

    assert "an error reply has 3 bytes of payload" in _verdict(behaviour, "framing.command_65535_is_refused").reason


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("context", "runner"):
        monkeypatch.setattr(f"vfio_user_xe.emulator.conformance.{module}.RELEASE_TIMEOUT", 0.1)


@pytest.mark.usefixtures("impatient")
def test_kept_descriptor_fails() -> None:
    kept: list[int] = []

    def behaviour(message: Message) -> bytes:
        kept.extend(message.fds)
        return right_answer(message)

    result = _verdict(behaviour, "descriptors.descriptor_with_region_read_is_closed")
    assert result.verdict is Verdict.FAIL
    assert "the server kept a descriptor that it had to close" in result.reason
    for fd in kept:
        os.close(fd)


@pytest.mark.usefixtures("impatient")
def test_leak_is_noticed_behind_a_passing_case() -> None:
    leaked: list[int] = []

    def behaviour(message: Message) -> bytes:
        if message.id == 0x1234:
            leaked.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(8))
        return right_answer(message)

    result = _verdict(behaviour, "info.device_info_reply_is_16_bytes")
    assert result.verdict is Verdict.FAIL
    # How many depends on how many connections were seen to end by then; eight are more than those.
    assert re.fullmatch(r"the server leaks \d+ descriptors", result.reason)
    for fd in leaked:
        os.close(fd)


def test_server_that_dies_is_noticed_behind_the_case() -> None:
    dead = False

    def behaviour(message: Message) -> bytes:
        nonlocal dead
        dead = dead or message.id == 0x1234
        return right_answer(message) if not dead or message.id == 0x1234 else b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vfio_user_xe.emulator.conformance.context.CONNECT_TIMEOUT", 0.2)
        result = _verdict(behaviour, "info.device_info_reply_is_16_bytes")
    assert result.verdict is Verdict.FAIL
    assert "afterwards the server does not serve a client" in result.reason


def test_case_that_hangs_is_ended() -> None:
    block = threading.Event()
    with _server(right_answer) as path:
        runner = Runner(path, Profile(), timeout=0.2)

        def hang(t: object) -> None:
            """Hangs."""
            t.client.serve(block.is_set, 60)  # type: ignore[attr-defined]

        result = runner.run_one(Case("x.hangs", "none", silent=False, slow=False, check=hang))
    assert (result.verdict, result.reason) == (Verdict.FAIL, "did not end within 0.2 s")


def test_case_that_does_not_apply_is_skipped_with_the_reason() -> None:
    result = _verdict(right_answer, "server_dma.device_reads_by_message")
    assert (result.verdict, result.reason) == (Verdict.SKIP, "needs the conformance device")


def test_nobody_listening_is_not_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfio_user_xe.emulator.conformance.context.CONNECT_TIMEOUT", 0.1)
    with pytest.raises(ServerGone, match="does not serve a new client"):
        run(str(tmp_path / "nothing.sock"))


# A server that the suite starts.

MORTAL = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tests.support.right_answers import right_answer
from vfio_user_xe.emulator.vfio_user.client import Connection, Disconnected
import socket
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[2])
listener.listen(8)
while True:
    connection = Connection(listener.accept()[0])
    try:
        while True:
            message = connection.receive()
            if message.command == 0xFFFF:
                os.abort()
            connection.send(right_answer(message))
    except Disconnected:
        pass
    connection.close()
"""


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A path and the command of a server there that dies of command 65535."""
    script = tmp_path / "mortal.py"
    script.write_text(MORTAL)
    with tempfile.TemporaryDirectory(prefix="vus-") as folder:
        path = f"{folder}/s"
        yield path, shlex.join([sys.executable, str(script), str(Path(__file__).parents[2]), path])


def test_a_server_that_dies_is_started_again_for_the_next_case(mortal: tuple[str, str]) -> None:
    path, start = mortal
    cases = ["framing.command_65535_is_refused", "info.device_info_reply_is_16_bytes"]
    died, next_one = run(path, Profile(), cases=cases, start=start)
    assert (died.verdict, next_one.verdict) == (Verdict.FAIL, Verdict.PASS)
    assert "the server died by SIGABRT" in died.reason
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/nowhere/server", "cannot start '/nowhere/server': there is no such program"),
        ("false", "false ended with code 1 and made no"),
    ],
)
def test_a_command_that_makes_no_server_is_refused(tmp_path: Path, command: str, reason: str) -> None:
    lines: list[str] = []
    assert main(str(tmp_path / "s"), start=command, echo=lines.append) == 2
    assert reason in lines[0]


def test_a_server_that_is_gone_ends_the_run_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = False

    def behaviour(message: Message) -> bytes:
        nonlocal dead
        dead = dead or message.command == 0xFFFF
        return b"" if dead else right_answer(message)

    monkeypatch.setattr("vfio_user_xe.emulator.conformance.context.CONNECT_TIMEOUT", 0.2)
    lines: list[str] = []
    with _server(behaviour) as path:
        assert main(path, cases=["framing.command_65535*", "info.*"], echo=lines.append) == 1
    left = len(select_cases(["info.*"]))
    assert lines[-1] == f"the server is gone: {left} cases were not run"


def test_a_server_that_was_started_does_not_outlive_a_suite_that_is_killed(mortal: tuple[str, str]) -> None:
    path, start = mortal
    program = [sys.executable, "-m", "vfio_user_xe.emulator", "conformance", "--socket", path, "--start", start]
    with subprocess.Popen([*program, "--case", "info.*"], stdout=subprocess.PIPE) as suite:
        assert suite.stdout is not None
        suite.stdout.readline()
        suite.kill()
    # Gone for half a second: one that was being started may not come up any more either.
    gone = 0

    def stays_away() -> bool:
        nonlocal gone
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
                gone = 0
            except (ConnectionRefusedError, FileNotFoundError):
                gone += 1
        return gone == 10

    eventually(stays_away, "the server is still there", interval=0.05)


# The list of cases.


def test_there_are_at_least_150_cases() -> None:
    assert len(load_cases()) >= 150


def test_every_case_says_its_rule_and_its_section() -> None:
    for case in load_cases().values():
        assert case.summary.endswith("."), case.id
        assert case.section, case.id


def test_unknown_pattern_is_refused_with_the_groups() -> None:
    with pytest.raises(
        ValueError, match=r"no case matches 'nothing\.\*'; groups are clients, descriptors, dirty_logging, dma, "
    ):
        select_cases(["nothing.*"])


def test_slow_cases_run_when_named() -> None:
    slow = [case for case in CASES.values() if case.slow]
    assert not set(slow) & set(select_cases())
    assert set(slow) <= set(select_cases(slow=True))
    for case in slow:
        assert select_cases([case.id]) == [case]


# Profiles.


def test_profile_is_read(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text(
        'pid = 7\n[[scratch]]\nregion = 2\noffset = 16\nlength = 64\ntrapped = false\n[skip]\n"dma.*" = "no DMA"\n'
    )
    profile = Profile.load(path)
    assert profile.name == "card"
    assert profile.scratch == (Scratch(2, 16, 64, trapped=False),)
    assert profile.skip_reason("dma.anything") == "no DMA"
    assert profile.skip_reason("irqs.anything") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam = 1", r"p\.toml: unknown key 'nam'; known are name, pid"),
        ("pid = 'x'", r"p\.toml: 'pid' must be a int, not 'x'"),
        ("[[scratch]]\nregion = 1", r"p\.toml: \[\[scratch\]\] wants region, offset, length"),
        ("[skip]\nx = 1", r"p\.toml: \[skip\] 'x' must give its reason as a string, not 1"),
        ("= 1", r"p\.toml: not TOML"),
    ],
)
def test_bad_profile_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=message):
        Profile.load(path)


# Reports.


def test_junit_has_every_verdict() -> None:
    cases = [case.described("card") for case in list(load_cases().values())[:3]]
    verdicts = (Verdict.PASS, Verdict.FAIL, Verdict.SKIP)
    reasons = ("", "<wrong> & bad \x1b[31mred\x1b[0m \x00 ]]>", "not here")
    results = [Result(*made, 0.5) for made in zip(cases, verdicts, reasons, strict=True)]
    root = ElementTree.fromstring(junit(report_of(results, "card")))
    assert (root.tag, root.get("name")) == ("testsuite", "vfio-user conformance: card")
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("3", "1", "1")
    failed = root.findall("testcase")[1]
    assert f"{failed.get('classname')}.{failed.get('name')}" == f"conformance.{cases[1].label}"
    failure = failed.find("failure")
    assert failure is not None
    assert failure.get("message") == "<wrong> & bad red \ufffd ]]>"
    assert failure.text == f"{cases[1].source}: {cases[1].rule}\n<wrong> & bad red \ufffd ]]>"
    assert summary_of(results) == "3 cases: 1 passed, 1 failed, 1 skipped in 1.5 s"


def test_command_prints_and_returns_a_verdict(tmp_path: Path) -> None:
    lines: list[str] = []
    with _server(right_answer) as path:
        good = main(path, junit_path=str(tmp_path / "j.xml"), cases=["info.device_is*"], echo=lines.append)
        bad = main(
            path, cases=["regions.configuration_space_is_read*", "io_fds.every*", "pipe*ids_b*"], echo=lines.append
        )
        unknown = main(path, cases=["none"], echo=lines.append)
    assert (good, bad, unknown) == (0, 0, 2)
    assert lines[0].startswith("ok    info.device_is_a_pci_device  [VFIO_USER_DEVICE_GET_INFO]")
    assert lines[-1].startswith("error: no case matches 'none'")
    assert (tmp_path / "j.xml").read_text().startswith("<?xml")


def test_command_fails_when_a_case_does() -> None:
    lines: list[str] = []
    with _server(lambda message: right_answer(message).replace(b"\x09", b"\x01")) as path:
        assert main(path, cases=["info.device_is*"], echo=lines.append) == 1
    assert "1 regions: configuration space (index 7) is not among them" in lines[0]


def test_list_shows_every_case_without_a_server() -> None:
    lines: list[str] = []
    assert main("nowhere", list_only=True, echo=lines.append) == 0
    assert len(lines) == len(load_cases())
