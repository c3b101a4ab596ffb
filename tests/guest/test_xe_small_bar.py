"""A BAR2 smaller than VRAM: no program touches memory that the processor cannot see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.guest.lab import Lab, open_lab
from tests.support.guest.xe_programs import NoCompiler, compile_all, files_for, parse_tap, problem_of
from vfio_user_xe.device_models.xe.scenarios.guest_program import compiled as dmabuf_client
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

# A quarter of VRAM is visible: buffers that need not be are put behind it, from the top.
SERVE = ["--vfs", "0", "--set", "vram=1GiB", "--set", "bar2=256MiB"]
PF = "0000:01:00.0"
MAPPING = ("create", "mmap", "prime", "evict", "query", "vm")
"""Programs that make buffers of their own and map them; the others use what these share (`bo_create`)."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    try:
        environment = locate()
        files = {**dict(files_for(compile_all(environment))), **dmabuf_client(environment)}
    except (MissingEnvironment, NoCompiler) as error:
        pytest.skip(f"{error} (or run scripts/setup)")
    with open_lab(SERVE, modules=["xe"], files=files, memory=2048) as lab:
        lab.sh("modprobe xe", timeout=120)
        yield lab


@pytest.mark.parametrize("program", MAPPING)
def test_every_check_of_a_program_passes_with_a_small_bar2(lab: Lab, program: str) -> None:
    done = lab.guest.run(f"xe-{program} --device {PF}", timeout=300)
    outcomes = parse_tap(done.stdout)
    failed = {check: outcome.details for check, outcome in outcomes.items() if not outcome.passed}
    assert not failed
    assert done.returncode == 0, problem_of(done.stdout, done.returncode)
    assert any(outcome.skipped is None for outcome in outcomes.values())


def test_the_client_of_the_dmabuf_scenarios_paints_and_verifies_visible_vram(lab: Lab) -> None:
    buffers = [f"buffer g b{n} {0x10000000 * (n + 1):#x} 0x100000 vram" for n in range(4)]
    used = [step for n in range(4) for step in (f"paint b{n} 0 0 0x100000 {n}", f"verify b{n} 0 0 0x100000 {n}")]
    commands = " ".join(f"'{command}'" for command in [f"gpu g {PF}", *buffers, *used])
    done = lab.guest.run(f"xe-dmabuf {commands}", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
