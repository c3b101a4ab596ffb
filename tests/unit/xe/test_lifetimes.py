"""The model of lifetimes: what is allowed, what each call must answer, and what becomes of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

import pytest

from tests.support.xe.lifetimes import HANDED_ON, IMPORTED, after
from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios.lifetimes import importing
from vfio_user_xe.device_models.xe.scenarios.lifetimes.operation import SYSTEM, Operation
from vfio_user_xe.device_models.xe.scenarios.lifetimes.player import ignored_revocation
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import Content
from vfio_user_xe.device_models.xe.scenarios.lifetimes.world import OPERATIONS, Lifetimes, operation_of
from vfio_user_xe.emulator.scenarios.exploration.coverage import Coverage
from vfio_user_xe.emulator.scenarios.exploration.generator import generate
from vfio_user_xe.emulator.scenarios.exploration.sequence import BadSequence, Step
from vfio_user_xe.emulator.scenarios.exploration.world import checked


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


def test_a_buffer_that_the_close_of_its_device_passed_over_holds_the_vf_until_its_path_is_closed() -> None:
    over = ("a start", "a open v1", "a export v1 d1 0+0x200000", "a open-path d1", "a close d1", "a release v1")
    for taking in ("guest disable-vfs", "guest unbind-vf v1", "guest unbind-pf"):
        assert list(after(*over).provokes(Step.of(taking))) == [defects.REGISTRATION_HELD]
        assert not after(*over).goes_on(Step.of(taking))
        assert not list(after(*over, "a close-path d1").provokes(Step.of(taking)))
        assert not list(after(*over, "a kill").provokes(Step.of(taking)))
        cleaned_up = (
            "a start",
            "a open v1",
            "a export v1 d1 0+0x200000",
            "a open-path d1",
            "a release v1",
            "a close d1",
        )
        assert not list(after(*cleaned_up).provokes(Step.of(taking))), "its file was there when the device was closed"
    assert not list(after(*over).provokes(Step.of("guest unbind-vf v2")))


def test_a_buffer_that_was_passed_over_is_looked_at_again_when_its_device_is_closed_again() -> None:
    over = ("a start", "a open v1", "a export v1 d1 0+0x200000", "a open-path d1", "a close d1", "a release v1")
    assert list(after(*over, "a open v1").provokes(Step.of("a release v1"))) == [defects.STALE_FILE]


def test_the_last_close_lets_a_command_wait_that_takes_vfs_away() -> None:
    waiting = ("a start", "a open v1", "a export v1 d1 0+0x200000", "a open-path d1", "a close d1", "guest disable-vfs")
    assert list(after(*waiting).provokes(Step.of("a release v1"))) == [defects.STALE_FILE, defects.REGISTRATION_HELD]
    assert not list(after(*waiting, "a close-path d1").provokes(Step.of("a release v1")))


@pytest.mark.parametrize("last", ["b drop v1", "b kill"])
def test_so_does_a_process_that_was_given_the_device(last: str) -> None:
    waiting = (*HANDED_ON[:-1], "b hold v1 a", "c start", "c take d1 a", "c open-path d1", "b close d1", "c close d1")
    waiting = (*waiting, "a close d1", "a release v1", "guest disable-vfs")
    assert list(after(*waiting).provokes(Step.of(last))) == [defects.STALE_FILE, defects.REGISTRATION_HELD]
    assert not after(*waiting).goes_on(Step.of(last))


@pytest.mark.parametrize(
    "more", [(), ("a gpu g2", "a import g2 d1 i3", "a close d1"), ("a open-path d1",)], ids=["file", "import", "path"]
)
def test_a_process_that_dies_with_device_and_file_leaves_another_s_o_path_descriptor(more: Sequence[str]) -> None:
    # Its files are released in the reverse order: the buffer's is gone when the device is closed, an import's may be.
    dying = after(*HANDED_ON, *more)
    assert defects.STALE_FILE in dying.provokes(Step.of("a kill"))
    dead = after(*HANDED_ON, *more, "a kill")
    assert list(dead.provokes(Step.of("guest disable-vfs"))) == [defects.REGISTRATION_HELD]
    assert not list(after(*HANDED_ON, *more, "b kill", "a kill").provokes(Step.of("guest disable-vfs")))


def test_a_device_that_another_has_too_is_not_closed_by_a_death() -> None:
    shared = (*HANDED_ON, "b hold v1 a")
    assert not list(after(*shared).provokes(Step.of("a kill")))
    assert list(after(*shared, "a kill").provokes(Step.of("b drop v1"))) == [defects.STALE_FILE]


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


Shows = Callable[[Lifetimes, Step], bool]


def several_are_told(world: Lifetimes, step: Step) -> bool:
    """A revocation meets two importers of one buffer."""
    revoked = operation_of(step).revokes(world.state, step.actor, step.arguments)
    told = [one.buffer for vf in revoked for one in world.state.mapped(vf)]
    return len(set(told)) < len(told)


def one_is_told(world: Lifetimes, step: Step) -> bool:
    return any(world.state.mapped(vf) for vf in operation_of(step).revokes(world.state, step.actor, step.arguments))


def cleared_is_read(world: Lifetimes, step: Step) -> bool:
    """Memory that was filled and must be clear now is read."""
    vfs = [world.state.vfs[vf] for vf in operation_of(step).vfs(world.state, step.actor, step.arguments)]
    return step.operation in ("check", "job") and any(vf.seed and vf.content is Content.CLEARED for vf in vfs)


def beyond_the_end(world: Lifetimes, step: Step) -> bool:
    return step.operation == "bad-export" and "0xffff000" in step.arguments[2]


@pytest.mark.parametrize("avoided", [(), (defects.REVOCATION_WAITS,)])
@pytest.mark.parametrize(
    ("shows", "least"), [(several_are_told, 12), (one_is_told, 25), (cleared_is_read, 15), (beyond_the_end, 3)]
)
def test_many_sequences_come_to_what_can_go_wrong(shows: Shows, least: int, avoided: Sequence[str]) -> None:
    came, coverage = 0, Coverage()
    for seed in range(60):
        steps = generate(Lifetimes(), random.Random(f"comes/{seed}"), 40, coverage, avoided)
        coverage.add(Lifetimes(), steps)
        world, shown = Lifetimes(), False
        for step in steps:
            shown = shown or shows(world, step)
            world.apply(step)
        came += shown
    assert came >= least


def test_what_an_opening_does_is_allowed_and_leaves_imports_to_be_met() -> None:
    began = imported = 0
    for seed in range(60):
        world = Lifetimes()
        steps = list(world.opening(random.Random(f"begins/{seed}")))
        checked(Lifetimes(), steps)
        began += bool(steps)
        imported += any(world.state.mapped(vf) for vf in world.state.vfs)
    assert 30 <= began < 60
    assert imported >= 25


def test_a_sequence_goes_on_after_a_revocation_that_jobs_of_all_importers_free() -> None:
    reset = Step.of("a reset v1")
    assert after(*IMPORTED).goes_on(reset)
    assert not after(*IMPORTED, "b unbind i3").goes_on(reset), "an import that is not bound has no job"
    assert not after(*IMPORTED, "a open-path d1", "a close d1", "b close d1", "b gem-close i3", "b unbind i3").goes_on(
        reset
    )
    own = after("a start", "a open v1", "a export v1 d1 0+0x200000", "a gpu g2", "a import g2 d1 i3", "a bind i3")
    assert own.goes_on(reset)
    assert not own.goes_on(Step.of("a kill")), "who would run the job dies"


def test_what_cannot_be_exported_is_refused_and_leaves_no_dma_buf() -> None:
    world = after("a start", "a open v1")
    assert answers(world, "a bad-export v1 2 0xffff000+0x2000") == ("EINVAL",)
    assert answers(world, "a bad-export v1 7 0+0x1000") == ("ENODEV",)
    assert not allowed(world, "a bad-export v1 2 0+0x1000")
    world.apply(Step.of("a bad-export v1 7 0+0x1000"))
    assert not world.state.buffers


def test_the_system_is_an_actor_of_its_own() -> None:
    assert allowed(Lifetimes(), f"{SYSTEM} sysfs-reset v1")
    assert not allowed(after("a start"), "a sysfs-reset v1")


def test_only_processes_begin_and_end_without_a_command() -> None:
    without = {name for name, one in OPERATIONS.items() if type(one).commands is Operation.commands}
    assert without == {"start", "exit", "kill"}
