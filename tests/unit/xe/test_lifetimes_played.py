"""Sequences of lifetimes as they are played: what a call that blocks is, and what is looked at when a sequence is over."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from unittest.mock import create_autospec

import pytest

from tests.support.xe.lifetimes import HANDED_ON, IMPORTED, after
from tests.support.xe.machines import xe_machine
from tests.support.xe.reports import STALE
from vfio_user_xe.device_models.xe.scenarios import defects, patience
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.guest_program import Step as Answer
from vfio_user_xe.device_models.xe.scenarios.lifetimes import blocking, looking
from vfio_user_xe.device_models.xe.scenarios.lifetimes.blocking import Blocking
from vfio_user_xe.device_models.xe.scenarios.lifetimes.looking import Looking
from vfio_user_xe.device_models.xe.scenarios.lifetimes.player import LifetimesPlayer
from vfio_user_xe.device_models.xe.scenarios.lifetimes.system import Command
from vfio_user_xe.device_models.xe.scenarios.patience import Patience
from vfio_user_xe.device_models.xe.scenarios.steps import Sleeper
from vfio_user_xe.emulator.kernel_reports import KernelLog, Kind, parse, reports
from vfio_user_xe.emulator.scenarios.evidence import EXCUSED_LATE
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import Failure
from vfio_user_xe.emulator.scenarios.run import Run

REVOKING = "[<0>] wait_for_completion+0x1/0x2\n[<0>] vfio_pci_dma_buf_move+0x5c/0x2b0 [vfio_pci_core]"
ELSEWHERE = "[<0>] msleep+0x1/0x2\n[<0>] xe_guc_reset_wait+0x1/0x2 [xe]"


PATIENCE = 2
"""Turns and trials that a test's patience has."""


def patience_of(monkeypatch: pytest.MonkeyPatch, stacks: Sequence[str]) -> Patience:
    """On a machine where a task sleeps with these stacks, one time after the other and then for ever; empty: it does not."""
    monkeypatch.setattr(patience, "TURNS", PATIENCE)
    monkeypatch.setattr(patience, "MOST_TURNS", 4 * PATIENCE)
    times = itertools.count()

    def sleeping(machine: object) -> dict[str, Sleeper]:
        time = next(times)
        stack = stacks[min(time, len(stacks) - 1)]
        woken = sum(one != other for one, other in itertools.pairwise(stacks[: time + 1]))
        return {"xe-dmabuf (9)": Sleeper(9, str(woken), stack)} if stack else {}

    monkeypatch.setattr(patience.s, "sleeping_tasks", sleeping)
    return Patience(xe_machine(), seconds=0)


def judged(monkeypatch: pytest.MonkeyPatch, stack: str, joins: list[str]) -> tuple[Run, list[tuple[str, str]]]:
    """What a reset by `a` is that does not return, when joining it ends so one time after the other, once it was found to sleep."""
    run, found = judged_after(monkeypatch, IMPORTED, stack, ["ETIME"] * (PATIENCE + 1) + joins)
    return run, [(failure.signature, failure.defect) for failure in found]


def judged_after(
    monkeypatch: pytest.MonkeyPatch, lines: Sequence[str], stack: str, joins: list[str], sent: list[str] | None = None
) -> tuple[Run, list[Failure]]:
    """As `judged`, with what a reset by `a` meets after these lines; what `b` is told is added to `sent`."""
    world = after(*lines)
    programs = {name: create_autospec(Program, instance=True) for name in ("a", "b")}
    programs["a"].pid = 9
    programs["b"].attempt.side_effect = lambda *commands, **more: (sent if sent is not None else []).extend(commands)
    answers = iter(joins)
    programs["a"].step.side_effect = lambda *args, **more: Answer(True, "join", next(answers, joins[-1]))
    for one in world.state.imports.values():
        one.mapped = True
    run = Run(create_autospec(KernelLog, instance=True))
    monkeypatch.setattr(blocking, "_FREED", 0)
    judge = Blocking(run, patience_of(monkeypatch, [stack]), world.state, dict(programs))
    return run, judge.of_process(Step.of("a reset v1"), programs["a"], "s1")


def test_a_revocation_that_a_job_of_the_importer_frees_is_the_known_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    run, found = judged(monkeypatch, REVOKING, ["0"])
    assert found == [(defects.REVOCATION_WAITS, defects.REVOCATION_WAITS)]
    assert not run.given_up
    assert [excuse.place for excuse in run.excuses] == ["vfio_pci_dma_buf_move"]


