"""The IGT runner in a real guest, with a program that does what IGT's tests do to their runner."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.suites.expectations import Expectations
from vfio_user_xe.emulator.suites.igt.runner import IgtRun, run_igt
from vfio_user_xe.emulator.suites.igt.suite import Suite
from vfio_user_xe.emulator.suites.subtest import SubtestResult

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

SOURCE = Path(__file__).parent / "programs/igt_like.c"

# The teaching device, owned by a driver that does nothing.
SUITE = """
[guest]
driver = "pci-stub"
pci_class = "0x00ff00"
memory = 512
setup = '''
echo pci-stub >/sys/bus/pci/devices/$PF/driver_override
echo 1 >/proc/sys/kernel/sysrq
'''

[kernel_log]
errors = ['\\*ERROR\\*']

[timeouts]
"*@hangs" = 3
"*" = 30

[[group]]
name = "runner"
tests = ["igt_like"]
"""


@pytest.fixture(scope="module")
def igt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like an IGT build."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here: apt-get install gcc libc6-dev")
    folder = tmp_path_factory.mktemp("igt")
    (folder / "lib").mkdir()
    (folder / "tests").mkdir()
    library, program = folder / "lib/libigt.so.0", folder / "tests/igt_like"
    text = "int igt_like(void);\nint igt_like(void) { return 1; }\n"
    command = [compiler, "-shared", "-fPIC", "-Wl,-soname,libigt.so.0", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=text, text=True, check=True)
    subprocess.run([compiler, "-O2", "-Wall", "-Werror", "-o", str(program), str(SOURCE), str(library)], check=True)
    return folder


@pytest.fixture(scope="module")
def results(igt: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SubtestResult]:
    """All subtests, run once."""
    try:
        locate()
    except MissingEnvironment as exc:
        pytest.skip(f"{exc} (or run scripts/setup)")
    folder = tmp_path_factory.mktemp("run")
    (folder / "suite.toml").write_text(SUITE)
    (folder / "card.toml").write_text('model = "edu"\n')
    run = IgtRun(
        igt,
        Suite.load(folder / "suite.toml"),
        Expectations(),
        folder / "out",
        card=("--card", str(folder / "card.toml")),
    )
    lines: list[str] = []
    found = {result.subtest: result for result in trio.run(run_igt, run, lines.append)}
    print("\n".join(lines))
    return found


@pytest.mark.parametrize(
    ("subtest", "outcome", "reason"),
    [
        ("passes", "pass", ""),
        ("skips", "skip", "a moon"),
        ("fails", "fail", "Failed assertion: 1 == 2"),
        ("crashes", "crash", "killed by signal 11"),
        ("hangs", "timeout", "longer than 3 s"),
        ("complains", "warn", "*ERROR* made up"),
        ("unbinds", "pass", ""),
        ("panics", "lost", "panicked"),
        ("reboots", "lost", "rebooted"),
        ("last", "pass", ""),
    ],
)
def test_every_end_of_a_subtest_is_recognised_and_the_next_one_runs(
    results: dict[str, SubtestResult], subtest: str, outcome: str, reason: str
) -> None:
    result = results[subtest]
    assert result.outcome == outcome, result
    assert reason in result.reason


def test_a_panic_leaves_the_end_of_the_console(results: dict[str, SubtestResult]) -> None:
    assert "Kernel panic" in results["panics"].kernel_log


def test_what_the_kernel_said_is_kept_with_the_subtest_that_made_it_say_so(results: dict[str, SubtestResult]) -> None:
    assert "made up" in results["complains"].kernel_log
    assert "made up" not in results["fails"].kernel_log
