"""Multiplications in pairs: the half that nobody reads is left out, and what is read is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.xe.eu.alu_strategies import active_lanes
from tests.unit.xe.eu.kernel import END, reader, run
from tests.unit.xe.eu.test_compiled_flow import FOREVER, slot_of, start
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.compiled.accumulators import unread_products
from vfio_user_xe.device_models.xe.eu.compiled.layout import Reason
from vfio_user_xe.device_models.xe.eu.decode import decode
from vfio_user_xe.device_models.xe.eu.registers import STORAGE_BYTES

LOW = "mul (16|M0)  acc0.0<1>:d  r10.0<1;1,0>:d  r12.0<2;1,0>:uw\n"
WHOLE = "macl (16|M0)  r14.0<1>:d  r10.0<1;1,0>:d  r12.0<1;1,0>:d\n"
READ = "mov (16|M0)  r20.0<1>:d  acc0.0<1;1,0>:d\n"
PAIR = LOW + WHOLE


def left_out(text: str) -> list[int]:
    """Numbers of the instructions that are left out."""
    program = decode(reader(assemble(text + END)), 0)
    unread = unread_products(program)
    return [number for number, one in enumerate(program.instructions) if one.address in unread]


def test_the_first_half_of_a_product_is_left_out_when_the_next_one_writes_the_accumulator() -> None:
    assert left_out(PAIR * 3) == [0, 2]


@pytest.mark.parametrize(
    "between",
    [
        READ,
        "mac (16|M0)  r20.0<1>:d  r10.0<1;1,0>:d  r12.0<1;1,0>:w\n",
        "add (16|M0)  r20.0<1>:ud  r10.0<1;1,0>:ud  acc0.4<0;1,0>:ud\n",
        "(W) mov (1|M0)  cr0.1<1>:ud  0x20000000:ud\n",
        "cmp (16|M0) (eq)f0.0  null<1>:d  r10.0<1;1,0>:d  0:d\n(f0.0) goto (16|M0)  there  there\nthere:\njoin (16|M0)  on\non:\n",
    ],
)
def test_a_product_is_there_for_what_may_read_it(between: str) -> None:
    assert left_out(LOW + between + LOW) == []


@pytest.mark.parametrize(
    "again",
    [
        "(f0.0) " + LOW,
        LOW.replace("(16|M0)", "(8|M0)"),
        LOW.replace("(16|M0)", "(16|M16)"),
        LOW.replace("acc0.0<1>:d", "acc0.0<1>:q"),
        LOW.replace("acc0", "acc1"),
        LOW.replace("(16|M0)", "(8|M0)").replace("acc0.0<1>", "acc0.0<2>"),
    ],
)
def test_a_product_is_there_when_not_all_of_it_is_written_again(again: str) -> None:
    assert left_out(LOW + again) == []


def test_a_product_of_all_lanes_outlives_one_of_the_active_ones() -> None:
    assert left_out("(W) " + LOW + LOW) == []
    assert left_out(LOW + "(W) " + LOW) == [0]


def test_a_product_with_flags_is_never_left_out() -> None:
    assert left_out(LOW.replace("(16|M0)", "(16|M0) (eq)f0.0") + LOW) == []


LINES = [
    PAIR,
    PAIR.replace("(16|M0)", "(16|M16)").replace("r14", "r15"),
    PAIR.replace("(16|M0)", "(8|M8)").replace("r14", "r16").replace("acc0.0", "acc0.8"),
    "(W) " + LOW,
    "(f0.0) " + LOW,
    LOW.replace("acc0", "acc1"),
    READ,
    "add (16|M0)  r10.0<1>:d  r10.0<1;1,0>:d  r14.0<1;1,0>:d\n",
    "cmp (16|M0) (lt)f0.0  null<1>:d  r10.0<1;1,0>:d  r12.0<1;1,0>:d\n",
]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(LINES), min_size=2, max_size=14),
    st.integers(0, 1 << 32),
    active_lanes(),
    st.integers(1, 40),
)
def test_registers_and_accumulators_are_those_of_the_interpreter(
    lines: list[str], seed: int, active: int, budget: int
) -> None:
    body, payload = "".join(lines), start(seed)
    expected = run(body, [active], {0: payload[0]})
    slot = slot_of(body + END, payload, [active])
    reason = Reason.RAN_OUT
    while reason is Reason.RAN_OUT:
        reason = slot.run(budget)
    assert reason is Reason.GONE
    # r0 has the group's place, which the reference was not given.
    assert np.array_equal(slot.registers[0, 64:STORAGE_BYTES], expected.registers[0, 64:])


def test_a_thread_that_comes_to_what_is_left_out_goes_on_with_the_next_instruction() -> None:
    body, payload = PAIR * 3, start(3)
    at = decode(reader(assemble(body + END)), 0).instructions[2].address
    assert left_out(body)[1] == 2
    slot = slot_of(body + END, payload, [0xFFFF])
    assert slot.run(1) is Reason.RAN_OUT
    saved = slot.save()
    saved["places"][0, :16] = at
    slot = slot_of(body + END, payload, [0xFFFF])
    slot.restore(saved)
    assert slot.run(FOREVER) is Reason.GONE
    expected = run(body, [0xFFFF], {0: payload[0]})
    assert np.array_equal(slot.registers[0, 64:STORAGE_BYTES], expected.registers[0, 64:])
