"""Control flow, slices and groups of the compiled back end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.xe.eu.alu_strategies import active_lanes
from tests.unit.xe.eu.compiled_rig import loaded
from tests.unit.xe.eu.kernel import END, reader, run
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel, compile_program
from vfio_user_xe.device_models.xe.eu.compiled.layout import Reason
from vfio_user_xe.device_models.xe.eu.compiled.memory import Map
from vfio_user_xe.device_models.xe.eu.compiled.slot import Slot, Walk
from vfio_user_xe.device_models.xe.eu.decode import decode
from vfio_user_xe.device_models.xe.eu.registers import STORAGE_BYTES

KEEP = 0x4C0
FOREVER = 1 << 40


def kernel_of(text: str) -> Kernel:
    return compile_program(decode(reader(assemble(text)), 0), loaded())


def slot_of(text: str, payload: NDArray[np.uint8], dispatch: list[int], groups: int = 1, slm: int = 0) -> Slot:
    """A slot that has begun a walk over `groups` groups in x."""
    slot = Slot(Map(loaded()), len(dispatch), slm)
    slot.begin(Walk(kernel_of(text), payload, dispatch, 0, (groups, 1, 1), cr0=KEEP))
    return slot


@st.composite
def bodies(draw: Any, depth: int = 3) -> str:
    """Structured code that counts in r20 which lanes came by, with loops that end for each lane in its own round."""
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["add", "if", "loop", "goto", "call"])) if depth else "add"
        number = draw(st.integers(1, 1000))
        label = f"l{draw(st.uuids()).hex}"
        mask = draw(st.integers(1, 7))
        test = (
            f"and (32|M0)  r30.0<1>:d  r10.0<1;1,0>:d  {mask}:d\n"
            f"cmp (32|M0) (eq)f0.0  null<1>:d  r30.0<1;1,0>:d  {draw(st.integers(0, mask))}:d"
        )
        match kind:
            case "add":
                lines.append(f"add (32|M0)  r20.0<1>:d  r20.0<1;1,0>:d  {number}:d")
                lines.append("mul (32|M0)  r20.0<1>:d  r20.0<1;1,0>:d  3:d")
            case "if":
                then, other = draw(bodies(depth - 1)), draw(bodies(depth - 1))
                lines += [test, f"(f0.0) if (32|M0)  {label}e  {label}x", then, f"else (32|M0)  {label}x  {label}x"]
                lines += [f"{label}e:", other, f"{label}x:", f"endif (32|M0)  {label}n", f"{label}n:"]
            case "goto":
                lines += [test, f"(~f0.0) goto (32|M0)  {label}j  {label}j", draw(bodies(depth - 1)), f"{label}j:"]
                lines += [f"join (32|M0)  {label}n", f"{label}n:"]
            case "call":
                pair = f"r{60 + depth}.0"
                lines += [test, draw(st.sampled_from(["", "(f0.0) "])) + f"call (32|M0)  {pair}  {label}c"]
                lines += [f"goto (32|M0)  {label}b  {label}b", f"{label}c:", draw(bodies(depth - 1))]
                lines += [f"ret (32|M0)  {pair}", f"{label}b:"]
            case "loop":
                counter = f"r{40 + 2 * depth}.0<1>:d"
                value = f"r{40 + 2 * depth}.0<1;1,0>:d"
                lines += [f"and (32|M0)  {counter}  r10.0<1;1,0>:d  {mask}:d", f"{label}:", draw(bodies(depth - 1))]
                lines += [f"add (32|M0)  {counter}  {value}  -1:d", f"cmp (32|M0) (gt)f1.0  null<1>:d  {value}  0:d"]
                lines += [f"(f1.0) while (32|M0)  {label}"]
    return "\n".join(lines)


def start(seed: int) -> NDArray[np.uint8]:
    """r0 to r29 of one thread: random."""
    return np.random.default_rng(seed).integers(0, 256, (1, 30 * 64), dtype=np.uint8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies(), active_lanes(), st.integers(0, 1 << 32), st.integers(1, 40))
def test_lanes_go_the_same_ways(body: str, active: int, seed: int, budget: int) -> None:
    payload = start(seed)
    expected = run(body, [active], {0: payload[0]})
    slot = slot_of(body + "\n" + END, payload, [active])
    reason = Reason.RAN_OUT
    for _ in range(20_000):
        reason = slot.run(budget)
        if reason is not Reason.RAN_OUT:
            break
    assert reason is Reason.GONE
    # r0 has the group's place, which the reference was not given.
    assert np.array_equal(slot.registers[0, 64:STORAGE_BYTES], expected.registers[0, 64:])


# A loop that takes the value of the first lane that is still in it, and that lane leaves: what Mesa makes of an index that differs.
FIRST_LANE = """
mov (32|M0)  r20.0<1>:d  0:d
top: (W) mov (1|M0)  r22.0<1>:ud  ce0.0<0;1,0>:ud
(W) fbl (1|M0)  r23.0<1>:ud  r22.0<0;1,0>:ud
(W) cbit (1|M0)  r24.0<1>:ud  ce0.0<0;1,0>:ud
mov (32|M0)  r26.0<1>:ud  r24.0<0;1,0>:ud
add (32|M0)  r20.0<1>:d  r20.0<1;1,0>:d  1:d
cmp (32|M0) (eq)f0.0  null<1>:d  r12.0<1;1,0>:d  r23.0<0;1,0>:d
(f0.0) break (32|M0)  out  out
out: while (32|M0)  top
"""


@pytest.mark.parametrize("active", [0xFFFF_FFFF, 0x8001_0F00, 0x2])
def test_ce0_has_the_lanes_that_are_here(active: int) -> None:
    payload = start(1)
    payload[0, 12 * 64 : 14 * 64] = np.arange(32, dtype=np.int32).view(np.uint8)
    reference = run(FIRST_LANE, [active], {0: payload[0]}).registers[0]
    slot = slot_of(FIRST_LANE + "\n" + END, payload, [active])
    assert not kernel_of(FIRST_LANE + "\n" + END).interpreted
    assert slot.run(FOREVER) is Reason.GONE
    lanes = [lane for lane in range(32) if active >> lane & 1]
    for registers in (reference, slot.registers[0]):
        rounds, left = (registers[64 * n : 64 * n + 128].view(np.int32)[lanes].tolist() for n in (20, 26))
        assert rounds == list(range(1, len(lanes) + 1))
        assert left == list(range(len(lanes), 0, -1))


def targets_in_registers(opcode: str, distance: int = 48) -> str:
    """Lanes with an odd id take a branch whose target is `distance` bytes on, as r4 says, or r5 in its second dword."""
    return f"""
        (W) mov (1|M0)  r4.0<1>:d  {distance}:d
        (W) mov (1|M0)  r5.0<1>:d  4096:d
        (W) mov (1|M0)  r5.1<1>:d  {distance}:d
        and (32|M0)  r30.0<1>:d  r10.0<1;1,0>:d  1:d
        cmp (32|M0) (ne)f0.0  null<1>:d  r30.0<1;1,0>:d  0:d
        {opcode}
        mov (32|M0)  r20.0<1>:d  7:d
        mul (32|M0)  r20.0<1>:d  r20.0<1;1,0>:d  3:d
        add (32|M0)  r20.0<1>:d  r20.0<1;1,0>:d  9:d
    """


@pytest.mark.parametrize(
    "opcode",
    ["(f0.0) brd (32|M0)  r4.0", "(f0.0) brc (32|M0)  r5.0", "(W&f0.0) jmpi (1|M0)  r4.0", "(f0.0) brd (16|M0)  r4.0"],
)
@pytest.mark.parametrize("active", [0xFFFF_FFFF, 0x5A5A_0F0F])
def test_a_target_in_a_register_is_found_as_the_interpreter_finds_it(opcode: str, active: int) -> None:
    body, payload = targets_in_registers(opcode), start(3)
    expected = run(body, [active], {0: payload[0]})
    slot = slot_of(body + "\n" + END, payload, [active])
    assert not kernel_of(body + "\n" + END).interpreted
    assert slot.run(FOREVER) is Reason.GONE
    assert np.array_equal(slot.registers[0, 64:STORAGE_BYTES], expected.registers[0, 64:])


@pytest.mark.parametrize("opcode", ["(f0.0) brd (32|M0)  r4.0", "(W&f0.0) jmpi (1|M0)  r4.0"])
@pytest.mark.parametrize("distance", [49, 52, 55])
def test_the_lowest_three_bits_of_a_target_in_a_register_do_not_count(opcode: str, distance: int) -> None:
    even, odd = targets_in_registers(opcode), targets_in_registers(opcode, distance)
    payload = start(3)
    expected = run(even, [0xFFFF_FFFF], {0: payload[0]})
    reference = run(odd, [0xFFFF_FFFF], {0: payload[0]})
    slot = slot_of(odd + "\n" + END, payload, [0xFFFF_FFFF])
    assert slot.run(FOREVER) is Reason.GONE
    for registers in (reference.registers[0], slot.registers[0, : reference.registers.shape[1]]):
        assert np.array_equal(registers[20 * 64 : 22 * 64], expected.registers[0, 20 * 64 : 22 * 64])


@pytest.mark.parametrize("distance", [33, 36, 39])
def test_the_lowest_three_bits_of_a_distance_do_not_count(distance: int) -> None:
    def body(goto: int) -> str:
        return f"""
        mov (32|M0)  r20.0<1>:d  7:d
        goto (32|M0)  {goto}  {goto}
        mul (32|M0)  r20.0<1>:d  r20.0<1;1,0>:d  3:d
        add (32|M0)  r20.0<1>:d  r20.0<1;1,0>:d  9:d
        """

    payload = start(3)
    expected = run(body(distance & ~7), [0xFFFF_FFFF], {0: payload[0]})
    reference = run(body(distance), [0xFFFF_FFFF], {0: payload[0]})
    slot = slot_of(body(distance) + END, payload, [0xFFFF_FFFF])
    assert slot.run(FOREVER) is Reason.GONE
    for registers in (reference.registers[0], slot.registers[0, : reference.registers.shape[1]]):
        assert np.array_equal(registers[20 * 64 : 22 * 64], expected.registers[0, 20 * 64 : 22 * 64])
