"""The suite `sriov`: what it knows by name is told apart from what it does not, and its findings agree with what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.device_models.xe.scenarios.sriov import SRIOV, defects, steps, svm
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.emulator.kernel_reports import KernelLog, Kind, reports
from vfio_user_xe.emulator.kernel_reports.lines import parse
from vfio_user_xe.emulator.scenarios.excuses import unexcused
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect

FINDINGS = Path(__file__).parents[3] / "docs" / "findings"
SUITES = pytest.mark.parametrize("suite", [SRIOV, DMABUF], ids=lambda suite: suite.name)

RESCAN = """\
[   50.100000] WARNING: drivers/pci/remove.c:128 at pci_stop_and_remove_bus_device+0x4d/0x60, CPU#1: sh/250
[   50.100000] Call Trace:
[   50.100000]  <TASK>
[   50.100000]  pci_iov_remove_virtfn+0xc1/0x130
[   50.100000]  sriov_disable+0x5c/0x1a0
[   50.100000]  pci_disable_sriov+0x22/0x30
[   50.100000]  xe_pci_sriov_configure+0x2f1/0x5d0 [xe]
[   50.100000]  xe_pci_remove+0x35/0x60 [xe]
[   50.100000]  unbind_store+0x7e/0x90
"""
CLOSE = """\
[  103.000000] WARNING: drivers/gpu/drm/xe/xe_pm.c:917 at xe_pm_runtime_get_noresume+0x89/0xc0 [xe], CPU#0: xe-dmabuf/1610
[  103.000000] Call Trace:
[  103.000000]  guc_exec_queue_add_msg+0x23/0xc0 [xe]
[  103.000000]  xe_file_close+0xd1/0x1e0 [xe]
"""


def defect_of(text: str) -> str | None:
    """The defect that the suite takes a report for."""
    (report,) = reports(parse(text))
    return next((name for name, pattern in SRIOV.reports.items() if re.search(pattern, report.text)), None)


@SUITES
def test_numbers_and_names_tell_scenarios_apart(suite: Any) -> None:
    for key in ("number", "name"):
        found = [getattr(scenario, key) for scenario in suite.scenarios]
        assert len(found) == len(set(found))


@SUITES
def test_every_finding_is_a_defect_that_the_suite_knows_and_has_scenarios_that_look_for_it(suite: Any) -> None:
    names = {scenario.name for scenario in suite.scenarios}
    for finding in suite.findings:
        assert finding.defect in suite.defects
        assert set(finding.scenarios) <= names
    assert set(suite.reports) <= set(suite.defects)


@SUITES
def test_every_report_of_a_finding_is_there_and_names_the_command(suite: Any) -> None:
    for finding in suite.findings:
        if finding.page:
            assert "vfio-user-xe scenario run" in (FINDINGS / f"{finding.page}.md").read_text()


def test_there_are_fifteen_findings_or_more() -> None:
    assert len(SRIOV.findings) + len(DMABUF.findings) >= 15


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        (RESCAN, defects.RESCAN_LOCK),
        (CLOSE, defects.LATE_CLOSE),
        (RESCAN.replace("unbind_store", "remove_store").replace("xe_pci_remove", "another_remove"), None),
        (RESCAN.replace("pci_iov_remove_virtfn", "pci_stop_root_bus"), None),
        (RESCAN.replace("  xe_pci_remove", "  another+0x1/0x2\n[   50.100000]  xe_pci_remove"), None),
        (RESCAN.replace("at pci_stop_and_remove_bus_device", "at pci_stop_root_bus"), None),
        (RESCAN.replace(":128 at ", ":128 CPU: 1 PID: 250 at drivers/pci/remove.c:128 "), defects.RESCAN_LOCK),
        (CLOSE.replace("xe_pm_runtime_get_noresume", "xe_pm_runtime_put").replace("xe_pm.c", "xe_bo.c"), None),
        (CLOSE.replace("guc_exec_queue_add_msg", "xe_sched_job_arm"), None),
        (CLOSE.replace("xe_file_close", "xe_exec_ioctl"), None),
        (
            CLOSE.replace(
                "xe_file_close", "guc_exec_queue_kill+0x1/0x2 [xe]\n xe_exec_queue_kill+0x1/0x2 [xe]\n xe_file_close"
            ),
            defects.LATE_CLOSE,
        ),
    ],
)
def test_a_report_of_the_kernel_is_a_known_defect_s_only_with_its_place_and_its_callers(
    text: str, defect: str | None
) -> None:
    assert defect_of(text) == defect


def blocked(monkeypatch: pytest.MonkeyPatch, *stacks: str) -> Run:
    monkeypatch.setattr(steps, "blocked_tasks", lambda machine: {f"sh ({n})": stack for n, stack in enumerate(stacks)})
    return Run(create_autospec(KernelLog, instance=True))


def test_a_removal_that_waits_for_its_own_lock_is_the_known_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    run = blocked(monkeypatch, "[<0>] sriov_disable+0x2a\n[<0>] xe_pci_remove+0x44\n[<0>] remove_store+0x81")
    with pytest.raises(KnownDefect, match=defects.REMOVAL_DEADLOCK):
        steps.stuck(run, create_autospec(SriovMachine, instance=True), "removing")
    assert run.given_up


@pytest.mark.parametrize(
    "stacks",
    [
        (),
        ("[<0>] sriov_disable+0x2a\n[<0>] sriov_numvfs_store+0x10",),
        ("[<0>] sriov_disable+0x2a\n[<0>] sriov_numvfs_store+0x10", "[<0>] wait+0x1\n[<0>] xe_pci_remove+0x44\n[<0>] remove_store+0x81"),
        ("[<0>] wait+0x1\n[<0>] sriov_numvfs_store+0x10", "[<0>] device_release_driver_internal+0xf3\n[<0>] remove_store+0x81"),
    ],
    ids=["none", "numvfs alone", "in two stacks", "one half waits elsewhere"],
)  # fmt: skip
def test_what_waits_elsewhere_is_a_failure(monkeypatch: pytest.MonkeyPatch, stacks: tuple[str, ...]) -> None:
    run = blocked(monkeypatch, *stacks)
    with pytest.raises(Failed, match="removing"):
        steps.stuck(run, create_autospec(SriovMachine, instance=True), "removing")
    assert run.given_up


REMOVAL = """\
INFO: task sh:1121 blocked for more than 5 seconds.
Call Trace:
 schedule+0x27/0xa0
 schedule_preempt_disabled+0x15/0x30
 __mutex_lock.constprop.0+0x56e/0xa30
 sriov_disable+0x2a/0x100
 xe_pci_sriov_configure+0x482/0x620 [xe]
 xe_pci_remove+0x44/0x50 [xe]
 pci_device_remove+0x3f/0xb0
 device_release_driver_internal+0x19c/0x200
 pci_stop_bus_device+0x6d/0x90
 pci_stop_and_remove_bus_device_locked+0x1a/0x30
 remove_store+0x81/0xa0
