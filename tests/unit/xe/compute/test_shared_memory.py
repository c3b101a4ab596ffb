"""Offsets in shared local memory: which of their bits count, and where the memory ends."""

from __future__ import annotations

import pytest

from tests.support.xe.compute_kernels import LINEAR, SLM_LOAD, SLM_STORE, store
from tests.support.xe.compute_lab import DATA, EOT, ComputeLab

POINTER = 0x1000_0000
"""What IGC sets in pointers to local memory that must not be null (PrivateMemoryToSLM.hpp:VALID_LOCAL_HIGH_BITS)."""
FILL = f"add (16|M0)  r20.0<1>:ud  r12.0<1;1,0>:ud  5000:ud\nsend.slm (16|M0)  null  r12  r20:1  0x0  {SLM_STORE}\n"
"""Dword n of the memory is 5000 + 4 n, for 16 dwords; r12 has their offsets without further bits."""
TAGGED = "or (16|M0)  r13.0<1>:ud  r12.0<1;1,0>:ud  {bits}:ud\n"
FILLED = [5000 + 4 * index for index in range(16)]


def results(lab: ComputeLab, kernel: str, *registers: str, slm: int = 1) -> list[list[int]]:
    """16 dwords of each of `registers` after `kernel`, whose group is one thread of 16 lanes."""
    stores = "".join(store(index, register) for index, register in enumerate(registers)).replace("r2.", "r1.")
    places = [DATA + 0x100 * index for index in range(len(registers))]
    inline = [half for place in places for half in (place & 0xFFFFFFFF, place >> 32)]
    job = lab.dispatch(LINEAR + kernel + stores + EOT, inline=inline, slm=slm)
    assert not lab.engine("ccs0").reports
    return [job.data(0x100 * index, 16) for index in range(len(registers))]


@pytest.mark.parametrize("bits", [POINTER, 0x0008_0000, 0x8000_0000, 0xFFF8_0000])
def test_bits_above_the_largest_memory_do_not_count(lab: ComputeLab, bits: int) -> None:
    kernel = FILL + TAGGED.format(bits=bits) + f"send.slm (16|M0)  r21  r13  null:0  0x0  {SLM_LOAD}\n"
    assert results(lab, kernel, "r21") == [FILLED]


def test_stores_through_a_pointer_arrive_at_its_offset(lab: ComputeLab) -> None:
    kernel = TAGGED.format(bits=POINTER) + FILL.replace("null  r12", "null  r13")
    kernel += f"send.slm (16|M0)  r21  r12  null:0  0x0  {SLM_LOAD}\n"
    assert results(lab, kernel, "r21") == [FILLED]


def test_vectors_of_two_dwords_go_through_a_pointer(lab: ComputeLab) -> None:
    kernel = (
        "shl (16|M0)  r14.0<1>:ud  r12.0<1;1,0>:ud  1:ud\n"
        + f"or (16|M0)  r13.0<1>:ud  r14.0<1;1,0>:ud  {POINTER}:ud\n"
        + "add (16|M0)  r20.0<1>:ud  r12.0<1;1,0>:ud  100:ud\nadd (16|M0)  r21.0<1>:ud  r12.0<1;1,0>:ud  200:ud\n"
        + "send.slm (16|M0)  null  r13  r20:2  0x0  0x02001504\n"
        + "send.slm (16|M0)  r22  r13  null:0  0x0  0x02201500\n"
        + f"send.slm (16|M0)  r24  r12  null:0  0x0  {SLM_LOAD}\n"
    )
    real, imaginary, memory = results(lab, kernel, "r22", "r23", "r24")
    assert real == [100 + 4 * lane for lane in range(16)]
    assert imaginary == [200 + 4 * lane for lane in range(16)]
    assert memory == [part for lane in range(8) for part in (100 + 4 * lane, 200 + 4 * lane)]


def test_a_transposed_block_goes_through_a_pointer(lab: ComputeLab) -> None:
    kernel = FILL + f"(W) mov (1|M0)  r13.0<1>:ud  {POINTER + 8}:ud\n"
    kernel += "mov (16|M0)  r21.0<1>:ud  7:ud\n(W) send.slm (1|M0)  r21  r13  null:0  0x0  0x02109500\n"
    assert results(lab, kernel, "r21")[0][:2] == FILLED[2:4]


def test_atomics_go_through_a_pointer(lab: ComputeLab) -> None:
    kernel = (
        FILL
        + TAGGED.format(bits=POINTER)
        + "send.slm (16|M0)  r21  r13  null:0  0x0  0x02100508\n"  # inc, with the old value
        + f"send.slm (16|M0)  r22  r12  null:0  0x0  {SLM_LOAD}\n"
    )
    old, new = results(lab, kernel, "r21", "r22")
    assert (old, new) == (FILLED, [value + 1 for value in FILLED])


def test_a_pointer_behind_the_memorys_end_reads_zero(lab: ComputeLab) -> None:
    kernel = FILL + TAGGED.format(bits=POINTER + 1024) + f"send.slm (16|M0)  r21  r13  null:0  0x0  {SLM_LOAD}\n"
    assert results(lab, kernel, "r21") == [[0] * 16]


def test_the_last_dword_of_the_largest_memory_is_there(lab: ComputeLab) -> None:
    last = (384 << 10) - 64
    kernel = TAGGED.format(bits=POINTER | last) + FILL.replace("null  r12", "null  r13")
    kernel += (
        f"send.slm (16|M0)  r21  r13  null:0  0x0  {SLM_LOAD}\nsend.slm (16|M0)  r22  r12  null:0  0x0  {SLM_LOAD}\n"
    )
    assert results(lab, kernel, "r21", "r22", slm=14) == [FILLED, [0] * 16]
