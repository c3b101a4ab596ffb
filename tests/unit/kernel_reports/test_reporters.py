"""Which reporters a kernel has, which of them are at work, and what its counters say."""

from __future__ import annotations

from vfio_user_xe.emulator.kernel_reports import parse, reports
from vfio_user_xe.emulator.kernel_reports.reporters import Counts, State, silenced, states, unreported

DEBUG = """\
symbol=kasan_report
symbol=__might_resched
lockdep=1
locks=1
kmemleak=1
objects=1
dma=N
hung=5
hung_left=-1
soft=1
hard=0
rcu=0
slab=1
"""


def test_a_debug_kernel_s_reporters() -> None:
    assert states(DEBUG) == {
        "KASAN": State.ON,
        "KFENCE": State.ABSENT,
        "KMSAN": State.ABSENT,
        "KCSAN": State.ABSENT,
        "UBSAN": State.ABSENT,
        "lockdep": State.ON,
        "sleeping in atomic context": State.ON,
        "list corruption": State.ABSENT,
        "kmemleak": State.ON,
        "debug objects": State.ON,
        "DMA debugging": State.ON,
        "slab poisoning": State.ON,
        "hung tasks": State.ON,
        "soft lockups": State.ON,
        "hard lockups": State.OFF,
        "RCU stalls": State.ON,
    }


def test_reporters_that_have_switched_themselves_off() -> None:
    found = states(DEBUG.replace("locks=1\n", "").replace("dma=N", "dma=Y").replace("hung_left=-1", "hung_left=0"))
    assert [name for name, state in found.items() if state is State.SILENCED] == [
        "lockdep",
        "DMA debugging",
        "hung tasks",
    ]


def test_kmemleak_that_was_switched_off_on_the_command_line_is_off() -> None:
    assert states(DEBUG.replace("kmemleak=1", "kmemleak=0"))["kmemleak"] is State.OFF


def test_nothing_is_known_of_a_kernel_without_any_of_them() -> None:
    assert set(states("").values()) == {State.ABSENT}


def test_silenced_are_only_those_that_were_on() -> None:
    before = states(DEBUG)
    lines = parse("kmemleak: Kernel memory leak detector disabled\nBUG: KASAN: slab-use-after-free in a+0x1/0x2")
    gone = silenced(before, before, lines, reports(lines), kasan_again=False)
    assert sorted(gone) == ["KASAN", "kmemleak"]
    assert sorted(silenced(before, before, lines, reports(lines), kasan_again=True)) == ["kmemleak"]
    assert silenced(states(""), before, lines, reports(lines), kasan_again=False) == {}


def test_a_counter_that_rises_further_than_the_log_explains_is_said() -> None:
    warning = reports(parse("WARNING: at a.c:1"))
    assert unreported(Counts(0, 3, 0), Counts(1 << 9, 4, 0), warning) == []
    assert unreported(Counts(0, 3, 0), Counts(0, 5, 1), warning) == [
        "warn_count rose by 2, the log has 1 reports",
        "oops_count rose by 1, the log has 0 oopses",
    ]
    assert unreported(Counts(), Counts(1 << 5), []) == ["the kernel is tainted (B: a bad page), the log has no report"]
    assert unreported(Counts(1 << 9), Counts(1 << 9 | 1 << 12), []) == [], "an out-of-tree module is no report"
