"""A VF's state is saved by one GuC and restored by another, and the VF mends its addresses before it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.xe.guc_driver import DOORBELL, SCRATCH, GucDriver
from tests.support.xe.provisioning import (
    PROVISIONED,
    SUCCESS,
    VF_SIZE,
    VF_START,
    configure,
    control,
    enable_vfs,
    failure,
)
from vfio_user_xe.device_models.xe.engines.context import DISABLED, ENABLED
from vfio_user_xe.device_models.xe.guc import klv
from vfio_user_xe.device_models.xe.guc.migration import MOST_IN_FLIGHT
from vfio_user_xe.device_models.xe.guc.mmio import BUSY, PF_VIEW_STRIDE

MIB = 1 << 20
SAVE, RESTORE = 0, 1 << 16
PAUSE, RESUME = 1, 2
VF_MIGRATED = 0x107
MEMIRQ = VF_START + 0x20000
ELSEWHERE = VF_START + 2 * VF_SIZE


def provisioned_vf(bench: Any, start: int) -> tuple[GucDriver, GucDriver]:
    """PF's and VF 1's drivers on a card; the VF's GGTT begins at `start` and leads to VRAM of its own."""
    bench.map_ggtt(0x1000000, 1 << 20, 0x10000000)
    pf = GucDriver(bench)
    pf.boot()
    pf.start_ct()
    values = {**PROVISIONED, klv.GGTT_START: start}
    assert configure(pf, 1, values) == SUCCESS | len(values)
    enable_vfs(bench, 1)
    bench.run(lambda: bench.gpu.vram.provision(1, 64 * MIB))
    bench.map_ggtt(start, 1 << 20, 0, vfid=1)
    return pf, GucDriver(bench, vfid=1, base=start)


@pytest.fixture
def source(make_bench: Callable[..., Any]) -> tuple[GucDriver, GucDriver]:
    pf, vf = provisioned_vf(make_bench(vfs=2), VF_START)
    vf.start_ct()
    assert vf.mmio(0x0508, 0x0901 << 16 | 2, MEMIRQ + 0x400 + 25)[0] == SUCCESS | 1
    assert vf.mmio(0x0508, 0x0900 << 16 | 2, MEMIRQ + 0x190)[0] == SUCCESS | 1
    vf.send(0x4502, 1, 7, 0, 1, 0, 0, 0, 0, 0, VF_START + 0x50000 | 0x119, 0, kind=1)
    vf.send(0x100B, 7, 0x20010001, 640, 0x20020001, 6400)
    vf.send(0x1001, 7, 1)
    vf.received()
    [context] = vf.bench.gpu.gts[0].engines.listener.contexts(1)
    for state in (DISABLED, ENABLED):
        context.states.to(state)  # what engines that only take notes do not do
    return pf, vf


@pytest.fixture
def target(make_bench: Callable[..., Any]) -> tuple[GucDriver, GucDriver]:
    return provisioned_vf(make_bench(vfs=2), ELSEWHERE)


def save(pf: GucDriver) -> tuple[int, ...]:
    """Pause VF 1 and save it; the state in dwords."""
    assert control(pf, 1, PAUSE)[0] == SUCCESS
    needed = pf.request(SAVE | 0x550B, 1, 0, 0, 0)[0][0] & 0xFFFFFFF
    used = pf.request(SAVE | 0x550B, 1, pf.buffer, 0, needed)[0][0] & 0xFFFFFFF
    assert 0 < used <= needed
    return pf.peek(pf.buffer, used)


def restore(pf: GucDriver, state: tuple[int, ...]) -> int:
    """Pause VF 1 and restore `state` into it; the answer."""
    assert control(pf, 1, PAUSE)[0] == SUCCESS
    return restore_paused(pf, state)


def restore_paused(pf: GucDriver, state: tuple[int, ...]) -> int:
    pf.poke_dwords(pf.buffer, *state)
    return pf.request(RESTORE | 0x550B, 1, pf.buffer, 0, len(state))[0][0]


