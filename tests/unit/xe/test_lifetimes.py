"""The model of lifetimes: what is allowed, what each call must answer, and what becomes of it; and who names what blocks."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Sequence
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios.card import XeCard
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.guest_program import Step as Answer
from vfio_user_xe.device_models.xe.scenarios.lifetimes import blocking, importing, looking, patience, player
from vfio_user_xe.device_models.xe.scenarios.lifetimes.blocking import Blocking
from vfio_user_xe.device_models.xe.scenarios.lifetimes.operation import SYSTEM, Operation
from vfio_user_xe.device_models.xe.scenarios.lifetimes.patience import Patience
from vfio_user_xe.device_models.xe.scenarios.lifetimes.player import LifetimesPlayer, ignored_revocation
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import Content
from vfio_user_xe.device_models.xe.scenarios.lifetimes.world import OPERATIONS, Lifetimes, operation_of
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.device_models.xe.scenarios.steps import Sleeper
from vfio_user_xe.emulator.kernel_reports import KernelLog, parse, reports
from vfio_user_xe.emulator.scenarios.exploration.coverage import Coverage
from vfio_user_xe.emulator.scenarios.exploration.generator import generate
from vfio_user_xe.emulator.scenarios.exploration.sequence import BadSequence, Step
from vfio_user_xe.emulator.scenarios.exploration.world import Failure, checked
from vfio_user_xe.emulator.scenarios.run import Run

IMPORTED = (
    "a start",
    "a open v1",
    "a fill v1 1",
    "a export v1 d1 0+0x200000",
    "b start",
    "b take d1 a",
    "b gpu g2",
    "b import g2 d1 i3",
    "b bind i3",
)
"""`a` exports, `b` imports and binds."""


def after(*lines: str) -> Lifetimes:
    world = Lifetimes()
    for line in lines:
        step = Step.of(line)
        assert world.allows(step), line
        world.apply(step)
    return world


def answers(world: Lifetimes, line: str) -> Collection[str]:
    step = Step.of(line)
    assert world.allows(step)
    return operation_of(step).answers(world.state, step.actor, step.arguments)


def allowed(world: Lifetimes, line: str) -> bool:
    return world.allows(Step.of(line))


def test_every_operation_is_made_and_every_step_is_allowed_when_it_comes() -> None:
    made: set[str] = set()
    for seed in range(60):
        steps = generate(Lifetimes(), random.Random(seed), 60, Coverage())
        checked(Lifetimes(), steps)
        made |= {step.operation for step in steps}
    assert made == set(OPERATIONS)


def test_every_step_that_is_made_has_commands() -> None:
    for seed in range(20):
        world = Lifetimes()
        for step in generate(Lifetimes(), random.Random(seed), 40, Coverage()):
            operation = operation_of(step)
            if step.operation not in ("start", "exit", "kill"):
                commands = operation.commands(world.state, step.actor, step.arguments)
                assert all(commands)
                assert len(commands) == 1 or not operation.of_system
            world.apply(step)


@pytest.mark.parametrize("line", ["a burn v1", "z start", "x kill"])
def test_what_no_state_allows_is_no_sequence(line: str) -> None:
    with pytest.raises(BadSequence, match="there is no"):
        allowed(Lifetimes(), line)


@pytest.mark.parametrize(
    "line",
    [
        "a open v1",
        "guest open v1",
        "a export v1 d9 0+0x1000",
        "a start v1 extra",
        "b take d1",
        "b job i1",
        "guest quota v3 half",
        "a gpu",
    ],
)
def test_steps_about_what_there_is_not_are_not_allowed(line: str) -> None:
    if line != "a start v1 extra":
        assert not allowed(Lifetimes(), line)


def test_a_vf_that_is_open_is_busy() -> None:
    assert answers(after("a start", "a open v1", "b start"), "b open v1") == ("EBUSY",)


def test_jobs_are_refused_when_the_exporter_has_closed_its_device() -> None:
    assert answers(after(*IMPORTED), "b job i3") == ("0",)
    for end in ("a release v1", "a kill", "a exit"):
        assert answers(after(*IMPORTED, end), "b job i3") == ("ENODEV",)


def test_a_device_lives_as_long_as_any_descriptor_of_it() -> None:
    held = after(*IMPORTED, "b hold v1 a", "a kill")
    assert answers(held, "b job i3") == ("0",)
    assert answers(after(*IMPORTED, "b hold v1 a", "a kill", "b drop v1"), "b job i3") == ("ENODEV",)


def test_one_buffer_that_is_dead_stops_all_jobs_of_its_vm_until_it_is_unbound() -> None:
    two = (*IMPORTED, "a open v2", "a export v2 d4 0x200000+0x1000", "b take d4 a", "b import g2 d4 i5", "b bind i5")
    assert answers(after(*two, "a release v2"), "b job i3") == ("ENODEV",)
    assert answers(after(*two, "a release v2", "b unbind i5"), "b job i3") == ("0",)


def test_what_was_exported_before_the_device_was_opened_anew_stays_dead() -> None:
    world = after(*IMPORTED, "a release v1", "a open v1")
    assert answers(world, "b job i3") == ("ENODEV",)
    assert answers(after(*IMPORTED, "a release v1", "a open v1", "b gem-close i3"), "b import g2 d1 i6") == ("ENODEV",)


def test_an_import_lives_by_its_handle_or_by_its_binding() -> None:
    assert allowed(after(*IMPORTED, "b gem-close i3"), "b job i3")
    assert not allowed(after(*IMPORTED, "b gem-close i3", "b unbind i3"), "b bind i3")
    assert allowed(after(*IMPORTED, "b unbind i3"), "b bind i3")


def test_a_reset_clears_memory_and_the_user_s_pattern_is_not_expected_any_more() -> None:
    world = after(*IMPORTED)
    assert world.state.vfs["v1"].content is Content.FILLED
    world.apply(Step.of("a reset v1"))
    assert world.state.vfs["v1"].content is Content.CLEARED
    copy, compared = operation_of(Step.of("b job i3")).commands(world.state, "b", ("i3",))
    assert copy.startswith("copy g2 ")
    assert compared == "holds tg2 0 0x200000 0"


def test_a_job_compares_each_range_with_its_own_part_of_the_pattern() -> None:
    world = after(*IMPORTED[:3], "a export v1 d1 0x300000+0x2000,0x1000+0x3000", *IMPORTED[4:])
    _, *compared = operation_of(Step.of("b job i3")).commands(world.state, "b", ("i3",))
    assert compared == ["verify tg2 0x0 0x300000 0x2000 1", "verify tg2 0x2000 0x1000 0x3000 1"]


def test_a_reset_meets_an_importer_that_is_idle_and_no_other() -> None:
    reset = Step.of("a reset v1")
    assert list(after(*IMPORTED).provokes(reset)) == [defects.REVOCATION_WAITS]
    assert not list(after(*IMPORTED[:-1]).provokes(reset)), "an import that was never bound holds nothing"
    assert not list(after(*IMPORTED, "b loop i3").provokes(reset)), "jobs let go of it"
    assert not list(after(*IMPORTED, "b unbind i3", "b gem-close i3").provokes(reset))
    assert not list(after(*IMPORTED, "a reset v1").provokes(reset)), "nothing is mapped until the next job"
    assert list(after(*IMPORTED, "a reset v1", "b job i3").provokes(reset))


def test_a_buffer_whose_file_is_gone_before_its_inode_is_what_a_revocation_must_not_touch() -> None:
    exported = ("a start", "a open v1", "a export v1 d1 0+0x200000", "a open-path d1")
    for revoking in ("a reset v1", "a memory-off v1", "a release v1", "a kill", "a nap v1", "a flr v1"):
        assert list(after(*exported, "a close d1").provokes(Step.of(revoking))) == [defects.STALE_FILE]
    assert not list(after(*exported).provokes(Step.of("a reset v1")))
    assert not list(after(*exported, "a close d1", "a close-path d1").provokes(Step.of("a reset v1")))


def test_taking_vfs_away_waits_for_their_users_and_is_done_with_the_last() -> None:
    waiting = after(*IMPORTED, "guest disable-vfs")
    assert waiting.state.pending
    for line in ("guest disable-vfs", "guest sysfs-reset v1", "b open v2", "a reset v1"):
        assert not allowed(waiting, line)
    waiting.apply(Step.of("a kill"))
    assert not waiting.state.pending
    assert not any(vf.enabled for vf in waiting.state.vfs.values())
    assert allowed(waiting, "guest enable-vfs")
    assert not allowed(waiting, "b open v1")


def test_files_of_a_pf_that_lost_its_driver_are_of_no_use() -> None:
    world = after(*IMPORTED, "guest unbind-pf", "a release v1")
    assert not world.state.pf_bound
    assert not allowed(world, "b job i3")
    assert not allowed(world, "b gpu g7")
    world.apply(Step.of("guest bind-pf"))
    assert allowed(world, "b gpu g7")


def test_topics_are_the_vfs_that_a_step_concerns() -> None:
    world = after(*IMPORTED)
    assert world.topics(Step.of("b job i3")) == ["v1"]
    assert world.topics(Step.of("b kill")) == ["v1"]
    assert world.topics(Step.of("c start")) == ["-"]
    assert world.topics(Step.of("guest disable-vfs")) == ["v1", "v2"]


def test_a_job_that_runs_although_the_exporter_is_closed_is_a_revocation_ignored_where_device_addresses_are_mapped() -> (
    None
):
    job = Step.of("b job i3")
    assert ignored_revocation(job, "0", importing.DEAD, zero_copy=True) == "D7"
    assert ignored_revocation(job, "0", importing.DEAD, zero_copy=False) == ""
    assert ignored_revocation(job, "EIO", importing.DEAD, zero_copy=True) == ""
    assert ignored_revocation(job, "ENODEV", importing.OK, zero_copy=True) == ""


# What blocks ---------------------------------------------------------------------------------------------------------

REVOKING = "[<0>] wait_for_completion+0x1/0x2\n[<0>] vfio_pci_dma_buf_move+0x5c/0x2b0 [vfio_pci_core]"
ELSEWHERE = "[<0>] msleep+0x1/0x2\n[<0>] xe_guc_reset_wait+0x1/0x2 [xe]"


PATIENCE = 2
"""Turns and trials that a test's patience has."""


