"""A card that is recorded while the stock driver works on it: the driver notices nothing, and the recording replays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.record_probe import record
from vfio_user_xe.emulator.recording.player import replay

pytestmark = pytest.mark.guest


def test_a_probe_is_recorded_and_replays_without_the_guest(tmp_path: Path) -> None:
    path = tmp_path / "probe.gz"
    record(path)
    outcome = replay(path)
    assert outcome.difference is None
    assert (outcome.cut_off, outcome.failures) == ("", 0)
    assert outcome.accesses > 1000
    assert outcome.interrupts > 10
