from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.xe.eu.kernel import END, KEEP_DENORMALS, lanes, run, start
from vfio_user_xe.device_models.xe.eu.data_types import BY_LABEL, DataType
from vfio_user_xe.device_models.xe.eu.reference.floats import Rounding, round_fraction, to_bits, to_values
from vfio_user_xe.device_models.xe.eu.semantics import CANONICAL_NAN

UNSIGNED: dict[str, Any] = {"bf8": np.uint8, "hf": np.uint16, "bf": np.uint16, "f": np.uint32, "df": np.uint64}
ROUNDINGS = list(Rounding)
INTERESTING = [0.0, -0.0, 1.0, -1.5, 0.1, 65504.0, 3e38, 1e-40, 6e-8, 1e308, 5e-324, math.inf, -math.inf, math.nan]


def patterns(label: str) -> st.SearchStrategy[list[int]]:
    kind = BY_LABEL[label]
    near = st.sampled_from(INTERESTING).map(lambda value: encode(value, label))
    return st.lists(st.one_of(near, st.integers(0, (1 << kind.bits) - 1)), min_size=4, max_size=4)


def encode(value: float, label: str) -> int:
    with np.errstate(all="ignore"):
        return int(to_bits(np.array([value]), BY_LABEL[label])[0])


def exact(bits: int, label: str) -> float:
    """The value of a pattern as a Python float; every format here is a subset of f64."""
    return float(to_values(np.array([bits], dtype=UNSIGNED[label]), BY_LABEL[label])[0])


def compute(text: str, inputs: dict[int, tuple[str, list[int]]], label: str, cr0: int = KEEP_DENORMALS) -> list[int]:
    registers = {number: np.array(bits, dtype=UNSIGNED[kind]) for number, (kind, bits) in inputs.items()}
    threads = run(text, dispatch=[0xF], registers=registers, cr0=cr0)
    return [int(value) for value in lanes(threads, 30, UNSIGNED[label], 4)]


def rounded(value: Fraction | float, label: str, rounding: Rounding, zero: float = 0.0) -> int:
    if isinstance(value, float):
        return encode(value, label)
    return round_fraction(value, BY_LABEL[label], rounding) if value else encode(zero, label)


@pytest.mark.parametrize("label", ["hf", "f", "df"])
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_add_mul_and_fused_mad_round_once_in_every_mode(label: str, data: st.DataObject) -> None:
    rounding = data.draw(st.sampled_from(ROUNDINGS))
    cr0 = KEEP_DENORMALS | rounding << 4
    a, b, c = (data.draw(patterns(label)) for _ in range(3))
    inputs = {10: (label, a), 20: (label, b), 25: (label, c)}
    three = f"r10.0<1;0>:{label}  r20.0<1;0>:{label}  r25.0<1>:{label}"
    two = f"r10.0<1;1,0>:{label}  r20.0<1;1,0>:{label}"
    for text, model in (
        (f"add (4|M0)  r30.0<1>:{label}  {two}", lambda x, y, z: x + y),
        (f"mul (4|M0)  r30.0<1>:{label}  {two}", lambda x, y, z: x * y),
        (f"mad (4|M0)  r30.0<1>:{label}  {three}", lambda x, y, z: x + y * z),
    ):
        got = compute(text, inputs, label, cr0)
        for index, result in enumerate(got):
            numbers = [exact(bits[index], label) for bits in (a, b, c)]
            used = numbers if text.startswith("mad") else numbers[:2]
            if all(math.isfinite(number) for number in used):
                value = model(*(Fraction(number) if math.isfinite(number) else Fraction(0) for number in numbers))
                if not value:
                    assert exact(result, label) == 0
                    continue
                assert result == rounded(value, label, rounding), (text, numbers)
            else:
                with np.errstate(all="ignore"):
                    special = float(model(*(np.float64(number) for number in numbers)))
                assert result == encode(special, label), (text, numbers)


CONVERSIONS = [(a, b) for a in ("hf", "bf", "f", "df") for b in ("hf", "bf", "f", "df")] + [
    ("hf", "bf8"),
    ("bf8", "hf"),
]


@pytest.mark.parametrize(("source", "target"), CONVERSIONS)
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_conversions_round_once_in_every_mode(source: str, target: str, data: st.DataObject) -> None:
    rounding = data.draw(st.sampled_from(ROUNDINGS))
    bits = data.draw(patterns(source))
    got = compute(
        f"mov (4|M0)  r30.0<1>:{target}  r10.0<1;1,0>:{source}",
        {10: (source, bits)},
        target,
        KEEP_DENORMALS | rounding << 4,
    )
    for pattern, result in zip(bits, got, strict=True):
        value = exact(pattern, source)
        if source == target:
            assert result == pattern
        elif math.isnan(value):
            assert result == CANONICAL_NAN[BY_LABEL[target]]
        elif math.isinf(value) or value == 0:
            assert result == encode(value, target)
        else:
            mode = Rounding.NEAREST if target == "bf8" else rounding
            assert result == rounded(Fraction(value), target, mode)


