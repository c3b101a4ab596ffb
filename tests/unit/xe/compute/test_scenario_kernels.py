"""The kernels that scenarios run in a guest, on the lab."""

from __future__ import annotations

from tests.support.xe.compute_lab import DATA, ComputeLab
from vfio_user_xe.device_models.xe.scenarios.kernels import COPY, ITEMS, PATTERN

TARGET = DATA + 0x2000


def test_the_pattern_is_what_the_guest_program_expects(lab: ComputeLab) -> None:
    job = lab.dispatch(
        PATTERN, groups=(2, 1, 1), local=(ITEMS, 1, 1), ids=[0], inline=[TARGET & 0xFFFFFFFF, TARGET >> 32, 0, 0, 4711]
    )
    assert job.data(0x2000, 2 * ITEMS + 1) == [n * 2654435761 & 0xFFFFFFFF ^ 4711 for n in range(2 * ITEMS)] + [0]


def test_a_copy_reads_as_often_as_told(lab: ComputeLab) -> None:
    values = list(range(1000, 1000 + ITEMS))
    inline = [TARGET & 0xFFFFFFFF, TARGET >> 32, DATA & 0xFFFFFFFF, DATA >> 32]
    for rounds in (1, 3):
        lab.fabric.ledger.clear()
        job = lab.dispatch(COPY, local=(ITEMS, 1, 1), ids=[0], inline=[*inline, rounds], data=values)
        assert job.data(0x2000, ITEMS + 1) == [*values, 0]
        written = [e.bytes_written for e in lab.fabric.ledger.entries() if e.kind == "eu vram" and e.writes]
        assert written == [rounds * 4 * ITEMS]
