"""Groups, slices, slots in parallel, and single instructions in the interpreter."""

from __future__ import annotations

import threading
from unittest.mock import create_autospec

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.xe.eu.compiled_rig import loaded
from tests.unit.xe.eu.kernel import END, reader
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.compiled.fallback import Fallback
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel, compile_program
from vfio_user_xe.device_models.xe.eu.compiled.layout import Access, Reason
from vfio_user_xe.device_models.xe.eu.compiled.memory import Map, aligned
from vfio_user_xe.device_models.xe.eu.compiled.slot import Slot, Walk
from vfio_user_xe.device_models.xe.eu.decode import decode
from vfio_user_xe.device_models.xe.eu.port import MessagePort, Outcome, Reply, Request
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status

BASE = 0x7000_0000
FOREVER = 1 << 40
LANES = 16
THREADS = 8
ITEMS = LANES * THREADS
SIGNAL = "(W) send.gtwy (1|M0)  null  r5  null:0  0x0  0x02000004\n(W) sync.bar (1|M0)  null\n"


def reduction() -> str:
    """Sums ITEMS numbers of each group in SLM; the first item writes the sum at the group's place."""
    text = """
        mov (16|M0)  r10.0<1>:ud  r1.0<1;1,0>:uw
        shl (16|M0)  r25.0<1>:ud  r10.0<1;1,0>:ud  2:w
        (W) mul (1|M0)  r4.0<1>:ud  r0.1<0;1,0>:ud  512:w
        add (16|M0)  r26.0<1>:ud  r25.0<1;1,0>:ud  r4.0<0;1,0>:ud
        mov (16|M0)  r12.0<1>:q  r26.0<1;1,0>:ud
        add (16|M0)  r12.0<1>:q  r12.0<1;1,0>:q  r3.0<0;1,0>:q
        send.ugm (16|M0)  r24  r12  null:0  0x0  0x04100580
        send.slm (16|M0)  null  r25  r24:1  0x0  0x02000504
    """
    text += SIGNAL
    distance = ITEMS // 2
    while distance:
        text += f"""
            cmp (16|M0) (lt)f0.0  null<1>:ud  r10.0<1;1,0>:ud  {distance}:uw
            add (16|M0)  r26.0<1>:ud  r25.0<1;1,0>:ud  {4 * distance}:uw
            (f0.0) send.slm (16|M0)  r27  r26  null:0  0x0  0x02100500
            (f0.0) send.slm (16|M0)  r28  r25  null:0  0x0  0x02100500
            (f0.0) add (16|M0)  r28.0<1>:d  r28.0<1;1,0>:d  r27.0<1;1,0>:d
            (f0.0) send.slm (16|M0)  null  r25  r28:1  0x0  0x02000504
        """
        text += SIGNAL
        distance //= 2
    return text + "(f0.0) send.ugm (16|M0)  null  r12  r28:1  0x0  0x04000584\n" + END