@pytest.mark.parametrize(
    ("target", "values", "expected"),
    [
        ("d", [1.9, -1.9, 3e9, math.nan], [1, -1, 2**31 - 1, 0]),
        ("ud", [1.9, -1.9, 5e9, math.inf], [1, 0, 2**32 - 1, 2**32 - 1]),
        ("ub", [255.5, 256.0, -1.0, 7.0], [255, 255, 0, 7]),
        ("q", [1e18, -1e19, 1e19, 0.5], [10**18, -(2**63), 2**63 - 1, 0]),
        ("uq", [1.5e19, 2e19, -5.0, 2.0], [15 * 10**18, 2**64 - 1, 0, 2]),
    ],
)
def test_floats_become_integers_by_truncating_and_clamping(
    target: str, values: list[float], expected: list[int]
) -> None:
    kind = BY_LABEL[target]
    dtype = f"{'i' if kind.is_signed else 'u'}{kind.size}"
    threads = run(f"mov (4|M0)  r30.0<1>:{target}  r10.0<1;1,0>:df", dispatch=[0xF], registers={10: np.array(values)})
    assert [int(value) for value in lanes(threads, 30, dtype, 4)] == expected


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4), st.sampled_from(ROUNDINGS))
def test_integers_become_floats_with_one_rounding(numbers: list[int], rounding: Rounding) -> None:
    threads = run(
        "mov (4|M0)  r30.0<1>:f  r10.0<1;1,0>:q",
        dispatch=[0xF],
        registers={10: np.array(numbers, dtype=np.int64)},
        cr0=KEEP_DENORMALS | rounding << 4,
    )
    expected = [rounded(Fraction(number), "f", rounding) for number in numbers]
    assert lanes(threads, 30, np.uint32, 4).tolist() == expected


def test_raw_moves_keep_signalling_nans_and_denormals() -> None:
    bits = [0x7F80_0001, 0x0000_0001, 0xFFC0_1234, 0x8000_0000]
    got = compute("mov (4|M0)  r30.0<1>:f  -r10.0<1;1,0>:f", {10: ("f", bits)}, "f", cr0=0)
    assert got == [pattern ^ 0x8000_0000 for pattern in bits]


@pytest.mark.parametrize(("label", "bit", "tiny"), [("f", 7, 0x0000_0001), ("hf", 10, 0x0001), ("df", 6, 1)])
def test_denormals_are_flushed_unless_cr0_keeps_them(label: str, bit: int, tiny: int) -> None:
    sign = 1 << BY_LABEL[label].bits - 1
    text = f"add (4|M0)  r30.0<1>:{label}  r10.0<1;1,0>:{label}  r20.0<1;1,0>:{label}"
    inputs = {10: (label, [tiny, tiny | sign, tiny, 0]), 20: (label, [0, sign, tiny, 0])}
    assert compute(text, inputs, label, cr0=0) == [0, sign, 0, 0]
    assert compute(text, inputs, label, cr0=1 << bit) == [tiny, tiny | sign, 2 * tiny, 0]


def test_denormal_results_are_flushed() -> None:
    half, small = encode(0.5, "f"), 0x0080_0000
    got = compute(
        "mul (4|M0)  r30.0<1>:f  r10.0<1;1,0>:f  r20.0<1;1,0>:f",
        {10: ("f", [small] * 4), 20: ("f", [half] * 4)},
        "f",
        cr0=0,
    )
    assert got == [0] * 4


def test_threads_of_one_program_can_round_differently() -> None:
    text = "add (1|M0)  cr0.0<1>:ud  r1.0<0;1,0>:ud  0x4C0:ud\nadd (1|M0)  r30.0<1>:f  r2.0<0;1,0>:f  r3.0<0;1,0>:f"
    interpreter = start(text + "\n" + END, dispatch=[1, 1], registers={2: np.float32(1), 3: np.float32(1e-9)})
    interpreter.threads.registers[1, 64] = 0x10
    interpreter.run(1000)
    assert lanes(interpreter.threads, 30, np.float32, 1, 0)[0] == 1
    assert lanes(interpreter.threads, 30, np.float32, 1, 1)[0] == np.nextafter(np.float32(1), np.float32(2))


