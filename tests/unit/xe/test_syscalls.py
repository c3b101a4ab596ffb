"""Calls from a grammar: how they are written, what may come, and what is made of what the guest says."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from unittest.mock import create_autospec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.xe.machines import xe_machine
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.guest_program import Step as Answer
from vfio_user_xe.device_models.xe.scenarios.syscalls import player as players
from vfio_user_xe.device_models.xe.scenarios.syscalls.grammar import CALLS, KINDS, Field, Struct, encoded
from vfio_user_xe.device_models.xe.scenarios.syscalls.player import CallPlayer
from vfio_user_xe.device_models.xe.scenarios.syscalls.suite import SYSCALLS, USUAL_CALLS
from vfio_user_xe.device_models.xe.scenarios.syscalls.world import Calls, commands, slots_of
from vfio_user_xe.emulator.kernel_reports import KernelLog, Kind
from vfio_user_xe.emulator.scenarios.exploration.coverage import Coverage
from vfio_user_xe.emulator.scenarios.exploration.generator import generate
from vfio_user_xe.emulator.scenarios.exploration.sequence import BadSequence, Step
from vfio_user_xe.emulator.scenarios.exploration.world import checked
from vfio_user_xe.emulator.scenarios.run import Run

SIZES = {  # sizeof of the structures in xe_drm.h, drm.h and dma-buf.h
    "query": 40, "gem-create": 56, "mmap-offset": 40, "vm-create": 32, "vm-destroy": 24, "vm-bind": 136, "queue-create": 48,
    "queue-destroy": 24, "queue-property": 40, "exec": 56, "wait-fence": 72, "madvise": 64, "gem-close": 8, "prime-export": 12,
    "prime-import": 12, "syncobj-create": 8, "syncobj-destroy": 8, "syncobj-export": 24, "syncobj-import": 24, "sync": 8,
    "export-fence": 8, "import-fence": 8,
}  # fmt: skip


def test_structures_have_the_sizes_that_the_kernel_s_headers_give_them() -> None:
    assert {name: call.struct.size for name, call in CALLS.items()} == SIZES


def test_kinds_share_no_slot() -> None:
    numbers = [number for kind in KINDS for number in kind.slots()]
    assert len(numbers) == len(set(numbers))


def decoded(text: str) -> bytes:
    """As `client/raw.c` reads it, with slot N as 0x5107000N."""
    found = b""
    for word in text.split("."):
        if word[0] == "z":
            found += bytes(4 * int(word[1:]))
        else:
            found += struct.pack("<I", 0x51070000 + int(word[1:]) if word[0] == "s" else int(word, 16))
    return found


@given(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_fields_of_any_widths_are_where_a_compiler_puts_them_without_padding(
    widths: Sequence[int], chance: random.Random
) -> None:
    widths = [*widths, *[1] * (-sum(widths) % 4)]
    made = Struct("made", [Field(f"f{n}", width) for n, width in enumerate(widths)])
    values = [chance.choice((0, chance.getrandbits(8 * width))) for width in widths]
    text = encoded(made, {f"f{n}": f"{value:#x}" for n, value in enumerate(values)})
    assert decoded(text) == b"".join(
        value.to_bytes(width, "little") for width, value in zip(widths, values, strict=True)
    )


def test_a_slot_and_a_page_stand_for_what_they_are_at_the_time() -> None:
    made = Struct("made", [Field("pad", 2), Field("pad2", 2), Field("handle", 4), Field("pointer", 8)])
    assert decoded(encoded(made, {"handle": "s7", "pointer": "@2"})) == struct.pack(
        "<IIQ", 0, 0x51070007, 0x7E00_0000_2000
    )


@pytest.mark.parametrize("value", ["s70000", "0x100000000", "-1", "four"])
def test_a_value_that_does_not_fit_or_is_none_is_refused(value: str) -> None:
    made = Struct("made", [Field("half", 2)])
    with pytest.raises(ValueError, match=r"."):
        encoded(made, {"half": value})


def test_what_a_call_makes_is_kept_from_where_the_kernel_writes_it() -> None:
    (told,) = commands(Step.of("a gem-create s0 size=0x1000 to=s13"))
    assert told.endswith(" 13 28")
    assert told.startswith(f"raw-ioctl 0 {3 << 30 | 56 << 16 | 0x6441:#x} ")


def test_what_a_call_points_at_is_written_before_it() -> None:
    poke, call = commands(Step.of("a exec s0 queue=s8 num_syncs=1 syncs=@2 syncs.handle=s18 syncs.flags=1"))
    assert (poke.split()[:2], call.split()[0]) == (["raw-poke", "0x2000"], "raw-ioctl")
    assert decoded(poke.split()[2])[8:20] == struct.pack("<III", 0, 1, 0x51070012)


@pytest.mark.parametrize(
    "line",
    [
        "z exec s0",
        "a burn s0",
        "a exec",
        "a exec s0 nothing=1",
        "a exec s0 batches=0x10000",
        "a exec s0 queue=sx",
        "a close 3",
    ],
)
def test_what_is_no_call_of_the_grammar_is_no_sequence(line: str) -> None:
    with pytest.raises(BadSequence):
        Calls().allows(Step.of(line))


def test_usual_calls_are_allowed_and_take_what_was_made_before() -> None:
    steps = [Step.of(line) for line in USUAL_CALLS]
    checked(Calls(), steps)
    made: set[int] = {0, 1}
    for step in steps:
        assert set(slots_of(step)) <= made, step
        made |= {int(word[4:]) for word in step.arguments if word.startswith("to=")}
        made |= {int(word[1:]) for word in step.arguments if step.operation == "vf-export"}


@pytest.mark.parametrize("seed", range(5))
def test_sequences_are_calls_of_the_grammar_and_the_same_seed_makes_the_same(seed: int) -> None:
    one, other = (generate(Calls(), random.Random(seed), 40, Coverage()) for _ in range(2))
    assert one == other
    checked(Calls(), [Step.of(str(step)) for step in one])
    assert len({step.operation for step in one}) > 8


def test_calls_mostly_take_what_was_made() -> None:
    taken = there = 0
    for seed in range(10):
        made: set[str] = {"a0", "a1", "b0", "b1"}
        for step in generate(Calls(), random.Random(seed), 60, Coverage()):
            taken += len(slots_of(step))
            there += sum(f"{step.actor}{number}" in made for number in slots_of(step))
            made |= {f"{step.actor}{word[4:]}" for word in step.arguments if word.startswith("to=")}
    assert there > taken / 2


ENDED_ETIME = "ETIME of the call itself"


def answer(asked: str, errno: str) -> Answer:
    """What a command answers: that a job runs still, or how it ended."""
    if errno == ENDED_ETIME:
        return Answer(True, asked, "ETIME", values={"us": "1000"})
    return Answer(True, asked, errno)


class Guest:
    """A machine whose programs answer as they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: Sequence[str]) -> None:
        self.run = Run(create_autospec(KernelLog, instance=True))
        self.looking = create_autospec(players.Looking, instance=True)
        self.looking.look.return_value = []
        self.looking.left_over.return_value = []
        monkeypatch.setattr(players, "Looking", lambda *given: self.looking)
        self.patience = create_autospec(players.Patience, instance=True)
        self.patience.standing.return_value = None
        monkeypatch.setattr(players, "Patience", lambda machine: self.patience)
        left = iter(answers)
        self.program = create_autospec(Program, instance=True)
        self.program.pid = 9
        self.program.attempt.side_effect = lambda *asked, **more: [
            *(Answer(True, one, "0") for one in asked[:-1]), answer(asked[-1], next(left, "0"))
        ]  # fmt: skip
        monkeypatch.setattr(players.s, "started", lambda run, machine: self.program)
        self.player = CallPlayer(self.run, xe_machine())


