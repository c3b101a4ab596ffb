"""Messages by surface: stateless, binding table, surface state offsets, scratch; bounds and the ledger."""

from __future__ import annotations

import pytest

from tests.support.xe.commands import sdi
from tests.support.xe.compute_kernels import LINEAR, store
from tests.support.xe.compute_lab import (
    DATA,
    EOT,
    INDIRECT,
    SURFACES,
    ComputeLab,
    base_addresses,
    buffer_state,
    walker,
)
from tests.support.xe.engine_lab import BATCH_VA, Job
from tests.support.xe.layout import MIB

STATE, TABLE = 0x100, 0x400
"""Offsets from surface state base."""


def run(
    lab: ComputeLab, kernel: str, *setup: int, states: dict[int, tuple[int, ...]] | None = None, **options: object
) -> Job:
    """Run one group of 16 lanes whose inline data is the address of the result."""
    options = {"inline": [DATA, 0], **options}
    job = lab.compute_job(kernel + EOT, *walker(**options), setup=(*base_addresses(), *setup))  # type: ignore[arg-type]
    for offset, words in (states or {}).items():
        lab.place(job, SURFACES + offset, *words)
    lab.place(job, INDIRECT, *range(1000, 1032))
    job.set_data(0x400, *range(500, 532))
    job.submit()
    lab.run()
    return job


RESULT = store(0, "r20").replace("r2.0", "r1.0")


def test_index_255_is_stateless_from_general_state_base(lab: ComputeLab) -> None:
    kernel = (
        LINEAR
        + """
        (W) and (1|M0)  r13.0<1>:ud  r0.0<0;1,0>:ud  0xFFFFFFC0:ud
        add (16|M0)  r14.0<1>:ud  r12.0<1;1,0>:ud  r13.0<0;1,0>:ud
        send.ugm (16|M0)  r20  r14  null:0  0xFF004000  0x62100500
    """
    )
    job = run(lab, kernel + RESULT, indirect=(INDIRECT, 128))
    assert job.data(0, 16) == list(range(1001, 1017))


def test_a_transposed_block_brings_consecutive_elements(lab: ComputeLab) -> None:
    kernel = (
        LINEAR
        + """
        (W) and (1|M0)  r14.0<1>:ud  r0.0<0;1,0>:ud  0xFFFFFFC0:ud
        (W) send.ugm (1|M0)  r20  r14  null:0  0xFF000000  0x6210D500
    """
    )
    job = run(lab, kernel + RESULT, indirect=(INDIRECT, 128))
    assert job.data(0, 16) == list(range(1000, 1016))


def test_a_transposed_block_of_less_than_a_register_leaves_its_rest(lab: ComputeLab) -> None:
    # IGC keeps other values of the kernel there: a vector's addresses behind 16 bytes that are loaded.
    kernel = (
        LINEAR
        + """
        (W) and (1|M0)  r14.0<1>:ud  r0.0<0;1,0>:ud  0xFFFFFFC0:ud
        (W) mov (16|M0)  r20.0<1>:ud  0x77:ud
        (W) send.ugm (1|M0)  r20  r14  null:0  0xFF000000  0x6210C500
    """
    )
    job = run(lab, kernel + RESULT, indirect=(INDIRECT, 128))
    assert job.data(0, 16) == [*range(1000, 1008), *[0x77] * 8]


def test_binding_tables_lead_to_surfaces_whose_bounds_hold(lab: ComputeLab) -> None:
    kernel = LINEAR + "send.ugm (16|M0)  r20  r12  null:0  0x01000000  0x62100500\n"
    states = {TABLE: (0, STATE), STATE: buffer_state(DATA + 0x400, 28)}
    job = run(lab, kernel + RESULT, states=states, binding_table=TABLE)
    assert job.data(0, 16) == [*range(500, 507), *[0] * 9]


BLOCK_LOAD, BLOCK_STORE = "0x6210D500", "0x6200D504"
"""16 dwords one behind the other, at one address of 32 bits."""


