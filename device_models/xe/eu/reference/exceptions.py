"""Exceptions and the system routine (execution.md 3.6): cr0.0 bit 31 is set in it, cr0.2 (AIP) has the interrupted place.

The active lanes of a thread enter, one call deeper than they were, so that the routine runs before any other lane; they are back
at AIP as soon as cr0.0 bit 31 is cleared. The routine may write AIP, for example to skip the instruction.

cr0.1 has what is enabled in bits 15:11 and what has happened in bits 31:27 (IGT `xe_exec_sip.c`: 12 and 28 for illegal opcodes). A
thread enters only for what is enabled, and from outside of the routine; breakpoints need no enable bit (chosen).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.ir import ADDRESS_MASK, ENDED, AnyInstruction, Illegal
from vfio_user_xe.device_models.xe.eu.reference.operands import Rows
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status, Threads, lane_bits, lane_matrix
from vfio_user_xe.device_models.xe.eu.registers import CR0

IN_SYSTEM_ROUTINE = 1 << 31
SUPPRESS_BREAKPOINT = 1 << 15
"""cr0.0: the next instruction with a breakpoint is executed, and clears the bit (chosen)."""
ENABLE_ILLEGAL = 1 << 12
ENABLE_SOFTWARE = 1 << 13
"""cr0.1; `1 << _STATUS` further: it has happened. Code sets the one for software itself to raise the exception."""
_STATUS = 16
BREAKPOINT_STATUS = 1 << 31
_HAPPENED = {
    Cause.ILLEGAL: ENABLE_ILLEGAL << _STATUS,
    Cause.SOFTWARE: ENABLE_SOFTWARE << _STATUS,
    Cause.BREAKPOINT: BREAKPOINT_STATUS,
}
_CR0_1 = CR0 + 4
_AIP = CR0 + 8


def raised(threads: Threads, rows: Rows, instruction: AnyInstruction) -> NDArray[np.bool_]:
    """Which of `rows` raise an exception at `instruction`, which is illegal or has its breakpoint bit set."""
    if isinstance(instruction, Illegal):
        return np.ones(len(rows), dtype=np.bool_)
    control = _control(threads, rows)
    suppressed: NDArray[np.bool_] = control & np.uint32(SUPPRESS_BREAKPOINT) != 0
    if suppressed.any():
        cleared = control & ~np.uint32(SUPPRESS_BREAKPOINT)
        threads.registers[rows, CR0 : CR0 + 4] = cleared[:, None].view(np.uint8)
    inside: NDArray[np.bool_] = control & np.uint32(IN_SYSTEM_ROUTINE) != 0
    return ~(threads.skip_breakpoint[rows] | suppressed | inside)


def software(threads: Threads, rows: Rows) -> None:
    """Raises the software exception of threads that have just set its bit of cr0.1, where that is enabled."""
    happened = threads.registers[rows, _CR0_1 : _CR0_1 + 4].view(np.uint32)[:, 0]
    wanted = np.uint32(ENABLE_SOFTWARE | ENABLE_SOFTWARE << _STATUS)
    outside = _control(threads, rows) & np.uint32(IN_SYSTEM_ROUTINE) == 0
    chosen = rows[(happened & wanted == wanted) & outside & (threads.status[rows] == Status.RUNNING)]
    threads.status[chosen] = Status.EXCEPTION
    threads.cause[chosen] = Cause.SOFTWARE


def can_enter(threads: Threads, thread: int) -> bool:
    """Whether a thread in an exception goes to the system routine, if there is one."""
    cause = Cause(int(threads.cause[thread]))
    rows = np.array([thread])
    if _control(threads, rows)[0] & IN_SYSTEM_ROUTINE:
        return False
    if cause is Cause.ILLEGAL:
        return bool(threads.registers[rows, _CR0_1 : _CR0_1 + 4].view(np.uint32)[0, 0] & ENABLE_ILLEGAL)
    return cause in _HAPPENED


def handle(threads: Threads, thread: int, routine: int) -> bool:
    """What becomes of a thread in an exception; `routine` is where the system routine is, 0 if there is none.

    False: it cannot go on. Without a routine breakpoints and software exceptions mean nothing.
    """
    if routine and can_enter(threads, thread):
        enter(threads, [thread], routine)
        return True
    if threads.cause[thread] in (Cause.BREAKPOINT, Cause.SOFTWARE):
        threads.resume([thread], skip_breakpoint=bool(threads.cause[thread] == Cause.BREAKPOINT))
        return True
    return False


def enter(threads: Threads, chosen: Sequence[int], address: int) -> None:
    """Moves threads in an exception into the routine at `address`.

    Raises:
        ThreadStateError: a thread is in no exception.
    """
    for thread in chosen:
        threads.require(thread, "resume")
    rows = np.asarray(chosen, dtype=np.int64)
    place = threads.current()[rows]
    live = threads.place[rows] == place[:, None]
    depth = np.where(live, threads.depth[rows], -1)
    lanes = live & (depth == depth.max(axis=1, keepdims=True))
    threads.registers[rows, _AIP : _AIP + 4] = place.astype(np.uint32)[:, None].view(np.uint8)
    control = threads.registers[rows, CR0 : CR0 + 4].view(np.uint32) | np.uint32(IN_SYSTEM_ROUTINE)
    threads.registers[rows, CR0 : CR0 + 4] = control.view(np.uint8)
    happened = np.array([_HAPPENED.get(Cause(int(cause)), 0) for cause in threads.cause[rows]], dtype=np.uint32)
    status = threads.registers[rows, _CR0_1 : _CR0_1 + 4].view(np.uint32) | happened[:, None]
    threads.registers[rows, _CR0_1 : _CR0_1 + 4] = status.view(np.uint8)
    threads.system_lanes[rows] = lane_bits(lanes)
    threads.place[rows] = np.where(lanes, address, threads.place[rows])
    threads.depth[rows] += lanes
    threads.status[rows] = Status.RUNNING
    threads.cause[rows] = Cause.NONE


def leave(threads: Threads, rows: Rows) -> None:
    """Takes threads whose routine has cleared its bit back to AIP."""
    control = _control(threads, rows)
    inside = threads.system_lanes[rows] != 0
    back = rows[inside & (control & np.uint32(IN_SYSTEM_ROUTINE) == 0)]
    if not len(back):
        return
    lanes = lane_matrix(threads.system_lanes[back]) & (threads.place[back] != ENDED)
    target = threads.registers[back, _AIP : _AIP + 4].view(np.uint32).astype(np.int64) & ADDRESS_MASK
    threads.place[back] = np.where(lanes, target, threads.place[back])
    threads.depth[back] -= lanes
    threads.system_lanes[back] = 0


def _control(threads: Threads, rows: Rows) -> NDArray[np.uint32]:
    """cr0.0."""
    return np.asarray(threads.registers[rows, CR0 : CR0 + 4].view(np.uint32)[:, 0])