def test_a_call_that_blocks_elsewhere_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = judged(monkeypatch, ELSEWHERE, ["0"])
    assert found == [("blocks in xe_guc_reset_wait", "")]


def test_a_revocation_that_no_importer_frees_is_another_defect_and_costs_the_guest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, found = judged(monkeypatch, REVOKING, ["ETIME"])
    assert found == [("blocks in vfio_pci_dma_buf_move", "")]
    assert run.given_up


def test_what_only_the_end_of_all_imports_frees_is_the_known_defect_too(monkeypatch: pytest.MonkeyPatch) -> None:
    after_the_job = ["ETIME"] * (PATIENCE + 1)
    run, found = judged(monkeypatch, REVOKING, [*after_the_job, "0"])
    assert found == [(defects.REVOCATION_WAITS, defects.REVOCATION_WAITS)]
    assert not run.given_up


def test_jobs_without_a_pause_are_stopped_before_what_they_use_is_unbound(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    after_the_job = ["ETIME"] * (PATIENCE + 1)
    lines = (*IMPORTED, "b loop i3")
    _, found = judged_after(monkeypatch, lines, REVOKING, [*after_the_job, *after_the_job, "0"], sent)
    assert [failure.defect for failure in found] == [defects.REVOCATION_WAITS]
    release = sent[sent.index("try stop loopi3") :]
    assert [command.split()[1] for command in release] == ["stop", "join", "unbind", "gem-close"]


def test_a_sequence_goes_on_after_a_job_freed_the_call_and_not_after_an_import_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    derails = []
    for lines in (IMPORTED, (*IMPORTED, "b unbind i3")):
        _, found = judged_after(monkeypatch, lines, REVOKING, ["ETIME"] * (PATIENCE + 1) + ["0"])
        derails += [failure.derails for failure in found]
    assert derails == [False, True]


def told_and_untold(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], joins: Sequence[str] = ()
) -> list[Failure]:
    """What a reset by `a` is that waits for two imports of one buffer, whose jobs end so; only the end of both frees it."""
    world = after(*IMPORTED, "b gpu g3", "b import g3 d1 i4", "b bind i4")
    programs = {name: create_autospec(Program, instance=True) for name in ("a", "b")}
    programs["a"].pid = 9
    gpus = {one.gpu: one.name for one in world.state.imports.values()}

    def attempt(*commands: str, **more: object) -> list[Answer]:
        words = commands[-1].split()
        job = words[1] == "copy" and answers.get(gpus[words[2]])
        return [Answer(True, commands[-1], job or "0")]

    programs["b"].attempt.side_effect = attempt
    ended = iter([*joins] or ["ETIME"] * 3 * (PATIENCE + 1) + ["0"])
    programs["a"].step.side_effect = lambda *args, **more: Answer(True, "join", next(ended, "0"))
    for one in world.state.imports.values():
        one.mapped = True
    monkeypatch.setattr(blocking, "_FREED", 0)
    judge = Blocking(
        Run(create_autospec(KernelLog, instance=True)),
        patience_of(monkeypatch, [REVOKING]),
        world.state,
        dict(programs),
    )
    return judge.of_process(Step.of("a reset v1"), programs["a"], "s1")


def test_an_importer_whose_job_runs_while_another_of_the_buffer_was_told_is_no_known_defect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for answers in ({"i3": "ENODEV", "i4": "0"}, {"i3": "0", "i4": "ENODEV"}):
        (failure,) = told_and_untold(monkeypatch, answers)
        assert (failure.signature, failure.defect) == (blocking.UNTOLD, "")


def test_importers_that_were_all_told_wait_as_the_known_defect_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for answers in ({"i3": "ENODEV", "i4": "ENODEV"}, {"i3": "0", "i4": "ETIME"}):
        (failure,) = told_and_untold(monkeypatch, answers)
        assert failure.defect == defects.REVOCATION_WAITS


def test_a_revocation_of_which_no_importer_was_told_is_no_known_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    (failure,) = told_and_untold(monkeypatch, {"i3": "0", "i4": "0"})
    assert (failure.signature, failure.defect) == (blocking.UNTOLD, "")


