from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.xe.eu.kernel import lanes, run
from vfio_user_xe.device_models.xe.eu.data_types import BY_LABEL, DataType

NUMPY = {"ub": "u1", "b": "i1", "uw": "u2", "w": "i2", "ud": "u4", "d": "i4", "uq": "u8", "q": "i8"}
INTEGERS = list(NUMPY)


def wrap(value: int, kind: DataType, saturate: bool = False) -> int:
    low = -(1 << kind.bits - 1) if kind.is_signed else 0
    high = low + (1 << kind.bits) - 1
    if saturate:
        return min(max(value, low), high)
    return (value - low) % (1 << kind.bits) + low


def values(label: str) -> st.SearchStrategy[list[int]]:
    kind = BY_LABEL[label]
    low = -(1 << kind.bits - 1) if kind.is_signed else 0
    high = low + (1 << kind.bits) - 1
    edges = st.sampled_from([low, high, 0, 1, high // 2, low // 2, max(low, -1)])
    return st.lists(st.one_of(edges, st.integers(low, high)), min_size=8, max_size=8)


def compute(text: str, inputs: dict[int, tuple[str, list[int]]], result: str, number: int = 30) -> list[int]:
    """Runs one instruction of 8 lanes over registers filled with numbers of a type."""
    registers = {register: np.array(data, dtype=NUMPY[label]) for register, (label, data) in inputs.items()}
    threads = run(text, dispatch=[0xFF], registers=registers)
    return [int(value) for value in lanes(threads, number, NUMPY[result], 8)]


BINARY: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "avg": lambda a, b: (a + b + 1) >> 1,
}


@pytest.mark.parametrize("operation", BINARY)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_binary_operations_are_exact_and_wrap_or_saturate(operation: str, data: st.DataObject) -> None:
    first, second, target = (data.draw(st.sampled_from(INTEGERS)) for _ in range(3))
    saturate = operation in ("add", "avg") and data.draw(st.booleans())
    a, b = data.draw(values(first)), data.draw(values(second))
    got = compute(
        f"{operation} (8|M0)  {'(sat)' if saturate else ''}r30.0<1>:{target}  r10.0<1;1,0>:{first}  r20.0<1;1,0>:{second}",
        {10: (first, a), 20: (second, b)},
        target,
    )
    kind = BY_LABEL[target]
    assert got == [wrap(BINARY[operation](x, y), kind, saturate) for x, y in zip(a, b, strict=True)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_mov_converts_between_all_integer_types(data: st.DataObject) -> None:
    source, target = data.draw(st.sampled_from(INTEGERS)), data.draw(st.sampled_from(INTEGERS))
    saturate, negate, absolute = (data.draw(st.booleans()) for _ in range(3))
    numbers = data.draw(values(source))
    modifiers = ("-" if negate else "") + ("(abs)" if absolute else "")
    got = compute(
        f"mov (8|M0)  {'(sat)' if saturate else ''}r30.0<1>:{target}  {modifiers}r10.0<1;1,0>:{source}",
        {10: (source, numbers)},
        target,
    )
    expected = []
    for number in numbers:
        value = abs(number) if absolute else number
        expected.append(wrap(-value if negate else value, BY_LABEL[target], saturate))
    assert got == expected


@pytest.mark.parametrize("operation", ["mul", "mad", "add3", "dp4a", "bfe", "bfi2"])
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_products_and_three_sources_of_dwords(operation: str, data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(["d", "ud"]))
    saturate = operation in ("mul", "mad", "add3", "dp4a") and data.draw(st.booleans())
    kind = BY_LABEL[label]
    a, b, c = (data.draw(values(label)) for _ in range(3))
    sat = "(sat)" if saturate else ""
    if operation == "mul":
        text = f"mul (8|M0)  {sat}r30.0<1>:{label}  r10.0<1;1,0>:{label}  r20.0<1;1,0>:{label}"
    else:
        sources = f"r10.0<1;0>:{label}  r20.0<1;0>:{label}  r25.0<1>:{label}"
        text = f"{operation} (8|M0)  {sat}r30.0<1>:{label}  {sources}"
    got = compute(text, {10: (label, a), 20: (label, b), 25: (label, c)}, label)
    expected = [wrap(_model(operation, x, y, z, kind), kind, saturate) for x, y, z in zip(a, b, c, strict=True)]
    assert got == expected


def test_bits_are_inserted_where_the_mask_begins() -> None:
    # Mesa gives a double another exponent so (nir_lower_double_ops.c:set_exponent).
    mask, exponent, high = [0x7FF0_0000, 0xFF, 0, 0x8000_0000] * 2, [1023, 0x1234, 7, 1] * 2, [0x4018_0000] * 8
    text = "bfi2 (8|M0)  r30.0<1>:ud  r10.0<1;0>:ud  r20.0<1;0>:ud  r25.0<1>:ud"
    got = compute(text, {10: ("ud", mask), 20: ("ud", exponent), 25: ("ud", high)}, "ud")
    assert got == [0x3FF8_0000, 0x4018_0034, 0x4018_0000, 0xC018_0000] * 2


def _model(operation: str, x: int, y: int, z: int, kind: DataType) -> int:
    match operation:
        case "mul":
            return x * y
        case "mad":
            return x + y * z
        case "add3":
            return x + y + z
        case "bfi2":
            return (x & y * (x & -x)) | (~x & z)
        case "bfe":
            width, offset = x & 31, y & 31
            bits = z >> offset
            if width == 0:
                return 0
            if width + offset >= 32:
                return bits
            field = bits & (1 << width) - 1
            return field - (1 << width) if kind.is_signed and field >> width - 1 else field
    total = x
    for shift in (0, 8, 16, 24):
        p, q = y >> shift & 0xFF, z >> shift & 0xFF
        if kind.is_signed:
            p, q = (p ^ 0x80) - 0x80, (q ^ 0x80) - 0x80
        total += p * q
    return total


@pytest.mark.parametrize("label", ["w", "uw", "d", "ud", "q", "uq"])
@pytest.mark.parametrize("operation", ["shl", "shr", "asr", "rol", "ror"])
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_shifts_and_rotations_mask_their_count(operation: str, label: str, data: st.DataObject) -> None:
    kind = BY_LABEL[label]
    numbers = data.draw(values(label))
    counts = data.draw(st.lists(st.integers(0, 255), min_size=8, max_size=8))
    got = compute(
        f"{operation} (8|M0)  r30.0<1>:{label}  r10.0<1;1,0>:{label}  r20.0<1;1,0>:ub",
        {10: (label, numbers), 20: ("ub", counts)},
        label,
    )
    expected = []
    for number, count in zip(numbers, counts, strict=True):
        by = count & (63 if kind.size == 8 else 31)
        unsigned = number & (1 << kind.bits) - 1
        turn = count % kind.bits
        result = {
            "shl": number << by,
            "shr": unsigned >> by,
            "asr": number >> by,
            "rol": unsigned << turn | unsigned >> kind.bits - turn,
            "ror": unsigned >> turn | unsigned << kind.bits - turn,
        }[operation]
        expected.append(wrap(result, kind))
    assert got == expected


@settings(max_examples=30, deadline=None)
@given(values("ud"), values("d"))
def test_counting_bits(unsigned: list[int], signed: list[int]) -> None:
    inputs = {10: ("ud", unsigned), 20: ("d", signed)}
    text = "{} (8|M0)  r30.0<1>:ud  r{}.0<1;1,0>:{}"
    ones = 0xFFFF_FFFF
    lengths = [number.bit_length() for number in unsigned]
    assert compute(text.format("lzd", 10, "ud"), inputs, "ud") == [32 - n for n in lengths]
    assert compute(text.format("fbh", 10, "ud"), inputs, "ud") == [32 - n if n else ones for n in lengths]
    unlike = [(~n if n < 0 else n).bit_length() for n in signed]
    assert compute(text.format("fbh", 20, "d"), inputs, "ud") == [32 - n if n else ones for n in unlike]
    assert compute(text.format("fbl", 10, "ud"), inputs, "ud") == [
        (n & -n).bit_length() - 1 if n else ones for n in unsigned
    ]
    assert compute(text.format("cbit", 10, "ud"), inputs, "ud") == [n.bit_count() for n in unsigned]
    assert compute(text.format("bfrev", 10, "ud"), inputs, "ud") == [int(f"{n:032b}"[::-1], 2) for n in unsigned]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 255), values("ud"), values("ud"), values("ud"))
