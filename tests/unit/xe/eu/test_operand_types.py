"""Operations of types that have none, and lanes that do not exist: illegal when decoded, so that no back end meets them."""

from __future__ import annotations

import pytest

from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.bounds import check_bounds
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.decode import decode, decode_at
from vfio_user_xe.device_models.xe.eu.disassembler import disassemble
from vfio_user_xe.device_models.xe.eu.fields import EncodingError
from vfio_user_xe.device_models.xe.eu.ir import Alu, Illegal, Nop, Register
from vfio_user_xe.device_models.xe.eu.opcodes import Opcode, Shape
from vfio_user_xe.device_models.xe.eu.operand_types import FLOAT_OPCODES, check_types
from vfio_user_xe.device_models.xe.eu.reference import float_ops, integer

ELSEWHERE = {Opcode.CMP, Opcode.CMPN, Opcode.SEL, Opcode.CSEL, Opcode.MAC, Opcode.MATH}
"""What the reference computes by a case of its own, of both kinds."""
ALU = [opcode for opcode in Opcode if opcode.shape in (Shape.ONE, Shape.TWO, Shape.THREE, Shape.MATH)]


def of(opcode: Opcode, kind: DataType, sources: int) -> Alu:
    register = Register(kind, 20, 0, False, 16, 16, 1)
    return Alu(opcode=opcode, destination=register, sources=(register,) * sources, width=16)


def test_the_reference_has_every_operation_that_is_legal_and_no_other() -> None:
    assert set(float_ops.ARITHMETIC) | ELSEWHERE | {Opcode.SRND} == FLOAT_OPCODES
    legal = set()
    for opcode in ALU:
        try:
            check_types(of(opcode, DataType.UD, 2))
        except EncodingError:
            continue
        legal.add(opcode)
    assert legal == set(integer.OPERATIONS) | ELSEWHERE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("shl (16|M0)  r20.0<1>:f  r21.0<1;1,0>:f  r22.0<1;1,0>:f", "shl of floats does not exist"),
        ("mach (16|M0)  r20.0<1>:f  r21.0<1;1,0>:f  r22.0<1;1,0>:f", "mach of floats does not exist"),
        ("rndd (16|M0)  r20.0<1>:ud  r21.0<1;1,0>:ud", "rndd of integers does not exist"),
        ("math.inv (16|M0)  r20.0<1>:ud  r21.0<1;1,0>:ud", "math function inv of integers does not exist"),
    ],
)
def test_an_operation_of_types_that_it_has_not_is_illegal(text: str, reason: str) -> None:
    code = assemble(text + "\n")

    def read(address: int, length: int) -> bytes:
        return code[address : address + length]

    assert disassemble(decode_at(read, 0)).startswith(text.split("  ", maxsplit=1)[0]), "what it would be is shown"
    (found,) = decode(read, 0).instructions
    assert isinstance(found, Illegal)
    assert found.reason == reason


def test_lanes_beyond_the_last_are_illegal() -> None:
    check_bounds(Nop(opcode=Opcode.NOP, width=16, first_lane=16))
    with pytest.raises(EncodingError, match="16 lanes from lane 24 on: there are 32"):
        check_bounds(Nop(opcode=Opcode.NOP, width=16, first_lane=24))
