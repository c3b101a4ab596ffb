"""Compiled instructions give what the interpreter gives, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.xe.eu.alu_strategies import (
    FLOAT_OPCODES,
    FLOATS,
    INTEGER_OPCODES,
    INTEGERS,
    active_lanes,
    alu,
    dpas,
    with_indirect,
)
from tests.unit.xe.eu.compiled_rig import check_compiled, kernel_of, registers_from, run_alone, run_reference
from vfio_user_xe.device_models.xe.eu.assembler import parse_instruction
from vfio_user_xe.device_models.xe.eu.compiled.layout import Reason
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Alu, Dpas
from vfio_user_xe.device_models.xe.eu.opcodes import Opcode
from vfio_user_xe.device_models.xe.eu.registers import A0, CE0

KEEP = 0x4C0
MODES = [KEEP, KEEP, KEEP, 0x400, 0x80, 0x440, 0, KEEP | 0x10, KEEP | 0x20, KEEP | 0x30, 0x30]
EFFORT = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)


def check(instruction: Alu | Dpas, seed: int, active: int, cr0: int, pointers: int | None = None) -> None:
    kernel = kernel_of(instruction)
    assume(not kernel.interpreted)
    registers = registers_from(seed, cr0)
    if pointers is not None:
        # Most a0 inside of the registers that have numbers, some at the ends of the file or beyond.
        random = np.random.default_rng(pointers)
        choices = np.concatenate([random.integers(512, 3584, 32), [0, 2, 16320, 16383, 16384, 65535]])
        registers[A0 : A0 + 32] = random.choice(choices, 16).astype(np.uint16).view(np.uint8)
    reason, found = run_alone(kernel, registers, active)
    if reason is Reason.INTERPRET:
        # A float mode that handlers do not have: nothing has happened yet.
        scratch_free = np.array_equal(found, registers)
        assert scratch_free
        assume(False)
    assert reason is Reason.GONE
    expected = run_reference(instruction, registers, active)
    wrong = np.nonzero(found != expected)[0]
    assert not len(wrong), f"byte {wrong[0]} of {instruction}"


@EFFORT
@given(alu(INTEGERS, INTEGER_OPCODES), st.integers(0, 1 << 32), active_lanes())
def test_integers_are_equal(instruction: Alu, seed: int, active: int) -> None:
    check(instruction, seed, active, KEEP)


@EFFORT
@given(alu([DataType.UD, DataType.D], INTEGER_OPCODES), st.integers(0, 1 << 32), active_lanes())
def test_dwords_are_equal(instruction: Alu, seed: int, active: int) -> None:
    check(instruction, seed, active, KEEP)


@EFFORT
@given(alu(FLOATS, FLOAT_OPCODES), st.integers(0, 1 << 32), active_lanes(), st.sampled_from(MODES))
def test_floats_are_equal(instruction: Alu, seed: int, active: int, cr0: int) -> None:
    check(instruction, seed, active, cr0)


@EFFORT
@given(alu([DataType.F, DataType.DF], FLOAT_OPCODES), st.integers(0, 1 << 32), active_lanes(), st.sampled_from(MODES))
def test_singles_and_doubles_are_equal(instruction: Alu, seed: int, active: int, cr0: int) -> None:
    check(instruction, seed, active, cr0)


HALVES = """
{mask}add ({width}|M0)  r10.0<1>:hf  r12.0<1;1,0>:hf  -(abs)r14.0<1;1,0>:hf
{mask}add ({width}|M0)  r10.0<1>:hf  r12.0<1;1,0>:hf  r14.3<0;1,0>:hf
{mask}mul ({width}|M0)  r10.0<1>:hf  r12.0<1;1,0>:hf  0x3e66:hf
{mask}mul ({width}|M0)  r10.0<1>:hf  r12.0<1;1,0>:hf  -r10.0<1;1,0>:hf
{mask}mad ({width}|M0)  r10.0<1>:hf  r12.0<1;0>:hf  -r14.0<1;0>:hf  r16.0<1>:hf
{mask}mad ({width}|M0)  r10.0<1>:hf  -r10.0<1;0>:hf  r10.0<1;0>:hf  r16.1<0>:hf
"""


@pytest.mark.parametrize("near", [False, True], ids=["any halves", "halves near to each other"])
@pytest.mark.parametrize("width", [1, 16, 32])
@pytest.mark.parametrize("mask", ["", "(f0.0) "], ids=["all lanes", "some lanes"])
def test_operations_on_halves_are_equal(near: bool, width: int, mask: str) -> None:
    random = np.random.default_rng(width)
    for text in HALVES.format(mask=mask, width=width).strip().splitlines():
        instruction = parse_instruction(text)
        assert isinstance(instruction, Alu)
        kernel = kernel_of(instruction)
        assert not kernel.interpreted
        for seed in range(20):
            registers = registers_from(seed, KEEP)
            if near:
                # Exponents of 0.25 to 2: sums that lie half-way between two halves, and close to that, are frequent.
                halves = random.integers(0x3400, 0x4000, 4 * 64, dtype=np.uint16) | random.choice([0, 0x8000], 4 * 64)
                registers[10 * 64 : 10 * 64 + 512] = halves.astype(np.uint16).view(np.uint8)
            reason, found = run_alone(kernel, registers, 0xFFFF_FFFF)
            assert reason is Reason.GONE
            assert np.array_equal(found, run_reference(instruction, registers, 0xFFFF_FFFF)), f"{text}, {seed}"


@pytest.mark.parametrize("cr0", [KEEP & ~0x400, KEEP | 0x10])
def test_halves_that_lose_denormals_or_round_otherwise_are_interpreted(cr0: int) -> None:
    kernel = kernel_of(parse_instruction("add (16|M0)  r10.0<1>:hf  r12.0<1;1,0>:hf  r14.0<1;1,0>:hf"))
    registers = registers_from(1, cr0)
    reason, found = run_alone(kernel, registers, 0xFFFF)
    assert reason is Reason.INTERPRET
    assert np.array_equal(found, registers)


@pytest.mark.parametrize("way", [0x10, 0x20, 0x30])
def test_math_whose_result_is_made_smaller_is_interpreted_where_cr0_rounds_otherwise(way: int) -> None:
    """It rounds to nearest whatever cr0 says, and conversions do as cr0 says."""
    kernel = kernel_of(parse_instruction("math.fdiv (16|M0)  r20.0<1>:f  r12.0<1;1,0>:df  r14.0<1;1,0>:df"))
    assert run_alone(kernel, registers_from(1, KEEP), 0xFFFF)[0] is Reason.GONE
    registers = registers_from(1, KEEP | way)
    reason, found = run_alone(kernel, registers, 0xFFFF)
    assert reason is Reason.INTERPRET
    assert np.array_equal(found, registers)


# What Intel's compiler makes of an integer division, beside others: it rounds to zero.
DIVISION = """
mov (16|M0)       r10.0<1>:f   r12.0<1;1,0>:ud
mov (16|M0)       r10.0<1>:f   -r12.0<1;1,0>:d
mov (8|M0)        r10.0<1>:df  r12.0<1;1,0>:uq
mov (8|M0)        r10.0<1>:f   r12.0<1;1,0>:q
mov (1|M0)        r10.0<1>:f   r12.3<0;1,0>:ud
math.inv (16|M0)  r10.0<1>:f   r12.0<1;1,0>:f
mul (16|M0)       r10.0<1>:f   r12.0<1;1,0>:f   r13.0<1;1,0>:f
add (16|M0)       r10.0<1>:f   r12.0<1;1,0>:f   -(abs)r13.0<1;1,0>:f
mad (16|M0)       r10.0<1>:f   r12.0<1;0>:f     -r13.0<1;0>:f    r14.0<1>:f
mad (8|M0)        r10.0<1>:df  r12.0<1;0>:df    r13.0<1;0>:df    r14.0<1>:df
"""


@pytest.mark.parametrize(
    "cr0", [KEEP | 0x10, KEEP | 0x20, KEEP | 0x30, 0x30], ids=["up", "down", "to zero", "no denormals"]
)
def test_other_roundings_are_compiled(cr0: int) -> None:
    random = np.random.default_rng(cr0)

    def near(instruction: Alu, seed: int) -> NDArray[np.float32]:
        """Near to each other: sums that cancel, or that lie between two floats."""
        return random.standard_normal(48 if instruction.sources[0].type is DataType.F else 0, dtype=np.float32)

    check_compiled(DIVISION, cr0, near)


# What Mesa makes of packHalf2x16 and of conversions that a shader wants rounded to zero.
HALVES_OF_FLOATS = """
mov (32|M0)             r10.0<1>:hf  r12.0<1;1,0>:f
mov (16|M0)             r10.1<2>:hf  -(abs)r12.0<1;1,0>:f
(f0.0) mov (16|M0)      r10.0<1>:hf  r12.0<1;1,0>:f
mov (16|M0) (gt)f0.0    r10.0<1>:hf  r12.0<1;1,0>:f
mov (1|M0)              r10.0<1>:hf  r12.3<0;1,0>:f
"""


@pytest.mark.parametrize("cr0", [KEEP, KEEP | 0x10, KEEP | 0x20, KEEP | 0x30], ids=["nearest", "up", "down", "to zero"])
def test_floats_become_halves_in_every_rounding(cr0: int) -> None:
    random = np.random.default_rng(cr0)

    def of_all_sizes(_: Alu, seed: int) -> NDArray[np.float32]:
        """Magnitudes of all halves, denormals and what is out of range as well; every other time whatever is there."""
        count = 32 * (seed % 2)
        powers = np.float32(2.0) ** random.integers(-30, 20, count)
        return (random.standard_normal(count, dtype=np.float32) * powers).astype(np.float32)

    check_compiled(HALVES_OF_FLOATS, cr0, of_all_sizes)


# Conversions of Mesa's OpenCL driver, which keeps no denormals of floats: in a quotient of doubles are some of each.
BETWEEN_FLOATS = """
mov (16|M0)             r20.0<1>:df  r12.0<1;1,0>:f
mov (8|M0)              r20.0<1>:df  -(abs)r12.0<2;1,0>:f
mov (1|M0)              r20.0<1>:df  r12.0<0;1,0>:f
(f0.0) mov (16|M0)      r20.0<1>:df  r12.0<1;1,0>:f
mov (16|M0)             r20.0<1>:f   r12.0<1;1,0>:df
mov (8|M0)              r20.0<2>:f   -r12.0<1;1,0>:df
mov (1|M0)              r20.0<1>:f   r12.0<0;1,0>:df
mov (16|M0) (ne)f0.0    r20.0<1>:f   r12.0<1;1,0>:df
mov (32|M0)             r20.0<1>:f   r12.0<1;1,0>:hf
mov (16|M0)             r20.0<1>:f   r12.0<2;1,0>:hf
mov (32|M0)             r20.0<1>:hf  r12.0<1;1,0>:f
mov (16|M0) (eq)f0.0    r20.0<1>:hf  r12.0<1;1,0>:f
add (16|M0)             r20.0<1>:f   r12.0<1;1,0>:hf  r14.0<1;1,0>:f
cmp (16|M0) (lt)f0.0    null<1>:f    r12.0<1;1,0>:hf  r14.0<1;1,0>:hf
"""


@pytest.mark.parametrize("kept", [0, 0x40, 0x80, 0x400, KEEP], ids=hex)
def test_conversions_between_floats_are_compiled_whatever_denormals_are_kept(kept: int) -> None:
    random = np.random.default_rng(kept)

    def of_all_sizes(instruction: Alu, seed: int) -> NDArray[np.float32]:
        """Magnitudes around the least that is no denormal of each type, as the source's type; or whatever is there."""
        count = 64 * (seed % 2)
        kind = {DataType.DF: np.float64, DataType.HF: np.float16}.get(instruction.sources[0].type, np.float32)
        powers = 2.0 ** (random.choice([-1, -14, -24, -126, -149], count) + random.integers(-3, 4, count))
        values = random.choice([-1.0, 1.0], count) * random.uniform(1, 2, count) * powers
        return values.astype(kind).view(np.float32)

    check_compiled(BETWEEN_FLOATS, kept, of_all_sizes)