def test_bf_arithmetic_rounds_to_f_and_then_to_bf() -> None:
    one, tiny = 0x3F80, encode(2.0**-9, "bf")
    got = compute(
        "add (4|M0)  r30.0<1>:bf  r10.0<1;1,0>:bf  r20.0<1;1,0>:f",
        {10: ("bf", [one] * 4), 20: ("f", [encode(v, "f") for v in (2.0**-9, 2.0**-7, 2.0**-8, 3 * 2.0**-8)])},
        "bf",
    )
    assert tiny
    assert [exact(bits, "bf") for bits in got] == [1.0, 1 + 2.0**-7, 1.0, 1 + 2.0**-6]


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("rndd", np.floor),
        ("rndu", np.ceil),
        ("rnde", np.rint),
        ("rndz", np.trunc),
        ("frc", lambda x: x - np.floor(x)),
    ],
)
def test_rounding_instructions(text: str, model: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    values = np.array([2.5, -2.5, 3.5, -0.25], dtype=np.float32)
    threads = run(f"{text} (4|M0)  r30.0<1>:f  r10.0<1;1,0>:f", dispatch=[0xF], registers={10: values})
    assert lanes(threads, 30, np.float32, 4).tolist() == model(values).tolist()


def test_saturation_of_floats_clamps_to_one_and_makes_nan_zero() -> None:
    bits = [encode(value, "f") for value in (1.5, -2.0, math.nan, 0.25)]
    got = compute("mov (4|M0)  (sat)r30.0<1>:f  r10.0<1;1,0>:f", {10: ("f", bits)}, "f")
    assert [exact(pattern, "f") for pattern in got] == [1.0, 0.0, 0.0, 0.25]


@pytest.mark.parametrize(("condition", "first"), [("lt", [1.0, 2.0, 5.0, -0.0]), ("ge", [3.0, 2.0, 5.0, 0.0])])
def test_sel_is_minimum_and_maximum_and_nan_loses(condition: str, first: list[float]) -> None:
    a = [encode(value, "f") for value in (1.0, math.nan, 5.0, 0.0)]
    b = [encode(value, "f") for value in (3.0, 2.0, math.nan, -0.0)]
    got = compute(
        f"sel (4|M0)  ({condition})f0.0  r30.0<1>:f  r10.0<1;1,0>:f  r20.0<1;1,0>:f", {10: ("f", a), 20: ("f", b)}, "f"
    )
    assert got == [encode(value, "f") for value in first]


def test_sel_of_two_nans_gives_the_canonical_one() -> None:
    got = compute(
        "sel (4|M0)  (ge)f0.0  r30.0<1>:f  r10.0<1;1,0>:f  r20.0<1;1,0>:f",
        {10: ("f", [0xFFC0_0001] * 4), 20: ("f", [0x7FC0_0002] * 4)},
        "f",
    )
    assert got == [CANONICAL_NAN[DataType.F]] * 4


def test_predicated_sel_moves_bits() -> None:
    got = compute(
        """
        (W) mov (1|M0)  f0.0<1>:uw  0x5:uw
        (f0.0) sel (4|M0)  r30.0<1>:f  r10.0<1;1,0>:f  r20.0<1;1,0>:f
        """,
        {10: ("f", [0x7F80_0001] * 4), 20: ("f", [0x7F80_0002] * 4)},
        "f",
    )
    assert got == [0x7F80_0001, 0x7F80_0002, 0x7F80_0001, 0x7F80_0002]


@pytest.mark.parametrize(
    ("operation", "condition", "expected"),
    [
        ("cmp", "eq", [0, 0, 0, 1]),
        ("cmp", "ne", [1, 1, 1, 0]),
        ("cmp", "lt", [1, 0, 0, 0]),
        ("cmp", "ge", [0, 0, 0, 1]),
        ("cmp", "un", [0, 1, 1, 0]),
        ("cmpn", "lt", [1, 0, 1, 0]),
        ("cmpn", "ge", [0, 0, 1, 1]),
    ],
)
def test_comparing_with_nan(operation: str, condition: str, expected: list[int]) -> None:
    a = [encode(value, "f") for value in (1.0, math.nan, 5.0, 0.0)]
    b = [encode(value, "f") for value in (3.0, 2.0, math.nan, -0.0)]
    got = compute(
        f"{operation} (4|M0)  ({condition})f0.0  r30.0<1>:f  r10.0<1;1,0>:f  r20.0<1;1,0>:f",
        {10: ("f", a), 20: ("f", b)},
        "f",
    )
    assert got == [0xFFFF_FFFF * hit for hit in expected]


def test_csel_chooses_by_its_third_source() -> None:
    threads = run(
        "csel (4|M0)  (lt)f0.0  r30.0<1>:f  r10.0<1;0>:f  r11.0<1;0>:f  r12.0<1>:f",
        dispatch=[0xF],
        registers={
            10: np.full(4, 1, np.float32),
            11: np.full(4, 2, np.float32),
            12: np.array([-1, 0, 1, np.nan], np.float32),
        },
    )
    assert lanes(threads, 30, np.float32, 4).tolist() == [1, 2, 2, 2]


MATH: dict[str, Callable[[float], float]] = {
    "inv": lambda x: 1 / x,
    "log": math.log2,
    "exp": lambda x: 2.0**x,
    "sqt": math.sqrt,
    "rsqt": lambda x: 1 / math.sqrt(x),
    "sin": math.sin,
    "cos": math.cos,
}


@pytest.mark.parametrize("function", MATH)
@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.0009765625, 100, width=32), min_size=4, max_size=4))
def test_math_is_within_half_an_ulp_of_an_f(function: str, values: list[float]) -> None:
    threads = run(
        f"math.{function} (4|M0)  r30.0<1>:f  r10.0<1;1,0>:f",
        dispatch=[0xF],
        registers={10: np.array(values, dtype=np.float32)},
    )
    for value, result in zip(values, lanes(threads, 30, np.float32, 4), strict=True):
        wanted = MATH[function](value)
        assert abs(float(result) - wanted) <= 0.5001 * float(np.spacing(np.float32(abs(wanted))))


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        ("inv", 0.0, math.inf),
        ("inv", -0.0, -math.inf),
        ("log", 0.0, -math.inf),
        ("log", -1.0, math.nan),
        ("exp", -math.inf, 0.0),
        ("exp", 200.0, math.inf),
        ("sqt", -1.0, math.nan),
        ("rsqt", 0.0, math.inf),
        ("sin", math.inf, math.nan),
        ("cos", 0.0, 1.0),
    ],
)
def test_math_of_special_values(function: str, value: float, expected: float) -> None:
    got = compute(f"math.{function} (4|M0)  r30.0<1>:f  r10.0<1;1,0>:f", {10: ("f", [encode(value, "f")] * 4)}, "f")
    assert got[0] == encode(expected, "f")


