"""Rings and batches: where commands come from, and what ends a slice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import END, NOOP, USER_INTERRUPT, gpr, lri, sdi, srm
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, GGTT_BATCH, PPHWSP, RING, RING_SIZE, SEQNO, WA_BB, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.device_models.xe.profiles.profile import RENDER
from vfio_user_xe.emulator.observe.tap import Record

GGTT = 1 << 22


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def test_a_ring_is_executed_and_its_head_saved(lab: Lab) -> None:
    job = lab.job()
    job.ring(*sdi(job.at(SEQNO), 7, flags=GGTT), USER_INTERRUPT)
    job.submit()
    lab.run()
    assert job.function.ggtt_space.read32(job.at(SEQNO)) == 7
    assert job.head == job.tail == 24
    assert lab.listener.events == [("interrupt", "pf", "bcs0")]
    assert lab.engine("bcs0").context is None


def test_memory_is_written_before_the_interrupt(lab: Lab) -> None:
    job = lab.job()
    seen = []
    lab.listener.on_interrupt = lambda: seen.append(job.data()[0])
    job.batch(*sdi(DATA_VA, 0xC0FFEE), END)
    job.ring(*job.start(), USER_INTERRUPT)
    job.submit()
    lab.run()
    assert seen == [0xC0FFEE]


def test_what_is_left_for_later_is_done_once_when_the_slice_is_over(lab: Lab) -> None:
    job, streamer = lab.job(), lab.engine("bcs0").streamer
    done: list[int] = []

    def work() -> None:
        done.append(job.data()[0])

    def interrupted() -> None:
        streamer.later(work)
        streamer.later(work)
        assert not done

    lab.listener.on_interrupt = interrupted
    job.ring(*sdi(DATA_VA, 1), USER_INTERRUPT, *sdi(DATA_VA, 2))
    job.submit()
    lab.run()
    assert done == [2]
    streamer.later(work)
    assert done == [2, 2]


def test_a_user_batch_writes_through_the_ppgtt(lab: Lab) -> None:
    assert lab.execute(*sdi(DATA_VA + 4, 0xC0FFEE)).data(0, 2) == [0, 0xC0FFEE]


def test_a_later_tail_is_executed_after_a_kick(lab: Lab) -> None:
    job = lab.job()
    job.ring(*sdi(DATA_VA, 1))
    job.submit()
    lab.run()
    job.ring(*sdi(DATA_VA, 2))
    job.submit()
    lab.run()
    assert job.data() == [2]


def test_a_tail_that_moves_while_the_ring_runs_is_noticed(lab: Lab) -> None:
    job = lab.job()
    lab.listener.on_interrupt = lambda: job.ring(*sdi(DATA_VA, 5)) if job.tail <= 40 else None
    job.ring(USER_INTERRUPT, *[NOOP] * 9)
    job.submit()
    lab.run()
    assert job.data() == [5]


def test_the_ring_wraps(lab: Lab) -> None:
    job = lab.job()
    job.submit()
    for n in range(3):
        job.ring(*[NOOP] * (RING_SIZE // 8 - 8), *sdi(DATA_VA + 4 * n, n + 1))
        job.submit()
        lab.run()
    assert job.data(0, 3) == [1, 2, 3]
    assert job.head == job.tail < RING_SIZE


def test_nothing_runs_before_it_is_enabled(lab: Lab) -> None:
    job = lab.job()
    job.ring(*sdi(DATA_VA, 1))
    lab.engines.register(job.context)
    lab.engines.kick(job.context)
    lab.run()
    assert job.data() == [0]
    lab.engines.enable(job.context)
    lab.run()
    assert job.data() == [1]


def test_batches_nest_with_the_level_bit_and_come_back(lab: Lab) -> None:
    job = lab.job()
    job.batch(*job.start(BATCH_VA + 0x100, 0x100 | 1 << 22), *sdi(DATA_VA, 1), END)
    job.batch(*job.start(BATCH_VA + 0x200, 0x100 | 1 << 22), *sdi(DATA_VA + 4, 2), END, offset=0x100)
    job.batch(*sdi(DATA_VA + 8, 3), END, offset=0x200)
    job.ring(*job.start(), *sdi(DATA_VA + 12, 4))
    job.submit()
    lab.run()
    assert job.data(0, 4) == [1, 2, 3, 4]


def test_a_batch_without_the_level_bit_is_a_jump(lab: Lab) -> None:
    job = lab.job()
    job.batch(*job.start(BATCH_VA + 0x100), *sdi(DATA_VA, 1), END)
    job.batch(*sdi(DATA_VA + 4, 2), END, offset=0x100)
    job.ring(*job.start(), *sdi(DATA_VA + 8, 3))
    job.submit()
    lab.run()
    assert job.data(0, 3) == [0, 2, 3]


def test_nesting_without_end_is_cut_off_and_reported(lab: Lab) -> None:
    job = lab.job()
    job.batch(*job.start(BATCH_VA, 0x100 | 1 << 22), END)
    job.ring(*job.start(), *sdi(DATA_VA, 1))
    job.submit()
    lab.run()
    assert job.data() == [1]
    assert "batches nested deeper than 8" in lab.engine("bcs0").reports


def test_a_user_batch_cannot_leave_its_ppgtt(lab: Lab) -> None:
    job = lab.job()
    # What is at the batch's address in the GGTT must not run, and the GGTT flag of commands is ignored.
    job.batch(*job.start(BATCH_VA + 0x100, 0), END)
    job.batch(*sdi(DATA_VA, 9, flags=GGTT), *sdi(job.at(SEQNO), 9, flags=GGTT), END, offset=0x100)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [9]
    assert job.function.ggtt_space.read32(job.at(SEQNO)) == 0
    assert lab.listener.of("memory fault"), "the GGTT address is no PPGTT address"


def test_a_ggtt_batch_of_a_context_without_ppgtt(lab: Lab) -> None:
    job = lab.job(ppgtt=False)
    job.dwords(job.at(GGTT_BATCH), *sdi(job.at(SEQNO), 3), *sdi(job.at(SEQNO + 4), 4, flags=GGTT), END)
    job.ring(*job.start(job.at(GGTT_BATCH), 0), *sdi(job.at(SEQNO + 8), 5, flags=GGTT))
    job.submit()
    lab.run()
    space = job.function.ggtt_space
    assert [space.read32(job.at(SEQNO + 4 * n)) for n in range(3)] == [3, 4, 5]


def test_commands_across_page_boundaries_and_scattered_pages(lab: Lab) -> None:
    job = lab.job()
    # The batch's second page is somewhere else, and a command lies across the boundary.
    job.tables.map(BATCH_VA + 0x1000, job.batch_memory + 0x3000)
    job.batch(*[NOOP] * 1022, *sdi(DATA_VA, 0x11)[:2])
    job.batch(*sdi(DATA_VA, 0x11)[2:], *sdi(DATA_VA + 4, 0x22), END, offset=0x3000)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(0, 2) == [0x11, 0x22]


def test_a_batch_in_system_memory_by_messages(lab: Lab) -> None:
    job = lab.job()
    va = 0x80_0000
    job.tables.map(va, 0x2000, 0x2000, system=True)
    commands = [*[NOOP] * 1022, *sdi(DATA_VA, 0x33), END]
    lab.ram.of("pf")[0x2000 : 0x2000 + 4 * len(commands)].cast("I")[:] = memoryview(
        b"".join(c.to_bytes(4, "little") for c in commands)
    ).cast("I")
    lab.ram.messages = True
    job.ring(*job.start(va))
    job.submit()
    lab.run()
    assert job.data() == [0x33]


def test_an_end_in_the_ring_is_reported_and_skipped(lab: Lab) -> None:
    job = lab.job()
    job.ring(END, *sdi(DATA_VA, 1))
    job.submit()
    lab.run()
    assert job.data() == [1]
    assert "MI_BATCH_BUFFER_END in a ring" in lab.engine("bcs0").reports


def test_a_command_cut_off_by_the_tail_is_reported(lab: Lab) -> None:
    job = lab.job()
    job.ring(*sdi(DATA_VA, 1)[:2])
    job.submit()
    lab.run()
    assert job.head == job.tail == 8
    assert any("goes beyond the end" in what for what in lab.engine("bcs0").reports)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (0x1F80_0003, 5),  # an MI command nobody knows
        (0x0680_0005, 1),  # MI_TOPOLOGY_FILTER: below 0x10 MI commands are one dword
        (2 << 29 | 0x7F << 22 | 4, 6),  # a blit
        (0x7815_0009, 11),  # 3DSTATE
        (0x7809_0043, 69),
        (0x6904_0301, 1),  # PIPELINE_SELECT, one dword whatever its low bits
        (0x7917_0105, 0x107),  # 3DSTATE_SO_DECL_LIST, a length of 9 bits
        (4 << 29 | 2, 4),  # GFX_STATE
        (5 << 29 | 3 << 26 | 3, 5),  # RESOURCE_BARRIER
        (0x7208_0026, 40),  # COMPUTE_WALKER
    ],
)
def test_commands_that_are_not_executed_are_skipped_by_their_length(lab: Lab, header: int, length: int) -> None:
    # Were the length wrong, the dwords behind the header would be executed.
    poison = [0xFFFF_FFFF] * (length - 1)
    job = lab.execute(header, *poison, *sdi(DATA_VA, 0x600D), engine_class=RENDER)
    assert job.data() == [0x600D]


@pytest.mark.parametrize("header", [0x1F80_0003, 2 << 29 | 0x7F << 22 | 3, 0x7208_0003])
def test_what_is_not_known_is_reported(lab: Lab, header: int) -> None:
    lab.execute(header, 0, 0, 0, 0, engine_class=RENDER)
    assert lab.engine("rcs0").reports


def test_garbage_does_not_hang(lab: Lab) -> None:
    job = lab.job()
    garbage = [(n * 2654435761) & 0xFFFFFFFF for n in range(1, 2000)]
    job.batch(*[g for g in garbage if g >> 29 not in (0, 2)][:1000], END)
    job.ring(*job.start(), *sdi(DATA_VA, 1))
    job.submit()
    lab.run()
    assert lab.engine("bcs0").context is None


def test_a_fault_names_address_and_access_and_stops_the_context(lab: Lab) -> None:
    job = lab.job()
    job.batch(*sdi(0x7777_0000, 1), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert lab.listener.of("memory fault") == [("memory fault", 0, "bcs0")]
    (fault,) = lab.listener.faults
    assert isinstance(fault, TranslationFault)
    assert (fault.address, fault.level, fault.write) == (0x7777_0000, 2, True)
    assert job.data() == [0]
    assert lab.engine("bcs0").context is None
    job.submit()
    lab.run()
    assert job.data() == [0], "it does not run again"


def test_a_fault_of_one_context_leaves_others_alone(lab: Lab) -> None:
    bad, good = lab.job(), lab.job()
    bad.batch(*sdi(0x7777_0000, 1), END)
    good.batch(*sdi(DATA_VA, 1), END)
    for job in (bad, good):
        job.ring(*job.start())
        job.submit()
    lab.run()
    assert good.data() == [1]
    assert len(lab.listener.faults) == 1


def test_an_unmapped_batch_faults_on_the_fetch(lab: Lab) -> None:
    job = lab.job()
    job.ring(*job.start(0x5555_0000_0000))
    job.submit()
    lab.run()
    (fault,) = lab.listener.faults
    assert isinstance(fault, TranslationFault)
    assert (fault.address, fault.level, fault.write) == (0x5555_0000_0000, 3, False)


def test_vram_that_is_not_there_is_an_access_fault(lab: Lab) -> None:
    job = lab.job()
    job.tables.map(0x7000_0000, 64 * MIB)
    job.batch(*sdi(0x7000_0000, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert isinstance(lab.listener.faults[0], AccessFault)


def test_a_context_whose_image_is_nowhere_fails(lab: Lab) -> None:
    job = lab.job()
    job.ring(*sdi(DATA_VA, 1))
    job.context.lrcs = [0xDEAD_0000 | 0x119]
    job.submit()
    lab.run()
    assert lab.listener.of("memory fault")


def test_the_workaround_batch_runs_at_every_restore_before_the_ring(lab: Lab) -> None:
    job = lab.job()
    count = job.at(SEQNO + 0x20)
    # As the driver's (xe_lrc.c:setup_utilization_wa): engine id, then the marker that the context is active.
    srm_engine_id = (0x1248_0002, 0x8C, job.at(PPHWSP + 1024), 0)
    marker = sdi(job.at(PPHWSP + 0x1000) + 4 * 0x23, 1, flags=GGTT)
    increment = (0x17C0_0501, count, 0)
    job.dwords(job.at(WA_BB), *srm_engine_id, *marker, *increment, END)
    job.set_image(0x13, job.at(WA_BB) | 1)
    job.ring(0x1240_0002 | 1 << 19, 0x3A8, job.at(PPHWSP + 512), 0, 0x1700_0003 | 3 << 21, job.at(SEQNO), 0, count, 0)
    job.submit()
    lab.run()
    space = job.function.ggtt_space
    assert space.read32(job.at(PPHWSP + 1024)) == 3, "ENGINE_ID of BCS0: class 3, instance 0"
    assert space.read32(job.at(SEQNO)) == 1, "it ran before the ring"
    assert job.image(0x23) != 1, "switched out: the timestamp, not the marker"
    job.ring(NOOP, NOOP)
    job.submit()
    lab.run()
    assert space.read32(count) == 2


def test_the_indirect_context_batch_ends_with_its_size_and_runs_first(lab: Lab) -> None:
    job = lab.job()
    order = job.at(SEQNO)
    job.dwords(job.at(WA_BB), 0x17C0_0501, order, 0, 0x1700_0003 | 3 << 21, order + 4, 0, order, 0, END)
    # 64 bytes that do not end with MI_BATCH_BUFFER_END; what is behind must not run.
    job.dwords(job.at(WA_BB + 0x100), *sdi(order, 10, flags=GGTT), *[NOOP] * 12, *sdi(order, 99, flags=GGTT))
    job.set_image(0x13, job.at(WA_BB) | 1)
    job.set_image(0x15, job.at(WA_BB + 0x100) | 1)
    job.ring(NOOP, NOOP)
    job.submit()
    lab.run()
    assert job.function.ggtt_space.read64(order) == 11 << 32 | 11


def test_restore_inhibit_is_cleared_by_the_first_save(lab: Lab) -> None:
    job = lab.job()
    job.ring(NOOP, NOOP)
    job.submit()
    lab.run()
    assert job.image(0x03) == 0x0009_0008


def test_a_new_context_begins_with_the_registers_of_the_image_it_was_copied_from(lab: Lab) -> None:
    golden = lab.job(engine_class=RENDER, ppgtt=False)
    golden.dwords(golden.at(GGTT_BATCH), *lri(0x7300, 0x1000_1000, flags=0), *lri(gpr(3), 33), END)
    golden.ring(*golden.start(golden.at(GGTT_BATCH), 0))
    golden.submit()
    lab.run()
    job = lab.job(engine_class=RENDER)
    for index in (0x03, *range(0x100, 0x300)):
        job.set_image(index, golden.image(index))
    job.batch(*srm(0x7300, DATA_VA, 0), *srm(gpr(3), DATA_VA + 4), *lri(gpr(3), 44), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(0, 2) == [0x1000, 33]
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(4, 1) == [44], "later ones are its own"


def test_context_timestamps_add_up(lab: Lab) -> None:
    job = lab.job()
    job.set_image(0x23, 1000)
    job.set_image(0x25, 2)
    job.ring(*[NOOP] * 64)
    job.submit()
    lab.run()
    first = job.image(0x23) | job.image(0x25) << 32
    assert 2 << 32 | 1000 < first < (2 << 32 | 1000) + 19_200_000
    job.ring(*[NOOP] * 64)
    job.submit()
    lab.run()
    assert job.image(0x23) | job.image(0x25) << 32 > first


def test_registers_show_what_runs(lab: Lab) -> None:
    job = lab.job()
    registers = lab.pf.registers
    seen = {}

    def look() -> None:
        for name, offset in (("start", 0x38), ("tail", 0x30), ("ctl", 0x3C), ("lrca", 0x240)):
            seen[name] = registers.read(0x22000 + offset, 4)

    lab.listener.on_interrupt = look
    job.ring(USER_INTERRUPT)
    job.submit()
    lab.run()
    assert seen == {"start": job.at(RING), "tail": 8, "ctl": RING_SIZE - 0x1000 | 1, "lrca": job.at(PPHWSP) | 1}
    assert registers.read(0x22000 + 0x34, 4) == 8, "RING_HEAD of the last context"
    assert registers.read(0x3EE000 + 0x8C, 4) == 0x83, "ENGINE_ID of BCS8"
    first = registers.read(0x22000 + 0x358, 8)
    assert registers.read(0x22000 + 0x358, 8) >= first


def test_the_trace_tells_every_command_and_is_off_by_default(lab: Lab) -> None:
    lines: list[tuple[str, str, dict[str, object]]] = []

    def record(told: Record) -> None:
        _, function, _, event, late = told
        lines.append((function, event, dict(late() if callable(late) else late or {})))

    tap = lab.engine("bcs0").streamer.tap
    tap.switch_on(record, lambda: 0.0)
    job = lab.execute(*sdi(DATA_VA, 5), 0x7A00_0004, 0, 0, 0, 0, 0)
    assert [(function, event) for function, event, _ in lines] == [
        ("pf", "MI_BATCH_BUFFER_START"),
        ("pf", "MI_STORE_DATA_IMM"),
        ("pf", "PIPE_CONTROL"),
        ("pf", "MI_BATCH_BUFFER_END"),
        ("pf", "MI_NOOP"),
    ]
    fields = lines[1][2]
    assert (fields["engine"], fields["batch"], fields["address"], fields["data"]) == ("bcs0", BATCH_VA, DATA_VA, 5)
    lines.clear()
    job.batch(*lri(gpr(1), 5, gpr(1) + 4, 6), *lri(0x7010, 3, flags=0), *srm(0x358, DATA_VA), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert [fields.get("registers", fields.get("register")) for _, _, fields in lines[1:4]] == [
        "BCS0.CS_GPR(1)=0x5 BCS0.CS_GPR(1)_UDW=0x6",
        "0x7010=0x3",
        "BCS0.RING_TIMESTAMP",
    ]
    tap.switch_off()
    lines.clear()
    job.ring(NOOP, NOOP)
    job.submit()
    lab.run()
    assert not lines
