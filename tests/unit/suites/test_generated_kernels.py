"""The generator of the suite `opencl`: what numpy makes of a program, without a device."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest

from vfio_user_xe.device_models.xe.info import INFO


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated_kernels", INFO.suites["opencl"] / "tests" / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generated = _load()
OPERATIONS = {operation.text: operation.of for operation in generated._INTEGERS}


@pytest.mark.parametrize("name", generated.TYPES)
def test_a_program_is_the_same_for_a_seed_and_another_for_the_next(name: str) -> None:
    kind = generated.TYPES[name]
    first, again, other = (generated.Program(kind, seed) for seed in (1, 1, 2))
    assert first.source == again.source != other.source
    inputs = generated.inputs(kind, 1)
    found = first.expected(*inputs)
    assert found.dtype == kind.dtype
    assert found.shape == (generated.VARIABLES * generated.ITEMS,)
    assert np.array_equal(found, again.expected(*inputs), equal_nan=kind.is_float)


@pytest.mark.parametrize(
    ("text", "operands", "wanted"),
    [
        ("add_sat({0}, {1})", (100, 100), 127),
        ("sub_sat({0}, {1})", (-100, 100), -128),
        ("hadd({0}, {1})", (-3, 2), -1),
        ("rhadd({0}, {1})", (-3, 2), 0),
        ("mul_hi({0}, {1})", (-128, 2), -1),
        ("abs_diff({0}, {1})", (127, -128), -1),
        ("rotate({0}, {1})", (-127, 1), 3),
        ("rotate({0}, {1})", (1, -1), -128),
        ("popcount({0})", (-1,), 8),
        ("clz({0})", (1,), 7),
        ("({0} >> ({1} & M))", (-128, 9), -64),
        ("((U){0} / (U)((U){1} | 1))", (-1, 2), 85),
    ],
)
def test_operations_of_integers_are_those_of_opencl_c(text: str, operands: tuple[int, ...], wanted: int) -> None:
    kind = generated.TYPES["char"]
    (found,) = OPERATIONS[text](kind, *(np.array([value], np.int8) for value in operands))
    assert found == wanted


def test_items_of_a_group_exchange_values_whatever_the_others_do() -> None:
    program = generated.Program(generated.TYPES["int"], 0)
    program._statements = [("exchange", 0, 1, 3)]
    a, b, c = (np.arange(generated.ITEMS, dtype=np.int32) + 1000 * n for n in range(3))
    found = program.expected(a, b, c).reshape(generated.VARIABLES, -1, generated.GROUP)
    assert found[0, 2, :2].tolist() == [1000 + 2 * 64 + 3, 1000 + 2 * 64 + 4]
    assert found[0, 2, 63] == 1000 + 2 * 64 + 2
