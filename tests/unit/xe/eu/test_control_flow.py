from __future__ import annotations

import numpy as np

from tests.unit.xe.eu.kernel import END, lanes, run, start
from vfio_user_xe.device_models.xe.eu.reference.interpreter import UNFAIR, RunState
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status

IDS = np.arange(16, dtype=np.int32)


def test_if_sends_false_lanes_to_else_and_both_meet_at_endif() -> None:
    threads = run(
        """
        cmp (16|M0)  (lt)f0.0  null<1>:d  r1.0<1;1,0>:d  5:d
        (f0.0) if (16|M0)  no  done
            mov (16|M0)  r2.0<1>:d  100:d
            else (16|M0)  done done
        no: mov (16|M0)  r2.0<1>:d  200:d
        done: endif (16|M0)  16
        add (16|M0)  r2.0<1>:d  r2.0<1;1,0>:d  1:d
        """,
        registers={1: IDS},
    )
    assert lanes(threads, 2, np.int32).tolist() == [101] * 5 + [201] * 11


def test_lanes_leave_a_loop_by_break_at_different_rounds() -> None:
    threads = run(
        """
        mov (16|M0)  r2.0<1>:d  0:d
        top: cmp (16|M0)  (ge)f0.0  null<1>:d  r2.0<1;1,0>:d  r1.0<1;1,0>:d
        (f0.0) break (16|M0)  bottom bottom
        add (16|M0)  r2.0<1>:d  r2.0<1;1,0>:d  1:d
        bottom: while (16|M0)  top
        add (16|M0)  r3.0<1>:d  r2.0<1;1,0>:d  1000:d
        """,
        registers={1: IDS},
    )
    assert lanes(threads, 3, np.int32).tolist() == (IDS + 1000).tolist()


