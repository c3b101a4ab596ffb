"""Scenarios 70 to 76: shared virtual memory: processor and up to three cards at the same addresses, pages where they are wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.sriov import setups
from vfio_user_xe.device_models.xe.scenarios.sriov import steps as s
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import scenario
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.run import Run

MIB = 1 << 20
_SIZE = 4 * MIB
_RACE_MS = 15_000
_SVM = ("svm",)


def excuse_jobs_of_the_dead(run: Run, cards: int) -> None:
    """What may be reported when a process is killed that has jobs on so many cards: once for each, unless its engine was idle.

    A process that dies gives its memory up before its files (kernel/exit.c:do_exit). A job that runs on meanwhile faults on pages that
    are gone, the GuC takes its queue off the engine, and xe, which does not know yet that the queue is to be killed
    (xe_file_close), says so and keeps a dump of it (xe_guc_submit.c:guc_exec_queue_timedout_job).
    """
    for pattern in (
        r"Fault response: Unsuccessful -(EFAULT|14)\b",
        "Engine memory CAT error",
        "Engine reset",
        "Timedout job",
        "device coredump has been created",
    ):
        run.excuse(Kind.GPU_HANG, "a job faults on pages of the process that has died", pattern=pattern, count=cards)


@contextlib.contextmanager
def _mirrored(run: Run, machine: SriovMachine, cards: int) -> Iterator[Program]:
    """A process whose addresses that many cards have: GPUs `g0`, `g1` and so on, memory `a` and `b`."""
    addresses = [machine.card.pf, *machine.card.other_pfs()][:cards]
    with s.program(run, machine) as made:
        for index, address in enumerate(addresses):
            opened = made.attempt(f"gpu g{index} {address} svm")[0]
            if opened.errno != "0":
                run.not_applicable(f"no VM in fault mode with mirrored addresses: {opened.errno}")
        made.do(
            f"memory a {_SIZE:#x}", f"memory b {_SIZE:#x}", f"paint a 0 0 {_SIZE:#x} 1", f"paint b 0 0 {_SIZE:#x} 2"
        )
        for card in (machine.card, *machine.others):
            card.call("ledger", clear=True)
        yield made


def _va(made: Program, name: str) -> int:
    """Where memory is that `memory` made."""
    return made.do(f"where {name}")[0].number("va")


def _copies(run: Run, made: Program, gpu: str, to: str, source: str) -> None:
    made.step(f"copy {gpu} {_va(made, to):#x} {_va(made, source):#x} {_SIZE:#x}", timeout=120)


def _paths(machine: SriovMachine) -> dict[str, list[str]]:
    """By card, which memory its PF reached and how."""
    found = {}
    for index, card in enumerate((machine.card, *machine.others)):
        rows = [row for row in card.call("ledger") if row["initiator"] == "pf" and not row["kind"].startswith("kernel")]
        found[f"card {index + 1}"] = sorted(
            {f"{row['owner']} by {row['interconnect']} ({row['kind']})" for row in rows}
        )
    return found


@scenario(
    "70",
    "a card copies between buffers of malloc's, pages wherever xe puts them",
    "data equal",
    setups.THREE_CARDS,
    groups=_SVM,
)
def svm_copy(run: Run, machine: SriovMachine) -> None:
    with _mirrored(run, machine, 1) as made:
        _copies(run, made, "g0", "b", "a")
        made.step(f"verify b 0 0 {_SIZE:#x} 1")
        run.evidence("paths", _paths(machine))


@scenario(
    "71",
    "pages wanted in VRAM, then in RAM, then touched by the processor",
    "data equal each time",
    setups.THREE_CARDS,
    groups=_SVM,
)
def svm_preferred_location(run: Run, machine: SriovMachine) -> None:
    with _mirrored(run, machine, 1) as made:
        before = machine.card.vram_used()
        made.do("prefer g0 a vram", "prefer g0 b vram")
        _copies(run, made, "g0", "b", "a")
        grown = machine.card.vram_used() - before
        run.evidence("VRAM that the pages take", grown)
        run.check(grown >= 2 * _SIZE, "the pages are not in VRAM")
        made.step(f"verify b 0 0 {_SIZE:#x} 1")
        made.do(f"paint a 0 0 {_SIZE:#x} 3", "prefer g0 a system", "prefer g0 b system")
        machine.card.call("ledger", clear=True)
        _copies(run, made, "g0", "b", "a")
        run.evidence("paths", _paths(machine))
        made.step(f"verify b 0 0 {_SIZE:#x} 3")


@scenario(
    "72",
    "two cards, pages wanted in the VRAM of the other",
    "data equal; the path is in the ledger",
    setups.THREE_CARDS,
    groups=_SVM,
)
def svm_pages_of_another_card(run: Run, machine: SriovMachine) -> None:
    with _mirrored(run, machine, 2) as made:
        made.do("prefer g1 a vram", "prefer g1 b vram")
        _copies(run, made, "g1", "b", "a")
        preferred = made.attempt("prefer g0 a g1", "prefer g0 b g1")
        if any(step.errno != "0" for step in preferred):
            run.not_applicable(f"this driver knows no memory of other cards: {preferred[0]}")
        for card in (machine.card, *machine.others):
            card.call("ledger", clear=True)
        _copies(run, made, "g0", "a", "b")
        run.evidence("paths", _paths(machine))
        made.do(f"verify a 0 0 {_SIZE:#x} 1", f"verify b 0 0 {_SIZE:#x} 1")


@scenario(
    "73",
    "pages go from card to card, each wants them in its own VRAM, 6 times",
    "data equal each time",
    setups.THREE_CARDS,
    groups=_SVM,
)
def svm_from_card_to_card(run: Run, machine: SriovMachine) -> None:
    with _mirrored(run, machine, 3) as made:
        made.do(*(f"prefer g{card} {name} vram" for card in range(3) for name in "ab"))
        for turn in range(6):
            made.step(f"paint a 0 0 {_SIZE:#x} {turn + 10}")
            _copies(run, made, f"g{turn % 3}", "b", "a")
            _copies(run, made, f"g{(turn + 1) % 3}", "a", "b")
            made.step(f"verify a 0 0 {_SIZE:#x} {turn + 10}")
        run.evidence("paths", _paths(machine))


def _race(run: Run, machine: SriovMachine, cards: int) -> None:
    with _mirrored(run, machine, cards) as made:
        made.do(*(f"prefer g{card} {name} vram" for card in range(cards) for name in "ab"))
        to, source = _va(made, "b"), _va(made, "a")
        made.do(*(f"spawn race{card} loop copy g{card} {to:#x} {source:#x} {_SIZE:#x}" for card in range(cards)))
        made.do(f"sleep {_RACE_MS}", *(f"stop race{card}" for card in range(cards)), timeout=60)
        copies = [made.step(f"join race{card} 60000", timeout=90).values for card in range(cards)]
        run.evidence("copies by each card", copies)
        for card, counts in enumerate(copies):
            run.check(int(counts.get("OK", "0")) > 0, f"card {card + 1} made no progress: {counts}")
            run.check(set(counts) <= {"OK", "us"}, f"copies of card {card + 1} failed: {counts}")
        made.step(f"verify b 0 0 {_SIZE:#x} 1")
        run.evidence("paths", _paths(machine))


@scenario(
    "74",
    "two cards copy the same pages at once, each wants them in its VRAM",
    "both make progress; data equal",
    setups.THREE_CARDS,
    groups=_SVM,
)
def svm_two_cards_race(run: Run, machine: SriovMachine) -> None:
    _race(run, machine, 2)


@scenario("75", "the same with three cards", "as 74", setups.THREE_CARDS, groups=_SVM)
def svm_three_cards_race(run: Run, machine: SriovMachine) -> None:
    _race(run, machine, 3)


@scenario(
    "76",
    "SIGKILL of a process whose pages are in the VRAM of two cards",
    "ends; VRAM is given back",
    setups.THREE_CARDS,
    groups=_SVM,
)
def svm_user_killed(run: Run, machine: SriovMachine) -> None:
    excuse_jobs_of_the_dead(run, cards=2)
    with _mirrored(run, machine, 2) as made:
        made.do(*(f"prefer g{card} {name} vram" for card in range(2) for name in "ab"))
        to, source = _va(made, "b"), _va(made, "a")
        made.do(
            *(f"spawn race{card} loop copy g{card} {to:#x} {source:#x} {_SIZE:#x}" for card in range(2)), "sleep 500"
        )
        made.kill()
        run.check(made.gone(20), "the process does not end")
