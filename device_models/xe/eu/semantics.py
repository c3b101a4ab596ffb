"""What instructions compute, exactly enough that back ends agree bit for bit. Facts are of execution.md 1 where marked
[R] there; the rest is the choice of this project where hardware's behaviour is not published, and says so with "chosen".

**Integers** are mathematical: sources are extended by their own signedness, modifiers are `|x|` then `-x`, the operation is
exact, and the result wraps to the destination's width or, with `saturate`, clamps to its range. A byte or word in a register
is no different. Logic (and, or, xor, not, bfn) works on two's complement of unlimited width; `negate` is the complement there.

* shl, shr, asr, rol, ror count modulo 32, or modulo 64 if the destination or source 0 has 64 bits; rol and ror count modulo
  the destination's bits. shr is logical on `max(2, sizes of the sources, 8 if the destination has 8)` bytes, to which
  source 0 is extended first (chosen). asr is `floor(x / 2**n)`.
* mul, mad, mac, add3, avg `(a + b + 1) >> 1`, dp4a are exact before the wrap. mach is bits 63:32 of the product, macl bits 31:0.
* addc, subb: also acc0 dword `k` becomes 1 on carry or borrow, else 0, for each lane that is written. No other instruction
  writes an accumulator but by naming it; mac reads acc0 as elements of the destination's type from its beginning.
* lzd counts from bit 31 (32 if zero). fbh is lzd or all ones if zero, of a signed source the first bit unlike the sign;
  fbl counts from bit 0, all ones if zero. bfe: width and offset modulo 32, width 0 gives 0; past bit 31 the value's upper
  bits are extended. bfi1 is `(2**width - 1) << offset` in 32 bits, bfi2 `(s0 & s1 << n) | (~s0 & s2)`
  with `n` the number of the lowest bit of s0 (Mesa nir_opcodes.py: bfi).

**Floats.** The execution type is the widest float among sources and destination, f if there are bf or different 16-bit
types; integer sources of float operations are converted first. The operation rounds once to the execution type, in the mode
of cr0 5:4; mad, mac and madm round once for multiplication and addition together. A destination of another type is a
conversion of that result, with a second rounding (chosen). `saturate` clamps to 0 … 1, NaN becomes 0.

* Denormals: with cr0 bit 6 (df), 7 (f, bf), 10 (hf) clear, sources and results of that type that are denormal become zeros
  of their sign; moves and sel between equal types never do that (chosen).
* NaN: every operation that gives NaN gives the canonical one (sign 0, quiet bit alone), conversions too. mov, sel and csel
  between equal types move bits, and modifiers change the sign bit alone (chosen).
* Conversion to an integer truncates and clamps, NaN gives 0 [R]. From an integer it rounds by cr0, from an f of an integer too large is
  the same. To bf8: round to nearest even whatever cr0 says (chosen).
* rndd, rndu, rnde, rndz and frc (`x - floor(x)`) are exact. srnd adds the low bits of source 1 below the last bit kept, and truncates.
* sel with ge, gt, lt or le and no predicate: where one source is NaN the other wins; both NaN give the canonical one.
  Otherwise the comparison as written, so that of two zeros ge gives the first and lt the second (chosen).
* cmp: a comparison with NaN is false, ne is true. cmpn: as cmp, but true where source 1 is NaN, and false where source 0 is (chosen).
* A condition modifier of other operations tests the value written, in the destination's type: ov, that it did not fit before it wrapped
  or clamped; un, that it is NaN (chosen).
* Both cmp kinds write all ones or zeros, as wide as the destination's type.

**math** rounds to nearest whatever cr0 says (chosen). inv, sqt, fdiv and the macros are correctly rounded. invm gives the quotient, rsqtm
the square root, each final: the flags of all lanes written are set, so that code skips its madm [R]. rsqt is 1/sqrt computed in f64;
log, exp, sin, cos and pow follow `reference/transcendental.py`, which fixes each step in f64. pow takes `|x|`. Hardware's results differ from all
these in the last bits. fdiv, pow, idiv, iqot and irem are not of Xe2's assembler, and are here because their codes are in its tables: idiv
writes the quotient and, 64 bytes x registers of the operand further, the remainder; both truncate; a divisor 0 gives all ones and the dividend.

**dpas** adds products in f32 (each rounded, which is exact for all types but at the ends of the range), step by step and in a step by rising
element; denormals stay; the mode is nearest. Integers wrap to 32 bits. hf and bf destinations are rounded at the end [R, order chosen].

**Out of range.** An indirect element outside of the 16 KiB GRF reads as zero, and is not written (chosen).
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Alu
from vfio_user_xe.device_models.xe.eu.opcodes import Opcode

ROUNDING_SHIFT = 4
"""cr0.0 5:4: 0 nearest even, 1 up, 2 down, 3 towards zero."""

DENORMAL_BITS = {DataType.DF: 6, DataType.F: 7, DataType.BF: 7, DataType.TF32: 7, DataType.HF: 10, DataType.BF8: 10}
"""Bit of cr0.0 that keeps denormals of a type."""

CANONICAL_NAN = {
    DataType.BF8: 0x7E,
    DataType.HF: 0x7E00,
    DataType.BF: 0x7FC0,
    DataType.F: 0x7FC0_0000,
    DataType.TF32: 0x7FC0_0000,
    DataType.DF: 0x7FF8_0000_0000_0000,
}

_BIT_OPERATIONS = frozenset({Opcode.AND, Opcode.OR, Opcode.XOR, Opcode.NOT, Opcode.BFN, Opcode.MOVI})


def is_float_operation(instruction: Alu) -> bool:
    """Computed as floats: some source is one (of mov also: the destination is one), and it is no logic."""
    if instruction.opcode in _BIT_OPERATIONS:
        return False
    if any(source.type.is_float for source in instruction.sources):
        return True
    return instruction.opcode is Opcode.MOV and instruction.destination.type.is_float


def execution_float(instruction: Alu) -> DataType:
    """The float type in which a float operation is computed."""
    types = {source.type for source in instruction.sources if source.type.is_float}
    if instruction.destination.type.is_float:
        types.add(instruction.destination.type)
    if DataType.DF in types:
        return DataType.DF
    if types == {DataType.HF}:
        return DataType.HF
    return DataType.F


def is_raw_move(instruction: Alu) -> bool:
    """A mov, sel or csel that moves bits, since all its types are the same float."""
    if instruction.opcode not in (Opcode.MOV, Opcode.SEL, Opcode.CSEL):
        return False
    types = {source.type for source in instruction.sources[:2]} | {instruction.destination.type}
    return len(types) == 1 and not instruction.saturate and instruction.destination.type.is_float
