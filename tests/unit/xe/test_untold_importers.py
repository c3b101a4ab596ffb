"""Which jobs say that one importer was told of a revocation and another was not."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios.lifetimes.blocking import Blocking, _Job
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import State
from vfio_user_xe.device_models.xe.scenarios.patience import Patience
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.scenarios.run import Run

I4_BUT_I3 = "i4, which ran a job in the buffer, while i3 was told"


def untold(*jobs: tuple[str, str, str]) -> str:
    """What follows from jobs of importers in buffers, with these answers."""
    log, patience = create_autospec(KernelLog, instance=True), create_autospec(Patience, instance=True)
    judge = Blocking(Run(log), patience, State(), {})
    judge._jobs = [_Job(name, buffer, answer, True) for name, buffer, answer in jobs]
    return judge._untold("a job of an importer")


def test_another_importer_of_the_buffer_ran_its_job() -> None:
    assert untold(("i3", "d1", "ENODEV"), ("i4", "d1", "0")) == I4_BUT_I3
    assert untold(("i3", "d1", "0"), ("i4", "d1", "ENODEV")) == "i3, which ran a job in the buffer, while i4 was told"
    assert untold(("i3", "d1", "ENODEV"), ("i4", "d2", "0")) == ""


@pytest.mark.parametrize("answer", ["ETIME", "ENOMEM", "ECANCELED"])
def test_a_job_that_ends_for_another_reason_does_not_say_that_its_importer_was_told(answer: str) -> None:
    assert untold(("i3", "d1", answer), ("i4", "d1", "0")) == ""


def test_two_jobs_of_one_importer_are_no_two_importers() -> None:
    assert untold(("i3", "d1", "ENODEV"), ("i3", "d1", "0")) == ""
    assert untold(("i3", "d1", "ENODEV"), ("i3", "d1", "0"), ("i4", "d1", "0")) == I4_BUT_I3
