"""Shards: every item in exactly one, the same on every machine, balanced by recorded times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfio_user_xe.emulator.results import Case, Result, Verdict
from vfio_user_xe.emulator.results.json_file import NotAReport
from vfio_user_xe.emulator.results.shard import Parts, Shard, share
from vfio_user_xe.emulator.results.times import UNKNOWN, Times, load_times, save_times, times_of

COSTS = st.lists(st.tuples(st.floats(0, 500), st.integers(0, 3)), max_size=40)


@given(COSTS, st.integers(1, 6))
def test_every_item_is_in_exactly_one_shard_and_in_its_order(costs: list[tuple[float, int]], count: int) -> None:
    items = list(enumerate(costs))
    parts = [
        share(items, Shard(number, count), lambda item: item[1][0], lambda item: item[1][1], 20)
        for number in range(1, count + 1)
    ]
    assert sorted(item for part in parts for item in part) == items
    assert all(part == sorted(part) for part in parts)


@given(st.lists(st.floats(0, 500), max_size=40), st.integers(1, 6))
def test_no_two_shards_differ_by_more_than_the_longest_item(costs: list[float], count: int) -> None:
    parts = [share(costs, Shard(number, count), lambda cost: cost) for number in range(1, count + 1)]
    totals = [sum(part) for part in parts]
    assert max(totals) - min(totals) <= max(costs, default=0) + 1e-6


def test_short_items_that_share_a_guest_stay_in_one_shard() -> None:
    items = [(f"short-{n}", "quick") for n in range(4)] + [("long", "slow")]
    times = Times({"long": 100.0, **{f"short-{n}": 1.0 for n in range(4)}})
    parts = [Parts((Shard(number, 2),), times).of(items, lambda i: i[0], lambda i: i[1]) for number in (1, 2)]
    assert parts == [[("long", "slow")], items[:4]]


def test_a_part_of_a_part_is_divided_again() -> None:
    halves = [Parts((Shard(1, 2), Shard(number, 2))).of(range(8), str, lambda i: None) for number in (1, 2)]
    assert sorted([*halves[0], *halves[1]]) == Parts((Shard(1, 2),)).of(range(8), str, lambda i: None)


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "a/b", "-1/4", "1/4/2", " 1/4"])
def test_what_is_no_shard_is_refused_with_what_is_wanted(text: str) -> None:
    with pytest.raises(ValueError, match=r"want I/N|there is no shard"):
        Shard.parse(text)


def test_a_shard_is_read_as_it_is_written() -> None:
    assert str(Shard.parse("2/4")) == "2/4"


def test_a_case_that_nobody_timed_takes_as_long_as_the_middle_one() -> None:
    assert Times({"a": 1, "b": 2, "c": 90}).of("d") == 2
    assert Times().of("d") == UNKNOWN


def test_a_subtest_that_nobody_timed_takes_as_long_as_the_middle_one_of_its_test() -> None:
    times = Times({"slow@a": 60, "slow@b": 80, "slow@c": 70, "fast": 1, "quick@a": 2})
    assert times.of("slow@d") == 70
    assert times.of("slow@a") == 60
    assert times.of("other@a") == times.usual == 60


def test_times_are_the_mean_of_all_runs_and_come_back_from_their_file(tmp_path: Path) -> None:
    results = [Result(Case("s", "g", name), Verdict.PASS, seconds=s) for name, s in (("b", 1), ("a", 2), ("a", 4))]
    save_times(times_of(results), tmp_path / "times.json")
    assert load_times(tmp_path / "times.json") == {"a": 3.0, "b": 1.0}
    assert list(json.loads((tmp_path / "times.json").read_text())) == ["a", "b"]


@pytest.mark.parametrize("text", ["[]", '{"a": "long"}', '{"a": -1}', '{"a": true}', "{"])
def test_what_is_no_file_of_times_is_refused_with_its_path(text: str, tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    file.write_text(text)
    with pytest.raises(NotAReport, match=r"times\.json"):
        load_times(file)
