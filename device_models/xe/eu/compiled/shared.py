"""Parts of integer and float operations that are the same."""

from __future__ import annotations

from dataclasses import replace

from vfio_user_xe.device_models.xe.eu.compiled.emit import Constants, NotHere, Op
from vfio_user_xe.device_models.xe.eu.compiled.operands import RESULT, Fetched, fetch, narrow, place
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Alu, Register

UNSIGNED = {1: DataType.UB, 2: DataType.UW, 4: DataType.UD, 8: DataType.UQ}
"""By size: the type of bits that are not to be understood."""


def lanes(width: int) -> int:
    """For how many lanes the handler of an instruction of `width` lanes is."""
    return 1 if width == 1 else 16 if width <= 16 else 32


def operation(handler: str, width: int, fetched: list[Fetched]) -> Op:
    """The op of a handler for `width` lanes with these sources; those that it does not have repeat the first."""
    first, second, third = [*fetched, *[fetched[0]] * (3 - len(fetched))]
    op = Op(f"{handler}_{lanes(width)}")
    op.sources = (first.offset, second.offset, third.offset)
    op.modified = (first.how, second.how, third.how)
    return op


def finish_compare(instruction: Alu, handler: str, kind: str, constants: Constants) -> list[Op]:
    """A cmp in class `kind`.

    Raises:
        NotHere: there is a predicate, whose flags the comparison changes before a result could be converted.
    """
    fetched = [fetch(source, k, kind, instruction.width, constants) for k, source in enumerate(instruction.sources)]
    op = operation(handler, instruction.width, fetched).masked(instruction)
    op.condition = int(instruction.condition)
    ops = [*fetched[0].before, *fetched[1].before, op]
    destination = instruction.destination
    if isinstance(destination, Register) and destination.is_null:
        return ops
    op.detail = 1
    wide = kind in ("q", "uq", "df")
    if destination.type.size == (8 if wide else 4) and (destination.horizontal == 1 or instruction.width == 1):
        op.destination = place(destination, instruction.width)
        return ops
    if instruction.predicate is not None or (destination.type.size == 8 and not wide):
        raise NotHere
    op.destination = RESULT
    shaped = replace(
        instruction, destination=replace(destination, type=UNSIGNED[destination.type.size]), saturate=False
    )
    return [*ops, narrow(shaped, RESULT, "q" if wide else "d", 0)]


def choose_by_predicate(instruction: Alu, ops: list[Op]) -> list[Op]:
    """The predicate of a sel chooses and does not mask: it stays with the op that chooses."""
    for op in ops:
        if op.handler.startswith("sel_"):
            no_mask = op.no_mask
            op.masked(instruction)
            op.no_mask = no_mask
        else:
            op.predicate, op.inverse = 0, False
    return ops
