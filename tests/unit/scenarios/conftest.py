"""What tests of scenarios share."""

from __future__ import annotations

import pytest

from tests.support.scenario_plays import Labs
from vfio_user_xe.emulator.scenarios import runner


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch) -> Labs:
    labs = Labs()
    monkeypatch.setattr(runner, "open_lab", labs.open)
    monkeypatch.setattr(runner, "command_line", lambda kernel: "")
    return labs
