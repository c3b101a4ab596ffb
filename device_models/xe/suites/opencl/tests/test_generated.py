"""Generated kernels: the device's results against numpy's, and against PoCL's."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyopencl as cl
import pyopencl.array as cl_array
import pytest
from devices import REFERENCE, UNDER_TEST, device
from generated import GROUP, ITEMS, TYPES, VARIABLES, Program, inputs

SEEDS = range(3)
cases = pytest.mark.parametrize(("name", "seed"), [(name, seed) for name in TYPES for seed in SEEDS])


@functools.cache
def results(platform: str, name: str, seed: int) -> Any:
    """What a platform's device makes of a program."""
    kind, used = TYPES[name], device(platform)
    if kind.extension and kind.extension not in used.device.extensions:
        pytest.skip(f"{platform} has no {kind.extension}")
    program = Program(kind, seed)
    out = cl_array.zeros(used.queue, VARIABLES * ITEMS, kind.dtype)
    arguments = [cl_array.to_device(used.queue, values).data for values in inputs(kind, seed)]
    kernel = cl.Kernel(used.built(program.source), "generated")
    kernel(used.queue, (ITEMS,), (GROUP,), *arguments, out.data)
    return out.get()


def differences(found: Any, wanted: Any) -> str:
    """The first items that differ, in words; empty: there are none. A NaN is as good as another."""
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    places = np.flatnonzero(~same)
    return "; ".join(f"v{at // ITEMS} of item {at % ITEMS}: {found[at]!r}, not {wanted[at]!r}" for at in places[:4])


@cases
def test_results_are_those_of_numpy(name: str, seed: int) -> None:
    found = results(UNDER_TEST, name, seed)
    program = Program(TYPES[name], seed)
    assert differences(found, program.expected(*inputs(TYPES[name], seed))) == "", program.source


@cases
def test_results_are_those_of_pocl(name: str, seed: int) -> None:
    if UNDER_TEST == REFERENCE:
        pytest.skip("PoCL is what is tested")
    program, reference = Program(TYPES[name], seed), results(REFERENCE, name, seed)
    if wrong := differences(reference, program.expected(*inputs(TYPES[name], seed))):
        pytest.skip(f"PoCL and numpy differ, so PoCL cannot judge: {wrong}")
    assert differences(results(UNDER_TEST, name, seed), reference) == "", program.source
