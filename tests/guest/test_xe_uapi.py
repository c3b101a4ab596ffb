"""The stock xe driver on the emulated card, as user space sees it: every check of the programs in programs/xe/.

One guest runs them all on the PF, and one on a VF that the PF's driver has enabled. A program runs when the first of
its checks is asked for; each check is a test of its own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.guest.lab import Lab, open_lab
from tests.support.guest.xe_programs import NoCompiler, Outcome, compile_all, files_for, parse_tap, problem_of, programs
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import GuestError, MissingEnvironment

# Far more than any program takes, also on a slow machine; the first test boots the guest.
pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

PROGRAM_TIMEOUT = 300

# VRAM that fits into the guest's memory, because one program has it evicted there. The VF is given a quarter.
SERVE = {"pf": ["--set", "vram=1GiB"], "vf": ["--vfs", "1", "--set", "vram=4GiB", "--set", "vf_bar2=2GiB"]}
MEMORY = 2048
PF, VF = "0000:01:00.0", "0000:01:00.1"

# What is not there, by function and check: everything else must run.
NO_HUC = ("query", "huc_tells_its_version_or_that_it_is_absent")
ONE_ENGINE_EACH = ("exec", "queues_that_may_run_on_any_engine_of_a_class")
SKIPPED = {
    "pf": {NO_HUC, ONE_ENGINE_EACH},
    # The driver does not read timestamp registers on a VF.
    "vf": {
        NO_HUC,
        ONE_ENGINE_EACH,
        ("query", "engine_cycles_run_at_the_reference_clock"),
        ("query", "engine_cycles_never_go_back"),
        ("query", "engine_cycles_are_stamped_with_the_clock_asked_for"),
        ("accounting", "an_idle_client_uses_no_engine"),
        ("accounting", "a_spinner_keeps_its_engine_busy"),
        ("accounting", "clients_divide_an_engine_between_them"),
        ("accounting", "what_a_queue_used_stays_when_it_is_gone"),
        # Its power is the PF's business, and so are the registers of the engines.
        ("commands", "user_batches_cannot_write_the_registers_of_the_driver"),
        *(("power", check) for program in programs() if program.name == "power" for check in program.checks),
    },
}


@dataclass
class Uapi:
    """A guest with the driver loaded, and what the programs said so far."""

    lab: Lab
    function: str
    address: str
    results: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def outcome(self, program: str, check: str) -> Outcome:
        if program not in self.results:
            self._run(program)
        return self.results[program].get(check) or Outcome(passed=False, details=[self.problems[program]])

    def _run(self, program: str) -> None:
        self.results[program], self.problems[program] = {}, ""
        try:
            done = self.lab.guest.run(f"xe-{program} --device {self.address}", timeout=PROGRAM_TIMEOUT)
        except GuestError as error:
            self.problems[program] = str(error)
            raise
        self.results[program] = parse_tap(done.stdout)
        self.problems[program] = f"{problem_of(done.stdout, done.returncode)}\n{done.stderr}"


@pytest.fixture(scope="module")
def binaries() -> dict[str, Path]:
    try:
        return compile_all(locate())
    except (MissingEnvironment, NoCompiler) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["pf", "vf"])
def uapi(request: pytest.FixtureRequest, binaries: dict[str, Path]) -> Iterator[Uapi]:
    function = request.param
    with open_lab(SERVE[function], modules=["xe"], files=dict(files_for(binaries)), memory=MEMORY) as lab:
        lab.sh("modprobe xe", timeout=120)
        if function == "vf":
            lab.sh(f"echo 1 >/sys/bus/pci/devices/{PF}/sriov_numvfs", timeout=60)
        yield Uapi(lab, function, PF if function == "pf" else VF)


def test_programs_list_the_checks_that_are_reported(binaries: dict[str, Path]) -> None:
    for program in programs():
        listed = subprocess.run([binaries[program.name], "--list"], capture_output=True, text=True, check=True).stdout
        assert tuple(listed.split()) == program.checks


@pytest.mark.parametrize(
    ("program", "check"),
    [pytest.param(p.name, check, id=f"{p.name}-{check}") for p in programs() for check in p.checks],
)
def test_check(uapi: Uapi, program: str, check: str) -> None:
    outcome = uapi.outcome(program, check)
    if outcome.skipped is not None:
        if (program, check) not in SKIPPED[uapi.function]:
            pytest.fail(f"skipped on the {uapi.function}: {outcome.skipped}", pytrace=False)
        pytest.skip(outcome.skipped)
    if not outcome.passed:
        details = "\n  ".join(outcome.details)
        pytest.fail(f"xe-{program} --device {uapi.address} {check}:\n  {details}", pytrace=False)
