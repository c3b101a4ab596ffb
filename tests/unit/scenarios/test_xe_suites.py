"""What holds for every suite that xe has on the emulated card."""

from __future__ import annotations

import re
from typing import Any

import pytest

from vfio_user_xe.device_models.xe.scenarios.lateness import LATE, lately
from vfio_user_xe.emulator.cli.scenario import installed_suites, load_suite
from vfio_user_xe.emulator.scenarios.judge import JUDGE

OF_XE = [load_suite(name) for name in installed_suites() if name != JUDGE.name]


@pytest.mark.parametrize("suite", OF_XE, ids=lambda suite: suite.name)
def test_a_busy_host_is_no_failure_and_a_device_that_did_not_wake_up_is_left(suite: Any) -> None:
    assert suite.late is lately, f'"{LATE}" says nothing of a kernel where the host is busy'
    for line in ("xe: declared device wedged", "xe 0000:01:00.0: [drm] *ERROR* Tile0: GT0: resume failed (-EPROTO)"):
        if "wedged" in line and suite.name == "sriov":
            continue  # its scenarios wedge devices on purpose
        assert re.search(suite.fatal, line), line
