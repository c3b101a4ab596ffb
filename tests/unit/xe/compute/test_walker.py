from __future__ import annotations

import pytest

from tests.support.xe.compute_kernels import LINEAR, STORE, offsets, slm_reduction, store, vector_add
from tests.support.xe.compute_lab import (
    DATA,
    EOT,
    ComputeLab,
)
from vfio_user_xe.device_models.xe.compute import compiled_execution
from vfio_user_xe.device_models.xe.profiles.parts import Part


def pointers(*addresses: int) -> list[int]:
    return [half for address in addresses for half in (address & 0xFFFFFFFF, address >> 32)]


A, B, C = DATA, DATA + 0x1000, DATA + 0x2000


def vector_add_of(lab: ComputeLab, items: int, local: int) -> list[int]:
    job = lab.dispatch(
        vector_add(local),
        groups=(-(-items // local), 1, 1),
        local=(local, 1, 1),
        ids=[0],
        inline=pointers(A, B, C),
        data=[*range(1, items + 1), *[0] * (1024 - items), *range(100, 100 + items)],
    )
    assert not lab.engine("ccs0").reports
    return job.data(0x2000, items + 16)


def test_a_walker_adds_vectors(lab: ComputeLab) -> None:
    assert vector_add_of(lab, 256, 64) == [101 + 2 * n for n in range(256)] + [0] * 16


def test_lanes_beyond_the_group_are_off_in_its_last_thread(lab: ComputeLab) -> None:
    assert vector_add_of(lab, 40, 40) == [101 + 2 * n for n in range(40)] + [0] * 16


@pytest.mark.parametrize("denormals", [True, False])
@pytest.mark.parametrize("label", ["df", "f", "hf"])
def test_a_descriptor_that_flushes_denormals_does_so_with_floats_alone(
    lab: ComputeLab, label: str, denormals: bool
) -> None:
    tiny = 0x40
    clear = "".join(f"(W) mov (16|M0)  r{register}.0<1>:ud  0:ud\n" for register in (20, 21, 22))
    kernel = f"""
        {LINEAR}
        {clear}
        (W) mov (1|M0)  r20.0<1>:ud  {tiny}:ud
        add (1|M0)  r22.0<1>:{label}  r20.0<0;1,0>:{label}  r21.0<0;1,0>:{label}
    """
    job = lab.dispatch(kernel + store(0, "r22") + EOT, ids=[0], inline=pointers(A), denormals=denormals)
    assert not lab.engine("ccs0").reports
    assert job.data(0, 1) == [tiny if denormals or label != "f" else 0]


@pytest.mark.parametrize("base", [0, 0x1000_0000])
def test_groups_reduce_in_shared_local_memory_with_barriers(lab: ComputeLab, base: int) -> None:
    values = [7 * n % 23 for n in range(192)]
    job = lab.dispatch(
        slm_reduction(64, base),
        groups=(3, 1, 1),
        local=(64, 1, 1),
        ids=[0],
        inline=pointers(A, C),
        slm=1,
        barriers=1,
        data=values,
    )
    assert job.data(0x2000, 4) == [sum(values[64 * group : 64 * group + 64]) for group in range(3)] + [0]


@pytest.mark.parametrize("mask", ["(W) ", ""])
@pytest.mark.parametrize(("descriptor", "found"), [("0x0400058C", 5 + 1000), ("0x04000584", 5)])
def test_a_message_of_one_lane_has_its_addresses_in_the_registers_of_sixteen(
    lab: ComputeLab, mask: str, descriptor: str, found: int
) -> None:
    """IGC gives one lane's A64 address two registers, as it does 16 lanes; the data are behind them, in source 1."""
    kernel = (
        "(W) mov (16|M0)  r6.0<1>:ud  0:ud\n(W) mov (16|M0)  r7.0<1>:ud  77:ud\n"
        "(W) mov (1|M0)  r6.0<1>:uq  r2.0<0;1,0>:uq\n(W) mov (1|M0)  r14.0<1>:d  5:w\n"
        f"{mask}send.ugm (1|M0)  null  r6  r14:1  0x0  {descriptor}\n" + EOT
    )
    job = lab.dispatch(kernel, groups=(1, 1, 1), local=(16, 1, 1), ids=[0], inline=pointers(A), data=[1000, 9])
    assert job.data(0, 2) == [found, 9]


def test_atomics_of_all_lanes_add_up_and_return_what_was_there(lab: ComputeLab) -> None:
    kernel = (
        offsets(64)
        + "mov (16|M0)  r30.0<1>:uq  r2.0<0;1,0>:uq\n"
        + "send.ugm (16|M0)  r20  r30  null:0  0x0  0x04100588\n"  # inc, with the old value
        + "shl (16|M0)  r12.0<1>:ud  r20.0<1;1,0>:ud  2:ud\n"
        + store(1, "r20", 32)
        + EOT
    )
    job = lab.dispatch(kernel, groups=(4, 1, 1), local=(64, 1, 1), ids=[0], inline=pointers(A, C))
    assert job.data(0, 1) == [256]
    assert job.data(0x2000, 257) == [*range(256), 0]


@pytest.mark.parametrize(("order", "fastest"), [(0, "xyz"), (1, "xzy"), (2, "yxz"), (3, "yzx"), (4, "zxy"), (5, "zyx")])
def test_local_ids_follow_the_walk_order(lab: ComputeLab, order: int, fastest: str) -> None:
    sizes = {"x": 4, "y": 2, "z": 4}
    kernel = LINEAR
    for dimension in range(3):
        kernel += f"mov (16|M0)  r20.0<1>:ud  r{1 + dimension}.0<1;1,0>:uw\n"
        kernel += f"add (16|M0)  r30.0<1>:uq  r4.{dimension}<0;1,0>:uq  r12.0<1;1,0>:ud\n"
        kernel += f"send.ugm (16|M0)  null  r30  r20:1  0x0  {STORE}\n"
    job = lab.dispatch(kernel + EOT, local=(4, 2, 4), ids=[0, 1, 2], order=order, inline=pointers(A, B, C))
    expected: dict[str, list[int]] = {letter: [] for letter in "xyz"}
    for item in range(32):
        rest = item
        for letter in fastest:
            rest, index = divmod(rest, sizes[letter])
            expected[letter].append(index)
    assert [job.data(0x1000 * n, 32) for n in range(3)] == [expected[letter] for letter in "xyz"]


@pytest.mark.parametrize(
    ("group_order", "expected"),
    [
        (0, [(1, 0, 0), (2, 0, 0), (1, 1, 0), (2, 1, 0), (1, 2, 0), (2, 2, 0), (1, 0, 1)]),
        (1, [(1, 0, 0), (1, 1, 0), (1, 2, 0), (2, 0, 0), (2, 1, 0), (2, 2, 0), (1, 0, 1)]),
    ],
    ids=["linear", "by y"],
)
def test_groups_begin_in_the_dispatch_walk_order(
    lab: ComputeLab, monkeypatch: pytest.MonkeyPatch, group_order: int, expected: list[tuple[int, int, int]]
) -> None:
    """Each takes 16 numbers and puts its place behind them; with one processor groups do not overtake each other."""
    monkeypatch.setattr(compiled_execution, "_processors", lambda: 1)
    kernel = (
        "(W) shl (1|M0)  r40.0<1>:ud  r0.7<0;1,0>:ud  16:ud\n"
        "(W) shl (1|M0)  r41.0<1>:ud  r0.6<0;1,0>:ud  8:ud\n"
        "(W) add3 (1|M0)  r40.0<1>:ud  r40.0<0;0>:ud  r41.0<0;0>:ud  r0.1<0>:ud\n"
        "mov (16|M0)  r21.0<1>:ud  r40.0<0;1,0>:ud\n"
        "mov (16|M0)  r30.0<1>:uq  r2.0<0;1,0>:uq\n"
        "send.ugm (16|M0)  r20  r30  null:0  0x0  0x04100588\n"
        "shl (16|M0)  r12.0<1>:ud  r20.0<1;1,0>:ud  2:ud\n" + store(1, "r21", 32) + EOT
    )
    job = lab.dispatch(
        kernel, groups=(3, 3, 2), first=(1, 0, 0), ids=[0], group_order=group_order, inline=pointers(A, C)
    )
    found = job.data(0x2000, 16 * 12)[::16]
    assert [(place & 0xFF, place >> 8 & 0xFF, place >> 16) for place in found][:7] == expected


def test_dimensions_are_ends_and_begin_where_the_walker_says(lab: ComputeLab) -> None:
    kernel = (
        LINEAR
        + """
        (W) shl (1|M0)  r40.0<1>:ud  r0.6<0;1,0>:ud  4:ud
        (W) add (1|M0)  r40.0<1>:ud  r40.0<0;1,0>:ud  r0.1<0;1,0>:ud
        (W) shl (1|M0)  r40.0<1>:ud  r40.0<0;1,0>:ud  2:ud
        (W) add (1|M0)  r30.0<1>:uq  r1.0<0;1,0>:uq  r40.0<0;1,0>:ud
        (W) mov (1|M0)  r20.0<1>:ud  1:ud
        (W) send.ugm (1|M0)  null  r30  r20:1  0x0  0x02000584
    """
    )
    job = lab.dispatch(kernel + EOT, groups=(4, 3, 1), first=(2, 1, 0), inline=pointers(A))
    seen = [index for index, value in enumerate(job.data(0, 64)) if value]
    assert seen == [16 + 2, 16 + 3, 32 + 2, 32 + 3]


def test_threads_that_run_at_once_have_numbers_of_their_own(lab: ComputeLab) -> None:
    kernel = LINEAR + "mov (16|M0)  r20.0<1>:ud  sr0.0<0;1,0>:ud\n" + store(0, "r20").replace("r2.", "r1.") + EOT
    job = lab.dispatch(kernel, local=(160, 1, 1), inline=[DATA, 0])
    numbers = job.data(0, 160)[::16]
    # Thread 2:0, execution unit 6:4.
    assert numbers == [index & 7 | index >> 3 << 4 for index in range(10)]


@pytest.mark.parametrize("cores", [1, 2])
def test_a_thread_is_in_a_subslice_that_the_card_has(lab: ComputeLab, cores: int) -> None:
    # Runtimes size what each thread has, by its number in sr0.0, by the units that the fuses show.
    lab.engine("ccs0").most_threads = Part("G21", xe_cores=cores, memory_bits=128).threads
    kernel = """
        (W) shl (1|M0)  r40.0<1>:ud  r0.1<0;1,0>:ud  2:ud
        (W) add (1|M0)  r30.0<1>:uq  r1.0<0;1,0>:uq  r40.0<0;1,0>:ud
        (W) mov (1|M0)  r20.0<1>:ud  sr0.0<0;1,0>:ud
        (W) send.ugm (1|M0)  null  r30  r20:1  0x0  0x02000584
    """
    job = lab.dispatch(kernel + EOT, groups=(300, 1, 1), local=(16, 1, 1), inline=pointers(A))
    assert {number >> 8 for number in job.data(0, 300)} <= set(range(cores))
