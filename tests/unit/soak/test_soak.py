"""A soak goes on where it was, repeats itself from its numbers, and tells growth from caches."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest.mock import create_autospec
from xml.etree import ElementTree

import pytest

from tests.soak import flat
from tests.soak.plan import KINDS, Victim, round_of
from tests.soak.report import plot, text
from tests.soak.site import Site
from tests.soak.soak import Soak
from tests.soak.state import Rest, State
from vfio_user_xe.emulator.results import Case, Result, Verdict

REST = Rest(hours=0.5, server=1, guests=1, descriptors=32, threads=10, own=80.0, memory=40.0)


def test_a_state_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    state = State(tmp_path / "soak.json", seconds=7.5, next=3, servers=1, guests=2)
    state.rounds["basic-import"] += 2
    state.killed[Victim.QEMU] += 1
    state.rests.append(REST)
    state.find("threads", "11 instead of 10")
    state.save()
    assert State.load(state.path) == state


def test_a_soak_without_a_file_begins_anew(tmp_path: Path) -> None:
    assert State.load(tmp_path / "none.json") == State(tmp_path / "none.json")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", json.dumps({"rounds": {}, "known": {}, "killed": {}, "rests": [{}]})]
)
def test_a_file_that_is_no_state_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json is not the state of a soak"):
        State.load(file)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.suite.name)
def test_a_round_follows_from_its_numbers(kind: object) -> None:
    def rounds(shard: int) -> list[tuple[str, Victim, float]]:
        made = [round_of(kind, 1, shard, number) for number in range(200)]
        return [(one.scenario.name, one.victim, one.after) for one in made]

    assert rounds(1) == rounds(1)
    assert rounds(1) != rounds(2)
    assert {victim for _, victim, _ in rounds(1)} == set(Victim)
    assert len({name for name, _, _ in rounds(1)}) > 5


def test_more_descriptors_or_threads_than_after_the_first_guest_are_growth() -> None:
    for_kernels = 2 * len(os.sched_getaffinity(0))
    last = replace(REST, guests=5, descriptors=33, threads=REST.threads + for_kernels + 1)
    assert [what for what, _ in flat.growth([REST, last])] == ["descriptors", "threads"]
    assert not list(flat.growth([REST, replace(REST, guests=5)]))
    assert not list(flat.growth([REST, replace(REST, guests=5, threads=REST.threads + for_kernels)]))


def test_memory_that_grows_from_half_to_half_is_growth_and_a_cache_is_none() -> None:
    leaking = [replace(REST, guests=number, own=80 + 10 * number) for number in range(1, 9)]
    cached = [replace(REST, guests=number, own=80 + min(20, 10 * number)) for number in range(1, 9)]
    assert [what for what, _ in flat.growth(leaking)] == ["own memory"]
    assert not list(flat.growth(cached))


def test_a_server_is_at_rest_when_what_a_killed_client_held_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    held = iter([33, 33, 32, 32])
    monkeypatch.setattr(flat, "measure", lambda *_: replace(REST, guests=2, descriptors=next(held)))
    served = create_autospec(Site, instance=True, card=None, guests=2)
    assert Soak(State(), 1, 1, None, None).rest(served, usual=32).descriptors == 32


def test_what_fails_is_a_finding_and_a_known_defect_is_counted() -> None:
    state = State()
    soak = Soak(state, 1, 1, None, None)
    case = Case("scenarios: dmabuf", "scenarios.dmabuf", "basic-import", title="t", rule="r", number="1")
    soak.judged(Result(case, Verdict.FAIL, "data differ"))
    soak.judged(Result(case, Verdict.EXPECTED_FAIL, "hangs", defect="revocation-waits-for-importer"))
    soak.judged(Result(case, Verdict.PASS))
    assert [(one["what"], one["why"]) for one in state.findings] == [("basic-import", "data differ")]
    assert state.known == Counter({"revocation-waits-for-importer": 1})
    assert state.rounds == Counter({"basic-import": 3})


def test_the_report_adds_shards_up_and_its_picture_has_a_line_for_each_server() -> None:
    one = State(seconds=3600, servers=2, guests=3, rounds=Counter(a=2), rests=[REST, replace(REST, server=2)])
    other = State(seconds=1800, servers=1, guests=1, rounds=Counter(b=1), rests=[REST])
    rows = dict(line.rsplit("  ", 1) for line in text([one, other]).splitlines())
    assert {key.strip(): value.strip() for key, value in rows.items()}["hours"] == "1.50"
    assert "3, of 2 scenarios" in text([one, other])
    lines = ElementTree.fromstring(plot([one, other])).findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4 * 3
