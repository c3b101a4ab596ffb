"""Walkers of one form, whose walk is kept from one to the next."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from tests.support.xe.compute_kernels import offsets, store
from tests.support.xe.compute_lab import DATA, EOT, ComputeLab, labs, walker
from vfio_user_xe.device_models.xe.compute import back_end
from vfio_user_xe.device_models.xe.compute.compiled_units import CompiledUnits
from vfio_user_xe.device_models.xe.compute.walks import TaskWalk, Walks

# Each lane stores where indirect data of its walker is.
KERNEL = offsets(16) + "mov (16|M0)  r20.0<1>:ud  r0.0<0;1,0>:ud\n" + store(0, "r20") + EOT


def test_walkers_of_one_form_have_their_own_extent_and_data(lab: ComputeLab) -> None:
    walks = [
        # Indirect data, offset of what is stored, first group, end.
        (0x40, 0x000, 0, 2),
        (0x80, 0x400, 1, 4),
        (0x80, 0x800, 0, 1),
        (0xC0, 0x800, 2, 3),
        (0x40, 0xC00, 0, 5),
    ]
    commands = [
        word
        for indirect, offset, first, end in walks
        for word in walker(
            groups=(end, 1, 1), first=(first, 0, 0), ids=[0], inline=[DATA + offset, 0], indirect=(indirect, 0)
        )
    ]
    expected = [0] * 0x500
    for indirect, offset, first, end in walks:
        for item in range(16 * first, 16 * end):
            expected[offset // 4 + item] = indirect
    for _ in range(2):
        job = lab.compute_job(KERNEL, *commands)
        job.submit()
        lab.run()
        assert job.data(0, len(expected)) == expected
    assert not lab.engine("ccs0").reports


@pytest.fixture
def compiled() -> Iterator[ComputeLab]:
    yield from labs("compiled")


def test_a_walk_that_is_in_use_is_not_given_out(compiled: ComputeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a context that was preempted in the middle of it, while another of its address space runs the same kernel."""
    taken: list[TaskWalk] = []
    take = Walks.take

    def record(walks: Walks, *arguments: object) -> TaskWalk:
        walk = take(walks, *arguments)  # type: ignore[arg-type]
        taken.append(walk)
        beside = take(walks, *arguments)  # type: ignore[arg-type]
        assert beside is not walk
        return walk

    monkeypatch.setattr(Walks, "take", record)
    one = walker(groups=(1, 1, 1), ids=[0], inline=[DATA, 0])
    other = walker(groups=(1, 1, 1), local=(32, 1, 1), ids=[0], inline=[DATA, 0])
    # The second goes on with what the first ended with, and so asks for no walk.
    job = compiled.compute_job(KERNEL, *one, *one, *other, *one)
    job.submit()
    compiled.run()
    assert len(taken) == 3
    assert taken[0] is taken[2]
    assert taken[0] is not taken[1]


def test_what_the_last_walker_ended_with_keeps_no_pages(compiled: ComputeLab) -> None:
    job = compiled.compute_job(KERNEL, *walker(groups=(1, 1, 1), ids=[0], inline=[DATA, 0]))
    job.submit()
    gc.collect()
    gc.disable()
    try:
        compiled.run()
        units = back_end.units()
        assert isinstance(units, CompiledUnits)
        (space,) = [space for space, (pages, _) in units._spaces.items() if pages._ended is not None]
        pages = weakref.ref(units._spaces[space][0])
        del units._spaces[space]
        assert pages() is None
    finally:
        gc.enable()
