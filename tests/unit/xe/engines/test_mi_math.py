"""MI_MATH and MI_ATOMIC."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import END, gpr, lri, sdi, srm
from tests.support.xe.engine_lab import DATA_VA, Lab
from vfio_user_xe.device_models.xe.engines import mi_math as alu

ALL = (1 << 64) - 1


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


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