"""
INNER = REMOVAL.index(" __mutex_lock")


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        (REMOVAL, defects.REMOVAL_DEADLOCK),
        (REMOVAL.replace(" sriov_disable", " ? kfree+0x1/0x2\n sriov_del_vfs.isra.0+0x2/0x9\n sriov_disable"), defects.REMOVAL_DEADLOCK),
        (REMOVAL.replace("sriov_disable", "another_lock"), None),
        (REMOVAL.replace("__mutex_lock.constprop.0", "wait_for_completion"), None),
        (REMOVAL.replace(" sriov_disable", " another_wait+0x1/0x2\n sriov_disable"), None),
        (REMOVAL.replace("remove_store", "unbind_store"), None),
        (REMOVAL[:INNER] + " xe_wait+0x1/0x2 [xe]\n xe_pci_remove+0x44/0x50 [xe]\nINFO: lockdep is turned off.\n" + REMOVAL[INNER:].replace(" xe_pci_remove", " other"), None),
    ],
    ids=["that", "more frames", "another lock", "no lock", "further in", "unbinding", "in two stacks"],
)  # fmt: skip
def test_hung_task_reports_of_the_deadlock_are_told_from_others(text: str, defect: str | None) -> None:
    assert reports(parse(text))[0].kind is Kind.HUNG_TASK
    assert defect_of(text) == defect


CIRCLE = """\
WARNING: possible circular locking dependency detected
kworker/u8:3/87 is trying to acquire lock:
but task is already holding lock:
-> #0 (&xe_configfs.su_mutex){+.+.}-{4:4}:
       find_xe_config_group_device+0x13/0x8d [xe]
       xe_configfs_get_ctx_restore_post_bb+0x19/0xf2 [xe]
       xe_guc_contexts_hwsp_rebase+0x113/0x141 [xe]
"""


@pytest.mark.parametrize("error", ["-ENODEV", "-19"])
def test_an_invalidation_that_came_too_late_is_known_with_and_without_names_of_errors(error: str) -> None:
    text = f"xe 0000:01:00.0: [drm] *ERROR* Tile0: GT0: TLB invalidation request failed ({error})"
    assert defect_of(text) == defects.LATE_INVALIDATION


def test_the_circle_of_locks_of_a_recovery_is_known_whoever_closes_it() -> None:
    lines = CIRCLE.splitlines(keepends=True)
    assert defect_of(CIRCLE) == defects.CONFIGFS_LOCK
    assert defect_of("".join([lines[0], *reversed(lines[1:])])) == defects.CONFIGFS_LOCK
    assert defect_of(CIRCLE.replace("find_xe_config_group_device", "xe_pm_runtime_get")) is None
    assert defect_of(CIRCLE.replace("possible circular locking dependency", "bad unlock balance")) is None


NUMVFS = """\
INFO: task sh:2340 blocked for more than 5 seconds.
Call Trace:
 schedule+0x28/0xa0
 __mutex_lock.constprop.0+0x56e/0xa30
 sriov_numvfs_store+0x133/0x180