def test_cont_takes_lanes_to_the_while_which_evaluates_its_predicate() -> None:
    threads = run(
        """
        mov (16|M0)  r2.0<1>:d  0:d
        mov (16|M0)  r3.0<1>:d  0:d
        top: add (16|M0)  r2.0<1>:d  r2.0<1;1,0>:d  1:d
        and (16|M0)  (ne)f1.0  null<1>:d  r2.0<1;1,0>:d  1:d
        cmp (16|M0)  (lt)f0.0  null<1>:d  r2.0<1;1,0>:d  r1.0<1;1,0>:d
        (f1.0) cont (16|M0)  bottom bottom
        add (16|M0)  r3.0<1>:d  r3.0<1;1,0>:d  1:d
        bottom: (f0.0) while (16|M0)  top
        """,
        registers={1: IDS},
    )
    assert lanes(threads, 3, np.int32).tolist() == [n // 2 for n in np.maximum(IDS, 1).tolist()]


def test_goto_moves_true_lanes_and_join_takes_them_up() -> None:
    threads = run(
        """
        cmp (16|M0)  (gt)f0.0  null<1>:d  r1.0<1;1,0>:d  7:d
        mov (16|M0)  r2.0<1>:d  0:d
        (f0.0) goto (16|M0)  over over
        add (16|M0)  r2.0<1>:d  r2.0<1;1,0>:d  1:d
        over: join (16|M0)  16
        add (16|M0)  r2.0<1>:d  r2.0<1;1,0>:d  10:d
        """,
        registers={1: IDS},
    )
    assert lanes(threads, 2, np.int32).tolist() == [11] * 8 + [10] * 8


def test_no_mask_instruction_acts_on_all_lanes_of_a_thread_that_is_there() -> None:
    threads = run(
        """
        cmp (16|M0)  (eq)f0.0  null<1>:d  r1.0<1;1,0>:d  3:d
        (~f0.0) goto (16|M0)  over over
        (W) mov (16|M0)  r2.0<1>:d  7:d
        over: join (16|M0)  16
        """,
        registers={1: IDS},
    )
    assert lanes(threads, 2, np.int32).tolist() == [7] * 16


def test_no_mask_instruction_is_skipped_by_a_thread_without_lanes_there() -> None:
    threads = run(
        """
        goto (16|M0)  over over
        (W) mov (16|M0)  r2.0<1>:d  7:d
        over: join (16|M0)  16
        """,
    )
    assert not lanes(threads, 2, np.int32).any()


def test_jmpi_takes_all_lanes_by_the_predicate_of_the_first() -> None:
    threads = run(
        """
        (W) mov (1|M0)  f0.0<1>:uw  0x1:uw
        (W&f0.0) jmpi  over
        mov (16|M0)  r2.0<1>:d  1:d
        over: (W&~f0.0) jmpi  last
        mov (16|M0)  r3.0<1>:d  2:d
        last: nop
        """,
    )
    assert not lanes(threads, 2, np.int32).any()
    assert lanes(threads, 3, np.int32).tolist() == [2] * 16


def test_called_lanes_run_before_those_that_did_not_call() -> None:
    code = f"""
        cmp (16|M0)  (lt)f0.0  null<1>:d  r1.0<1;1,0>:d  4:d
        (f0.0) call (16|M0)  r10.0  callee
        add (16|M0)  r2.0<1>:d  r2.0<1;1,0>:d  1:d
        {END}
        callee: mov (16|M0)  r2.0<1>:d  40:d
        ret (16|M0)  r10.0
    """
    threads = run(code, registers={1: IDS})
    assert lanes(threads, 2, np.int32).tolist() == [41] * 4 + [1] * 12
    pair = lanes(threads, 10, np.uint32, 2)
    assert pair.tolist() == [32, 0xF]


def test_calla_goes_to_an_address_and_a_register_can_hold_it() -> None:
    code = f"""
        (W) mov (1|M0)  r4.0<1>:ud  0x40:ud
        calla (16|M0)  r10.0  callee
        calla (16|M0)  r10.0  r4.0
        {END}
        callee: add (16|M0)  r2.0<1>:d  r2.0<1;1,0>:d  40:d
        ret (16|M0)  r10.0
    """
    threads = run(code)
    assert lanes(threads, 2, np.int32).tolist() == [80] * 16


def test_recursion_runs_to_each_lanes_own_depth() -> None:
    code = f"""
        mov (16|M0)  r20.0<1>:uq  0x0:ud
        (W) mov (1|M0)  a0.0<1>:uw  0x800:uw
        call (16|M0)  r10.0  callee
        {END}
        callee: add (16|M0)  r2.0<1>:d  r2.0<1;1,0>:d  1:d
        cmp (16|M0)  (lt)f0.0  null<1>:d  r2.0<1;1,0>:d  r1.0<1;1,0>:d
        (W) mov (2|M0)  r[a0.0]<1>:ud  r10.0<1;1,0>:ud
        (W) add (1|M0)  a0.0<1>:uw  a0.0<0;1,0>:uw  8:uw
        (f0.0) call (16|M0)  r10.0  callee
        (W) add (1|M0)  a0.0<1>:uw  a0.0<0;1,0>:uw  -8:w
        (W) mov (2|M0)  r10.0<1>:ud  r[a0.0]<1;1,0>:ud
        ret (16|M0)  r10.0
    """
    threads = run(code, registers={1: IDS})
    assert lanes(threads, 2, np.int32).tolist() == np.maximum(IDS, 1).tolist()


def test_brd_and_brc_take_distances_from_registers() -> None:
    threads = run(
        """
        (W) mov (1|M0)  r4.0<1>:d  48:d
        (W) mov (1|M0)  r5.1<1>:d  32:d
        brd (16|M0)  r4.0
        mov (16|M0)  r2.0<1>:d  1:d
        mov (16|M0)  r2.0<1>:d  2:d
        brc (16|M0)  r5.0
        mov (16|M0)  r3.0<1>:d  1:d
        nop
        """,
    )
    assert not lanes(threads, 2, np.int32).any()
    assert not lanes(threads, 3, np.int32).any()


def test_halt_sends_true_lanes_to_its_uip() -> None:
    threads = run(
        """
        cmp (16|M0)  (eq)f1.0  null<1>:d  r1.0<1;1,0>:d  0:d
        (f1.0) halt (16|M0)  out out
        mov (16|M0)  r2.0<1>:d  9:d
        out: nop
        """,
        registers={1: IDS},
    )
    assert lanes(threads, 2, np.int32).tolist() == [0] + [9] * 15


def test_any_and_all_look_at_all_flag_bits_of_the_width() -> None:
    threads = run(
        """
        cmp (16|M0)  (eq)f0.0  null<1>:d  r1.0<1;1,0>:d  3:d
        (f0.0.any) mov (16|M0)  r2.0<1>:d  1:d
        (f0.0.all) mov (16|M0)  r3.0<1>:d  1:d
        (~f0.0.all) mov (16|M0)  r4.0<1>:d  1:d
        (~f0.0.any) mov (16|M0)  r5.0<1>:d  1:d
        """,
        registers={1: IDS},
    )
    assert lanes(threads, 2, np.int32).all()
    assert not lanes(threads, 3, np.int32).any()
    assert lanes(threads, 4, np.int32).all()
    assert not lanes(threads, 5, np.int32).any()


def test_a_spinning_thread_does_not_keep_others_from_ending() -> None:
    interpreter = start(
        f"""
        (W) cmp (1|M0)  (eq)f0.0  null<1>:d  r0.0<0;1,0>:d  0:d
        top: (W&f0.0) jmpi  top
        {END}
        """,
        dispatch=[0xFFFF, 0xFFFF],
    )
    interpreter.threads.registers[1, 0] = 1
    interpreter.run(4 * UNFAIR)
    assert interpreter.threads.status.tolist() == [Status.RUNNING, Status.ENDED]


def test_upper_lanes_use_upper_flag_bits_and_their_own_data() -> None:
    threads = run(
        """
        cmp (16|M0)   (lt)f0.0  null<1>:d  r1.0<1;1,0>:d  4:d
        cmp (16|M16)  (ge)f0.0  null<1>:d  r1.0<1;1,0>:d  4:d
        (f0.0) mov (32|M0)  r2.0<1>:d  1:d
        """,
        dispatch=[0xFFFF_FFFF],
        registers={1: IDS},
    )
    assert lanes(threads, 2, np.int32, 32).tolist() == [1] * 4 + [0] * 12 + [0] * 4 + [1] * 12


def test_a_jump_to_where_no_code_is_raises_an_exception_there() -> None:
    interpreter = start("(W) mov (1|M0)  r4.0<1>:d  -4096:d\nbrd (16|M0)  r4.0\n" + END)
    assert interpreter.run(100) is RunState.WAITING
    assert interpreter.threads.cause[0] == Cause.ILLEGAL
    assert interpreter.threads.current()[0] == 2**32 + 16 - 4096
