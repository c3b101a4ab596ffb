from __future__ import annotations

import pytest

from tests.support.xe.compute_lab import DATA, ComputeLab
from tests.unit.xe.compute.kernels import vector_add


@pytest.fixture
def lab() -> ComputeLab:
    return ComputeLab()


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