@pytest.mark.parametrize(("start", "inside"), [(0, 7), (20, 2), (28, 0), (64, 0)])
def test_a_block_over_the_end_of_a_surface_reads_zero_there(lab: ComputeLab, start: int, inside: int) -> None:
    kernel = (
        LINEAR
        + f"""
        (W) mov (1|M0)  r14.0<1>:ud  {start}:ud
        (W) mov (16|M0)  r20.0<1>:ud  7:ud
        (W) send.ugm (1|M0)  r20  r14  null:0  0x01000000  {BLOCK_LOAD}
    """
    )
    states = {TABLE: (0, STATE), STATE: buffer_state(DATA + 0x400, 28)}
    job = run(lab, kernel + RESULT, states=states, binding_table=TABLE)
    assert job.data(0, 16) == [*range(500 + start // 4, 500 + start // 4 + inside), *[0] * (16 - inside)]
    (streamer,) = [one for one in lab.engines.inspect() if one["name"] == "ccs0"]
    assert streamer["interpreted"] == {}


def test_a_block_that_is_stored_over_the_end_of_a_surface_ends_there(lab: ComputeLab) -> None:
    kernel = (
        LINEAR
        + f"""
        (W) mov (1|M0)  r14.0<1>:ud  4:ud
        (W) mov (16|M0)  r20.0<1>:ud  7:ud
        (W) send.ugm (1|M0)  null  r14  r20:1  0x00000000  {BLOCK_STORE}
    """
    )
    job = run(lab, kernel, states={TABLE: (STATE,), STATE: buffer_state(DATA + 0x400, 14)}, binding_table=TABLE)
    assert job.data(0x400, 5) == [500, 7, 7, 503, 504]


def test_stores_beyond_a_surface_are_dropped(lab: ComputeLab) -> None:
    kernel = (
        LINEAR
        + """
        mov (16|M0)  r20.0<1>:ud  7:ud
        send.ugm (16|M0)  null  r12  r20:1  0x00000000  0x62000504
    """
    )
    job = run(lab, kernel, states={TABLE: (STATE,), STATE: buffer_state(DATA + 0x400, 8)}, binding_table=TABLE)
    assert job.data(0x400, 4) == [7, 7, 502, 503]


def test_a_walker_looks_its_surfaces_up_anew(lab: ComputeLab) -> None:
    """Also where the walker before it is of the same form, and had another surface at that index."""
    kernel = (
        LINEAR
        + """
        mov (16|M0)  r20.0<1>:ud  7:ud
        send.ugm (16|M0)  null  r12  r20:1  0x00000000  0x62000504
    """
    )
    one = walker(inline=[DATA, 0], binding_table=TABLE)
    other_state = sdi(BATCH_VA + SURFACES + TABLE, STATE + 0x40)
    job = lab.compute_job(kernel + EOT, *one, *other_state, *one, setup=base_addresses())
    lab.place(job, SURFACES + TABLE, STATE)
    lab.place(job, SURFACES + STATE, *buffer_state(DATA + 0x400, 8))
    lab.place(job, SURFACES + STATE + 0x40, *buffer_state(DATA + 0x800, 8))
    job.submit()
    lab.run()
    assert job.data(0x400, 3) == job.data(0x800, 3) == [7, 7, 0]


def test_a_binding_table_pool_is_where_tables_are(lab: ComputeLab) -> None:
    pool = BATCH_VA + SURFACES + 0x1000
    kernel = LINEAR + "send.ugm (16|M0)  r20  r12  null:0  0x00000000  0x62100500\n"
    job = run(
        lab,
        kernel + RESULT,
        0x79190002, pool, pool >> 32, 0,
        states={0x1000 + TABLE: (STATE,), STATE: buffer_state(DATA + 0x400, 64)},
        binding_table=TABLE,
    )  # fmt: skip
    assert job.data(0, 16) == list(range(500, 516))


def test_a_surface_state_offset_in_a0_names_the_surface(lab: ComputeLab) -> None:
    kernel = (
        LINEAR
        + f"""
        (W) mov (1|M0)  a0.2<1>:ud  {STATE}:ud
        send.ugm (16|M0)  r20  r12  null:0  a0.2  0x42100500
    """
    )
    job = run(lab, kernel + RESULT, states={STATE: buffer_state(DATA + 0x404, 64)})
    assert job.data(0, 16) == list(range(501, 517))


def test_every_thread_has_scratch_of_its_own(lab: ComputeLab) -> None:
    # Each lane stores its global index at its own 4 bytes of scratch; all threads use the same offsets.
    kernel = (
        LINEAR
        + """
        (W) shr (1|M0)  a0.2<1>:ud  r0.5<0;1,0>:ud  4:ud
        and (16|M0)  r14.0<1>:ud  r12.0<1;1,0>:ud  0x3F:ud
        send.ugm (16|M0)  null  r14  r12:1  a0.2  0x42000504
        send.ugm (16|M0)  r20  r14  null:0  a0.2  0x42100500
    """
    )
    scratch = (6 << 29, 0, 63, 64 - 1, 0, 0, 0, 0, DATA + 0x1000, 0, 0, 0, 0, 0, 0, 0)
    state = STATE << 4
    job = run(lab, kernel + RESULT, 0x72000004, state, 0, 0x04000000, 0, 0, states={STATE: scratch}, local=(64, 1, 1))
    assert job.data(0, 64) == [4 * index for index in range(64)]
    assert job.data(0x1000, 64) == [4 * index for index in range(64)]


def test_a_null_surface_reads_zero_and_drops_stores(lab: ComputeLab) -> None:
    kernel = (
        LINEAR
        + """
        mov (16|M0)  r20.0<1>:ud  7:ud
        send.ugm (16|M0)  null  r12  r20:1  0x00000000  0x62000504
        send.ugm (16|M0)  r20  r12  null:0  0x00000000  0x62100500
    """
    )
    null = (7 << 29, 0, 0, 0, 0, 0, 0, 0, DATA + 0x400, 0, 0, 0, 0, 0, 0, 0)
    job = run(lab, kernel + RESULT, states={TABLE: (STATE,), STATE: null}, binding_table=TABLE)
    assert job.data(0, 16) == [0] * 16
    assert job.data(0x400, 2) == [500, 501]


def test_elements_of_any_size_and_alignment_are_loaded(lab: ComputeLab) -> None:
    # d16u32 from addresses that are odd: 4 n + 1 behind 0x400.
    kernel = (
        LINEAR
        + """
        add (16|M0)  r14.0<1>:uq  r1.0<0;1,0>:uq  r12.0<1;1,0>:ud
        send.ugm (16|M0)  r20  r14  null:0  0x00401000  0x04100B80
    """
    )
    job = run(lab, kernel + RESULT)
    assert job.data(0, 16) == [(500 + n) >> 8 & 0xFFFF for n in range(16)]


def test_an_element_that_crosses_a_page_is_put_together(lab: ComputeLab) -> None:
    kernel = (
        LINEAR
        + """
        (W) add (1|M0)  r14.0<1>:uq  r1.0<0;1,0>:uq  0xFFD:ud
        (W) send.ugm (1|M0)  r20  r14  null:0  0x0  0x02100580
    """
    )
    job = lab.compute_job(kernel + RESULT + EOT, *walker(inline=[DATA, 0]), setup=base_addresses())
    job.set_data(0xFFC, 0x44332211, 0x88776655)
    job.submit()
    lab.run()
    assert job.data(0, 1) == [0x55443322]


def test_the_ledger_has_a_kind_of_its_own_for_execution_units(lab: ComputeLab) -> None:
    run(lab, LINEAR + "mov (16|M0)  r20.0<1>:ud  7:ud\n" + RESULT)
    entry = next(entry for entry in lab.fabric.ledger.entries() if entry.kind == "eu vram" and entry.writes)
    assert (entry.writes, entry.bytes_written) == (1, 64)


def test_the_ledger_has_every_walker_of_a_batch(lab: ComputeLab) -> None:
    kernel = LINEAR + "mov (16|M0)  r20.0<1>:ud  7:ud\n" + RESULT + EOT
    commands = (*walker(inline=[DATA, 0]), *walker(inline=[DATA + 0x100, 0]), *walker(inline=[DATA + 0x200, 0]))
    lab.compute_job(kernel, *commands).submit()
    lab.run()
    entry = next(entry for entry in lab.fabric.ledger.entries() if entry.kind == "eu vram" and entry.writes)
    assert (entry.writes, entry.bytes_written) == (3, 3 * 64)


def test_pages_that_are_found_with_one_that_was_missed_count_only_once_accessed(lab: ComputeLab) -> None:
    # A store at each end of 256 KiB, and none between.
    kernel = LINEAR + "".join(
        f"""
        add (16|M0)  r14.0<1>:uq  r1.0<0;1,0>:uq  r12.0<1;1,0>:ud
        add (16|M0)  r14.0<1>:uq  r14.0<1;1,0>:uq  {offset}:ud
        send.ugm (16|M0)  null  r14  r12:1  0x0  0x04000584
        """
        for offset in (0x20_0000, 0x23_0000)
    )
    job = lab.compute_job(kernel + EOT, *walker(inline=[0x4000_0000, 0]))
    job.tables.map(0x4000_0000, 16 * MIB, 4 * MIB)
    job.submit()
    lab.run()
    assert not lab.listener.faults
    written = sum(entry.bytes_written for entry in lab.fabric.ledger if entry.kind == "eu vram")
    assert written == 2 * 64
