"""Branches: lanes leave for their targets, or go on (execution.md 1.6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.ir import ADDRESS_MASK, LANES, Branch, Leavers, Link
from vfio_user_xe.device_models.xe.eu.opcodes import Opcode
from vfio_user_xe.device_models.xe.eu.reference.operands import Array, Rows, predicate
from vfio_user_xe.device_models.xe.eu.reference.threads import Threads, lane_bits

Lanes = NDArray[np.bool_]


def full(lanes: Lanes, first: int) -> Lanes:
    """[threads, width] from lane `first` on as [threads, 32]."""
    wide = np.zeros((len(lanes), LANES), dtype=np.bool_)
    count = min(lanes.shape[1], LANES - first)
    wide[:, first : first + count] = lanes[:, :count]
    return wide


def branch(instruction: Branch, threads: Threads, rows: Rows, active: Lanes) -> None:
    """Moves the `active` lanes ([threads, 32]) of `rows` from `instruction` to where they go."""
    leaving = _leaving(instruction, threads, rows, active)
    place = threads.place[rows]
    place[active] = instruction.next
    if leaving.any():
        targets = np.broadcast_to(_targets(instruction, threads, rows)[:, None], place.shape)
        place = np.where(leaving, targets, place)
        if instruction.link is not Link.NONE:
            depth = threads.depth[rows]
            threads.depth[rows] = np.maximum(0, np.where(leaving, depth + instruction.link.value, depth))
        if instruction.link is Link.CALL:
            _save_return(instruction, threads, rows, leaving)
    threads.place[rows] = place


def _leaving(instruction: Branch, threads: Threads, rows: Rows, active: Lanes) -> Lanes:
    if instruction.leavers is Leavers.NONE:
        return np.zeros_like(active)
    if instruction.leavers is Leavers.ALL:
        return active
    holds = predicate(threads.registers, rows, instruction)
    if holds is None:
        return np.zeros_like(active) if instruction.leavers is Leavers.FALSE else active
    if instruction.leavers is Leavers.UNIFORM:
        return active & holds[:, :1]
    inside = full(np.ones_like(holds), instruction.first_lane)
    wide = full(holds, instruction.first_lane)
    if instruction.leavers is Leavers.FALSE:
        return active & inside & ~wide
    return active & wide


def _targets(instruction: Branch, threads: Threads, rows: Rows) -> Array:
    """Where leaving lanes of each thread go."""
    if instruction.target is not None:
        return np.full(len(rows), instruction.target, dtype=np.int64)
    assert instruction.source is not None
    first = instruction.source.offset + (4 if instruction.opcode is Opcode.BRC else 0)
    word = np.ascontiguousarray(threads.registers[rows, first : first + 4])
    if instruction.link is Link.RETURN or instruction.opcode is Opcode.CALLA:
        return word.view(np.uint32)[:, 0].astype(np.int64) & ADDRESS_MASK
    return word.view(np.int32)[:, 0].astype(np.int64) + instruction.address & ADDRESS_MASK


def _save_return(instruction: Branch, threads: Threads, rows: Rows, leaving: Lanes) -> None:
    """The pair {address behind the call, lanes that went} of threads of which some lane goes."""
    destination = instruction.destination
    if destination is None or destination.is_null:
        return
    goes = leaving.any(axis=1)
    pair = np.zeros((int(goes.sum()), 2), dtype=np.uint32)
    pair[:, 0] = instruction.next
    pair[:, 1] = lane_bits(leaving[goes])
    threads.registers[rows[goes], destination.offset : destination.offset + 8] = pair.view(np.uint8)