def patience_of(monkeypatch: pytest.MonkeyPatch, stacks: Sequence[str]) -> Patience:
    """On a machine where a task sleeps with these stacks, one time after the other and then for ever; empty: it does not."""
    monkeypatch.setattr(patience, "TURNS", PATIENCE)
    monkeypatch.setattr(patience, "_MOST_TURNS", 4 * PATIENCE)
    times = itertools.count()

    def sleeping(machine: object) -> dict[str, Sleeper]:
        time = next(times)
        stack = stacks[min(time, len(stacks) - 1)]
        woken = sum(one != other for one, other in itertools.pairwise(stacks[: time + 1]))
        return {"xe-dmabuf (9)": Sleeper(9, str(woken), stack)} if stack else {}

    monkeypatch.setattr(patience.s, "sleeping_tasks", sleeping)
    machine = create_autospec(XeMachine, instance=True)
    machine.card = create_autospec(XeCard, instance=True)
    return Patience(machine, seconds=0)


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


@pytest.mark.parametrize("busy", [True, False])
def test_an_answer_that_xe_calls_late_counts_unless_the_host_is_busy(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    run = Run(create_autospec(KernelLog, instance=True))
    asked = create_autospec(Patience, instance=True)
    asked.busy.return_value = busy
    machine = create_autospec(XeMachine, instance=True)
    machine.card = create_autospec(XeCard, instance=True)
    machine.card.call.return_value = {"stale": [], "foreign": []}
    machine.card.vf.side_effect = lambda number: f"0000:01:00.{number}"
    machine.card.pf = "0000:01:00.0"
    machine.run.return_value.stdout = ""
    looked = looking.Looking(run, machine, asked)
    late = "xe 0000:01:00.0: [drm] *ERROR* TLB invalidation fence timeout, seqno=375 recv=374"
    monkeypatch.setattr(looking.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(run, "read_kernel_log", lambda: run.kernel_log.extend(parse(late)) or run.kernel_log)
    found = looked.look("guest suspend")
    assert bool(found) is not busy
    assert [excuse.message for excuse in run.excuses] == ["TLB invalidation fence timeout"] * busy


def test_imports_are_often_used_after_their_exporter_has_closed() -> None:
    used = 0
    for seed in range(40):
        world, asked = Lifetimes(), 0
        for step in generate(Lifetimes(), random.Random(f"closed/{seed}"), 40, Coverage()):
            asked += answers(world, str(step)) == importing.DEAD and step.operation in ("job", "write")
            world.apply(step)
        used += bool(asked)
    assert used >= 4, "a revocation that is ignored is found by nothing else"


@pytest.mark.parametrize(("avoided", "least"), [((), 8), ((defects.REVOCATION_WAITS,), 5)])
def test_sequences_often_end_with_an_import_whose_exporter_has_closed(avoided: Sequence[str], least: int) -> None:
    ended, coverage = 0, Coverage()
    for seed in range(60):
        world = Lifetimes()
        coverage.add(Lifetimes(), generate(world, random.Random(f"end/{seed}"), 40, coverage, avoided))
        ended += any(
            world.state.dead_in(world.state.imports[step.arguments[0]].gpu) for step in world.for_each_import("job")
        )
    assert ended >= least


def finished(monkeypatch: pytest.MonkeyPatch, lines: Sequence[str], errno: str) -> tuple[list[Failure], list[str]]:
    """What the end of a sequence finds where every call answers this, and the copies that were asked for at the end."""
    machine = create_autospec(XeMachine, instance=True)
    machine.card = create_autospec(XeCard, instance=True)
    machine.card.call.return_value = {"stale": [], "foreign": []}
    machine.card.vf.side_effect = lambda number: f"0000:01:00.{number}"
    machine.card.pf = "0000:01:00.0"
    machine.run.return_value.stdout = ""
    machine.zero_copy = True
    monkeypatch.setattr(player.s, "settle", lambda *settled: None)
    for name in ("settled", "restore", "look", "left_over"):
        monkeypatch.setattr(looking.Looking, name, lambda *args, **more: [])
    asked: list[str] = []
    program = create_autospec(Program, instance=True)
    program.pid = 9

    def answer(*commands: str, **more: object) -> list[Answer]:
        asked.extend(commands)
        copies = "copy" in "".join(commands)
        return [
            Answer(True, one, errno if copies else "0", values={"fd": "3", "device": "4", "render": "5"})
            for one in commands
        ]

    program.attempt.side_effect = answer
    monkeypatch.setattr(player.s, "started", lambda *started: program)
    plays = LifetimesPlayer(Run(create_autospec(KernelLog, instance=True)), machine)
    for line in lines:
        assert not plays.play(Step.of(line)), line
    asked.clear()
    return plays.finish(), [one for one in asked if one.startswith("spawn") and " copy " in one]


def test_at_the_end_an_import_whose_exporter_has_closed_must_run_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    found, copies = finished(monkeypatch, (*IMPORTED, "a release v1"), "0")
    assert [failure.defect for failure in found] == ["D7"]
    assert len(copies) == 1


def test_at_the_end_a_job_that_is_refused_after_its_exporter_has_closed_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert finished(monkeypatch, (*IMPORTED, "a release v1"), "ENODEV")[0] == []


def test_at_the_end_an_import_that_lives_must_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = finished(monkeypatch, IMPORTED, "ENODEV")
    assert [failure.signature for failure in found] == ["answer: job, ENODEV instead of 0"]


def test_at_the_end_nothing_that_is_unbound_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finished(monkeypatch, (*IMPORTED, "b unbind i3"), "0") == ([], [])


def test_the_system_is_an_actor_of_its_own() -> None:
    assert allowed(Lifetimes(), f"{SYSTEM} sysfs-reset v1")
    assert not allowed(after("a start"), "a sysfs-reset v1")


def test_only_processes_begin_and_end_without_a_command() -> None:
    without = {name for name, one in OPERATIONS.items() if type(one).commands is Operation.commands}
    assert without == {"start", "exit", "kill"}
