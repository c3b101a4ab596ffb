"""Times that come with the suites, by which parts of a run are balanced without `--times`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import pytest

from vfio_user_xe.device_models.xe.card import INFO
from vfio_user_xe.emulator.cli.parts import recorded_times
from vfio_user_xe.emulator.results.shard import Parts, Shard
from vfio_user_xe.emulator.results.times import Times
from vfio_user_xe.emulator.scenarios.runner import grouped
from vfio_user_xe.emulator.scenarios.scenario import Suite

SUITES = {each.name: each for each in entry_points(group="vfio_user_xe.scenarios")}


@pytest.fixture(params=sorted(SUITES))
def suite(request: pytest.FixtureRequest) -> Suite[Any]:
    loaded: Suite[Any] = SUITES[request.param].load()
    return loaded


def test_each_suite_of_scenarios_has_times_of_scenarios_that_it_has(suite: Suite[Any]) -> None:
    names = {scenario.name for scenario in suite.scenarios}
    assert set(suite.times) <= names
    assert len(suite.times) >= len(names) * 3 / 4


def test_four_shards_of_a_suite_take_about_the_same_time(suite: Suite[Any]) -> None:
    if len(suite.scenarios) < 40:
        pytest.skip("one scenario may be longer than a fourth of so few")
    times = Times(suite.times)
    plan = grouped(suite.scenarios)
    loads = []
    for number in range(1, 5):
        parts = Parts((Shard(number, 4),), times)
        loads.append(sum(times.of(each.name) for each in parts.of(plan, lambda s: s.name, lambda s: s.setup.name)))
    assert max(loads) <= 2 * min(loads)


@pytest.mark.parametrize("name", sorted(INFO.suites))
def test_each_suite_of_others_has_times(name: str) -> None:
    assert recorded_times(INFO.suites[name])