def move(source: tuple[GucDriver, GucDriver], target: tuple[GucDriver, GucDriver]) -> GucDriver:
    """Save on one card, restore on the other with the VF's memory, resume; the VF's driver there."""
    state = save(source[0])
    old, new = source[1].bench.gpu.vram.vf_memory(1), target[1].bench.gpu.vram.vf_memory(1)
    new.view[: 1 << 20] = old.view[: 1 << 20]
    assert restore(target[0], state) == SUCCESS | len(state)
    assert control(target[0], 1, RESUME)[0] == SUCCESS
    return target[1]


def calls(vf: GucDriver, *names: str) -> list[tuple[Any, ...]]:
    return [call for call in vf.bench.gpu.gts[0].engines.calls if call[0] in names]


def test_the_vf_is_told_by_a_software_interrupt_at_its_new_addresses(source: Any, target: Any) -> None:
    vf = move(source, target)
    page = MEMIRQ - VF_START + ELSEWHERE
    assert vf.peek(page + 0x190)[0] & 0xFF == 0xFF, "SW_INT_0 of the GuC"
    assert vf.peek(page + 0x400 + 24)[0] >> 8 & 0xFF == 0xFF, "source 25, the GuC"


def test_a_migrated_vf_is_refused_until_it_begins_to_mend_its_addresses(source: Any, target: Any) -> None:
    vf = move(source, target)
    assert vf.mmio(0x0508, 0x0903 << 16 | 2, 0x1000)[0] == failure(VF_MIGRATED)
    assert vf.mmio(0x5509, klv.GGTT_START)[:2] == (SUCCESS | 2, ELSEWHERE), "queries are answered"
    assert vf.mmio(0x550F)[0] == failure(0x60), "a marker of 0"
    assert vf.mmio(0x550F | 5 << 16)[0] == SUCCESS
    assert vf.mmio(0x0508, 0x0901 << 16 | 2, 0x1000)[0] == SUCCESS | 1
    assert calls(vf, "adopt") == [], "nothing runs yet"


def test_a_mailbox_request_that_was_taken_is_saved_and_answered_where_the_vf_goes_on(source: Any, target: Any) -> None:
    """The PF's driver moves the scratch registers; what is answered on the old card is lost with it."""
    request = (0x5509, klv.GGTT_START, 0, 0)
    pf, vf = source

    def pause_while_it_asks() -> None:
        pf.send(0x5506, 1, PAUSE)
        for index, word in enumerate(request):
            vf.bench.write(SCRATCH[0] + 4 * index, word, 1)
        vf.bench.write(DOORBELL[0], 0, 1)
        assert vf.bench.read(SCRATCH[0], 1) == BUSY, "the access that rings has taken it"

    vf.bench.run(pause_while_it_asks)
    vf.bench.settle()
    pf.received()
    scratch = [pf.bench.read(SCRATCH[0] + PF_VIEW_STRIDE + 4 * index) for index in range(4)]
    assert tuple(scratch) == request
    state = save(pf)
    new_pf, new_vf = target
    assert restore(new_pf, state) == SUCCESS | len(state)
    for index, word in enumerate(scratch):
        new_pf.bench.write(SCRATCH[0] + PF_VIEW_STRIDE + 4 * index, word)
    assert control(new_pf, 1, RESUME)[0] == SUCCESS
    assert [new_vf.bench.read(SCRATCH[0] + 4 * index, 1) for index in range(2)] == [SUCCESS | 2, ELSEWHERE]


def test_contexts_go_on_where_they_are_now_once_the_vf_is_mended(source: Any, target: Any) -> None:
    vf = move(source, target)
    vf.mmio(0x550F | 5 << 16)
    vf.poke(vf.base, bytes(0x1000))
    assert vf.mmio(0x5508 | 5 << 16)[0] == SUCCESS
    [(_, context)] = calls(vf, "adopt")
    assert (context.guc_id, context.function.vfid) == (7, 1)
    assert list(context.lrcs) == [ELSEWHERE + 0x50000 | 0x119]
    assert (context.quantum_us, context.preempt_us) == (640, 6400)
    assert calls(vf, "enable") == [("enable", context)]
    assert calls(vf, "resume_function")[-1] == ("resume_function", 1)
    vf.send(0x1000, 7)
    assert calls(vf, "kick") == [("kick", context)], "its CT buffers are read, from the beginning"