@pytest.mark.parametrize("way", [0x10, 0x20, 0x30], ids=["up", "down", "to zero"])
def test_doubles_become_floats_in_every_rounding(way: int) -> None:
    random = np.random.default_rng(way)

    def of_all_sizes(_: Alu, seed: int) -> NDArray[np.float32]:
        count = 16 * (seed % 2)
        powers = 2.0 ** random.integers(-160, 130, count)
        return (random.standard_normal(count) * powers).view(np.float32)

    texts = "\n".join(line for line in BETWEEN_FLOATS.splitlines() if line.endswith(":df"))
    check_compiled(texts, KEEP | way, of_all_sizes)
    check_compiled(texts, way, of_all_sizes)


# Mesa rotates shorts (OpenCL's rotate).
NARROW_ROTATIONS = """
rol (16|M0)             r20.0<1>:uw  r12.0<1;1,0>:uw  r14.0<1;1,0>:ud
rol (32|M0)             r20.0<1>:uw  r12.0<1;1,0>:uw  r14.0<1;1,0>:uw
ror (16|M0)             r20.0<1>:w   r12.0<1;1,0>:w   r14.0<2;1,0>:uw
ror (8|M0)              r20.0<2>:uw  r12.0<0;1,0>:uw  5:uw
rol (1|M0)              r20.3<1>:uw  r12.1<0;1,0>:uw  r14.0<0;1,0>:uw
(f0.0) rol (16|M0)      r20.0<1>:uw  -r12.0<1;1,0>:w  r14.0<1;1,0>:uw
rol (16|M0) (eq)f0.0    r20.0<1>:uw  r12.0<1;1,0>:uw  r14.0<1;1,0>:uw
"""