def test_bfn_takes_any_truth_table(truth: int, a: list[int], b: list[int], c: list[int]) -> None:
    got = compute(
        f"bfn.0x{truth:02X} (8|M0)  r30.0<1>:ud  r10.0<1;0>:ud  r20.0<1;0>:ud  r25.0<1>:ud",
        {10: ("ud", a), 20: ("ud", b), 25: ("ud", c)},
        "ud",
    )
    for result, x, y, z in zip(got, a, b, c, strict=True):
        for bit in range(32):
            index = (x >> bit & 1) + 2 * (y >> bit & 1) + 4 * (z >> bit & 1)
            assert result >> bit & 1 == truth >> index & 1


def test_bfn_of_f8_is_and_or() -> None:
    got = compute(
        "bfn.0xF8 (8|M0)  r30.0<1>:ud  r10.0<1;0>:ud  r20.0<1;0>:ud  r25.0<1>:ud",
        {10: ("ud", [0b1100] * 8), 20: ("ud", [0b1010] * 8), 25: ("ud", [0b0001] * 8)},
        "ud",
    )
    assert got == [0b1001] * 8


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_mach_and_macl_are_the_halves_of_the_product(data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(["d", "ud"]))
    a, b = data.draw(values(label)), data.draw(values(label))
    text = f"""
        mul (8|M0)   acc0.0<1>:{label}  r10.0<1;1,0>:{label}  r20.0<2;1,0>:uw
        macl (8|M0)  r30.0<1>:{label}  r10.0<1;1,0>:{label}  r20.0<1;1,0>:{label}
        mach (8|M0)  r31.0<1>:{label}  r10.0<1;1,0>:{label}  r20.0<1;1,0>:{label}
    """
    inputs = {10: (label, a), 20: (label, b)}
    kind = BY_LABEL[label]
    products = [x * y for x, y in zip(a, b, strict=True)]
    assert compute(text, inputs, label) == [wrap(product, kind) for product in products]
    assert compute(text, inputs, label, 31) == [wrap(product >> 32, kind) for product in products]


