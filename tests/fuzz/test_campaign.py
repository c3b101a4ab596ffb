"""The campaign: it counts, goes on where it ended, and finds what is planted; and a short run of every target."""

from __future__ import annotations

import gc
import json
import os
import time
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest

from tests.fuzz.campaign.campaign import Campaign, Hang, State
from tests.fuzz.campaign.lab_targets import AttackingVf
from tests.fuzz.campaign.target import Target
from tests.fuzz.campaign.targets import TARGETS
from tests.support.processes import descriptors
from vfio_user_xe.device_models.xe.compute import dispatch

SHORT = {"wire": 2, "card-files": 40, "recordings": 6, "control": 3, "exports": 3, "streams": 4, "kernels": 4}
"""Cases of each target in the usual tests; others: one."""


class Planted(Target):
    """A target whose cases are numbers, and which does what a test says."""

    name, unit, fresh = "planted", "numbers", 4
    bad: ClassVar[int | None] = None
    leaks: ClassVar[bool] = False
    hangs: ClassVar[bool] = False

    def open(self) -> None:
        self.seen: list[float] = []
        self.left: list[int] = []

    def case(self, random: Random) -> int:
        drawn = random.random()
        self.seen.append(drawn)
        if self.leaks:
            self.left += [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
        if self.hangs:
            time.sleep(60)
        assert self.bad is None or drawn != Random(f"planted/{self.bad}").random(), "the planted mistake"
        return 3

    def close(self) -> None:
        pass


def test_a_campaign_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first = Planted()
    assert Campaign([first], State.load(path)).run(cases=3) == 0
    again, state = Planted(), State.load(path)
    assert Campaign([again], state).run(cases=2) == 0
    assert again.seen == [Random(f"planted/{number}").random() for number in (3, 4)]
    count = State.load(path).of("planted")
    assert (count.cases, count.units, count.next) == (5, 15, 5)


def test_what_is_found_is_kept_with_its_number_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Planted, "bad", 2)
    path = tmp_path / "state.json"
    assert Campaign([Planted()], State.load(path)).run(cases=6) == 1
    count = json.loads(path.read_text())["planted"]
    assert (count["cases"], count["next"]) == (5, 6)
    assert [finding["case"] for finding in count["findings"]] == [2]
    assert "the planted mistake" in count["findings"][0]["error"]
    campaign = Campaign([Planted()], State(None))
    campaign.repeat(Planted(), 1)
    with pytest.raises(AssertionError, match="the planted mistake"):
        campaign.repeat(Planted(), 2)


def test_a_case_that_does_not_end_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Planted, "hangs", True)
    monkeypatch.setattr(Planted, "seconds", 0.2)
    state = State(None)
    assert Campaign([Planted()], state).run(cases=1) == 1
    assert state.of("planted").findings[0]["error"].startswith(Hang.__name__)  # type: ignore[union-attr]


def test_descriptors_that_are_left_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    state, target = State(None), Planted()
    campaign = Campaign([target], state)
    assert campaign.run(cases=4) == 0
    monkeypatch.setattr(Planted, "leaks", True)
    try:
        assert campaign.run(cases=4) == 1
    finally:
        for fd in target.left:
            os.close(fd)
    assert "descriptors are open" in str(state.of("planted").findings[0]["error"])


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str) -> None:
    state, cases = State(None), SHORT.get(name, 1)
    found = Campaign([TARGETS[name]()], state).run(cases=cases)
    assert found == 0, state.of(name).findings
    assert state.of(name).cases == cases


def test_a_case_that_finds_something_leaves_no_card_open(monkeypatch: pytest.MonkeyPatch) -> None:
    target = TARGETS["kernels"]()
    target.open()
    target.case(Random("kernels/0"))
    target.close()
    before = len(descriptors())
    monkeypatch.setattr(type(target), "finish", lambda self, lab, before: pytest.fail("a finding"))
    target.open()
    with pytest.raises(pytest.fail.Exception):
        target.case(Random("kernels/0"))
    target.close()
    gc.collect()
    assert len(descriptors()) <= before


def test_a_card_that_does_not_close_leaves_nothing_patched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> None:
        raise OSError("it does not close")

    target = TARGETS["kernels"]()
    assert isinstance(target, AttackingVf)
    units = dispatch.units
    target.open()
    card = target.lab()
    with monkeypatch.context() as patched:
        patched.setattr(card, "close", refuses)
        with pytest.raises(OSError, match="does not close"):
            target.close()
    card.close()
    assert dispatch.units is units