def test_rotations_of_words_are_compiled() -> None:
    check_compiled(NARROW_ROTATIONS, KEEP, lambda instruction, seed: np.zeros(0, np.float32))


# Intel's compiler makes these of OpenCL's conversions with _sat, and of quotients of longs.
OF_QUADWORDS = """
mov (16|M0)             r20.0<2>:d   (abs)r12.0<1;1,0>:q
mov (16|M0)             r20.0<1>:ud  -(abs)r12.0<1;1,0>:q
add (8|M0)              r20.0<1>:d   (abs)r12.0<1;1,0>:q  r14.0<1;1,0>:d
mov (16|M0)         (sat)r20.0<1>:d   r12.0<1;1,0>:q
mov (16|M0)         (sat)r20.0<1>:uw  r12.0<1;1,0>:q
mov (8|M0)          (sat)r20.0<1>:uq  r12.0<1;1,0>:q
mov (8|M0)          (sat)r20.0<4>:b   r12.0<1;1,0>:q
add (16|M0)         (sat)r20.0<1>:d   r12.0<1;1,0>:d   r14.0<1;1,0>:ud
"""


def test_saturated_and_absolute_quadwords_are_compiled() -> None:
    check_compiled(OF_QUADWORDS, KEEP, lambda instruction, seed: np.zeros(0, np.float32))