class Job:
    """A kernel over groups of THREADS threads, and memory with `words` at BASE."""

    def __init__(self, text: str, words: NDArray[np.int32]) -> None:
        self.code = assemble(text)
        self.kernel: Kernel = compile_program(decode(reader(self.code), 0), loaded())
        self.memory = aligned(-(-words.nbytes // 65536) * 65536)
        self.memory[: words.nbytes] = words.view(np.uint8)
        self.map = Map(loaded())
        for start in range(0, len(self.memory), 65536):
            self.map.insert(BASE + start, 16, self.memory.ctypes.data + start, Access.READ | Access.WRITE)

    @property
    def words(self) -> NDArray[np.int32]:
        return self.memory.view(np.int32)

    def walk(self, groups: int, threads: int = THREADS) -> Walk:
        payload = np.zeros((threads, 6 * 64), dtype=np.uint8)
        for thread in range(threads):
            payload[thread, 64:96].view(np.uint16)[:] = np.arange(LANES) + LANES * thread
            payload[thread, 3 * 64 : 3 * 64 + 8].view(np.uint64)[0] = BASE
            payload[thread, 5 * 64 + 8 : 5 * 64 + 12].view(np.uint32)[0] = threads << 24 | threads << 16
        return Walk(self.kernel, payload, [0xFFFF] * threads, 0, (groups, 1, 1), cr0=0x4C0)

    def slot(self, walk: Walk) -> Slot:
        slot = Slot(self.map, walk.threads, 4 * ITEMS)
        slot.begin(walk)
        return slot


def numbers(groups: int) -> NDArray[np.int32]:
    return np.random.default_rng(3).integers(-1000, 1000, groups * ITEMS, dtype=np.int32)


@pytest.mark.parametrize("budget", [FOREVER, 37])
def test_threads_of_a_group_meet_at_barriers(budget: int) -> None:
    job = Job(reduction(), numbers(5))
    expected = job.words[: 5 * ITEMS].reshape(5, ITEMS).sum(axis=1)
    slot = job.slot(job.walk(5))
    while slot.run(budget) is not Reason.GONE:
        pass
    assert np.array_equal(job.words[: 5 * ITEMS : ITEMS], expected)


def test_group_goes_on_in_another_slot() -> None:
    job = Job(reduction(), numbers(1))
    expected = job.words[:ITEMS].sum()
    walk = job.walk(1)
    slot = job.slot(walk)
    assert slot.run(400) is Reason.RAN_OUT
    other = Slot(job.map, THREADS, 4 * ITEMS)
    other.begin(walk)
    other.restore(slot.save())
    assert other.run(FOREVER) is Reason.GONE
    assert job.words[0] == expected


def test_groups_that_a_slot_has_taken_go_on_in_another_slot() -> None:
    job = Job(reduction(), numbers(2000))
    expected = job.words[: 2000 * ITEMS].reshape(2000, ITEMS).sum(axis=1)
    walk = job.walk(2000)
    slot = job.slot(walk)
    while slot.struct.taken_end - slot.struct.taken < 2:
        assert slot.run(400) is Reason.RAN_OUT
    other = Slot(job.map, THREADS, 4 * ITEMS)
    other.begin(walk)
    other.restore(slot.save())
    assert other.run(FOREVER) is Reason.GONE
    assert np.array_equal(job.words[: 2000 * ITEMS : ITEMS], expected)


@pytest.mark.parametrize("taken", [(-1, 4), (5, 4), (0, 101)])
def test_groups_that_the_walk_does_not_have_are_not_restored(taken: tuple[int, int]) -> None:
    job = Job(reduction(), numbers(100))
    walk = job.walk(100)
    slot = job.slot(walk)
    assert slot.run(400) is Reason.RAN_OUT
    saved = slot.save()
    saved["slot"][2:4] = taken
    other = Slot(job.map, THREADS, 4 * ITEMS)
    other.begin(walk)
    with pytest.raises(ValueError, match=rf"groups {taken[0]} to {taken[1]} are taken, of a walk of 100"):
        other.restore(saved)
    assert not other.struct.occupied


def test_slots_take_long_groups_one_by_one() -> None:
    text = """
        (W) mov (1|M0)  r60.0<1>:ud  0:ud
        again:
        (W) add (1|M0)  r60.0<1>:ud  r60.0<0;1,0>:ud  1:ud
        (W) cmp (16|M0)  (lt)f0.0  null<1>:ud  r60.0<0;1,0>:ud  20000:ud
        (W&f0.0) jmpi (1|M0)  again
    """
    job = Job(text + END, np.zeros(1, np.int32))
    walk = job.walk(2000)
    slot = job.slot(walk)
    assert slot.run(1_000_000) is Reason.RAN_OUT
    assert slot.struct.taken == slot.struct.taken_end == walk.struct.next > 1


def test_a_slot_goes_on_until_its_deadline() -> None:
    job = Job("forever:\n(W) jmpi (1|M0)  forever\n" + END, np.zeros(1, np.int32))
    slot = job.slot(job.walk(1))
    deadline = loaded().deadline(20_000_000)
    assert slot.run(1, deadline=deadline) is Reason.RAN_OUT
    assert loaded().deadline(0) >= deadline
    before = slot.executed
    assert slot.run(10_000, deadline=deadline) is Reason.RAN_OUT
    assert slot.executed - before >= 9_000


def test_two_slots_share_a_walk() -> None:
    job = Job(reduction(), numbers(200))
    expected = job.words[: 200 * ITEMS].reshape(200, ITEMS).sum(axis=1)
    walk = job.walk(200)
    slots = [job.slot(walk), job.slot(walk)]
    workers = [threading.Thread(target=slot.run, args=(FOREVER,)) for slot in slots]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert walk.is_given_out
    assert np.array_equal(job.words[: 200 * ITEMS : ITEMS], expected)


def test_atomics_of_slots_in_parallel_lose_nothing() -> None:
    text = """
        mov (16|M0)  r12.0<1>:q  r3.0<0;1,0>:q
        mov (16|M0)  r20.0<1>:d  1:w
        send.ugm (16|M0)  null  r12  r20:1  0x0  0x0400058c
    """
    job = Job(text + END, np.zeros(1, np.int32))
    walk = job.walk(2000)
    workers = [threading.Thread(target=job.slot(walk).run, args=(FOREVER,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert job.words[0] == 2000 * ITEMS


def test_kernel_that_never_ends_is_stopped_from_outside() -> None:
    job = Job("forever:\n(W) jmpi (1|M0)  forever\n" + END, np.zeros(1, np.int32))
    slot = job.slot(job.walk(1))
    reasons: list[Reason] = []
    worker = threading.Thread(target=lambda: reasons.append(slot.run(FOREVER)))
    worker.start()
    slot.stop()
    worker.join(timeout=30)
    assert reasons == [Reason.STOPPED]
    slot.go_on()
    assert slot.run(10_000) is Reason.RAN_OUT


def test_thread_that_spins_does_not_keep_others_from_running() -> None:
    text = """
            mov (16|M0)  r10.0<1>:ud  r1.0<1;1,0>:uw
            mov (16|M0)  r12.0<1>:q  r3.0<0;1,0>:q
            mov (16|M0)  r20.0<1>:d  1:w
            cmp (16|M0) (lt)f1.0  null<1>:ud  r10.0<1;1,0>:ud  16:uw
            (~f1.0) goto (16|M0)  others  others
        wait:
            send.ugm (16|M0)  r24  r12  null:0  0x0  0x04100580
            cmp (16|M0) (lt)f0.0  null<1>:d  r24.0<1;1,0>:d  112:w
            (f0.0) goto (16|M0)  wait  wait
            goto (16|M0)  end  end
        others:
            join (16|M0)  next
        next:
            send.ugm (16|M0)  null  r12  r20:1  0x0  0x0400058c
        end:
            join (16|M0)  last
        last:
    """
    job = Job(text + END, np.zeros(1, np.int32))
    slot = job.slot(job.walk(1))
    assert slot.run(10_000_000) is Reason.GONE
    assert job.words[0] == ITEMS - LANES


def test_thread_set_aside_lets_the_others_run() -> None:
    job = Job(reduction(), numbers(1))
    slot = job.slot(job.walk(1))
    assert slot.run(5) is Reason.RAN_OUT
    slot.set_aside(3)
    assert slot.run(FOREVER) is Reason.BLOCKED
    slot.resume(3)
    assert slot.run(FOREVER) is Reason.GONE


def test_registers_of_another_kernel_are_not_seen() -> None:
    text = """
        mov (16|M0)  r150.0<1>:d  77:w
        mov (16|M0)  r25.0<1>:d  16:w
        send.slm (16|M0)  null  r25  r150:1  0x0  0x02000504
    """
    job = Job(text + END, np.zeros(1, np.int32))
    slot = job.slot(job.walk(1))
    assert slot.run(FOREVER) is Reason.GONE
    assert slot.registers[0, 150 * 64] == 77
    assert slot.slm[16] == 77
    # To clear them takes longer than a small group runs.
    slot.begin(job.walk(1))
    assert slot.registers[0, 150 * 64] == 77
    assert slot.slm[16] == 77
    slot.begin(Job(text + END, np.zeros(1, np.int32)).walk(1))
    assert not slot.storage.any()
    assert not slot.slm.any()


# The interpreter


def fallback(job: Job, port: MessagePort | None = None) -> Fallback:
    if port is None:
        port = create_autospec(MessagePort, instance=True)
        port.send.return_value = Reply()
    return Fallback(reader(job.code), port, clock=lambda: 0x1_2345)


def finish(slot: Slot, steps: Fallback) -> int:
    """Runs to the end; how many instructions the interpreter had."""
    for count in range(1000):
        reason = slot.run(FOREVER)
        if reason is Reason.GONE:
            return count
        assert reason is Reason.INTERPRET
        assert steps.step(slot, slot.culprit) in (Status.RUNNING, Status.ENDED)
    raise AssertionError("never ends")


def test_instruction_without_handler_is_interpreted_in_the_middle_of_a_thread() -> None:
    text = """
        (W) mov (2|M0)  r20.0<1>:ud  tm0.0<1;1,0>:ud
        add (16|M0)  r21.0<1>:d  r20.0<0;1,0>:d  1:w
    """
    job = Job(text + END, np.zeros(1, np.int32))
    slot = job.slot(job.walk(1, threads=1))
    assert finish(slot, fallback(job)) == 1
    assert list(slot.registers[0, 21 * 64 : 22 * 64].view(np.uint32)) == [0x1_2346] * 16


def test_other_rounding_holds_until_cr0_has_another() -> None:
    text = """
        (W) or (1|M0)  cr0.0<1>:ud  cr0.0<0;1,0>:ud  0x10:ud
        mov (16|M0)  r20.0<1>:f  1.0:f
        add (16|M0)  r21.0<1>:f  r20.0<1;1,0>:f  0x1:f
        (W) and (1|M0)  cr0.0<1>:ud  cr0.0<0;1,0>:ud  0xffffffcf:ud
        add (16|M0)  r22.0<1>:f  r20.0<1;1,0>:f  0x1:f
    """
    job = Job(text + END, np.zeros(1, np.int32))
    slot = job.slot(job.walk(1, threads=1))
    assert finish(slot, fallback(job)) == 0
    assert slot.registers[0, 21 * 64 : 21 * 64 + 4].view(np.uint32)[0] == 0x3F80_0001
    assert slot.registers[0, 22 * 64 : 22 * 64 + 4].view(np.uint32)[0] == 0x3F80_0000


class Late:
    """A port that answers later."""

    def send(self, request: Request) -> Reply:
        return Reply(outcome=np.full(len(request.threads), Outcome.PENDING))


def test_thread_that_waits_for_a_reply_is_set_aside() -> None:
    # A sampler message: never for the handlers.
    text = "send.smpl (16|M0)  r40  r10  null:0  0x0  0x02420000\n"
    job = Job(text + END, np.zeros(1, np.int32))
    slot = job.slot(job.walk(1, threads=1))
    steps = fallback(job, Late())
    assert slot.run(FOREVER) is Reason.INTERPRET
    assert steps.step(slot, slot.culprit) is Status.WAITING
    assert slot.run(FOREVER) is Reason.BLOCKED
    data = np.arange(256, dtype=np.uint8)
    assert steps.complete(slot, 0, data) is Status.RUNNING
    assert slot.run(FOREVER) is Reason.GONE
    assert np.array_equal(slot.registers[0, 40 * 64 : 44 * 64], data)


def test_illegal_instruction_is_an_exception_of_its_thread() -> None:
    job = Job("illegal\n" + END, np.zeros(1, np.int32))
    slot = job.slot(job.walk(1, threads=1))
    steps = fallback(job)
    assert slot.run(FOREVER) is Reason.INTERPRET
    assert steps.step(slot, 0) is Status.EXCEPTION
    assert steps.cause(slot, 0) is Cause.ILLEGAL
    assert slot.run(FOREVER) is Reason.BLOCKED


def test_a_slot_that_needs_something_makes_the_others_come_back() -> None:
    # Group 0 loops for ever, the others load what is not mapped.
    text = """
        (W) cmp (1|M0) (eq)f0.0  null<1>:ud  r0.1<0;1,0>:ud  0:ud
        (W&~f0.0) jmpi (1|M0)  load
        again: jmpi (1|M0)  again
        load: mov (16|M0)  r12.0<1>:q  0x1000:w
        send.ugm (16|M0)  r24  r12  null:0  0x0  0x04100580
    """
    job = Job(text + END, np.zeros(1, np.int32))
    walk = job.walk(2, threads=1)
    endless, other = job.slot(walk), job.slot(walk)
    assert endless.run(1000) is Reason.RAN_OUT
    halts, found = walk.halts, []
    worker = threading.Thread(target=lambda: found.append(endless.run(FOREVER, halts)))
    worker.start()
    assert other.run(FOREVER, halts) is Reason.MISS
    worker.join(timeout=60)
    assert found == [Reason.STOPPED]
    assert endless.run(1000) is Reason.RAN_OUT, "it goes on as soon as it is let"


def test_counts_of_a_slot_that_is_given_up_are_forgotten() -> None:
    job = Job(reduction(), numbers(1))
    slot = job.slot(job.walk(1))
    assert slot.run(FOREVER) is Reason.GONE
    assert [(used.reads, used.writes) for used in job.map.harvest()] == [(THREADS, 1)]
    job.map.forget(slot.counts)
    assert job.map.harvest() == []
