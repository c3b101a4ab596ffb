"""Resets that xe took no notice of: what tells them from others that are not answered."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest

from tests.support.xe.machines import xe_machine
from vfio_user_xe.device_models.xe.scenarios import steps
from vfio_user_xe.emulator.kernel_reports import KernelLog, parse
from vfio_user_xe.emulator.scenarios.run import Run

CAME = "xe 0000:01:00.0: [drm] PF: Tile0: GT0: VF{0} FLR"
MET = "xe 0000:01:00.0: [drm] PF: Tile0: GT0: VF{0} FLR is already in progress"


@pytest.mark.parametrize(
    ("said", "served", "lost"),
    [
        ([CAME.format(1), MET.format(1)], True, True),
        ([CAME.format(1), MET.format(1)], False, False),
        ([CAME.format(1), CAME.format(2), MET.format(2)], True, False),
        ([MET.format(1), *8 * [CAME.format(1)]], True, False),
        ([CAME.format(1), MET.format(1), *8 * [CAME.format(2)]], True, True),
    ],
)
def test_a_reset_is_lost_where_the_vf_s_own_met_another_and_one_more_is_served(
    said: list[str], served: bool, lost: bool
) -> None:
    log = create_autospec(KernelLog, instance=True)
    log.read.side_effect = [parse("\n".join(said)), *8 * [[]]]
    machine = xe_machine()
    machine.card.vf_state.side_effect = lambda number: "flr" if number == 1 else "running"
    machine.card.served.return_value = served
    assert bool(steps.lost_reset(Run(log), machine)) is lost
