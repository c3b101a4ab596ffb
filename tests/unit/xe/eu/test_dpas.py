from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.xe.eu.kernel import lanes, run
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.reference.floats import to_bits, to_values

DEPTH = 8
COLUMNS = 16
REPEATS = [1, 3, 8]
RANDOM = np.random.default_rng(7)


def pack(numbers: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Numbers of `bits` bits (the last index is contiguous) as bytes."""
    per_byte = 8 // bits
    fields = (numbers & (1 << bits) - 1).reshape(-1, per_byte).astype(np.uint8)
    return (fields << (np.arange(per_byte, dtype=np.uint8) * bits)).sum(axis=1, dtype=np.uint8)


@pytest.mark.parametrize("repeat", REPEATS)
@pytest.mark.parametrize(
    ("label_b", "label_a"), [("b", "b"), ("ub", "b"), ("s4", "u4"), ("u2", "s2"), ("s4", "b"), ("ub", "u2")]
)
def test_integer_products_of_all_precisions(label_b: str, label_a: str, repeat: int) -> None:
    bits = {"b": 8, "ub": 8, "s4": 4, "u4": 4, "s2": 2, "u2": 2}
    ops = 8 if bits[label_a] < 8 and bits[label_b] < 8 else 4

    def numbers(label: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
        signed = label in ("b", "s4", "s2")
        low = -(1 << bits[label] - 1) if signed else 0
        return RANDOM.integers(low, low + (1 << bits[label]), shape)

    a = numbers(label_a, (repeat, DEPTH, ops))
    b = numbers(label_b, (DEPTH, COLUMNS, ops))
    c = RANDOM.integers(-(2**31), 2**31, (repeat, COLUMNS)).astype(np.int32)
    # A dword holds the elements of as many steps as fit (visa DPAS.md: SRC1_OPERANDS_PER_CHAN).
    steps = 32 // (ops * bits[label_b])
    dwords_b = pack(b.reshape(DEPTH // steps, steps, COLUMNS, ops).transpose(0, 2, 1, 3), bits[label_b])
    threads = run(
        f"dpas.8x{repeat} (16|M0)  r40:d  r50:d  r60:{label_b}  r70.0:{label_a}",
        registers={50: c, 60: dwords_b, 70: pack(a, bits[label_a])},
    )
    expected = c.astype(np.int64) + np.einsum("rdo,dco->rc", a, b)
    got = lanes(threads, 40, np.int32, repeat * COLUMNS).reshape(repeat, COLUMNS)
    assert np.array_equal(got, expected.astype(np.int32))


@pytest.mark.parametrize("repeat", REPEATS)
@pytest.mark.parametrize(("label", "kind"), [("bf", DataType.BF), ("hf", DataType.HF), ("tf32", DataType.TF32)])
def test_float_products_accumulate_in_f(label: str, kind: DataType, repeat: int) -> None:
    ops = 4 // kind.size
    a = RANDOM.integers(-8, 9, (repeat, DEPTH, ops)).astype(np.float32)
    b = RANDOM.integers(-8, 9, (DEPTH, COLUMNS, ops)).astype(np.float32)
    c = RANDOM.standard_normal((repeat, COLUMNS)).astype(np.float32)
    threads = run(
        f"dpas.8x{repeat} (16|M0)  r40:f  r50:f  r60:{label}  r70.0:{label}",
        registers={50: c, 60: to_bits(b, kind), 70: to_bits(a, kind)},
    )
    expected = c.copy()
    for step in range(DEPTH):
        for op in range(ops):
            expected = expected + a[:, step, op, None] * b[None, step, :, op]
    got = lanes(threads, 40, np.float32, repeat * COLUMNS).reshape(repeat, COLUMNS)
    assert np.array_equal(got, expected)


def test_a_null_accumulator_is_zero_and_bf_results_round_at_the_end() -> None:
    kind = DataType.BF
    a = np.full((8, DEPTH, 2), 1.0, np.float32)
    b = np.full((DEPTH, COLUMNS, 2), 1 + 2.0**-7, np.float32)
    threads = run(
        "dpas.8x8 (16|M0)  r40:bf  null:bf  r60:bf  r70.0:bf", registers={60: to_bits(b, kind), 70: to_bits(a, kind)}
    )
    got: Any = to_values(lanes(threads, 40, np.uint16, 8 * COLUMNS), kind)
    assert got.tolist() == [16.125] * 128


def test_tf32_uses_ten_bits_of_mantissa() -> None:
    a = np.full((1, DEPTH, 1), 1 + 2.0**-12, np.float32)
    b = np.zeros((DEPTH, COLUMNS, 1), np.float32)
    b[0] = 1
    threads = run("dpas.8x1 (16|M0)  r40:f  null:f  r60:tf32  r70.0:tf32", registers={60: b, 70: a})
    assert lanes(threads, 40, np.float32).tolist() == [1.0] * 16


def test_lanes_that_are_off_keep_their_columns() -> None:
    threads = run(
        "dpas.8x1 (16|M0)  r40:d  r50:d  r60:b  r70.0:b",
        dispatch=[0x00FF],
        registers={40: np.full(16, 5, np.int32), 50: np.full(16, 9, np.int32)},
    )
    assert lanes(threads, 40, np.int32).tolist() == [9] * 8 + [5] * 8