def test_a_job_after_the_reset_has_ended_says_nothing_of_who_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    joins = ["ETIME"] * 2 * (PATIENCE + 1) + ["0"]  # the second job ends it
    (failure,) = told_and_untold(monkeypatch, {"i3": "ENODEV", "i4": "0"}, joins=joins)
    assert failure.defect == defects.REVOCATION_WAITS


def test_a_call_that_ends_after_all_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for stack in (REVOKING, ""):
        _, found = judged_after(monkeypatch, IMPORTED, stack, ["ETIME", "0"])
        assert found == []


def test_a_task_stands_once_the_machine_has_worked_while_it_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = patience_of(monkeypatch, [ELSEWHERE])
    assert asked.standing(lambda: False) == {"xe-dmabuf (9)": ELSEWHERE}


def test_a_task_that_wakes_up_now_and_then_does_not_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    waking = patience_of(monkeypatch, [ELSEWHERE, REVOKING] * 4 * PATIENCE)
    assert waking.standing(lambda: False) == {}


def test_a_task_of_another_process_does_not_make_this_one_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    other = patience_of(monkeypatch, [ELSEWHERE])
    assert other.standing(lambda: False, process=8) == {}
    assert patience_of(monkeypatch, [ELSEWHERE]).standing(lambda: False, process=9)


def test_what_is_waited_for_has_time_for_the_machine_to_work_although_the_seconds_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = patience_of(monkeypatch, [""])
    late = iter([False] * PATIENCE + [True])
    assert asked.within(0, lambda: next(late))
    assert not asked.within(0, lambda: False)


def test_the_driver_s_own_jobs_that_fault_after_a_suspend_are_the_known_defect() -> None:
    (fault,) = reports(parse("xe 0000:01:00.0: [drm] Tile0: GT0: Fault response: Unsuccessful -EINVAL"))
    assert looking._reported(fault, "guest suspend").defect == defects.SUSPEND_RACE
    assert looking._reported(fault, "a job i3").defect == ""


