"""The stock xe driver on the emulated card, as user space sees it: every check of the programs in programs/xe/.

One guest runs them all. A program runs when the first of its checks is asked for; each check is a test of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from emulator.guest import GuestError, locate
from tests.guest.lab import Lab, open_lab
from tests.guest.xe_programs import NoCompiler, Outcome, compile_all, files_for, parse_tap, problem_of, programs

# Far more than any program takes, also on a slow machine; the first test boots the guest.
pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

PROGRAM_TIMEOUT = 300

# VRAM that fits into the guest's memory, because one program has it evicted there.
SERVE = ["--set", "vram=1GiB"]
MEMORY = 2048

# What this card does not have, by check: everything else must run.
SKIPPED = {
    ("query", "huc_tells_its_version_or_that_it_is_absent"): "the default card has no media GT",
    ("exec", "queues_that_may_run_on_any_engine_of_a_class"): "the default card has one engine of each class",
}


@dataclass
class Uapi:
    """A guest with the driver loaded, and what the programs said so far."""

    lab: Lab
    device: str
    results: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def outcome(self, program: str, check: str) -> Outcome:
        if program not in self.results:
            self._run(program)
        return self.results[program].get(check) or Outcome(passed=False, details=[self.problems[program]])

    def _run(self, program: str) -> None:
        self.results[program], self.problems[program] = {}, ""
        try:
            done = self.lab.guest.run(f"xe-{program} --device {self.device}", timeout=PROGRAM_TIMEOUT)
        except GuestError as error:
            self.problems[program] = str(error)
            raise
        self.results[program] = parse_tap(done.stdout)
        self.problems[program] = f"{problem_of(done.stdout, done.returncode)}\n{done.stderr}"


@pytest.fixture(scope="module")
def uapi() -> Iterator[Uapi]:
    try:
        binaries = compile_all(locate())
    except NoCompiler as error:
        pytest.skip(str(error))
    with open_lab(SERVE, modules=["xe"], files=dict(files_for(binaries)), memory=MEMORY) as lab:
        lab.sh("modprobe xe", timeout=120)
        node = lab.sh("ls -d /sys/bus/pci/drivers/xe/0000:*/drm/renderD*")
        yield Uapi(lab, node.split("/")[6])


@pytest.mark.parametrize(
    ("program", "check"),
    [pytest.param(p.name, check, id=f"{p.name}-{check}") for p in programs() for check in p.checks],
)
def test_check(uapi: Uapi, program: str, check: str) -> None:
    outcome = uapi.outcome(program, check)
    details = "\n".join(outcome.details)
    if outcome.skipped is not None:
        assert (program, check) in SKIPPED, f"skipped: {outcome.skipped}"
        pytest.skip(outcome.skipped)
    assert outcome.passed, f"xe-{program} {check}:\n{details}"