@settings(max_examples=20, deadline=None)
@given(values("ud"), values("ud"))
def test_addc_and_subb_leave_carry_and_borrow_in_the_accumulator(a: list[int], b: list[int]) -> None:
    text = """
        addc (8|M0)  r30.0<1>:ud  r10.0<1;1,0>:ud  r20.0<1;1,0>:ud
        mov (8|M0)   r31.0<1>:ud  acc0.0<1;1,0>:ud
        subb (8|M0)  r32.0<1>:ud  r10.0<1;1,0>:ud  r20.0<1;1,0>:ud
        mov (8|M0)   r33.0<1>:ud  acc0.0<1;1,0>:ud
    """
    inputs = {10: ("ud", a), 20: ("ud", b)}
    pairs = list(zip(a, b, strict=True))
    assert compute(text, inputs, "ud") == [(x + y) & 0xFFFF_FFFF for x, y in pairs]
    assert compute(text, inputs, "ud", 31) == [(x + y) >> 32 for x, y in pairs]
    assert compute(text, inputs, "ud", 32) == [(x - y) & 0xFFFF_FFFF for x, y in pairs]
    assert compute(text, inputs, "ud", 33) == [int(x < y) for x, y in pairs]


CONDITIONS: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
}


@pytest.mark.parametrize("condition", CONDITIONS)
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_cmp_and_sel_compare_across_types(condition: str, data: st.DataObject) -> None:
    first, second = data.draw(st.sampled_from(INTEGERS)), data.draw(st.sampled_from(INTEGERS))
    a, b = data.draw(values(first)), data.draw(values(second))
    threads_text = f"""
        cmp (8|M0)  ({condition})f1.0  r30.0<1>:d  r10.0<1;1,0>:{first}  r20.0<1;1,0>:{second}
        sel (8|M0)  ({condition})f0.0  r31.0<1>:q  r10.0<1;1,0>:{first}  r20.0<1;1,0>:{second}
    """
    hits = [CONDITIONS[condition](x, y) for x, y in zip(a, b, strict=True)]
    inputs = {10: (first, a), 20: (second, b)}
    assert compute(threads_text, inputs, "d") == [-int(hit) for hit in hits]
    chosen = [wrap(x if hit else y, DataType.Q) for x, y, hit in zip(a, b, hits, strict=True)]
    assert compute(threads_text, inputs, "q", 31) == chosen


