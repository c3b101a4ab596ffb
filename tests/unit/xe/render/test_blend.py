"""Blend equations, factors and logic operations."""

from __future__ import annotations

import numpy as np
import pytest

from vfio_user_xe.device_models.xe.render.blend import Equation, Factor, TargetBlend, blend, logic

SOURCE, SECOND = np.array([[0.8, 0.4, 0.2, 0.5]]), np.array([[0.1, 0.2, 0.3, 0.4]])
DESTINATION, CONSTANT = np.array([[0.2, 0.6, 1.0, 0.25]]), np.array([[0.3, 0.3, 0.3, 0.7]])


def mixed(colour: Equation, alpha: Equation | None = None) -> list[float]:
    target = TargetBlend(True, colour, alpha or colour, (True,) * 4, None, False, False, 0)
    found: list[float] = blend(target, CONSTANT, SOURCE, SECOND, DESTINATION)[0].tolist()
    return found


@pytest.mark.parametrize(
    ("factor", "red", "alpha"),
    [
        (Factor.ONE, 1, 1), (Factor.ZERO, 0, 0), (Factor.SRC_COLOR, 0.8, 0.5), (Factor.SRC_ALPHA, 0.5, 0.5),
        (Factor.DST_COLOR, 0.2, 0.25), (Factor.DST_ALPHA, 0.25, 0.25), (Factor.CONST_COLOR, 0.3, 0.7),
        (Factor.CONST_ALPHA, 0.7, 0.7), (Factor.SRC1_COLOR, 0.1, 0.4), (Factor.SRC1_ALPHA, 0.4, 0.4),
        (Factor.SRC_ALPHA_SATURATE, 0.5, 1), (16 + Factor.SRC_ALPHA, 0.5, 0.5), (16 + Factor.DST_COLOR, 0.8, 0.75),
    ],
)  # fmt: skip
def test_factors_of_the_source(factor: int, red: float, alpha: float) -> None:
    found = mixed(Equation(0, factor, Factor.ZERO))
    assert found[0] == pytest.approx(0.8 * red)
    assert found[3] == pytest.approx(0.5 * alpha)


@pytest.mark.parametrize(("function", "red"), [(0, 1.0), (1, 0.6), (2, -0.6), (3, 0.2), (4, 0.8)])
def test_functions(function: int, red: float) -> None:
    assert mixed(Equation(function, Factor.ONE, Factor.ONE))[0] == pytest.approx(red)


def test_alpha_has_an_equation_of_its_own() -> None:
    found = mixed(Equation(0, Factor.ONE, Factor.ZERO), Equation(0, Factor.ZERO, Factor.ONE))
    assert found == pytest.approx([0.8, 0.4, 0.2, 0.25])


def test_a_target_that_does_not_blend_takes_the_source() -> None:
    copy = Equation(0, Factor.ONE, Factor.ONE)
    target = TargetBlend(False, copy, copy, (True,) * 4, None, False, False, 0)
    assert blend(target, CONSTANT, SOURCE, SECOND, DESTINATION) is SOURCE


@pytest.mark.parametrize(
    ("operation", "expected"),
    [(0, 0x00), (3, 0x0F), (5, 0x33), (6, 0x3C), (8, 0xC0), (10, 0xCC), (12, 0xF0), (14, 0xFC), (15, 0xFF)],
)
def test_logic_operations_are_truth_tables(operation: int, expected: int) -> None:
    found = logic(operation, np.array([0xF0], dtype=np.uint8), np.array([0xCC], dtype=np.uint8))
    assert found.tolist() == [expected]
