"""What KUnit says of its tests, read from KTAP as kernels write it to debugfs."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from tests.support.local_shell import LocalShell
from vfio_user_xe.device_models.xe.scenarios import kunit_module
from vfio_user_xe.device_models.xe.scenarios.elsewhere import kunit
from vfio_user_xe.device_models.xe.scenarios.ktap import KtapTest, ktap_tests
from vfio_user_xe.device_models.xe.scenarios.kunit import KUNIT, KUnitMachine
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.emulator.guest.channel import Result as Output
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.scenarios.machine import Card, Machine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import Failed, NotApplicable

KTAP = """\
KTAP version 1
1..1
    KTAP version 1
    # Subtest: xe_bo
    # module: xe
    1..2
        KTAP version 1
        # Subtest: xe_ccs_migrate_kunit
        ok 1 0000:01:00.0 # SKIP non-flat-ccs device
    ok 1 xe_ccs_migrate_kunit # SKIP non-flat-ccs device
        KTAP version 1
        # Subtest: xe_bo_evict_kunit
        ok 1 0000:01:00.0
        {}ok 2 0000:02:00.0
    {}ok 2 xe_bo_evict_kunit
{}ok 1 xe_bo
"""
GOOD, BAD = KTAP.format("", "", ""), KTAP.format("not ", "not ", "not ")
SKIPPED = "KTAP version 1\n1..1\n    # Subtest: xe_guc_g2g\n    1..1\n    ok 1 talk # SKIP one GuC only\nok 1 xe_guc_g2g # SKIP\n"


def test_each_test_is_named_with_those_that_it_is_part_of() -> None:
    assert ktap_tests(GOOD) == [
        KtapTest("xe_bo > xe_ccs_migrate_kunit > 0000:01:00.0", True, True, "non-flat-ccs device"),
        KtapTest("xe_bo > xe_bo_evict_kunit > 0000:01:00.0", True),
        KtapTest("xe_bo > xe_bo_evict_kunit > 0000:02:00.0", True),
    ]
    assert [test.passed for test in ktap_tests(BAD)] == [True, True, False]


def test_a_suite_that_failed_although_its_tests_passed_has_failed() -> None:
    found = ktap_tests("    # Subtest: s\n    ok 1 t\nnot ok 1 s\n")
    assert [test.passed for test in found] == [True, False]


def test_two_suites_in_one_text_keep_their_names() -> None:
    assert [test.name for test in ktap_tests(GOOD + SKIPPED)][-1] == "xe_guc_g2g > talk"


def carried_out(number: int, ktap: str, code: int = 0, kunit: bool = True) -> Run:
    machine = create_autospec(KUnitMachine, instance=True, kunit=kunit)
    machine.run.side_effect = [Output(0, b"", "", 0.0), Output(code, ktap.encode(), "no such symbol", 0.0)]
    run = Run(create_autospec(KernelLog, instance=True))
    KUNIT.scenarios[number].run(run, machine)
    return run


def test_a_suite_passes_when_all_its_tests_do() -> None:
    assert [event.good for event in carried_out(0, GOOD).events] == [True, None, True, True]


def test_a_test_that_fails_fails_its_suite() -> None:
    with pytest.raises(Failed, match=r"1 of 3 tests failed: xe_bo > xe_bo_evict_kunit > 0000:02:00\.0"):
        carried_out(0, BAD)


def test_a_suite_all_of_whose_tests_are_skipped_says_why() -> None:
    with pytest.raises(NotApplicable, match="one GuC only"):
        carried_out(5, SKIPPED)


def test_a_module_that_cannot_be_loaded_is_a_failure() -> None:
    with pytest.raises(Failed, match="no such symbol"):
        carried_out(0, "", code=1)


def test_a_module_is_looked_for_among_the_guest_s_files_since_its_modprobe_has_no_dry_run() -> None:
    machine = create_autospec(KUnitMachine, instance=True, kunit=True)
    machine.run.return_value = Output(1, b"", "", 0.0)
    with pytest.raises(NotApplicable, match="xe_live_test"):
        KUNIT.scenarios[0].run(Run(create_autospec(KernelLog, instance=True)), machine)
    machine.run.assert_called_once_with("find /lib/modules -name 'xe[-_]live[-_]test.ko*' | grep -q .")


def test_the_filter_has_no_line_s_end() -> None:
    machine = create_autospec(KUnitMachine, instance=True, kunit=True)
    machine.run.side_effect = [Output(0, b"", "", 0.0), Output(0, GOOD.encode(), "", 0.0)]
    KUNIT.scenarios[0].run(Run(create_autospec(KernelLog, instance=True)), machine)
    assert machine.run.call_args_list[1].args[0].startswith("printf %s 'xe_bo' > ")


def test_a_kernel_without_kunit_has_nothing_to_be_tested() -> None:
    with pytest.raises(NotApplicable, match="CONFIG_KUNIT"):
        carried_out(0, "", kunit=False)


def of_dmabufs(ktap: str) -> tuple[Run, list[str]]:
    asked: list[str] = []

    def ran(command: str, **_: object) -> Output:
        asked.append(command)
        return Output(0, ktap.encode() if command.startswith("cat ") else b"", "", 0.0)

    machine = create_autospec(XeMachine, instance=True)
    machine.run.side_effect = ran
    machine.sh.return_value = "dmabuf_kunit"
    run = Run(create_autospec(KernelLog, instance=True))
    kunit(run, machine)
    return run, asked


def test_tests_of_dma_bufs_have_more_time_than_kunit_gives_them_before_they_begin() -> None:
    run, asked = of_dmabufs(GOOD)
    limit = next(at for at, command in enumerate(asked) if "/parameters/timeout" in command)
    assert limit < asked.index("modprobe dmabuf_kunit")
    assert run.facts["KTAP"] == GOOD


def test_a_test_of_dma_bufs_that_fails_is_named() -> None:
    with pytest.raises(Failed, match=r"1 of 3 tests failed: xe_bo > xe_bo_evict_kunit > 0000:02:00\.0"):
        of_dmabufs(BAD)
    with pytest.raises(Failed, match="no result"):
        of_dmabufs("KTAP version 1\n")


@pytest.mark.parametrize(
    ("built_in", "modprobe", "there"),
    [(True, "exit 1", True), (False, "mkdir $0.d", True), (False, "exit 0", False), (False, "exit 1", False)],
    ids=["built in", "a module", "without debugfs", "none"],
)
@pytest.mark.parametrize("limit", [True, False])
def test_kunit_is_where_its_results_are_told(
    built_in: bool, modprobe: str, there: bool, limit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "modprobe"
    command.write_text(f"#!/bin/sh\n{modprobe}\n")
    command.chmod(0o755)
    results, seconds = tmp_path / "modprobe.d", tmp_path / "timeout"
    if built_in:
        results.mkdir()
    if limit:
        seconds.write_text("300\n")
    monkeypatch.setattr(kunit_module, "RESULTS", str(results))
    monkeypatch.setattr(kunit_module, "_LIMIT", str(seconds))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert kunit_module.load(Machine(LocalShell(), create_autospec(Card, instance=True))) is there
    assert (seconds.read_text() if limit else not seconds.exists()) == ("800\n" if limit else True)
