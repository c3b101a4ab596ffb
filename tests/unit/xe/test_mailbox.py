"""The mailbox says that a request was taken before the access that rings is answered: hosts give up after 50 ms."""

from __future__ import annotations

import threading

from tests.support.xe.guc_driver import DOORBELL, SCRATCH, GucDriver
from vfio_user_xe.device_models.xe.guc.mmio import BUSY


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
