"""Products in accumulators that nobody reads need no ops.

A multiplication of 32 by 32 bits is `mul acc0 a b.low` and `macl d a b` (IGC emits the pair). Here macl is the whole product by itself
(`semantics.py`), so that the first half is for nobody if the next pair writes the accumulator again.
"""

from __future__ import annotations

from typing import NamedTuple

from vfio_user_xe.device_models.xe.eu.ir import Alu, AnyInstruction, Illegal, Program, Register
from vfio_user_xe.device_models.xe.eu.opcodes import Condition, Opcode
from vfio_user_xe.device_models.xe.eu.registers import Arf

_IMPLICIT_READERS = frozenset({Opcode.MAC})


class _Written(NamedTuple):
    """Elements of accumulators that an instruction writes, and the lanes that they belong to."""

    size: int
    lane_zero: int
    """Where the element of lane 0 would be."""
    lanes: range
    no_mask: bool

    def covers(self, other: _Written) -> bool:
        """All that `other` has written is written again."""
        return (
            (self.size, self.lane_zero) == (other.size, other.lane_zero)
            and self.lanes.start <= other.lanes.start
            and other.lanes.stop <= self.lanes.stop
            and (self.no_mask or not other.no_mask)
        )


def unread_products(program: Program) -> frozenset[int]:
    """Addresses of multiplications whose result in an accumulator is written again before anything reads it.

    Code between labels has one mask (`ir.py`), so that what the same lanes write again there is gone.
    """
    found: set[int] = set()
    for block in program.blocks():
        again: set[_Written] = set()
        for instruction in reversed(block):
            written = _written(instruction)
            if _reads(instruction):
                again.clear()
            elif written is not None:
                if _is_product(instruction) and any(one.covers(written) for one in again):
                    found.add(instruction.address)
                elif instruction.predicate is None:
                    again.add(written)
    return frozenset(found)


def _reads(instruction: AnyInstruction) -> bool:
    """Accumulators may be read here, by the instruction or by the system routine, which it may enter."""
    if instruction.breakpoint or isinstance(instruction, Illegal):
        return True
    if not isinstance(instruction, Alu):
        return False
    if instruction.opcode in _IMPLICIT_READERS or instruction.macro or _is_in(instruction.destination, Arf.CR):
        return True
    return any(_is_in(source, Arf.ACC) for source in instruction.sources)


def _is_in(operand: object, kind: Arf) -> bool:
    return isinstance(operand, Register) and operand.arf and operand.number >> 4 == kind


def _is_product(instruction: AnyInstruction) -> bool:
    return isinstance(instruction, Alu) and instruction.opcode is Opcode.MUL and instruction.condition is Condition.NONE


def _written(instruction: AnyInstruction) -> _Written | None:
    """What it writes if that is consecutive elements of accumulators alone."""
    if not isinstance(instruction, Alu) or not isinstance(instruction.destination, Register):
        return None
    destination = instruction.destination
    if not _is_in(destination, Arf.ACC) or (instruction.width > 1 and destination.horizontal != 1):
        return None
    first, size = instruction.first_lane, destination.type.size
    return _Written(
        size, destination.offset - first * size, range(first, first + instruction.width), instruction.no_mask
    )
