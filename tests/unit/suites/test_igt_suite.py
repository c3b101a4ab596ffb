"""Suite and expectation files."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfio_user_xe.emulator.results import Outcome
from vfio_user_xe.emulator.suites.expectations import BETTER, EXPECTED, UNEXPECTED, Expectations
from vfio_user_xe.emulator.suites.igt.suite import Suite
from vfio_user_xe.emulator.suites.subtest import SubtestResult
from vfio_user_xe.emulator.suites.table import SuiteError

SUITE = """
[guest]
driver = "xe"
pci_class = "0x030000"
modules = ["vgem"]
memory = 4096

[kernel_log]
errors = ['\\*ERROR\\*']

[timeouts]
"xe_exec_reset@*" = 120
"xe_vm@bind-*" = 20.5
"*" = 60

[[group]]
name = "first"
tests = ["xe_query", "xe_sysfs_*"]

[[group]]
name = "first"
tests = ["xe_evict"]
on = "vf2"
active = true
device = { vram = "1 GiB" }
"""

EXPECT = """
[[expect]]
tests = ["xe_query@query-pxp*"]
result = "skip"
cause = "hardware"
reason = "no PXP"

[[expect]]
tests = "xe_exec_atomic"
result = ["fail", "timeout"]
cause = "device"
reason = "atomics"
missing = "MI_ATOMIC"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "file.toml"
    path.write_text(text)
    return path


def test_a_suite_is_read(tmp_path: Path) -> None:
    suite = Suite.load(written(tmp_path, SUITE))
    assert (suite.guest.driver, suite.guest.modules, suite.guest.memory) == ("xe", ("vgem",), 4096)
    assert [(group.name, group.vf, group.active) for group in suite.groups] == [("first", 0, False), ("first", 2, True)]
    assert suite.groups[1].device == {"vram": "1 GiB"}
    assert suite.groups[0].names("xe_sysfs_defaults")
    assert not suite.groups[0].names("xe_query_more")
    assert suite.kernel_log.complaints("a *ERROR* b\nc") == ["a *ERROR* b"]


def test_the_first_timeout_pattern_that_fits_counts(tmp_path: Path) -> None:
    suite = Suite.load(written(tmp_path, SUITE))
    assert suite.timeout("xe_exec_reset@spin") == 120
    assert suite.timeout("xe_vm@bind-once") == 20.5
    assert suite.timeout("xe_vm@scratch") == 60


def test_groups_are_selected_by_name_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    suite = Suite.load(written(tmp_path, SUITE))
    assert len(suite.select(["first"])) == 2
    with pytest.raises(SuiteError, match=r'no group "second".*first'):
        suite.select(["second"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('driver = "xe"\n', ""), r"guest\.driver: is missing"),
        (("memory = 4096", 'memory = "much"'), r"guest\.memory: 'much' is not an integer"),
        (("memory = 4096", "memori = 4096"), 'no key "memori"'),
        (('on = "vf2"', 'on = "vf0"'), r"group\[1\]\.on"),
        (("= 20.5", "= -1"), 'timeouts."xe_vm@bind-\\*"'),
        (("'\\*ERROR\\*'", "'(('"), "not a regular expression"),
        (("[guest]", "[guest"), "is not a TOML file"),
        (('tests = ["xe_evict"]', "tests = [1]"), "1 is not a string"),
    ],
)
def test_a_wrong_suite_is_refused_and_the_place_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in SUITE
    with pytest.raises(SuiteError, match=message):
        Suite.load(written(tmp_path, SUITE.replace(*change)))


def test_what_no_entry_fits_has_to_pass(tmp_path: Path) -> None:
    expectations = Expectations.load(written(tmp_path, EXPECT))
    assert expectations.judge(SubtestResult("xe_vm", "a", Outcome.PASS)) == EXPECTED
    assert expectations.judge(SubtestResult("xe_vm", "a", Outcome.SKIP)) == UNEXPECTED
    assert expectations.judge(SubtestResult("xe_vm", "a", Outcome.WARN)) == UNEXPECTED


def test_an_entry_excuses_its_outcomes_only(tmp_path: Path) -> None:
    expectations = Expectations.load(written(tmp_path, EXPECT))
    assert expectations.judge(SubtestResult("xe_exec_atomic", "a", Outcome.TIMEOUT)) == EXPECTED
    assert expectations.judge(SubtestResult("xe_exec_atomic", "a", Outcome.CRASH)) == UNEXPECTED
    assert expectations.judge(SubtestResult("xe_exec_atomic", "a", Outcome.PASS)) == BETTER


def test_an_entry_can_be_about_some_functions_only(tmp_path: Path) -> None:
    entry = '[[expect]]\ntests = ["xe_gt_freq"]\nresult = "skip"\ncause = "hardware"\nreason = "PF only"\non = "vf*"\n'
    expectations = Expectations.load(written(tmp_path, entry))
    assert expectations.judge(SubtestResult("xe_gt_freq", "a", Outcome.SKIP, on="vf1")) == EXPECTED
    assert expectations.judge(SubtestResult("xe_gt_freq", "a", Outcome.SKIP, on="pf")) == UNEXPECTED


def test_only_passes_and_what_hardware_does_too_count_as_on_hardware(tmp_path: Path) -> None:
    expectations = Expectations.load(written(tmp_path, EXPECT))
    assert expectations.as_on_hardware(SubtestResult("xe_query", "query-pxp", Outcome.SKIP))
    assert not expectations.as_on_hardware(SubtestResult("xe_query", "query-pxp", Outcome.FAIL))
    assert not expectations.as_on_hardware(SubtestResult("xe_exec_atomic", "a", Outcome.FAIL))
    assert expectations.as_on_hardware(SubtestResult("xe_exec_atomic", "a", Outcome.PASS))


def test_entries_that_decide_nothing_are_found(tmp_path: Path) -> None:
    expectations = Expectations.load(written(tmp_path, EXPECT))
    unused = expectations.unused([SubtestResult("xe_exec_atomic", "a", Outcome.FAIL)])
    assert [entry.tests for entry in unused] == [("xe_query@query-pxp*",)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('missing = "MI_ATOMIC"', ""), 'needs "missing"'),
        (('cause = "hardware"', 'cause = "moon"'), '"moon" is not allowed.*hardware, device, guest'),
        (('result = "skip"', 'result = "skipped"'), '"skipped" is not allowed'),
        (('result = "skip"', ""), r"expect\[0\]\.result: is missing"),
        (('reason = "no PXP"', 'reason = " "'), "must say why"),
        (('reason = "no PXP"', 'reason = "no PXP"\nbecause = "x"'), 'no key "because"'),
    ],
)
def test_a_wrong_expectation_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        Expectations.load(written(tmp_path, EXPECT.replace(*change)))


REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_projects_own_files_are_right() -> None:
    suite = Suite.load(REPOSITORY / "device_models/xe/suites/igt/suite.toml")
    Expectations.load(REPOSITORY / "device_models/xe/suites/igt/expectations.toml")
    assert {group.name for group in suite.groups} == {"first", "second", "third", "more", "sriov"}


def test_what_suspends_to_ram_is_known() -> None:
    suite = Suite.load(REPOSITORY / "device_models/xe/suites/igt/suite.toml")
    assert suite.suspends("xe_pm_residency@cpg-basic")
    assert suite.suspends("xe_pm@s3-basic-exec")
    assert not suite.suspends("xe_pm@s2idle-basic")
    assert not suite.suspends("xe_pm_residency@gt-c6-freeze")
