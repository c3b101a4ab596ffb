"""Untyped 2-D blocks: the layout in registers, bounds, stores."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.xe.compute_lab import DATA, EOT, ComputeLab, base_addresses, walker
from tests.support.xe.engine_lab import Job

MATRIX = DATA + 0x1000
WIDTH, HEIGHT, PITCH = 40, 12, 64
"""Bytes, rows, bytes of the matrix."""
LOAD, STORE, TRANSPOSE, VNNI = 3, 7, 1 << 15, 1 << 7


def run(
    lab: ComputeLab, op: int, size_code: int, x: int, y: int, shape: tuple[int, int, int]
) -> tuple[Job, NDArray[np.uint8]]:
    """One message of one thread; two registers of response (or of data: 0, 1, 2 …) go to `DATA`."""
    width, height, count = shape
    text = f"""
        (W) mov (16|M0)  r10.0<1>:ud  0:ud
        (W) mov (1|M0)  r10.0<1>:uq  r1.1<0;1,0>:uq
        (W) mov (1|M0)  r10.2<1>:ud  {WIDTH - 1}:ud
        (W) mov (1|M0)  r10.3<1>:ud  {HEIGHT - 1}:ud
        (W) mov (1|M0)  r10.4<1>:ud  {PITCH - 1}:ud
        (W) mov (1|M0)  r10.5<1>:d  {x}:d
        (W) mov (1|M0)  r10.6<1>:d  {y}:d
        (W) mov (1|M0)  r10.7<1>:ud  {width - 1 | height - 1 << 8 | count - 1 << 16}:ud
    """
    if op & 7 == LOAD:
        text += f"(W) send.ugm (1|M0)  r20  r10  null:0  0x0  {0x02200000 | op | size_code << 9 | 3 << 7 & ~VNNI | op & VNNI:#x}\n"
    else:
        text += f"""
            (W) mov (16|M0)  r20.0<1>:ud  0x03020100:ud
            (W) send.ugm (1|M0)  null  r10  r20:1  0x0  {0x02000000 | op | size_code << 9:#x}
        """
    text += """
        (W) mov (1|M0)  r30.0<1>:uq  r1.0<0;1,0>:uq
        (W) send.ugm (1|M0)  null  r30  r20:2  0x0  0x0200E584
    """
    job = lab.compute_job(text + EOT, *walker(inline=[DATA, 0, MATRIX, 0]), setup=base_addresses())
    matrix = np.arange(HEIGHT * PITCH, dtype=np.uint32).astype(np.uint8)
    job.set_bytes(0x1000, matrix.tobytes())
    job.submit()
    lab.run()
    assert not lab.engine("ccs0").reports
    return job, matrix.reshape(HEIGHT, PITCH)


def response(job: Job) -> NDArray[np.uint8]:
    return np.frombuffer(job.bytes(0, 128), dtype=np.uint8)


def test_rows_are_padded_to_a_power_of_two_and_blocks_to_registers(lab: ComputeLab) -> None:
    job, matrix = run(lab, LOAD, 0, 3, 2, (5, 4, 2))
    found = response(job)
    for block in range(2):
        rows = found[64 * block : 64 * block + 32].reshape(4, 8)
        assert np.array_equal(rows[:, :5], matrix[2:6, 3 + 5 * block : 8 + 5 * block])
        assert not rows[:, 5:].any()


def test_elements_outside_of_the_matrix_are_zero(lab: ComputeLab) -> None:
    job, matrix = run(lab, LOAD, 0, WIDTH - 2, -1, (4, 2, 1))
    rows = response(job)[:8].reshape(2, 4)
    assert not rows[0].any()
    assert rows[1].tolist() == [*matrix[0, WIDTH - 2 : WIDTH].tolist(), 0, 0]


def test_a_transposed_block_has_columns_as_rows(lab: ComputeLab) -> None:
    job, matrix = run(lab, LOAD | TRANSPOSE, 2, 1, 1, (2, 4, 1))
    words = response(job)[:32].view(np.uint32).reshape(2, 4)
    assert np.array_equal(words, matrix.view(np.uint32)[1:5, 1:3].T)


@pytest.mark.parametrize("size_code", [0, 1])
def test_vnni_puts_rows_next_to_each_other(lab: ComputeLab, size_code: int) -> None:
    packed = 4 >> size_code
    job, matrix = run(lab, LOAD | VNNI, size_code, 0, 0, (4, 4, 1))
    elements = matrix.view(np.uint8 if size_code == 0 else np.uint16)
    found = response(job).view(elements.dtype)
    expected = [
        elements[group * packed + part, column]
        for group in range(4 // packed)
        for column in range(4)
        for part in range(packed)
    ]
    assert found[: len(expected)].tolist() == [int(value) for value in expected]


def test_a_store_writes_what_is_in_the_matrix(lab: ComputeLab) -> None:
    job, matrix = run(lab, STORE, 0, WIDTH - 2, HEIGHT - 1, (4, 2, 1))
    after = np.frombuffer(job.bytes(0x1000, (HEIGHT + 1) * PITCH), dtype=np.uint8).reshape(-1, PITCH)
    matrix = np.vstack([matrix, np.zeros((1, PITCH), np.uint8)]).copy()
    matrix[HEIGHT - 1, WIDTH - 2 : WIDTH] = [0, 1]
    assert np.array_equal(after, matrix)
