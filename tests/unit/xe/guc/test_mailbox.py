"""The mailbox says that a request was taken before the access that rings is answered: hosts give up after 50 ms."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.xe.guc_driver import DOORBELL, SCRATCH, GucDriver
from vfio_user_xe.device_models.xe.guc import klv
from vfio_user_xe.device_models.xe.guc.mmio import BUSY, Mailbox


def test_a_request_is_taken_inside_the_access_and_answered_later(driver: GucDriver) -> None:
    bench = driver.bench
    hold = threading.Event()
    bench.card.executor.submit(hold.wait)
    bench.write(SCRATCH[0], 0x0508)
    bench.write(DOORBELL[0], 0)
    assert bench.read(SCRATCH[0]) == BUSY
    hold.set()
    bench.settle()
    assert bench.read(SCRATCH[0]) >> 28 & 7 == 6, "an error: the KLV is of no length"


def test_an_answer_to_a_mailbox_that_was_cleared_meanwhile_is_dropped(driver: GucDriver) -> None:
    bench = driver.bench
    hold = threading.Event()
    bench.card.executor.submit(hold.wait)
    bench.card.executor.submit(bench.gpu.gts[0].guc.pf.mailbox.clear)
    bench.write(SCRATCH[0], 0x0508)
    bench.write(DOORBELL[0], 0)
    hold.set()
    bench.settle()
    assert bench.read(SCRATCH[0]) == 0


def test_a_guc_that_does_not_run_takes_nothing(driver: GucDriver) -> None:
    bench = driver.bench
    bench.write(0x941C, 8)
    bench.settle()
    bench.write(SCRATCH[0], 0x0508)
    bench.write(DOORBELL[0], 0)
    assert bench.read(SCRATCH[0]) == 0x0508


class NotingList(list[int]):
    """Notes what is in it after each store."""

    def __init__(self, values: Iterable[int]) -> None:
        super().__init__(values)
        self.states: list[tuple[int, ...]] = []

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, value)
        self.states.append(tuple(self))


@pytest.mark.parametrize("answer", [(0xF0000001, 1, 2, 3), (0xF0000001, 1), (0xE0000105,)])
def test_dword_0_of_an_answer_is_stored_when_the_others_are_there(answer: tuple[int, ...]) -> None:
    """A host that polls dword 0 reads the other three as soon as it sees the origin bit (`xe_guc_mmio_send_recv`)."""
    mailbox = Mailbox(0, lambda: None)
    mailbox.dwords = stores = NotingList([0x5509, klv.GGTT_START, 0xAAAA, 0xBBBB])
    mailbox.take()
    mailbox.answer(answer)
    whole = answer + (0,) * (4 - len(answer))
    assert tuple(stores) == whole
    assert [state for state in stores.states if state[0] != BUSY] == [whole]
