"""Which operations there are for which types: others are illegal when they are executed, so that back ends need no checks.

An assembler writes them, and a disassembler shows them, as what they are: their encodings exist.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.eu.fields import EncodingError
from vfio_user_xe.device_models.xe.eu.ir import Alu, AnyInstruction, Illegal
from vfio_user_xe.device_models.xe.eu.opcodes import MathFunction, Opcode
from vfio_user_xe.device_models.xe.eu.semantics import is_float_operation

_COMMON = frozenset(
    {Opcode.MOV, Opcode.ADD, Opcode.MUL, Opcode.MAD, Opcode.MAC, Opcode.SEL, Opcode.CSEL, Opcode.CMP, Opcode.CMPN, Opcode.MATH}
)  # fmt: skip
_FLOATS_ONLY = frozenset({Opcode.MADM, Opcode.FRC, Opcode.RNDU, Opcode.RNDD, Opcode.RNDE, Opcode.RNDZ, Opcode.SRND})
FLOAT_OPCODES = _COMMON | _FLOATS_ONLY
"""What is computed of floats."""
INTEGER_MATH = frozenset({MathFunction.IDIV, MathFunction.IQOT, MathFunction.IREM})


def executable(instruction: AnyInstruction) -> AnyInstruction:
    """The instruction as it is executed: `Illegal` in place of an operation that does not exist for its types."""
    try:
        check_types(instruction)
    except EncodingError as error:
        return Illegal(
            opcode=Opcode.ILLEGAL,
            address=instruction.address,
            size=instruction.size,
            reason=str(error),
            breakpoint=instruction.breakpoint,
        )
    return instruction


def check_types(instruction: AnyInstruction) -> None:
    """Check that an operation exists for the types of its sources.

    Raises:
        EncodingError: it does not.
    """
    if not isinstance(instruction, Alu):
        return
    opcode, floats = instruction.opcode, is_float_operation(instruction)
    if floats and opcode not in FLOAT_OPCODES:
        raise EncodingError(f"{opcode.name.lower()} of floats does not exist")
    if not floats and opcode in _FLOATS_ONLY:
        raise EncodingError(f"{opcode.name.lower()} of integers does not exist")
    if instruction.function is not None and floats == (instruction.function in INTEGER_MATH):
        kind = "floats" if floats else "integers"
        raise EncodingError(f"math function {instruction.function.name.lower()} of {kind} does not exist")
