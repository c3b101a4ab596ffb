"""The pytest plug-in as an author's repository uses it: tests of a device, run by a pytest of their own."""

from __future__ import annotations

import os
import re
import shutil
import sys
from xml.etree import ElementTree

import pytest

from tests.support.packages import install
from tests.support.processes import runs
from tests.support.wait import eventually

pytest_plugins = ["pytester"]

DEVICE = '''
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import Msi
from vfio_user_xe.emulator.pci.function import Function, Identity
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import RO, Register, flag


class Copier:
    """Writes a word to guest memory when told to, unless the fault is injected; BUSY never ends."""

    API_VERSION = (2, 0)
    OPTIONS = ()

    def __init__(self, card: Card, options) -> None:
        self.card = card
        self.lose = card.faults.point("copier.lose", "do not write")
        self.registers = RegisterFile("copier", 4096)
        self.registers.add(
            [
                Register("WRITE_TO", 0x00, write=lambda value: card.executor.submit(lambda: self.write_to(value))),
                Register("BUSY", 0x04, reset=1, access=RO, fields=[flag(1, "IDLE")]),
            ]
        )
        bars = {0: Bar(4096, handler=self.registers, is_64bit=False)}
        identity = Identity(0x1234, 0xC0B1, class_code=0xFF0000)
        self.function = Function("pf", 0, executor=card.executor, identity=identity, capabilities=[Msi()], bars=bars)
        card.functions.append(self.function)

    def write_to(self, address):
        if self.lose.armed and self.lose.take() is not None:
            return
        try:
            self.card.fabric.write(self.function, Space.SYSTEM, address, b"word")
        except AccessFault:
            pass
        self.function.raise_msi()
'''

PROJECT = """
[project]
name = "copier"
version = "1.0"

[project.entry-points."vfio_user_xe.device_models"]
copier = "copier:Copier"

[tool.setuptools]
py-modules = ["copier"]
"""

USE = """
import pytest
from vfio_user_xe.emulator.vfio_user import wire

pytestmark = pytest.mark.vfio_user_card("--model", "copier")


def tell(client, address):
    client.write(wire.CONFIG, 4, 2, 6)
    memory = client.map_memory(0x10000, 0x1000)
    (interrupt,) = client.enable_irqs(wire.IRQ_MSI, 1)
    client.write(wire.CONFIG, 0x42, 2, 1)
    client.write(0, 0, 4, address)
    return memory, interrupt
"""


@pytest.fixture
def repository(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An author's repository with a device in it."""
    source = pytester.mkdir("source")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "copier.py").write_text(DEVICE)
    install(source, pytester.path / "installed")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path / "installed"), prepend=os.pathsep)
    # Its pytest is not part of the one that runs this test.
    for variable in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(variable, raising=False)
    return pytester