"""


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        (NUMVFS, defects.NUMVFS_DEADLOCK),
        (
            NUMVFS.replace(" sriov", " ? ww_mutex_unlock+0x16e/0x16e\n ? kstrtou16+0x60/0xbb\n sriov"),
            defects.NUMVFS_DEADLOCK,
        ),
        (NUMVFS.replace(" sriov_numvfs", " ? sriov_numvfs_store+0x133/0x180\n other"), None),
        (
            NUMVFS.replace("sriov_numvfs_store", "device_release_driver_internal+0xf3/0x210\n remove_store"),
            defects.NUMVFS_DEADLOCK,
        ),
        (
            NUMVFS.replace(" sriov", " sriov_enable+0x233/0x4c0\n xe_pci_sriov_configure+0x1f6/0x610 [xe]\n sriov"),
            defects.NUMVFS_DEADLOCK,
        ),
        (
            NUMVFS.replace(
                " sriov",
                " sriov_del_vfs+0x41/0x90\n sriov_disable+0x5c/0x1a0\n ? kstrtou16+0x60/0xbb\n pci_disable_sriov+0x22/0x30\n"
                " pf_disable_vfs+0x44/0x90 [xe]\n xe_pci_sriov_configure+0x1f6/0x610 [xe]\n sriov",
            ),
            defects.NUMVFS_DEADLOCK,
        ),
        (
            NUMVFS.replace(
                "sriov_numvfs_store",
                "device_release_driver_internal+0xf3/0x210\n pci_stop_bus_device+0x6c/0x90\n"
                " pci_stop_and_remove_bus_device_locked+0x1a/0x30\n remove_store",
            ),
            defects.NUMVFS_DEADLOCK,
        ),
        (NUMVFS.replace(" sriov", " sriov_enable+0x233/0x4c0\n another_lock+0x1/0x2\n sriov"), None),
        (
            NUMVFS.replace(
                " sriov", " sriov_enable+0x233/0x4c0\n" + " xe_pci_sriov_configure+0x1/0x2 [xe]\n" * 5 + " sriov"
            ),
            None,
        ),
        (
            NUMVFS.replace(
                "sriov_numvfs_store", "sriov_enable+0x233/0x4c0\n xe_pci_probe+0x1/0x2 [xe]\n local_pci_probe"
            )
            + " bind_store+0x7e/0x90\nINFO: lockdep is turned off.\n sriov_numvfs_store+0x133/0x180\n",
            None,
        ),
        (
            NUMVFS.replace(
                "sriov_numvfs_store", "device_release_driver_internal+0xf3/0x210\n another_wait+0x1/0x2\n remove_store"
            ),
            None,
        ),
        (NUMVFS.replace("sriov_numvfs_store", "sriov_enable+0x233/0x4c0\n xe_pci_probe"), None),
        (NUMVFS.replace(" sriov_numvfs_store", " xe_sriov_pf_enable_vfs+0x10/0x20\n sriov_numvfs_store"), None),
        (NUMVFS.replace("sriov_numvfs_store", "device_release_driver_internal+0xf3/0x210\n unbind_store"), None),
    ],
)
def test_only_tasks_that_wait_for_the_two_locks_are_taken_for_that_deadlock(text: str, defect: str | None) -> None:
    assert defect_of(text) == defect


def test_both_halves_of_the_deadlock_are_wanted_to_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    half = "[<0>] sriov_numvfs_store+0x133"
    other = "[<0>] device_release_driver_internal+0xf3\n[<0>] remove_store+0x81"
    machine = create_autospec(SriovMachine, instance=True)
    with pytest.raises(KnownDefect, match=defects.NUMVFS_DEADLOCK):
        steps.stuck(blocked(monkeypatch, half, other), machine, "loops")
    with pytest.raises(Failed):
        steps.stuck(blocked(monkeypatch, half), machine, "loops")


@pytest.mark.parametrize(
    "place",
    ["xe_guc_submit_start+0x2d4/0x2e0 [xe]", "__drm_sched_pending_job_iter_begin+0xd/0x14 [xe]"],
    ids=["inlined", "not inlined"],
)
def test_jobs_looked_at_too_early_are_known_whether_or_not_the_check_is_inlined(place: str) -> None:
    (report,) = reports(
        parse(
            f"------------[ cut here ]------------\nWARNING: include/drm/gpu_scheduler.h:755 at {place}, CPU#1: kworker/88\n"
            "Call Trace:\n <TASK>\n xe_guc_submit_start+0x14f/0x44f [xe]\n gt_reset_worker+0x4e4/0x66f [xe]\n </TASK>\n"
            "---[ end trace 0000000000000000 ]---"
        )
    )
    assert re.search(defects.REPORTS[defects.RUNNING_SCHEDULER], report.text)


UNFREED = """\
[  248.450967] WARNING: drivers/gpu/drm/xe/xe_ttm_vram_mgr.c:324 at xe_ttm_vram_mgr_fini+0x8a/0x1e6 [xe], CPU#0: sh/533
[  248.463099] Call Trace:
[  248.463401]  <TASK>
[  248.469258]  drm_managed_release+0x18f/0x255 [drm]
[  248.471366]  drm_dev_put+0xa5/0xd3 [drm]
[  248.473287]  device_unbind_cleanup+0x71/0x1df
[  248.473435]  really_probe+0x4bd/0x4cb
[  248.473835]  bind_store+0xc7/0x10e
"""


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        (UNFREED, defects.PROBE_LEAK),
        (UNFREED.replace("xe_ttm_vram_mgr_fini", "gpu_buddy_fini"), defects.PROBE_LEAK),
        (UNFREED.replace("really_probe", "device_release_driver_internal"), defects.WEDGED_REMOVAL),
        (UNFREED.replace("xe_ttm_vram_mgr_fini", "xe_bo_unpin").replace("xe_ttm_vram_mgr.c", "xe_bo.c"), None),
    ],
    ids=["vram", "blocks", "removal", "elsewhere"],
)
def test_memory_that_a_failed_probe_leaves_is_told_from_what_a_removal_leaves(text: str, defect: str | None) -> None:
    assert defect_of(text) == defect


FENCES = """\
[  248.450967] WARNING: drivers/gpu/drm/xe/xe_hw_fence.c:88 at xe_hw_fence_irq_finish+0x8a/0x1e6 [xe], CPU#0: sh/533
[  248.463099] Call Trace:
[  248.463401]  <TASK>
[  248.469258]  xe_gt_fini+0x8f/0x155 [xe]
[  248.471366]  devm_action_release+0x15/0x23
[  248.473287]  device_unbind_cleanup+0x71/0x1df
"""


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        (FENCES, defects.FENCES_LEFT),
        (FENCES.replace("xe_hw_fence_irq_finish", "xe_hw_fence_release"), None),
        (FENCES.replace("xe_gt_fini", "xe_gt_suspend"), None),
    ],
    ids=["finish", "release", "elsewhere"],
)
def test_fences_that_removal_has_not_waited_for_have_a_name(text: str, defect: str | None) -> None:
    assert defect_of(text) == defect


def test_what_every_removal_could_report_is_known_only_in_the_scenarios_of_its_finding() -> None:
    names = {scenario.name for scenario in SRIOV.scenarios}
    for defect, scenarios in SRIOV.reports_only_in.items():
        assert defect in SRIOV.reports
        assert set(scenarios) <= names
        assert all(set(finding.scenarios) <= set(scenarios) for finding in SRIOV.findings if finding.defect == defect)
    assert defects.FENCES_LEFT in SRIOV.known_in("gone-and-removed")
    for elsewhere in ("pf-removed-with-vfs", "pf-removed-under-jobs", "setup-usual"):
        assert defects.FENCES_LEFT not in SRIOV.known_in(elsewhere)
        assert defects.RESCAN_LOCK in SRIOV.known_in(elsewhere)


KILLED = """\
xe 0000:01:00.0: [drm] Tile0: GT0: Fault response: Unsuccessful -EFAULT
xe 0000:01:00.0: [drm] Tile0: GT0: Engine memory CAT error: class=bcs, logical_mask: 0x1, guc_id=2
xe 0000:01:00.0: [drm] Tile0: GT0: Engine reset: engine_class=bcs, logical_mask: 0x1, guc_id=2, state=0x43
xe 0000:01:00.0: [drm] Tile0: GT0: Timedout job: seqno=4294967175, lrc_seqno=4294967175, guc_id=2, flags=0x0 in xe-dmabuf [833]
xe 0000:01:00.0: [drm] Xe device coredump has been created
"""


def test_what_a_killed_process_s_jobs_leave_in_the_log_is_excused_once_for_each_card() -> None:
    run = Run(create_autospec(KernelLog, instance=True))
    svm.excuse_jobs_of_the_dead(run, cards=2)
    twice = reports(parse(KILLED + KILLED.replace("01:00.0", "02:00.0")))
    assert len(twice) == 10
    assert unexcused(twice, run.excuses) == ([], [])
    third = reports(parse(KILLED.splitlines()[3]))
    assert unexcused([*twice, *third], run.excuses)[0] == third
