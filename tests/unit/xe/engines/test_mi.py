"""MI commands and their flags."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import END, NOOP, conditional_end, gpr, lri, lrm, sdi, semaphore, srm
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, PPHWSP, SEQNO, Job, Lab
from vfio_user_xe.device_models.xe.engines import mi_math as alu
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, COPY, RENDER
from vfio_user_xe.emulator.model.registers import Register

GGTT = 1 << 22
ALL = (1 << 64) - 1


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def ring_job(lab: Lab, *commands: int, **options: object) -> Job:
    """Run `commands` from the ring: privileged."""
    job = lab.job(**options)
    job.ring(*commands)
    job.submit()
    lab.run()
    return job


# MI_STORE_DATA_IMM


def test_several_dwords(lab: Lab) -> None:
    assert lab.execute(*sdi(DATA_VA + 4, 1, 2, 3)).data(0, 5) == [0, 1, 2, 3, 0]


def test_qwords(lab: Lab) -> None:
    assert lab.execute(*sdi(DATA_VA, 1, 2, 3, 4, flags=1 << 21)).data(0, 4) == [1, 2, 3, 4]


def test_the_longest_that_the_driver_writes(lab: Lab) -> None:
    values = list(range(1, 1021))
    assert lab.execute(*sdi(DATA_VA, *values, flags=1 << 21)).data(0, 1020) == values


def test_across_a_page_boundary(lab: Lab) -> None:
    job = lab.job()
    job.tables.map(DATA_VA + 0x1000, job.data_memory + 0x5000)
    job.batch(*sdi(DATA_VA + 0xFFC, 0xA, 0xB), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert (job.data(0xFFC), job.data(0x5000)) == ([0xA], [0xB])


def test_canonical_addresses(lab: Lab) -> None:
    job = lab.job()
    job.tables.map(0x8000_0000_0000, job.data_memory)
    job.batch(*sdi(0xFFFF_8000_0000_0004, 7), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(4) == [7]


def test_into_the_ggtt_from_the_ring(lab: Lab) -> None:
    job = lab.job()
    job.ring(*sdi(job.at(SEQNO), 0xFFFFFF81, flags=GGTT))
    job.submit()
    lab.run()
    assert job.function.ggtt_space.read32(job.at(SEQNO)) == 0xFFFFFF81


def test_store_data_index_writes_the_pphwsp(lab: Lab) -> None:
    job = ring_job(lab, 0x1080_0001 | 1 << 21, 0xD0, 0x1234)
    assert job.function.ggtt_space.read32(job.at(PPHWSP + 0xD0)) == 0x1234


def test_store_data_index_writes_the_hardware_status_page(lab: Lab) -> None:
    lab.map_ggtt(0x300_0000, 0x300_0000)
    lab.pf.registers.poke(0x22080, 0x300_0000)
    ring_job(lab, 0x1080_0001, 0x40, 0x77)
    assert lab.dword(0x300_0040) == 0x77


def test_copy_mem_mem(lab: Lab) -> None:
    job = lab.job()
    job.set_data(0, 0xABCD)
    job.batch(0x1700_0003, DATA_VA + 8, 0, DATA_VA, 0, END)
    job.ring(*job.start(), 0x1700_0003 | 1 << 21, job.at(SEQNO), 0, DATA_VA, 0)
    job.ring(0x1700_0003 | 1 << 22, DATA_VA + 12, 0, job.at(SEQNO), 0)
    job.submit()
    lab.run()
    assert job.data(8, 2) == [0xABCD, 0xABCD]
    assert job.function.ggtt_space.read32(job.at(SEQNO)) == 0xABCD


# Registers


def test_registers_relative_to_the_engine(lab: Lab) -> None:
    job = lab.execute(*lri(gpr(3), 5, gpr(3) + 4, 6), *srm(gpr(3), DATA_VA), *srm(gpr(3) + 4, DATA_VA + 4))
    assert job.data(0, 2) == [5, 6]


def test_registers_by_absolute_number(lab: Lab) -> None:
    job = lab.execute(*lri(0x22000 + gpr(1), 9, flags=0), *srm(0x22000 + gpr(1), DATA_VA, flags=0))
    assert job.data() == [9]


def test_the_drivers_images_set_the_relative_flag_on_absolute_numbers(lab: Lab) -> None:
    job = lab.execute(*lri(0x22000 + gpr(1), 9), *srm(gpr(1), DATA_VA))
    assert job.data() == [9]


def test_remapped_numbers_of_rcs_mean_the_own_engine(lab: Lab) -> None:
    job = lab.execute(
        *lri(0x2000 + gpr(2), 11, flags=1 << 17), *srm(0x2000 + gpr(2), DATA_VA, flags=1 << 17), engine_class=COMPUTE
    )
    assert job.data() == [11]


def test_load_and_move_registers(lab: Lab) -> None:
    job = lab.job()
    job.set_data(0, 0x55)
    move = (0x1500_0001 | 3 << 18, gpr(0), gpr(1))
    job.batch(*lrm(gpr(0), DATA_VA), *move, *srm(gpr(1), DATA_VA + 4), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(4) == [0x55]


def test_store_register_mem_predicated_by_result(lab: Lab) -> None:
    result = 0x418
    job = lab.execute(
        *lri(gpr(0), 1, result, 0),
        *srm(gpr(0), DATA_VA, flags=1 << 19 | 1 << 21),
        *lri(result, 1),
        *srm(gpr(0), DATA_VA + 4, flags=1 << 19 | 1 << 21),
    )
    assert job.data(0, 2) == [0, 1]


def test_engine_id_and_timestamps_can_be_stored(lab: Lab) -> None:
    job = lab.execute(
        *srm(0x8C, DATA_VA),
        *srm(0x358, DATA_VA + 8),
        *srm(0x3A8, DATA_VA + 12),
        *srm(0x358, DATA_VA + 16),
        mask=2,
    )
    engine_id, first, context, second = job.data(0)[0], job.data(8)[0], job.data(12)[0], job.data(16)[0]
    assert engine_id == 0x83
    assert (second - first) & 0xFFFFFFFF < 19_200_000
    assert context < 19_200_000


def test_another_engines_clock_is_live_too(lab: Lab) -> None:
    job = lab.execute(*srm(0x2358, DATA_VA, flags=0), *srm(0x358, DATA_VA + 4))
    assert job.data(4)[0] - job.data()[0] & 0xFFFFFFFF < 19_200_000


def test_registers_belong_to_the_context(lab: Lab) -> None:
    lab.execute(*lri(gpr(5), 0x1111))
    job = lab.execute(*srm(gpr(5), DATA_VA))
    assert job.data() == [0]


def test_a_context_keeps_its_registers(lab: Lab) -> None:
    job = lab.execute(*lri(gpr(5), 0x1111))
    job.batch(*srm(gpr(5), DATA_VA), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [0x1111]


def test_the_ring_writes_the_functions_registers(lab: Lab) -> None:
    hooked = []
    lab.pf.registers.add([Register("SCRATCH", 0x4F100, write=hooked.append)])
    ring_job(lab, *lri(0x4F100, 0xDEA1BEE1, 0x4F104, 0xDEA2BEE2, flags=0))
    assert hooked == [0xDEA1BEE1]
    assert lab.pf.registers.peek(0x4F104) == 0xDEA2BEE2


def test_a_user_batch_cannot_write_the_functions_registers(lab: Lab) -> None:
    lab.execute(*lri(0x4F104, 0xBAD, flags=0))
    assert lab.pf.registers.peek(0x4F104) == 0
    assert "an unprivileged batch writes 0x4f104: dropped" in lab.engine("bcs0").reports


def test_a_user_batch_may_write_what_the_driver_lists(lab: Lab) -> None:
    # RING_FORCE_TO_NONPRIV(0): four registers from 0x83a0 on, read and write.
    lab.pf.registers.poke(0x22000 + 0x4D0, 0x83A0 | 1)
    job = lab.execute(*lri(0x83A8, 0x600D, flags=0), *srm(0x83A8, DATA_VA, flags=0))
    assert job.data() == [0x600D]


@pytest.mark.parametrize("entry", [0x83A8 | 1 << 30, 0x83A8 | 1 << 28])
def test_a_user_batch_may_not_write_what_the_driver_denies(lab: Lab, entry: int) -> None:
    lab.pf.registers.poke(0x22000 + 0x4D0, entry)
    job = lab.execute(*lri(0x83A8, 0x600D, flags=0), *srm(0x83A8, DATA_VA, flags=0))
    assert job.data() == [0]


def test_masked_engine_registers(lab: Lab) -> None:
    job = ring_job(lab, *lri(0xC0, 0x0030_0030), *lri(0xC0, 0x0010_0000), *srm(0xC0, DATA_VA))
    assert job.data() == [0x20]


def test_context_timestamp_can_be_set(lab: Lab) -> None:
    job = ring_job(lab, *lri(0x3A8, 0x1000), *srm(0x3A8, DATA_VA), *srm(0x3AC, DATA_VA + 4))
    assert 0x1000 <= job.data()[0] < 0x1000 + 19_200_000


# Conditional ends and semaphores


CASES = [
    (0, [(5, 4, True), (5, 5, False), (5, 6, False)]),
    (1, [(5, 4, True), (5, 5, True), (5, 6, False)]),
    (2, [(5, 4, False), (5, 5, False), (5, 6, True)]),
    (3, [(5, 4, False), (5, 5, True), (5, 6, True)]),
    (4, [(5, 5, True), (5, 6, False)]),
    (5, [(5, 5, False), (5, 6, True)]),
]
COMPARISONS = [(operation, *case) for operation, cases in CASES for case in cases]


@pytest.mark.parametrize(("operation", "memory", "immediate", "goes_on"), COMPARISONS)
def test_conditional_end(lab: Lab, operation: int, memory: int, immediate: int, goes_on: bool) -> None:
    job = lab.job()
    job.set_data(4, memory)
    job.batch(*conditional_end(DATA_VA + 4, immediate, operation), *sdi(DATA_VA, 1), END)
    job.ring(*job.start(), *sdi(DATA_VA + 8, 2))
    job.submit()
    lab.run()
    assert job.data() == [int(goes_on)]
    assert job.data(8) == [2]


def test_a_conditional_end_ends_all_levels_or_one(lab: Lab) -> None:
    job = lab.job()
    nested = 0x100 | 1 << 22
    for n, flags in enumerate((0, 1 << 18)):
        job.batch(*job.start(BATCH_VA + 0x100, nested), *sdi(DATA_VA + 4 * n, 1), END)
        job.batch(*conditional_end(DATA_VA + 64, 0, 0, flags), END, offset=0x100)
        job.ring(*job.start())
        job.submit()
        lab.run()
    assert job.data(0, 2) == [0, 1]


def test_a_conditional_end_compares_under_a_mask(lab: Lab) -> None:
    job = lab.job()
    job.set_data(8, 0x1234, 0xFF00)
    job.batch(*conditional_end(DATA_VA + 8, 0x5612, 4, 1 << 19), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [0]
    job.set_data(8, 0x5634, 0xFF00)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [1]


def test_a_loop_with_an_atomic_and_a_conditional_end(lab: Lab) -> None:
    job = lab.job()
    increment = (0x1780_0501, DATA_VA, 0)
    job.batch(*increment, 0x0480_0003, *conditional_end(DATA_VA, 25, 5), 0x1880_0001, BATCH_VA, 0)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [25]


@pytest.mark.parametrize(("operation", "memory", "immediate", "satisfied"), COMPARISONS)
def test_semaphore_compares(lab: Lab, operation: int, memory: int, immediate: int, satisfied: bool) -> None:
    job = lab.job()
    job.set_data(4, memory)
    job.batch(*semaphore(DATA_VA + 4, immediate, operation), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run(until=lambda: job.data() == [1] or len(lab.executor.waited) > 3)
    assert job.data() == [int(satisfied)]


def test_a_semaphore_is_released_by_the_cpu(lab: Lab) -> None:
    job = lab.job()
    job.batch(*semaphore(DATA_VA + 4, 7, 4), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run(until=lambda: len(lab.executor.waited) > 8)
    assert job.data() == [0]
    assert lab.executor.waited[0] == pytest.approx(50e-6)
    assert lab.executor.waited[-1] == pytest.approx(1e-3), "it backs off, so that waiting costs little"
    job.set_data(4, 7)
    lab.run()
    assert job.data() == [1]


def test_a_semaphore_is_released_by_another_engine(lab: Lab) -> None:
    waiter, signaller = lab.job(), lab.job(mask=2)
    signaller.tables.map(0x7000_0000, waiter.data_memory)
    waiter.batch(*semaphore(DATA_VA + 4, 7, 1), *sdi(DATA_VA, 1), END)
    signaller.batch(*[NOOP] * 200, *sdi(0x7000_0004, 7), END)
    waiter.ring(*waiter.start())
    waiter.submit()
    lab.run(until=lambda: len(lab.executor.waited) > 2)
    signaller.ring(*signaller.start())
    signaller.submit()
    lab.run()
    assert waiter.data() == [1]


def test_a_semaphore_in_signal_mode_looks_at_memory_too(lab: Lab) -> None:
    job = lab.job()
    job.batch(*semaphore(DATA_VA + 4, 1, 4, flags=0), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run(until=lambda: len(lab.executor.waited) > 2)
    job.set_data(4, 1)
    lab.run()
    assert job.data() == [1]


def test_a_semaphore_on_a_register(lab: Lab) -> None:
    relative = 1 << 15 | 1 << 16 | 1 << 19
    job = lab.execute(*lri(gpr(1), 3), *semaphore(gpr(1), 3, 4, flags=relative), *sdi(DATA_VA, 1))
    assert job.data() == [1]


def test_a_semaphore_with_data_from_a_register(lab: Lab) -> None:
    job = lab.job()
    job.set_data(4, 0x42)
    job.batch(*lri(gpr(0), 0x42), *semaphore(DATA_VA + 4, 0, 4, flags=1 << 15 | 1 << 17), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [1]


def test_a_semaphore_in_the_ggtt(lab: Lab) -> None:
    job = lab.job()
    job.dwords(job.at(SEQNO), 3)
    job.ring(*semaphore(job.at(SEQNO), 3, 4, flags=1 << 15 | GGTT), *sdi(DATA_VA, 1))
    job.submit()
    lab.run()
    assert job.data() == [1]


def test_the_watchdog_of_a_vfs_first_job_ends_the_wait(lab: Lab) -> None:
    # xe_ring_ops.c:emit_fake_watchdog: a semaphore that nobody ever releases.
    job = lab.job()
    job.ring(
        *lri(0x17C, 2, 0x178, 0),
        *semaphore(job.at(PPHWSP), 0xDEAD, 4, flags=1 << 15 | GGTT),
        *lri(0x178, 1),
        *sdi(DATA_VA, 1),
    )
    job.submit()
    lab.run()
    assert job.data() == [1]
    assert lab.engine("bcs0").resets == 1


def test_a_stopped_watchdog_does_not_end_a_wait(lab: Lab) -> None:
    job = lab.job()
    job.ring(*lri(0x17C, 2, 0x178, 0), *lri(0x178, 1), *semaphore(DATA_VA, 1, 4), *sdi(DATA_VA + 4, 1))
    job.submit()
    lab.run(until=lambda: len(lab.executor.waited) > 5)
    assert job.data(4) == [0]


# Predication


@pytest.mark.parametrize(
    ("mode", "result", "goes_on"),
    [(0, 0, True), (1, 1, True), (1, 0, False), (2, 1, False), (2, 0, True), (0xF, 1, False)],
)
def test_set_predicate_by_result_2(lab: Lab, mode: int, result: int, goes_on: bool) -> None:
    job = lab.execute(*lri(0x3BC, result), 0x0080_0000 | mode, *sdi(DATA_VA, 1), 0x0080_0000, *sdi(DATA_VA + 4, 2))
    assert job.data(0, 2) == [int(goes_on), 2]


@pytest.mark.parametrize(("mode", "result", "goes_on"), [(3, 1, True), (3, 0, False), (4, 1, False), (4, 0, True)])
def test_set_predicate_by_result(lab: Lab, mode: int, result: int, goes_on: bool) -> None:
    job = lab.execute(*lri(0x418, result), 0x0080_0000 | mode, *sdi(DATA_VA, 1), 0x0080_0000)
    assert job.data() == [int(goes_on)]


@pytest.mark.parametrize(("result", "jumps"), [(1, True), (0, False)])
def test_a_predicated_jump(lab: Lab, result: int, jumps: bool) -> None:
    job = lab.job()
    job.batch(
        *lri(0x3BC, result),
        0x0080_0001,
        *job.start(BATCH_VA + 0x200, 0x100 | 1 << 15),
        0x0080_0000,
        *sdi(DATA_VA, 1),
        END,
    )
    job.batch(0x0080_0000, *sdi(DATA_VA + 4, 1), END, offset=0x200)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(0, 2) == [int(not jumps), int(jumps)]


def test_an_indirect_jump(lab: Lab) -> None:
    job = lab.job()
    job.batch(*lri(gpr(0), BATCH_VA + 0x200, gpr(0) + 4, 0), *job.start(0, 0x100 | 1 << 18))
    job.batch(*sdi(DATA_VA, 1), END, offset=0x200)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [1]


@pytest.mark.parametrize(
    ("command", "source0", "source1", "before", "expected"),
    [
        (2 << 6 | 2, 5, 5, 0, 1),  # load, set, equal
        (2 << 6 | 2, 5, 6, 1, 0),
        (3 << 6 | 2, 5, 6, 0, 1),  # load inverted
        (2 << 6 | 1 << 3 | 2, 5, 5, 0, 0),  # and
        (2 << 6 | 2 << 3 | 2, 5, 6, 1, 1),  # or
        (2 << 6 | 3 << 3 | 2, 5, 5, 1, 0),  # xor
        (2 << 6 | 0, 1, 2, 0, 1),  # true
        (2 << 6 | 1, 1, 1, 1, 0),  # false
        (0 << 6 | 2, 5, 5, 0, 0),  # keep
    ],
)
def test_mi_predicate(lab: Lab, command: int, source0: int, source1: int, before: int, expected: int) -> None:
    job = lab.execute(
        *lri(0x400, source0, 0x404, 0, 0x408, source1, 0x40C, 0, 0x418, before),
        0x0600_0000 | command,
        *srm(0x418, DATA_VA),
        engine_class=RENDER,
    )
    assert job.data() == [expected]


# MI_MATH


def math(*instructions: tuple[int, int, int]) -> tuple[int, ...]:
    return 0x0D00_0000 | (len(instructions) - 1), *(op << 20 | a << 10 | b for op, a, b in instructions)


def load64(number: int, value: int) -> tuple[int, ...]:
    return lri(gpr(number), value & 0xFFFFFFFF, gpr(number) + 4, value >> 32)


def compute(lab: Lab, a: int, b: int, opcode: int, result: int = alu.ACCU, store: int = alu.STORE) -> int:
    job = lab.execute(
        *load64(1, a),
        *load64(2, b),
        *math((alu.LOAD, alu.SRCA, 1), (alu.LOAD, alu.SRCB, 2), (opcode, 0, 0), (store, 3, result)),
        *srm(gpr(3), DATA_VA),
        *srm(gpr(3) + 4, DATA_VA + 4),
    )
    return job.data64()


@pytest.mark.parametrize(
    ("opcode", "a", "b", "expected"),
    [
        (alu.ADD, 0xFFFF_FFFF, 1, 1 << 32),
        (alu.ADD, ALL, 2, 1),
        (alu.SUB, 5, 7, ALL - 1),
        (alu.AND, 0xF0F0 << 40, 0xFF00 << 40, 0xF000 << 40),
        (alu.OR, 0xF0, 0x0F, 0xFF),
        (alu.XOR, ALL, 0xFF, ALL - 0xFF),
        (alu.SHL, 1, 40, 1 << 40),
        (alu.SHR, 1 << 63, 63, 1),
        (alu.SAR, 1 << 63, 4, 0xF8 << 56),
    ],
)
def test_math_operations(lab: Lab, opcode: int, a: int, b: int, expected: int) -> None:
    assert compute(lab, a, b, opcode) == expected


@pytest.mark.parametrize(
    ("opcode", "a", "b", "zf", "cf"),
    [
        (alu.SUB, 5, 5, ALL, 0),
        (alu.SUB, 5, 7, 0, ALL),
        (alu.SUB, 7, 5, 0, 0),
        (alu.ADD, ALL, 1, ALL, ALL),
    ],
)
def test_math_flags(lab: Lab, opcode: int, a: int, b: int, zf: int, cf: int) -> None:
    assert compute(lab, a, b, opcode, alu.ZF) == zf
    assert compute(lab, a, b, opcode, alu.CF) == cf


def test_math_inverts(lab: Lab) -> None:
    assert compute(lab, 0x1234, 0, alu.ADD, store=alu.STOREINV) == ALL - 0x1234
    job = lab.execute(
        *load64(1, 0xFF),
        *math((alu.LOADINV, alu.SRCA, 1), (alu.LOAD0, alu.SRCB, 0), (alu.OR, 0, 0), (alu.STORE, 2, alu.ACCU)),
        *srm(gpr(2), DATA_VA),
        *srm(gpr(2) + 4, DATA_VA + 4),
        *math((alu.LOAD1, alu.SRCA, 0), (alu.LOAD0, alu.SRCB, 0), (alu.OR, 0, 0), (alu.STORE, 2, alu.ACCU)),
        *srm(gpr(2), DATA_VA + 8),
    )
    assert job.data64() == ALL - 0xFF
    assert job.data(8) == [0xFFFFFFFF]


def test_math_loads_and_stores_memory(lab: Lab) -> None:
    job = lab.job()
    job.set_data(0, 0x11, 0x22)
    job.batch(
        *load64(1, DATA_VA),
        *load64(2, DATA_VA + 8),
        *math(
            (alu.LOAD, alu.SRCA, 1),
            (alu.LOAD0, alu.SRCB, 0),
            (alu.ADD, 0, 0),
            (alu.LOADIND, 5, alu.ACCU),
            (alu.FENCE_RD, 0, 0),
            (alu.LOAD, alu.SRCA, 2),
            (alu.ADD, 0, 0),
            (alu.STOREIND, alu.ACCU, 5),
            (alu.FENCE_WR, 0, 0),
        ),
        END,
    )
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(8, 2) == [0x11, 0x22]


# MI_ATOMIC


@pytest.mark.parametrize(
    ("operation", "old", "first", "second", "expected"),
    [
        (0x1, 0xF0, 0x3C, 0, 0x30),
        (0x2, 0xF0, 0x0F, 0, 0xFF),
        (0x3, 0xFF, 0x0F, 0, 0xF0),
        (0x4, 1, 9, 0, 9),
        (0x5, 0xFFFFFFFF, 0, 0, 0),
        (0x6, 0, 0, 0, 0xFFFFFFFF),
        (0x7, 5, 6, 0, 11),
        (0x8, 5, 6, 0, 0xFFFFFFFF),
        (0x9, 5, 6, 0, 1),
        (0xA, 0xFFFFFFFF, 1, 0, 1),
        (0xB, 0xFFFFFFFF, 1, 0, 0xFFFFFFFF),
        (0xC, 0xFFFFFFFF, 1, 0, 0xFFFFFFFF),
        (0xD, 0xFFFFFFFF, 1, 0, 1),
        (0xE, 5, 5, 7, 7),
        (0xE, 5, 6, 7, 5),
        (0xF, 5, 0, 0, 4),
    ],
)
def test_atomic_on_dwords(lab: Lab, operation: int, old: int, first: int, second: int, expected: int) -> None:
    job = lab.job()
    job.set_data(0, old, 0x55)
    inline = 0x1780_0009 | operation << 8 | 1 << 18 | 1 << 16
    job.batch(inline, DATA_VA, 0, first, second, *[0] * 6, *srm(gpr(4), DATA_VA + 8), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(0, 2) == [expected, 0x55]
    assert job.data(8) == [expected if operation == 0xF else old]


@pytest.mark.parametrize(
    ("operation", "old", "first", "expected"),
    [(0x27, 1 << 32, ALL, (1 << 32) - 1), (0x25, 0xFFFFFFFF, 0, 1 << 32), (0x2A, 1 << 63, 5, 5)],
)
def test_atomic_on_qwords(lab: Lab, operation: int, old: int, first: int, expected: int) -> None:
    job = lab.job()
    job.set_data(0, old & 0xFFFFFFFF, old >> 32)
    header = 0x1780_0009 | operation << 8 | 1 << 18
    job.batch(header, DATA_VA, 0, first & 0xFFFFFFFF, 0, first >> 32, 0, *[0] * 4, END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data64() == expected


def test_atomic_with_operands_from_registers(lab: Lab) -> None:
    job = lab.job()
    job.set_data(0, 5)
    header = 0x1780_0001 | 0xE << 8
    job.batch(*lri(gpr(0), 5, gpr(2), 9), header, DATA_VA, 0, END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [9]


def test_atomic_compare_of_16_bytes(lab: Lab) -> None:
    job = lab.job()
    job.set_data(0, 1, 2, 3, 4)
    operands = [value for pair in zip((1, 2, 3, 4), (5, 6, 7, 8), strict=True) for value in pair]
    job.batch(0x1780_0009 | 0x4E << 8 | 1 << 18, DATA_VA, 0, *operands, END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(0, 4) == [5, 6, 7, 8]


def test_an_atomic_that_does_not_exist_is_reported(lab: Lab) -> None:
    job = lab.execute(0x1780_0001 | 0x30 << 8, DATA_VA, 0, *sdi(DATA_VA, 1))
    assert job.data() == [1]
    assert "MI_ATOMIC has no opcode 0x30" in lab.engine("bcs0").reports


# Flushes


def test_flush_dw_stores_a_dword_or_a_qword(lab: Lab) -> None:
    job = lab.job()
    job.set_data(0, 9, 9, 9, 9)
    job.batch(0x1300_4002, DATA_VA, 0, 1, 0x1300_4003, DATA_VA + 8, 0, 2, 3, END)
    job.ring(*job.start(), 0x1300_4002, job.at(SEQNO) | 4, 0, 0xFFFFFF81, 0x1300_0002, 0, 0, 0)
    job.submit()
    lab.run()
    assert job.data(0, 4) == [1, 9, 2, 3]
    assert job.function.ggtt_space.read32(job.at(SEQNO)) == 0xFFFFFF81


def test_flush_dw_stores_by_index_and_timestamps(lab: Lab) -> None:
    job = ring_job(lab, 0x1320_4002, 0xD0, 0, 0x77, 0x1300_C003, DATA_VA, 0, 0, 0)
    assert job.function.ggtt_space.read32(job.at(PPHWSP + 0xD0)) == 0x77
    assert job.data64() > 0


def test_pipe_control_post_sync(lab: Lab) -> None:
    job = lab.job(engine_class=RENDER)
    job.ring(0x7A00_0404, 0x2030_4C1C, 0xD0, 0, 5, 6)  # immediate to PPHWSP + 0xd0
    job.ring(0x7A00_0004, 0x0110_4080, job.at(SEQNO), 0, 0xFFFFFF81, 0)  # immediate to the GGTT
    job.ring(0x7A00_0004, 1 << 14, DATA_VA, 0, 7, 8)  # immediate to the PPGTT
    job.ring(0x7A00_0004, 3 << 14, DATA_VA + 8, 0, 0, 0)  # timestamp
    job.ring(0x7A00_0004, 1 << 23 | 1 << 14, 0x2000 + gpr(1), 0, 0x99, 0)  # to a register
    job.ring(*srm(gpr(1), DATA_VA + 16))
    job.submit()
    lab.run()
    space = job.function.ggtt_space
    assert space.read64(job.at(PPHWSP + 0xD0)) == 6 << 32 | 5
    assert space.read64(job.at(SEQNO)) == 0xFFFFFF81
    assert job.data(0, 2) == [7, 8]
    assert job.data64(8) > 0
    assert job.data(16) == [0x99]


@pytest.mark.parametrize("flush", [(0x1304_0002, 0, 0, 0), (0x7A00_0004, 1 << 18, 0, 0, 0, 0)])
def test_a_flush_invalidates_translations_that_the_same_job_rewrote(lab: Lab, flush: tuple[int, ...]) -> None:
    # As a migration job does: it stores PTEs of its own window, flushes, and copies through the window.
    job = lab.job()
    table = 0x30_0000_0000
    job.tables.map(table, _leaf_table(job))
    pte = job.data_memory + 0x3000 | 0x803
    job.batch(
        *sdi(DATA_VA, 1),
        *sdi(table + 8 * (DATA_VA >> 12 & 0x1FF), pte & 0xFFFFFFFF, pte >> 32, flags=1 << 21),
        *flush,
        *sdi(DATA_VA, 2),
        END,
    )
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert (job.data(), job.data(0x3000)) == ([1], [2])


def _leaf_table(job: Job) -> int:
    """Device address of the page table that maps `DATA_VA`."""
    steps = list(job.tables.space().describe(DATA_VA))
    return steps[-1].table


@pytest.mark.parametrize("engine_class", [RENDER, COMPUTE, COPY])
def test_every_engine_class_runs_mi_commands(lab: Lab, engine_class: int) -> None:
    assert lab.execute(*sdi(DATA_VA, 1), engine_class=engine_class).data() == [1]


def test_only_privileged_reads_do_what_reads_do(lab: Lab) -> None:
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        return 0x77

    lab.pf.registers.add([Register("COUNTED", 0x4F200, reset=0x11, read=read)])
    assert lab.execute(*srm(0x4F200, DATA_VA, flags=0)).data() == [0x11]
    assert not reads
    assert ring_job(lab, *srm(0x4F200, DATA_VA, flags=0)).data() == [0x77]