def test_threads_in_flight_go_with_their_context(source: Any, target: Any) -> None:
    [context] = source[1].bench.gpu.gts[0].engines.listener.contexts(1)
    context.arrived = [b"groups in the middle of their threads"]
    vf = move(source, target)
    vf.mmio(0x550F | 5 << 16)
    assert vf.mmio(0x5508 | 5 << 16)[0] == SUCCESS
    [(_, moved)] = calls(vf, "adopt")
    assert moved.arrived == [b"groups in the middle of their threads"]


def test_more_threads_in_flight_than_a_state_holds_stay_behind(source: Any, target: Any) -> None:
    [context] = source[1].bench.gpu.gts[0].engines.listener.contexts(1)
    context.arrived = [bytes(MOST_IN_FLIGHT + 1)]
    vf = move(source, target)
    vf.mmio(0x550F | 5 << 16)
    assert vf.mmio(0x5508 | 5 << 16)[0] == SUCCESS
    [(_, moved)] = calls(vf, "adopt")
    assert moved.arrived == []


def test_a_vf_saved_again_while_it_mends_itself_begins_anew(source: Any, target: Any) -> None:
    vf, pf = move(source, target), target[0]
    vf.mmio(0x550F | 5 << 16)
    state = save(pf)
    assert restore_paused(pf, state) == SUCCESS | len(state)
    assert control(pf, 1, RESUME)[0] == SUCCESS
    assert vf.mmio(0x5508 | 5 << 16)[0] == failure(VF_MIGRATED)
    assert vf.mmio(0x550F | 6 << 16)[0] == SUCCESS
    assert vf.mmio(0x5508 | 6 << 16)[0] == SUCCESS
    assert len(calls(vf, "adopt")) == 1


def test_resume_without_restore_needs_no_mending(source: Any) -> None:
    pf, vf = source
    save(pf)
    assert control(pf, 1, RESUME)[0] == SUCCESS
    assert vf.mmio(0x550F | 5 << 16)[0] == failure(0x0A)
    vf.send(0x1000, 7)
    assert len(calls(vf, "kick")) == 1


def test_flr_ends_a_migration_that_was_not_mended(source: Any, target: Any) -> None:
    vf, pf = move(source, target), target[0]
    control(pf, 1, 4)
    control(pf, 1, 5)
    assert vf.mmio(0x5507)[0] == SUCCESS
    assert vf.mmio(0x550F | 5 << 16)[0] == failure(0x0A)


def test_only_a_paused_vf_is_saved_or_restored(source: Any) -> None:
    pf, _ = source
    assert pf.request(SAVE | 0x550B, 1, 0, 0, 0)[0][0] > SUCCESS, "its size may be asked any time"
    assert pf.request(SAVE | 0x550B, 1, pf.buffer, 0, 0x1000)[0] == (failure(0x0A),)
    assert restore_paused(pf, (0,) * 16) == failure(0x0A)
    assert pf.request(SAVE | 0x550B, 0, pf.buffer, 0, 0x1000)[0] == (failure(0x0C),)


def test_a_buffer_that_is_too_small_is_refused_and_not_written(source: Any) -> None:
    pf, _ = source
    control(pf, 1, PAUSE)
    pf.poke_dwords(pf.buffer, *[0] * 64)
    assert pf.request(SAVE | 0x550B, 1, pf.buffer, 0, 8)[0] == (failure(0x102),)
    assert set(pf.peek(pf.buffer, 64)) == {0}


@pytest.mark.parametrize("change", ["magic", "truncated", "gt", "ggtt size", "guc_id", "engine", "endless"])
def test_a_state_that_makes_no_sense_is_refused_and_changes_nothing(source: Any, target: Any, change: str) -> None:
    state = list(save(source[0]))
    context = state.index(7, 20)
    if change == "magic":
        state[0] ^= 1
    elif change == "truncated":
        del state[20:]
    elif change == "gt":
        state[3] = 1
    elif change == "ggtt size":
        state[6] += 0x1000
    elif change == "guc_id":
        state[context] = 1000
    elif change == "engine":
        state[context + 2] = 0xFF
    elif change == "endless":
        state[context - 1] = 0xFFFFFFFF
    pf, vf = target
    assert restore(pf, tuple(state)) == failure(0x71)
    assert control(pf, 1, RESUME)[0] == SUCCESS
    assert vf.mmio(0x5507)[0] == SUCCESS, "it runs as if nothing had been tried"
    assert calls(vf, "adopt") == []
