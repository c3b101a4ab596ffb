"""Exceptions of compute threads: what enters the system routine of STATE_SIP, and what it finds and leaves."""

from __future__ import annotations

import pytest

from tests.support.xe.compute_kernels import offsets, store
from tests.support.xe.compute_lab import DATA, EOT, KERNEL, ComputeLab, base_addresses, walker

ROUTINE = KERNEL + 0x1000
STATE_SIP = (0x61020001, ROUTINE, 0)
ENABLE_ILLEGAL, ENABLE_SOFTWARE = 1 << 13, 1 << 7
"""Of the interface descriptor."""
MARK, WENT_ON = 77, 5
LEAVE = """
    (W) and (1|M0)  cr0.1<1>:ud  cr0.1<0;1,0>:ud  0x7FFFFF:ud
    (W) and (1|M0)  cr0.0<1>:ud  cr0.0<0;1,0>:ud  0x7FFFFFFD:ud
    nop
"""
COUNT = f"""
    (W) add (16|M0)  r40.0<1>:ud  r40.0<1;1,0>:ud  {MARK}:ud
    (W) mov (1|M0)  r42.0<1>:ud  cr0.1<0;1,0>:ud
    (W) mov (1|M0)  r43.0<1>:ud  cr0.2<0;1,0>:ud
"""
SKIP = "(W) add (1|M0)  cr0.2<1>:ud  cr0.2<0;1,0>:ud  16:ud\n"
BEGIN = offsets(16) + "mov (16|M0)  r40.0<1>:ud  0:ud\nmov (16|M0)  r42.0<1>:ud  0:ud\nmov (16|M0)  r41.0<1>:ud  0:ud\n"
END = f"mov (16|M0)  r41.0<1>:ud  {WENT_ON}:ud\n" + "".join(store(n, f"r{40 + n}", 30 + 2 * n) for n in range(3)) + EOT


def run(lab: ComputeLab, middle: str, routine: str, exceptions: int = 0, sip: tuple[int, ...] = STATE_SIP) -> list[int]:
    """The first lane's count of the routine, whether the program went on, and cr0.1 as the routine saw it."""
    inline = [part for n in range(3) for part in (DATA + 64 * n, 0)]
    command = walker(ids=[0], inline=inline, exceptions=exceptions)
    job = lab.compute_job(BEGIN + middle + END, *command, setup=(*base_addresses(), *sip))
    lab.load(job, routine, ROUTINE)
    job.submit()
    lab.run()
    assert not lab.listener.faults
    return [job.data(64 * n, 1)[0] for n in range(3)]


def test_the_walker_enables_the_routine_for_illegal_opcodes(lab: ComputeLab) -> None:
    count, went_on, seen = run(lab, "illegal\n", COUNT + SKIP + LEAVE, ENABLE_ILLEGAL)
    assert (count, went_on) == (MARK, WENT_ON)
    assert seen == 1 << 12 | 1 << 28
    assert not lab.engine("ccs0").reports


def test_a_thread_enables_the_routine_for_illegal_opcodes(lab: ComputeLab) -> None:
    enable = "(W) or (1|M0)  cr0.1<1>:ud  cr0.1<0;1,0>:ud  0x1000:ud\n"
    assert run(lab, enable + "illegal\nillegal\n", COUNT + SKIP + LEAVE)[:2] == [2 * MARK, WENT_ON]


def test_illegal_opcodes_that_are_not_enabled_end_the_thread(lab: ComputeLab) -> None:
    assert run(lab, "illegal\n", COUNT + SKIP + LEAVE)[:2] == [0, 0]
    assert any("cannot go on" in text for text in lab.engine("ccs0").reports)


def test_an_illegal_opcode_in_the_routine_ends_the_thread(lab: ComputeLab) -> None:
    assert run(lab, "illegal\n", COUNT + "illegal\n" + LEAVE, ENABLE_ILLEGAL)[:2] == [0, 0]
    assert any("cannot go on" in text for text in lab.engine("ccs0").reports)


def test_without_a_routine_illegal_opcodes_end_the_thread(lab: ComputeLab) -> None:
    assert run(lab, "illegal\n", COUNT + SKIP + LEAVE, ENABLE_ILLEGAL, sip=())[:2] == [0, 0]


@pytest.mark.parametrize("suppress", ["", "(W) or (1|M0)  cr0.0<1>:ud  cr0.0<0;1,0>:ud  0x8000:ud\n"])
def test_a_breakpoint_enters_before_its_instruction(lab: ComputeLab, suppress: str) -> None:
    stop = "add (16|M0)  r40.0<1>:ud  r40.0<1;1,0>:ud  1:ud  {Breakpoint}\n"
    count, went_on, seen = run(lab, stop, COUNT + (suppress or SKIP) + LEAVE)
    assert (count, went_on) == (MARK + bool(suppress), WENT_ON)
    assert seen == 1 << 31


def test_each_breakpoint_is_suppressed_once(lab: ComputeLab) -> None:
    stop = "add (16|M0)  r40.0<1>:ud  r40.0<1;1,0>:ud  1:ud  {Breakpoint}\n"
    suppress = "(W) or (1|M0)  cr0.0<1>:ud  cr0.0<0;1,0>:ud  0x8000:ud\n"
    assert run(lab, stop + stop, COUNT + suppress + LEAVE)[:2] == [2 * (MARK + 1), WENT_ON]


def test_without_a_routine_breakpoints_mean_nothing(lab: ComputeLab) -> None:
    stop = "add (16|M0)  r40.0<1>:ud  r40.0<1;1,0>:ud  1:ud  {Breakpoint}\n"
    assert run(lab, stop, COUNT + LEAVE, sip=())[:2] == [1, WENT_ON]
    assert not lab.engine("ccs0").reports


@pytest.mark.parametrize(("exceptions", "expected"), [(ENABLE_SOFTWARE, MARK), (0, 0)])
def test_a_software_exception_enters_behind_what_raised_it(lab: ComputeLab, exceptions: int, expected: int) -> None:
    throw = "(W) or (1|M0)  cr0.1<1>:ud  cr0.1<0;1,0>:ud  0x20000000:ud\n"
    assert run(lab, throw, COUNT + LEAVE, exceptions)[:2] == [expected, WENT_ON]
