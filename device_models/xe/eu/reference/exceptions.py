"""Exceptions and the system routine (execution.md 3.6): cr0.0 bit 31 is set in it, cr0.2 (AIP) has the interrupted place.

The active lanes of a thread enter, one call deeper than they were, so that the routine runs before any other lane; they are back
at AIP as soon as cr0.0 bit 31 is cleared. The routine may write AIP, for example to skip the instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.ir import ENDED, AnyInstruction, Illegal
from vfio_user_xe.device_models.xe.eu.reference.operands import Rows
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status, Threads, lane_bits, lane_matrix
from vfio_user_xe.device_models.xe.eu.registers import CR0

IN_SYSTEM_ROUTINE = 1 << 31
SUPPRESS_BREAKPOINT = 1 << 15
_AIP = CR0 + 8


def raised(threads: Threads, rows: Rows, instruction: AnyInstruction) -> NDArray[np.bool_]:
    """Which of `rows` raise an exception at `instruction`, which is illegal or has its breakpoint bit set."""
    if isinstance(instruction, Illegal):
        return np.ones(len(rows), dtype=np.bool_)
    control = threads.registers[rows, CR0 : CR0 + 4].view(np.uint32)[:, 0]
    suppressed: NDArray[np.bool_] = control & np.uint32(SUPPRESS_BREAKPOINT) != 0
    return ~(threads.skip_breakpoint[rows] | suppressed)


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
    threads.system_lanes[rows] = lane_bits(lanes)
    threads.place[rows] = np.where(lanes, address, threads.place[rows])
    threads.depth[rows] += lanes
    threads.status[rows] = Status.RUNNING
    threads.cause[rows] = Cause.NONE


def leave(threads: Threads, rows: Rows) -> None:
    """Takes threads whose routine has cleared its bit back to AIP."""
    control = threads.registers[rows, CR0 : CR0 + 4].view(np.uint32)[:, 0]
    inside = threads.system_lanes[rows] != 0
    back = rows[inside & (control & np.uint32(IN_SYSTEM_ROUTINE) == 0)]
    if not len(back):
        return
    lanes = lane_matrix(threads.system_lanes[back]) & (threads.place[back] != ENDED)
    target = threads.registers[back, _AIP : _AIP + 4].view(np.uint32).astype(np.int64)
    threads.place[back] = np.where(lanes, target, threads.place[back])
    threads.depth[back] -= lanes
    threads.system_lanes[back] = 0