def run(repository: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    repository.makepyfile(test_copier=USE + test)
    return repository.runpytest("-p", "no:cacheprovider", *arguments)


def test_a_card_a_client_the_ledger_and_faults_are_fixtures(repository: pytest.Pytester) -> None:
    result = run(
        repository,
        """
def test_it_writes(vfio_client, ledger):
    memory, interrupt = tell(vfio_client, 0x10010)
    interrupt.wait(60)
    assert bytes(memory.at(0x10010, 4)) == b"word"
    assert ledger.sum("bytes_written", initiator="pf", owner="guest") == 4


def test_it_loses_what_the_fault_says(card, vfio_client, faults, ledger):
    faults.inject("copier.lose")
    tell(vfio_client, 0x10010)
    assert faults.taken("copier.lose") == 1
    assert ledger.rows() == []
    assert card.call("status")["model"] == "copier"


def test_faults_are_healed_and_the_ledger_is_empty(faults, ledger):
    assert not any(point["armed"] for point in faults.points())
    assert ledger.rows() == []
""",
    )
    result.assert_outcomes(passed=3)


def test_tests_of_a_module_share_a_card_until_one_fails(repository: pytest.Pytester) -> None:
    result = run(
        repository,
        """
def test_first(card):
    print("pid of 1:", card.pid)


def test_second(card):
    print("pid of 2:", card.pid)
    assert False


def test_third(card):
    print("pid of 3:", card.pid)


@pytest.mark.vfio_user_card("--model", "copier", fresh=True)
def test_its_own(card):
    print("pid of 4:", card.pid)


@pytest.mark.vfio_user_card("--model", "edu")
def test_another(card):
    print("pid of 5:", card.pid)
    assert card.call("status")["model"] == "edu"
""",
        "-s",
    )
    result.assert_outcomes(passed=4, failed=1)
    pids = dict(re.findall(r"pid of (\d): (\d+)", result.stdout.str()))
    assert pids["1"] == pids["2"]
    assert len(set(pids.values())) == 4, pids
    for pid in pids.values():
        assert not runs(int(pid)), "a server outlived the tests"


def test_a_failure_shows_the_trace_the_stalled_register_and_the_log_also_in_junit(repository: pytest.Pytester) -> None:
    result = run(
        repository,
        """
import time

def test_it_gets_idle(card, vfio_client):
    deadline = time.monotonic() + 60
    while not card.stalls() and time.monotonic() < deadline:
        assert vfio_client.read(0, 4, 4) == 1
    assert False, "still busy"
""",
        "--junitxml=junit.xml",
    )
    result.assert_outcomes(failed=1)
    failure = ElementTree.parse(repository.path / "junit.xml").find(".//failure")
    assert failure is not None
    for report in (result.stdout.str(), str(failure.text)):
        assert "copier polls BUSY (0x4)" in report
        assert re.search(r"copier +mmio +read register=BUSY offset=4 value=1", report)
        assert "end of the server's log" in report


def test_the_trace_of_a_failure_is_of_that_test_only_and_can_be_off(repository: pytest.Pytester) -> None:
    test = """
def test_one(vfio_client):
    vfio_client.write(0, 0, 4, 0x1111)


def test_two(vfio_client):
    vfio_client.write(0, 0, 4, 0x2222)
    assert False
"""
    report = run(repository, test).stdout.str()
    assert "value=0x2222" in report
    assert "value=0x1111" not in report
    assert "value=0x2222" not in run(repository, test, "--vfio-user-xe-trace=none").stdout.str()
    assert "value=0x2222" not in run(repository, test, "--vfio-user-xe-trace=irq,config").stdout.str()


def test_a_card_of_the_author_s_own_fixture_is_in_the_report_too(repository: pytest.Pytester) -> None:
    result = run(
        repository,
        """
from vfio_user_xe.emulator.testing.lab import open_card

@pytest.fixture(scope="module")
def mine():
    with open_card(["--model", "copier"]) as card:
        yield card


def test_mine(mine):
    mine.begin(["mmio"])
    with mine.client() as client:
        client.read(0, 4, 4)
    assert False
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*card: end of the trace*", "*mmio*read register=BUSY*"])


def test_a_card_file_from_the_command_line_is_for_tests_that_name_no_card(repository: pytest.Pytester) -> None:
    (repository.path / "my.toml").write_text('model = "copier"\nname = "mine"\n')
    repository.makepyfile(
        """
        import pytest

        def test_mine(card):
            assert card.call("status")["card"] == "mine"

        @pytest.mark.vfio_user_card("--model", "edu")
        def test_edu(card):
            assert card.call("status")["model"] == "edu"
        """
    )
    repository.runpytest("--vfio-user-xe-card", "my.toml").assert_outcomes(passed=2)


def test_wrong_marks_and_names_are_answered_with_what_is_allowed(repository: pytest.Pytester) -> None:
    result = run(
        repository,
        """
@pytest.mark.vfio_user_card("--model", "copier", fersh=True)
def test_mark(card):
    pass


@pytest.mark.vfio_user_guest(module=["xe"])
def test_setting(guest):
    pass


def test_ledger(ledger):
    with pytest.raises(ValueError, match="allowed: initiator, owner, interconnect, kind"):
        ledger.rows(who="pf")
    with pytest.raises(ValueError, match="allowed: reads, writes, bytes_read, bytes_written"):
        ledger.sum("bytes")


def test_fault(faults):
    with pytest.raises(LookupError, match="allowed: copier.lose"):
        faults.taken("copier.loose")
""",
    )
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["*vfio_user_card has no keyword 'fersh' (allowed: fresh, card, model, vfs,*"])
    result.stdout.fnmatch_lines(["*vfio_user_guest has no setting 'module' (allowed: modules, load,*"])


def test_a_server_that_dies_is_reported_and_replaced(repository: pytest.Pytester) -> None:
    result = run(
        repository,
        """
import os, signal

def test_dies(card):
    os.kill(card.pid, signal.SIGKILL)
    card.process.wait()
    card.call("status")


def test_goes_on(card):
    assert card.call("status")["model"] == "copier"
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*not to be had:*"])


def test_workers_of_xdist_have_cards_of_their_own(repository: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    result = run(
        repository,
        """
@pytest.mark.parametrize("number", range(4))
def test_many(card, number, ledger):
    assert card.call("status")["model"] == "copier"
""",
        "-n2",
    )
    result.assert_outcomes(passed=4)


def test_only_so_many_guests_run_at_the_same_time_over_all_workers(repository: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    log = repository.path / "log"
    log.touch()
    result = run(
        repository,
        f"""
import time

@pytest.mark.parametrize("number", range(4))
def test_slot(_guest_slot, number):
    with _guest_slot(), open({str(log)!r}, "a", 1) as log:
        log.write("in\\n")
        with _guest_slot():
            time.sleep(0.2)
        log.write("out\\n")
""",
        "-n2",
        "--vfio-user-xe-guests=1",
    )
    result.assert_outcomes(passed=4)
    assert log.read_text().split() == ["in", "out"] * 4


def test_nothing_is_left_when_the_tests_are_killed(repository: pytest.Pytester) -> None:
    repository.makepyfile(
        test_copier=USE
        + """
def test_hangs(card):
    import time
    with open("pid", "w") as file:
        file.write(f"{card.pid} {card.folder.parent}\\n")
    time.sleep(1000)
"""
    )
    process = repository.popen([sys.executable, "-m", "pytest"])
    pid_file = repository.path / "pid"

    def written() -> bool:
        assert process.poll() is None
        return pid_file.exists() and pid_file.read_text().endswith("\n")

    eventually(written, "the test has not started")
    process.kill()
    process.wait()
    pid, folder = pid_file.read_text().split()
    eventually(lambda: not runs(int(pid)), "the server outlived the tests")
    # Its folder is all that a killed process leaves.
    shutil.rmtree(folder)
