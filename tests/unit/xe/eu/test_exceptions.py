from __future__ import annotations

import numpy as np
import pytest

from tests.unit.xe.eu.kernel import END, lanes, start
from vfio_user_xe.device_models.xe.eu.ir import Illegal
from vfio_user_xe.device_models.xe.eu.reference.interpreter import RunState
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status, ThreadStateError

# The routine lies behind the program: it marks r20, steps AIP over the instruction and leaves by clearing bit 31 of cr0.0.
PROGRAM = f"""
    mov (16|M0)  r2.0<1>:d  1:d
    illegal
    mov (16|M0)  r3.0<1>:d  2:d
    {END}
    (W) mov (16|M0)  r20.0<1>:d  77:d
    (W) mov (1|M0)  r21.0<1>:ud  cr0.2<0;1,0>:ud
    (W) add (1|M0)  cr0.2<1>:ud  cr0.2<0;1,0>:ud  16:d
    (W) and (1|M0)  cr0.0<1>:ud  cr0.0<0;1,0>:ud  0x7FFFFFFD:ud
    nop
"""
ROUTINE = 64


def test_an_illegal_instruction_stops_the_thread_there() -> None:
    interpreter = start(PROGRAM)
    assert interpreter.run(100) is RunState.WAITING
    assert interpreter.threads.status[0] == Status.EXCEPTION
    assert interpreter.threads.cause[0] == Cause.ILLEGAL
    assert isinstance(interpreter.instruction(0), Illegal)
    assert interpreter.threads.current()[0] == 16


def test_the_system_routine_runs_and_returns_to_aip() -> None:
    interpreter = start(PROGRAM)
    interpreter.run(100)
    interpreter.enter_system_routine([0], ROUTINE)
    assert interpreter.run(100) is RunState.ENDED
    assert lanes(interpreter.threads, 20, np.int32).tolist() == [77] * 16
    assert lanes(interpreter.threads, 21, np.uint32, 1).tolist() == [16]
    assert lanes(interpreter.threads, 3, np.int32).tolist() == [2] * 16


def test_the_system_routine_needs_an_exception() -> None:
    interpreter = start(PROGRAM)
    with pytest.raises(ThreadStateError, match="thread 0 is running"):
        interpreter.enter_system_routine([0], ROUTINE)


def test_lanes_that_wait_elsewhere_stay_there_during_the_routine() -> None:
    interpreter = start(
        f"""
        cmp (16|M0)  (lt)f0.0  null<1>:d  r1.0<1;1,0>:d  4:d
        (~f0.0) goto (16|M0)  out out
        illegal
        mov (16|M0)  r3.0<1>:d  2:d
        out: add (16|M0)  r3.0<1>:d  r3.0<1;1,0>:d  1:d
        {END}
        (W) add (1|M0)  cr0.2<1>:ud  cr0.2<0;1,0>:ud  16:d
        (W) and (1|M0)  cr0.0<1>:ud  cr0.0<0;1,0>:ud  0x7FFFFFFD:ud
        nop
        """,
        registers={1: np.arange(16, dtype=np.int32)},
    )
    interpreter.run(100)
    interpreter.enter_system_routine([0], 96)
    assert interpreter.run(100) is RunState.ENDED
    assert lanes(interpreter.threads, 3, np.int32).tolist() == [3] * 4 + [1] * 12


def test_a_breakpoint_stops_before_its_instruction_and_can_be_skipped() -> None:
    interpreter = start("mov (16|M0)  r2.0<1>:d  1:d  {Breakpoint}\n" + END)
    assert interpreter.run(100) is RunState.WAITING
    assert interpreter.threads.cause[0] == Cause.BREAKPOINT
    assert not lanes(interpreter.threads, 2, np.int32).any()
    interpreter.threads.resume([0], skip_breakpoint=True)
    assert interpreter.run(100) is RunState.ENDED
    assert lanes(interpreter.threads, 2, np.int32).all()


def test_cr0_suppresses_breakpoints() -> None:
    interpreter = start("mov (16|M0)  r2.0<1>:d  1:d  {Breakpoint}\n" + END, cr0=1 << 15)
    assert interpreter.run(100) is RunState.ENDED


def test_threads_without_an_exception_run_on_beside_one_with() -> None:
    interpreter = start(
        f"""
        (W) cmp (1|M0)  (eq)f0.0  null<1>:d  r1.0<0;1,0>:d  0:d
        (W&f0.0) jmpi  over
        illegal
        over: {END}
        """,
        dispatch=[0xFFFF, 0xFFFF],
    )
    interpreter.threads.registers[1, 64] = 1
    assert interpreter.run(100) is RunState.WAITING
    assert interpreter.threads.status.tolist() == [Status.ENDED, Status.EXCEPTION]