def test_a_predicated_compare_changes_flags_only_where_the_predicate_holds() -> None:
    threads = run(
        """
        (W) mov (1|M0)  f0.0<1>:uw  0xFF:uw
        (f0.0) cmp (16|M0)  (ne)f0.0  null<1>:d  r1.0<1;1,0>:d  0:d
        (W) mov (1|M0)  r2.0<1>:uw  f0.0<0;1,0>:uw
        """,
        registers={1: np.arange(16, dtype=np.int32)},
    )
    assert lanes(threads, 2, np.uint16, 1).tolist() == [0xFE]


@pytest.mark.parametrize(("a", "b", "overflows"), [(2**31 - 1, 1, 1), (2**31 - 2, 1, 0), (-(2**31), -1, 1)])
def test_overflow_condition_says_that_the_exact_sum_did_not_fit(a: int, b: int, overflows: int) -> None:
    text = """
        add (1|M0)  (ov)f0.0  r30.0<1>:d  r10.0<0;1,0>:d  r20.0<0;1,0>:d
        mov (1|M0)  r31.0<1>:uw  f0.0<0;1,0>:uw
    """
    assert compute(text, {10: ("d", [a] * 8), 20: ("d", [b] * 8)}, "uw", 31)[0] == overflows


def test_condition_modifier_tests_the_wrapped_result() -> None:
    text = """
        add (1|M0)  (eq)f0.0  r30.0<1>:ud  r10.0<0;1,0>:ud  1:d
        mov (1|M0)  r31.0<1>:uw  f0.0<0;1,0>:uw
    """
    assert compute(text, {10: ("ud", [0xFFFF_FFFF] * 8)}, "uw", 31)[0] == 1


@pytest.mark.parametrize(("a", "b"), [(7, 2), (-7, 2), (7, -2), (5, 0), (-(2**31), -1)])
def test_integer_division_truncates(a: int, b: int) -> None:
    text = "math.idiv (8|M0)  r30.0<1>:d  r10.0<1;1,0>:d  r20.0<1;1,0>:d"
    inputs = {10: ("d", [a] * 8), 20: ("d", [b] * 8)}
    quotient = -1 if b == 0 else int(np.trunc(a / b))
    assert compute(text, inputs, "d")[0] == wrap(quotient, DataType.D)
    assert compute(text, inputs, "d", 31)[0] == (a if b == 0 else a - quotient * b)