@EFFORT
@given(alu([*FLOATS, *INTEGERS], [Opcode.MOV]), st.integers(0, 1 << 32), active_lanes(), st.sampled_from(MODES))
def test_conversions_are_equal(instruction: Alu, seed: int, active: int, cr0: int) -> None:
    check(instruction, seed, active, cr0)


@EFFORT
@given(with_indirect(alu(INTEGERS, INTEGER_OPCODES)), st.integers(0, 1 << 32), active_lanes(), st.integers(0, 1 << 32))
def test_integers_through_pointers_are_equal(instruction: Alu, seed: int, active: int, pointers: int) -> None:
    check(instruction, seed, active, KEEP, pointers)


@EFFORT
@given(with_indirect(alu(FLOATS, FLOAT_OPCODES)), st.integers(0, 1 << 32), active_lanes(), st.integers(0, 1 << 32))
def test_floats_through_pointers_are_equal(instruction: Alu, seed: int, active: int, pointers: int) -> None:
    check(instruction, seed, active, KEEP, pointers)


@EFFORT
@given(dpas(), st.integers(0, 1 << 32), active_lanes())
def test_systolic_products_are_equal(instruction: Dpas, seed: int, active: int) -> None:
    check(instruction, seed, active, KEEP)


# What compilers emit most has handlers: none of these may go to the interpreter.
COMMON = """
mov (16|M0)  r10.0<1>:ud  r11.0<1;1,0>:uw
mov (16|M0)  r10.0<1>:q  r12.0<1;1,0>:d
mov (16|M0)  r10.0<1>:f  r11.0<1;1,0>:hf
mov (16|M0)  r10.0<1>:hf  r11.0<1;1,0>:f
mov (32|M0)  r10.0<1>:d  r12.0<1;1,0>:f
mov (16|M0)  r10.0<2>:uw  r12.0<2;1,0>:uw
(W) mov (1|M0)  r10.0<1>:ud  ce0.0<0;1,0>:ud
(W) and (1|M0)  r10.2<1>:ud  r0.5<0;1,0>:ud  0xfffffc00:ud
(W) or (1|M0)  cr0.0<1>:ud  cr0.0<0;1,0>:ud  0x4c0:ud
add (32|M0)  r10.0<1>:d  r12.0<1;1,0>:d  -r14.0<0;1,0>:d
mul (16|M0)  acc0.0<1>:d  r10.0<1;1,0>:d  r12.0<2;1,0>:uw
macl (16|M0)  r14.0<1>:d  r10.0<1;1,0>:d  r12.0<1;1,0>:d
mach (16|M0)  r14.0<1>:ud  r10.0<1;1,0>:ud  r12.0<1;1,0>:ud
addc (16|M0)  r14.0<1>:ud  r10.0<1;1,0>:ud  r12.0<1;1,0>:ud
shr (16|M0)  r14.0<1>:ud  r10.0<1;1,0>:ud  5:w
asr (16|M0)  r14.0<1>:d  r10.0<1;1,0>:d  31:w
asr (16|M0)  r14.0<1>:d  -r10.0<1;1,0>:d  33:w
asr (32|M0) (lt)f0.0  r14.0<1>:d  -r10.0<1;1,0>:d  r16.0<1;1,0>:w
asr (1|M0)  r14.0<1>:d  -r10.0<0;1,0>:ud  r16.0<0;1,0>:ud
shl (16|M0)  r14.0<1>:q  r10.0<1;1,0>:q  2:w
cmp (32|M0) (lt)f0.0  null<1>:ud  r10.0<1;1,0>:ud  r12.0<0;1,0>:ud
cmp (16|M0) (ge)f1.0  r10.0<1>:d  r12.0<1;1,0>:f  r14.0<1;1,0>:f
sel (16|M0) (lt)f0.0  r10.0<1>:f  r12.0<1;1,0>:f  r14.0<1;1,0>:f
(f0.0) sel (16|M0)  r10.0<1>:d  r12.0<1;1,0>:d  r14.0<1;1,0>:d
mad (32|M0)  r10.0<1>:f  r12.0<1;0>:f  r14.0<1;0>:f  r16.0<1>:f
mad (16|M0)  r10.0<1>:df  r12.0<1;0>:df  r14.0<1;0>:df  r16.0<1>:df
mad (16|M0)  r10.0<1>:hf  r12.0<1;0>:hf  r14.0<1;0>:hf  r16.0<1>:hf
math.inv (16|M0)  r10.0<1>:f  r12.0<1;1,0>:f
math.rsqt (16|M0)  r10.0<1>:f  r12.0<1;1,0>:f
math.exp (16|M0)  r10.0<1>:f  r12.0<1;1,0>:f
math.sin (16|M0)  r10.0<1>:f  r12.0<1;1,0>:f
rnde (16|M0)  r10.0<1>:f  r12.0<1;1,0>:f
mov (16|M0)  r10.0<1>:ud  r[a0.0,8]<1;1,0>:ud
mov (16|M0)  r10.0<1>:uw  r[a0.0]<1,0>:uw
mov (16|M0)  r[a0.2,-16]<1>:f  r12.0<1;1,0>:f
add (16|M0)  r10.0<1>:d  r12.0<1;1,0>:d  -r[a0.1]<0;1,0>:w
dpas.8x8 (16|M0)  r40:f  r50:f  r20:bf  r30.0:bf
dpas.8x4 (16|M0)  r40:d  null:d  r20:s4  r30.0:ub
"""


@pytest.mark.parametrize("text", [line for line in COMMON.splitlines() if line])
def test_common_instruction_has_a_handler(text: str) -> None:
    instruction = parse_instruction(text)
    assert isinstance(instruction, Alu | Dpas)
    kernel = kernel_of(instruction)
    assert not kernel.interpreted
    registers = registers_from(1, KEEP)
    registers[CE0 : CE0 + 4] = np.frombuffer(
        (0xFFFF).to_bytes(4, "little"), dtype=np.uint8
    )  # as the interpreter brings it up to date
    _, found = run_alone(kernel, registers, 0xFFFF)
    assert np.array_equal(found, run_reference(instruction, registers, 0xFFFF))