def looks(monkeypatch: pytest.MonkeyPatch, *logged: str, busy: bool = False) -> tuple[Run, looking.Looking]:
    """A look at a machine whose kernel logs this, one more each time that the log is read, on a host that is busy or not."""
    run = Run(create_autospec(KernelLog, instance=True))
    patient = create_autospec(Patience, instance=True)
    patient.busy.return_value = busy
    left = iter(logged)
    monkeypatch.setattr(looking.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(run, "read_kernel_log", lambda: run.kernel_log.extend(parse(next(left, ""))) or run.kernel_log)
    machine = xe_machine()
    machine.zero_copy = False
    return run, looking.Looking(run, machine, patient)


@pytest.mark.parametrize("busy", [True, False])
def test_an_answer_that_xe_calls_late_counts_unless_the_host_is_busy(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    late = "xe 0000:01:00.0: [drm] *ERROR* TLB invalidation fence timeout, seqno={} recv=58"
    run, looked = looks(
        monkeypatch, *(line for seqno in range(59, 60 + looking.lateness.MOST) for line in (late.format(seqno), ""))
    )
    monkeypatch.setattr(
        looking.lateness,
        "lately",
        lambda machine, found: [Excuse(Kind.GPU_HANG, "2.5 s", message=one.headline) for one in found] * busy,
    )
    seen = [looked.look("a step") for _ in range(looking.lateness.MOST + 1)]
    assert [bool(found) for found in seen] == [not busy] * looking.lateness.MOST + [True], "and not without a limit"
    assert len(run.facts.get(EXCUSED_LATE, ())) == looking.lateness.MOST * busy  # type: ignore[arg-type]


WAITING = """[<0>] schedule_timeout+0x1/0x2
[<0>] wait_for_completion_interruptible_timeout+0x1/0x2
[<0>] vfio_unregister_group_dev+0x1/0x2 [vfio]"""


def test_a_driver_that_does_not_let_go_of_a_vf_at_the_end_is_a_failure_with_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patient = patience_of(monkeypatch, [""])
    command = create_autospec(Command, instance=True)
    command.text = "the end: unbind v1"
    command.ended.return_value = False
    command.stack.return_value = WAITING
    run = Run(create_autospec(KernelLog, instance=True))
    (failure,) = Blocking(run, patient, after().state, {}).of_system(command)
    assert (failure.signature, failure.defect) == ("blocks in vfio_unregister_group_dev", "")
    assert run.given_up


@pytest.mark.parametrize(
    ("frees", "stack", "defect"),
    [(True, WAITING, defects.REGISTRATION_HELD), (False, WAITING, ""), (True, ELSEWHERE, ""), (True, "", "")],
    ids=["freed", "not-freed", "slow-elsewhere", "at-work"],
)
def test_what_closing_an_o_path_descriptor_frees_is_the_known_defect_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch, *, frees: bool, stack: str, defect: str
) -> None:
    world = after("b start", "b open v1", "b export v1 d1 0+0x200000", "b open-path d1", "b close d1", "b release v1")
    closed: list[str] = []
    program = create_autospec(Program, instance=True)
    program.attempt.side_effect = lambda *commands, timeout: closed.extend(commands)
    command = create_autospec(Command, instance=True)
    command.text = "guest disable-vfs"
    command.ended.side_effect = lambda seconds: frees and bool(closed)
    command.stack.return_value = stack
    monkeypatch.setattr(blocking, "_FREED", 0.0)
    run = Run(create_autospec(KernelLog, instance=True))
    (failure,) = Blocking(run, patience_of(monkeypatch, [""]), world.state, {"b": program}).of_system(command)
    assert closed == (["try close pd1"] if stack is WAITING else []), (
        "a command that is only slow is not to be named so"
    )
    assert failure.defect == defect
    assert bool(run.given_up) == (not defect)


def test_a_process_that_dies_with_the_file_may_leave_an_o_path_descriptor_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    player = LifetimesPlayer(Run(create_autospec(KernelLog, instance=True)), xe_machine())
    monkeypatch.setattr(player, "_world", after(*HANDED_ON))
    looking = create_autospec(Looking, instance=True, path_left=False)
    looking.look.return_value = looking.settled.return_value = []
    monkeypatch.setattr(player, "_looking", looking)
    player._programs["a"] = create_autospec(Program, instance=True)
    player.play(Step.of("a kill"))
    assert looking.path_left, "the report that comes with the death is of the stale file"


def test_reports_that_are_ignored_are_excused_each_and_others_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = "xe 0000:01:00.0: [drm] Tile0: GT0: Engine reset: engine_class=bcs, logical_mask: 0x1, guc_id=2"
    warning = "WARNING: CPU: 0 PID: 9 at drivers/gpu/drm/xe/xe_vm.c:1 xe_vm_free+0x1/0x2"
    # The second hang is logged while the log is looked at.
    run, looked = looks(monkeypatch, f"{hang}\n{warning}", hang)
    (failure,) = looked.look("a exec s0", ignore={Kind.GPU_HANG: "batches are random"})
    assert "xe_vm_free" in failure.signature
    assert [(excuse.kind, excuse.reason) for excuse in run.excuses] == [(Kind.GPU_HANG, "batches are random")] * 2
    assert len(looked.look("a exec s0", ignore={})) == 0


@pytest.mark.parametrize("busy", [True, False])
def test_a_reset_that_the_driver_gave_up_counts_unless_the_host_is_busy(
    monkeypatch: pytest.MonkeyPatch, *, busy: bool
) -> None:
    gave_up = "xe 0000:01:00.0: [drm] PF: Tile0: GT0: VF1 FLR didn't finish in 5000 ms (-110)"
    run, looked = looks(monkeypatch, gave_up, busy=busy)
    monkeypatch.setattr(
        looking.s, "settle", create_autospec(looking.s.settle, side_effect=TimeoutError("not finished"))
    )
    found = looked.settled(["v1"])
    assert [failure.signature for failure in found] == ["a reset is not finished"] * (not busy)
    assert run.given_up


def test_a_use_after_free_is_the_known_one_only_where_a_path_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for left in (True, False):
        _, looked = looks(monkeypatch, STALE)
        looked.path_left = left
        (failure,) = looked.look("a reset v1")
        assert failure.defect == (defects.STALE_FILE if left else "")


def test_reports_of_mappings_by_device_address_are_known_only_where_a_kernel_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for zero_copy in (True, False):
        _, looked = looks(
            monkeypatch, "WARNING: drivers/gpu/drm/xe/xe_res_cursor.h:99 at xe_res_first+0x1/0x2, CPU#0: x/1"
        )
        looked._machine.zero_copy = zero_copy
        (failure,) = looked.look("a bind i3")
        assert failure.defect == ("D5" if zero_copy else "")
