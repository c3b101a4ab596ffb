"""Kernels that are translated while the executor does other work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from unittest.mock import Mock

import pytest

from tests.support.xe.commands import END, sdi
from tests.support.xe.compute_kernels import vector_add
from tests.support.xe.compute_lab import DATA, KERNEL, ComputeLab, labs, walker
from tests.support.xe.engine_lab import Job
from vfio_user_xe.device_models.xe.compute import compiled_units, translation
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel, translate_kernel
from vfio_user_xe.device_models.xe.eu.compiled.library import load

THREAD = "eu-translate"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[ComputeLab]:
    """Nothing is in the cache folder."""
    monkeypatch.setattr(compiled_units, "find_kernel", lambda *_: None)
    yield from labs("compiled")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Translations wait for it."""
    event = threading.Event()

    def late(*arguments: object) -> Kernel:
        assert event.wait(60)
        return translate_kernel(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(translation, "translate_kernel", late)
    yield event
    event.set()
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(60)


def inline(output: int = 0x200) -> list[int]:
    return [DATA, 0, DATA + 0x100, 0, DATA + output, 0]


def addition(lab: ComputeLab, *more: int, **options: int) -> Job:
    commands = walker(groups=(1, 1, 1), local=(64, 1, 1), ids=[0], inline=inline())
    job = lab.compute_job(vector_add(64), *commands, *more, **options)
    job.set_data(0, *range(64), *range(1000, 1064))
    return job


def translating() -> int:
    return sum(thread.name == THREAD for thread in threading.enumerate())


def is_right(job: Job) -> bool:
    return job.data(0x200, 64) == [1000 + 2 * n for n in range(64)]


def test_other_engines_work_while_a_kernel_is_translated(lab: ComputeLab, gate: threading.Event) -> None:
    late = addition(lab)
    late.submit()
    other = lab.job()
    other.batch(*sdi(DATA, 7), END)
    other.ring(*other.start())
    other.submit()
    lab.run(lambda: other.data(0, 1) == [7])
    assert not is_right(late)
    gate.set()
    lab.run()
    assert is_right(late)
    assert not lab.engine("ccs0").reports


def test_a_context_is_preempted_while_its_kernel_is_translated(lab: ComputeLab, gate: threading.Event) -> None:
    late, rival = addition(lab, quantum_us=1000), addition(lab, quantum_us=1000)
    late.submit()
    rival.submit()
    lab.run(lambda: translating() == 2)
    gate.set()
    lab.run()
    assert is_right(late)
    assert is_right(rival)


def test_a_context_that_is_removed_leaves_no_thread_behind(lab: ComputeLab, gate: threading.Event) -> None:
    late = addition(lab)
    late.submit()
    lab.run(lambda: any(thread.name == THREAD for thread in threading.enumerate()))
    lab.engines.remove(late.context)
    lab.run()
    gate.set()
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(10)
            assert not thread.is_alive()
    assert not is_right(late)


def test_code_that_changes_meanwhile_is_translated_again(lab: ComputeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has begun runs what was there; the next walker runs what is there."""
    again = walker(groups=(1, 1, 1), local=(64, 1, 1), ids=[0], inline=inline(0x300))
    job = addition(lab, *again)

    def changed(*arguments: object) -> Kernel:
        kernel = translate_kernel(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(translation, "translate_kernel", translate_kernel)
        code = assemble(vector_add(64).replace("add (16|M0)  r22", "xor (16|M0)  r22"))
        job._view(job.batch_memory + KERNEL, len(code))[:] = code
        return kernel

    monkeypatch.setattr(translation, "translate_kernel", changed)
    job.submit()
    lab.run()
    assert is_right(job)
    assert job.data(0x300, 64) == [n ^ 1000 + n for n in range(64)]


def test_a_page_of_code_that_is_not_there_is_a_fault_as_ever(lab: ComputeLab) -> None:
    job = lab.compute_job(vector_add(64), *walker(kernel=0x4000_0000))
    job.submit()
    lab.run()
    assert [fault.address for fault in lab.listener.faults] == [0x4010_0000]
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(10)
            assert not thread.is_alive()


def test_a_function_with_many_kernels_has_few_threads(lab: ComputeLab, gate: threading.Event) -> None:
    """Whether its contexts take turns, or are removed and made again."""
    jobs = [addition(lab, quantum_us=1000) for _ in range(6)]
    for job in jobs[:3]:
        job.submit()
        lab.run(lambda: translating() >= 1)
        lab.engines.remove(job.context)
        lab.run()
    for job in jobs[3:]:
        job.submit()
    turns = iter(range(200))
    lab.run(lambda: next(turns) == 199)
    assert translating() == 2
    gate.set()
    lab.run()
    assert [is_right(job) for job in jobs] == [False] * 3 + [True] * 3


def test_a_context_without_a_turn_leaves_its_place_to_others(lab: ComputeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "_UNSERVED", 0.01)
    code = assemble(vector_add(64)).ljust(0x2000, b"\0")
    task = Mock()
    task.state.instruction, task.walker.interface.kernel = 0x10000, 0xFC0
    task.memory.read = lambda place, length: (bytes(0xFC0) + code)[place - 0x10000 :][:length]
    places = threading.Semaphore(1)
    late = translation.Translation(task, load(), places)
    late._begin(1)
    # Nobody serves it.
    assert places.acquire(timeout=60)
    assert not late.serve(0.01)
    places.release()
    while not late.serve(1):
        pass
    assert late.result().struct.first <= 0xFC0


def test_a_host_without_room_for_a_thread_translates_later(lab: ComputeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as there are places, and once more: a place that a failure kept would be missed."""
    begin, refused = threading.Thread.start, list[str]()

    def start(thread: threading.Thread) -> None:
        if thread.name == THREAD and len(refused) < 3:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    job = addition(lab)
    job.submit()
    lab.run()
    assert is_right(job)
    assert len(refused) == 3