@pytest.mark.parametrize("label", ["f", "df"])
def test_invm_and_rsqtm_are_final_and_set_all_flags(label: str) -> None:
    dtype = {"f": np.float32, "df": np.float64}[label]
    a, b = np.array([1, 2, 3, 7], dtype), np.array([3, 7, 10, 49], dtype)
    threads = run(
        f"""
        math.invm (4|M0)   (eo)f0.0  r30.mme0:{label}  r10.nomme<1;1,0>:{label}  r11.nomme<1;1,0>:{label}
        math.rsqtm (4|M0)  (eo)f1.0  r31.mme0:{label}  r11.nomme<1;1,0>:{label}
        (W) mov (2|M0)  r32.0<1>:ud  f0.0<1;1,0>:ud
        """,
        dispatch=[0xF],
        registers={10: a, 11: b},
    )
    assert lanes(threads, 30, dtype, 4).tolist() == (a / b).tolist()
    assert lanes(threads, 31, dtype, 4).tolist() == np.sqrt(b).tolist()
    assert lanes(threads, 32, np.uint32, 2).tolist() == [0xF, 0xF]


def test_pow_and_fdiv() -> None:
    inputs = {10: np.array([2, 3, 9, -2], np.float32), 11: np.array([10, 4, 0.5, 2], np.float32)}
    threads = run(
        """
        math.pow (4|M0)   r30.0<1>:f  r10.0<1;1,0>:f  r11.0<1;1,0>:f
        math.fdiv (4|M0)  r31.0<1>:f  r10.0<1;1,0>:f  r11.0<1;1,0>:f
        """,
        dispatch=[0xF],
        registers=inputs,
    )
    assert lanes(threads, 30, np.float32, 4).tolist() == [1024, 81, 3, 4]
    assert lanes(threads, 31, np.float32, 4).tolist() == (inputs[10] / inputs[11]).tolist()


def test_srnd_adds_random_bits_below_the_last_one_kept() -> None:
    value = struct.unpack("<I", struct.pack("<f", 1 + 2.0**-12))[0]
    threads = run(
        "srnd (4|M0)  r30.0<1>:hf  r10.0<1;1,0>:f  r11.0<1;1,0>:ud",
        dispatch=[0xF],
        registers={10: np.full(4, value, np.uint32), 11: np.array([0, 0x17FF, 0x1800, 0x1FFF], np.uint32)},
    )
    above = 1 + 2.0**-10
    assert lanes(threads, 30, np.float16, 4).tolist() == [1, 1, above, above]


@pytest.mark.parametrize("text", ["mac (4|M0)  r30.0<1>:f  r10.0<1;1,0>:f  r11.0<1;1,0>:f"])
def test_mac_adds_the_accumulator(text: str) -> None:
    threads = run(
        "mov (4|M0)  acc0.0<1>:f  r12.0<1;1,0>:f\n" + text,
        dispatch=[0xF],
        registers={10: np.full(4, 3, np.float32), 11: np.full(4, 4, np.float32), 12: np.arange(4, dtype=np.float32)},
    )
    assert lanes(threads, 30, np.float32, 4).tolist() == [12, 13, 14, 15]
