"""Elements with gaps between them, which the compiled back end fetches and writes by conversions."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from tests.unit.xe.eu.test_compiled_alu import KEEP, check_compiled
from vfio_user_xe.device_models.xe.eu.assembler import parse_instruction
from vfio_user_xe.device_models.xe.eu.compiled.alu import translate_alu
from vfio_user_xe.device_models.xe.eu.compiled.emit import Constants
from vfio_user_xe.device_models.xe.eu.compiled.layout import THREAD_BYTES
from vfio_user_xe.device_models.xe.eu.ir import Alu

# Compilers make addresses of 64 bits of two dwords each.
HALVES_OF_QUADWORDS = """
mov (16|M0)             r20.0<2>:ud  r12.0<1;1,0>:d
mov (16|M0)             r20.1<2>:d   r12.0<1;1,0>:d
mov (32|M0)             r20.0<2>:ud  r12.0<1;1,0>:ud
(f0.0) mov (16|M0)      r20.1<2>:ud  r12.0<1;1,0>:ud
mov (16|M0) (lt)f0.0    r20.0<2>:d   r12.0<1;1,0>:d
mov (16|M0)             r12.1<2>:ud  r12.0<1;1,0>:ud
mov (32|M0)             r20.1<2>:uw  r12.0<1;1,0>:ud
mov (16|M0)             r20.0<2>:w   r12.0<1;1,0>:d
mov (32|M0)             r20.3<4>:ub  r12.0<1;1,0>:ud
mov (16|M0)             r20.1<2>:b   r12.0<1;1,0>:d
"""
# Mesa multiplies dwords by words.
PARTS_OF_DWORDS = """
mul (32|M0)             r20.0<1>:d   r12.0<1;1,0>:d   r14.1<2;1,0>:uw
mul (16|M0)             r20.0<1>:d   r12.0<1;1,0>:d   r14.0<2;1,0>:uw
mul (8|M0)              r14.0<1>:ud  r12.0<1;1,0>:ud  r14.1<2;1,0>:uw
mul (16|M0)             r20.0<1>:d   r12.0<1;1,0>:d   r14.0<2;1,0>:w
mul (16|M0)             r20.0<1>:d   r12.0<1;1,0>:d  -r14.1<2;1,0>:uw
(f0.0) cmp (32|M0) (lt)f0.0  null<1>:ud  r12.0<2;1,0>:uw  r14.1<2;1,0>:uw
mov (32|M0)             r20.0<1>:ud  r12.3<2;1,0>:uw
mov (16|M0)             r20.0<1>:q   r12.1<2;1,0>:uw
add (32|M0)             r20.1<2>:uw  r12.1<2;1,0>:uw  r14.0<2;1,0>:uw
add (32|M0)             r20.0<1>:d   r12.1<4;1,0>:b   r14.0<4;1,0>:ub
add (16|M0)             r20.0<1>:f   r12.1<2;1,0>:hf  r14.0<1;1,0>:f
"""


def test_parts_of_dwords_are_equal() -> None:
    check_compiled(PARTS_OF_DWORDS, KEEP, lambda instruction, seed: np.zeros(0, np.float32))


@pytest.mark.parametrize("half", [0, 1])
def test_a_product_of_dwords_and_halves_of_dwords_is_one_operation(half: int) -> None:
    text = f"mul (32|M0)  r20.0<1>:ud  r12.0<1;1,0>:ud  r14.{half}<2;1,0>:uw"
    assert len(translate_alu(cast("Alu", parse_instruction(text)), Constants())) == 1


def test_dwords_that_are_not_consecutive_are_written_by_one_conversion() -> None:
    check_compiled(HALVES_OF_QUADWORDS, KEEP, lambda instruction, seed: np.zeros(0, np.float32))
    for line in HALVES_OF_QUADWORDS.strip().splitlines():
        assert len(translate_alu(cast("Alu", parse_instruction(line)), Constants())) == 1, line


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("types", ["uq ud", "q uq", "df f", "ud uq", "d d", "f df", "uw ud", "b d", "hf f"])
def test_what_goes_to_null_stays_inside_of_the_thread_s_storage(types: str, step: int) -> None:
    to, source = types.split()
    instruction = parse_instruction(f"mov (32|M0)  null<{step}>:{to}  r12.0<1;1,0>:{source}")
    assert isinstance(instruction, Alu)
    size = instruction.destination.type.size
    for op in translate_alu(instruction, Constants()):
        last = op.destination + (op.width - 1) * max(op.strides[1], size)
        assert last + size <= THREAD_BYTES, op
