"""The same kernels on the PF and two VFs of a card at once: right results, each in its own memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.guest.compute import COPIED, MADE, MIB, begin, opened
from vfio_user_xe.device_models.xe.scenarios.card import PF, XeCard
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.steps import UNITS, kernel_command
from vfio_user_xe.emulator.testing.lab import Lab

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

FUNCTIONS = ("pf", "vf1", "vf2")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with opened(2) as made:
        made.guest.run(f"echo 2 > /sys/bus/pci/devices/{PF}/sriov_numvfs", check=True, timeout=180)
        yield made


@pytest.fixture(scope="module")
def programs(lab: Lab) -> Iterator[dict[str, Program]]:
    """A process for each function, with two buffers in the function's VRAM."""
    card = XeCard(lab.guest, lab.card)
    made = {name: Program(lab.guest, name) for name in FUNCTIONS}
    for number, program in enumerate(made.values()):
        begin(program, card.vf(number) if number else PF)
    yield made
    for program in made.values():
        program.end()


@pytest.fixture(scope="module")
def counts(lab: Lab, programs: dict[str, Program]) -> dict[str, dict[str, str]]:
    """How the jobs of each function ended while all three ran the same kernels."""
    lab.card.call("ledger", clear=True)
    for seed, program in enumerate(programs.values(), 1):
        program.do(
            kernel_command("pattern", MADE, 0, MIB, seed),
            f"spawn work loop {kernel_command('copy', COPIED, MADE, MIB, 4)}",
        )
    next(iter(programs.values())).do("sleep 2000")
    for program in programs.values():
        program.do("stop work")
    return {name: program.step("join work 60000").values for name, program in programs.items()}


def test_every_job_of_every_function_ends_well(counts: dict[str, dict[str, str]]) -> None:
    for name, ended in counts.items():
        assert set(ended) == {"OK", "us"}, (name, ended)
        assert int(ended["OK"]) > 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_are_those_of_the_function_s_own_job(
    counts: dict[str, Any], programs: dict[str, Program], name: str
) -> None:
    seed = 1 + FUNCTIONS.index(name)
    programs[name].do(f"verify made 0 0 {MIB:#x} {seed}", f"verify copied 0 0 {MIB:#x} {seed}")


def test_threads_reach_their_own_function_s_vram_only(counts: dict[str, Any], lab: Lab) -> None:
    entries = [entry for entry in lab.card.call("ledger") if entry["kind"].endswith(UNITS)]
    written = {(e["initiator"], e["owner"]): e["bytes_written"] for e in entries if e["kind"] == "eu vram"}
    assert set(written) == {(name, name) for name in FUNCTIONS}
    assert all(count > 2 * MIB for count in written.values()), written
    verdicts = lab.card.call("verdicts")
    assert not verdicts["stale"]
    assert not verdicts["foreign"]


def test_each_function_had_the_compute_engine(counts: dict[str, Any], lab: Lab) -> None:
    busy = {engine["name"]: engine["busy_ns"] for engine in lab.card.call("engines")}
    assert set(busy["ccs0"]) >= {"0", "1", "2"}
    assert all(busy["ccs0"][vfid] for vfid in ("0", "1", "2"))