def test_regions_and_strides_pick_the_named_elements() -> None:
    data: dict[int, Any] = {10: np.arange(64, dtype=np.int32)}
    threads = run(
        """
        mov (16|M0)  r30.0<2>:d  r10.1<8;4,2>:d
        mov (16|M0)  r40.0<1>:d  r10.3<0;1,0>:d
        mov (8|M0)   r42.0<4>:ub  r10.0<4;1,0>:ub
        """,
        registers=data,
    )
    expected = [1 + 8 * (k // 4) + 2 * (k % 4) for k in range(16)]
    assert lanes(threads, 30, np.int32, 32)[::2].tolist() == expected
    assert lanes(threads, 40, np.int32).tolist() == [3] * 16
    assert lanes(threads, 42, np.uint8, 32)[::4].tolist() == list(range(8))


def test_packed_immediates_repeat_over_lanes() -> None:
    threads = run(
        """
        mov (16|M0)  r30.0<1>:w  0x76543210:v
        mov (16|M0)  r31.0<1>:w  0xFEDCBA98:v
        mov (16|M0)  r32.0<1>:uw  0xFEDCBA98:uv
        mov (8|M0)   r33.0<1>:f  0x70B04000:vf
        """
    )
    assert lanes(threads, 30, np.int16).tolist() == list(range(8)) * 2
    assert lanes(threads, 31, np.int16).tolist() == list(range(-8, 0)) * 2
    assert lanes(threads, 32, np.uint16).tolist() == list(range(8, 16)) * 2
    assert lanes(threads, 33, np.float32, 8).tolist() == [0.0, 2.0, -1.0, 16.0] * 2


def test_indirect_operands_use_one_pointer_or_one_a_row() -> None:
    threads = run(
        """
        (W) mov (8|M0)  a0.0<1>:uw  r1.0<1;1,0>:uw
        mov (8|M0)  r30.0<1>:d  r[a0.1,4]<1;1,0>:d
        mov (8|M0)  r31.0<1>:d  r[a0.0]<1,0>:d
        mov (8|M0)  r32.0<1>:d  r[a0.0]<4,1>:d
        mov (8|M0)  r[a0.0,960]<1>:d  r10.0<1;1,0>:d
        """,
        dispatch=[0xFF],
        registers={
            1: np.array([640 + 4 * n for n in (0, 10, 2, 30, 4, 50, 6, 20)], dtype=np.uint16),
            10: np.arange(64, dtype=np.int32),
        },
    )
    assert lanes(threads, 30, np.int32, 8).tolist() == list(range(11, 19))
    assert lanes(threads, 31, np.int32, 8).tolist() == [0, 10, 2, 30, 4, 50, 6, 20]
    assert lanes(threads, 32, np.int32, 8).tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert lanes(threads, 25, np.int32, 8).tolist() == list(range(8))


def test_indirect_elements_outside_of_the_grf_read_zero_and_are_not_written() -> None:
    threads = run(
        """
        (W) mov (1|M0)  a0.0<1>:uw  0x3FF8:uw
        mov (8|M0)  r255.0<1>:d  7:d
        mov (8|M0)  r255.8<1>:d  7:d
        mov (8|M0)  r30.0<1>:d  r[a0.0]<1;1,0>:d
        mov (8|M0)  r[a0.0]<1>:d  9:d
        mov (1|M0)  r31.0<1>:uw  a0.0<0;1,0>:uw
        """,
        dispatch=[0xFF],
    )
    assert lanes(threads, 30, np.int32, 8).tolist() == [7, 7, 0, 0, 0, 0, 0, 0]
    assert lanes(threads, 255, np.int32)[14:].tolist() == [9, 9]
    assert lanes(threads, 31, np.uint16, 1).tolist() == [0x3FF8]


def test_lanes_that_are_off_keep_the_destination() -> None:
    threads = run("mov (16|M0)  r30.0<1>:d  5:d", dispatch=[0x0F0F], registers={30: np.arange(16, dtype=np.int32)})
    assert lanes(threads, 30, np.int32).tolist() == [5, 5, 5, 5, 4, 5, 6, 7, 5, 5, 5, 5, 12, 13, 14, 15]