CALL = Step.of("a vm-create s0 to=s4")


@pytest.mark.parametrize("errno", ["0", "EINVAL", "ENODEV"])
def test_every_answer_is_right(monkeypatch: pytest.MonkeyPatch, errno: str) -> None:
    assert Guest(monkeypatch, [errno]).player.play(CALL) == []


def test_a_call_that_blocks_is_a_failure_by_where_it_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch, ["ETIME"])
    guest.patience.standing.return_value = {
        "xe-dmabuf (9)": "[<0>] schedule+0x1/0x2\n[<0>] xe_vm_close_and_put+0x1/0x2 [xe]"
    }
    (failure,) = guest.player.play(CALL)
    assert failure.signature == "blocks in xe_vm_close_and_put"
    assert guest.run.given_up


def test_a_call_that_is_only_late_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch, ["ETIME", "0"])
    guest.patience.standing.return_value = None
    assert guest.player.play(CALL) == []
    assert not guest.run.given_up


def test_a_wait_that_ends_with_etime_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch, [ENDED_ETIME])
    assert guest.player.play(Step.of("a wait-fence s0 timeout=0x0")) == []
    guest.patience.standing.assert_not_called()


@pytest.mark.parametrize("ends", [True, False])
def test_a_call_that_never_ends_is_a_failure_although_no_task_stands(
    monkeypatch: pytest.MonkeyPatch, *, ends: bool
) -> None:
    guest = Guest(monkeypatch, ["ETIME", "0"])
    guest.patience.standing.return_value = {}
    guest.patience.within.return_value = ends
    found = guest.player.play(CALL)
    assert [failure.signature for failure in found] == ["blocks in no task that sleeps"] * (not ends)
    assert bool(guest.run.given_up) is not ends


def test_hangs_of_random_batches_are_ignored_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch, [])
    guest.player.play(CALL)
    assert set(guest.looking.look.call_args.kwargs["ignore"]) == {Kind.GPU_HANG}


def test_no_hang_is_ignored_of_usual_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch, [])
    (usual,) = SYSCALLS.scenarios
    usual.run(guest.run, xe_machine())
    assert guest.looking.look.call_count > len(USUAL_CALLS)
    assert [looked.kwargs["ignore"] for looked in guest.looking.look.call_args_list] == [
        {}
    ] * guest.looking.look.call_count


@pytest.mark.parametrize("stacks", [{}, {"xe-dmabuf (9)": "[<0>] xe_exec_queue_fini+0x1/0x2 [xe]"}])
def test_a_process_that_does_not_end_fails_wherever_it_is(
    monkeypatch: pytest.MonkeyPatch, stacks: dict[str, str]
) -> None:
    guest = Guest(monkeypatch, [])
    guest.patience.standing.return_value = stacks
    (failure,) = guest.player.finish()
    assert failure.signature.startswith("the end of a process blocks in ")
    assert guest.run.given_up


def test_a_process_that_does_not_end_costs_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch, [])
    guest.patience.standing.return_value = {"xe-dmabuf (9)": "[<0>] xe_exec_queue_fini+0x1/0x2 [xe]"}
    (failure,) = guest.player.finish()
    assert failure.signature == "the end of a process blocks in xe_exec_queue_fini"
    assert guest.run.given_up
