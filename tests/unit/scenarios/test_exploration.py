"""Making sequences from a model, making failing ones short, and the loop around a runner; the model is a small one of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from typer.testing import CliRunner

from vfio_user_xe.emulator.cli import explore as cli
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.results import Case, Result, Verdict
from vfio_user_xe.emulator.scenarios.exploration import explorer as explorer_module
from vfio_user_xe.emulator.scenarios.exploration.coverage import Coverage
from vfio_user_xe.emulator.scenarios.exploration.explorer import Explored, Explorer, Found, Played, judged, of_the_judge
from vfio_user_xe.emulator.scenarios.exploration.generator import generate
from vfio_user_xe.emulator.scenarios.exploration.sequence import BadSequence, Kept, Step
from vfio_user_xe.emulator.scenarios.exploration.shrink import Shrinker
from vfio_user_xe.emulator.scenarios.exploration.summary import kept, kept_name
from vfio_user_xe.emulator.scenarios.exploration.world import Failure, checked, repaired
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.runner import Runner
from vfio_user_xe.emulator.scenarios.scenario import Exploration, Scenario, Setup, Suite
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect


class Doors:
    """A world of two doors, which can be opened, painted while open, and shut."""

    def __init__(self) -> None:
        self.open: set[str] = set()

    def choices(self) -> Sequence[tuple[Step, float]]:
        steps = (Step("a", kind, (door,)) for kind in ("open", "paint", "shut") for door in ("red", "blue"))
        return [(step, 1.0) for step in steps if self.allows(step)]

    def opening(self, chance: random.Random) -> Sequence[Step]:
        return ()

    def allows(self, step: Step) -> bool:
        if step.operation not in ("open", "paint", "shut"):
            raise BadSequence(f"no operation {step.operation}")
        return (step.arguments[0] in self.open) is (step.operation != "open")

    def apply(self, step: Step) -> None:
        if step.operation == "open":
            self.open.add(step.arguments[0])
        elif step.operation == "shut":
            self.open.discard(step.arguments[0])

    def topics(self, step: Step) -> Iterable[str]:
        return step.arguments

    def provokes(self, step: Step) -> Iterable[str]:
        return ["creaks"] if step.operation == "shut" else []

    def goes_on(self, step: Step) -> bool:
        return step.arguments == ("blue",)


def steps(text: str) -> list[Step]:
    return [Step.of(line) for line in text.split(", ")]


def test_a_step_reads_as_it_is_written() -> None:
    assert str(Step.of("a  export v1 d1 0+0x1000 ")) == "a export v1 d1 0+0x1000"
    with pytest.raises(BadSequence, match='"alone" is no step'):
        Step.of("alone")


def test_a_kept_sequence_is_read_back_with_what_is_written_above_it() -> None:
    kept = Kept(tuple(steps("a open red, a shut red")), {"failure": "two\nlines", "seed": "3"})
    read = Kept.parse(str(kept))
    assert read.steps == kept.steps
    assert read.fields == {"failure": "two lines", "seed": "3"}


@pytest.mark.parametrize(
    ("text", "said"), [("# seed: 1\n", "no step in it"), ("a open red\nb\n", 'line 2: "b" is no step')]
)
def test_a_file_that_is_no_sequence_says_where(text: str, said: str) -> None:
    with pytest.raises(BadSequence, match=said):
        Kept.parse(text)


def test_a_seed_makes_the_same_steps_and_another_one_others() -> None:
    made = [generate(Doors(), random.Random(seed), 12, Coverage()) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert len(made[0]) == 12


def test_every_step_that_is_made_is_allowed_when_it_comes() -> None:
    for seed in range(20):
        checked(Doors(), generate(Doors(), random.Random(seed), 20, Coverage()))


def test_pairs_that_were_made_often_are_made_less() -> None:
    worn = Coverage()
    for _ in range(50):
        worn.add(Doors(), steps("a open red, a paint red, a paint red, a paint red"))

    def painted(coverage: Coverage) -> int:
        made = [generate(Doors(), random.Random(seed), 10, coverage) for seed in range(60)]
        return sum(step.operation == "paint" for sequence in made for step in sequence)

    assert painted(worn) < painted(Coverage())


def test_what_meets_a_defect_that_was_found_is_hardly_made_any_more_but_oftener_where_a_sequence_survives_it() -> None:
    def shut(door: str, avoid: set[str]) -> int:
        made = [generate(Doors(), random.Random(seed), 20, Coverage(), avoid) for seed in range(40)]
        return sum(str(step) == f"a shut {door}" for sequence in made for step in sequence)

    assert shut("red", {"creaks"}) < shut("red", set()) / 5
    assert shut("red", {"creaks"}) * 3 < shut("blue", {"creaks"}) < shut("blue", set()) / 2


def test_pairs_and_triples_are_those_of_one_topic() -> None:
    coverage = Coverage()
    coverage.add(Doors(), steps("a open red, a open blue, a paint red, a shut red"))
    assert {gram for gram in coverage.counts if len(gram) > 1} == {
        ("open", "paint"),
        ("paint", "shut"),
        ("open", "paint", "shut"),
    }
    assert (coverage.of(1), coverage.of(2), coverage.of(3)) == (3, 2, 1)


def test_a_cut_takes_along_what_hangs_on_it() -> None:
    assert repaired(Doors(), steps("a paint red, a open blue, a shut blue")) == steps("a open blue, a shut blue")
    with pytest.raises(BadSequence, match='step 1, "a paint red"'):
        checked(Doors(), steps("a paint red"))


def test_what_one_actor_did_and_what_was_done_with_one_thing_goes_at_once() -> None:
    trials: list[list[Step]] = []
    long = [Step("b", "open", ("red",)), *steps("a open blue, a paint blue, a paint blue"), Step("b", "shut", ("red",))]
    long += steps("a open red, a paint red, a paint red, a shut blue")

    def play(sequence: list[Step]) -> int | None:
        trials.append(sequence)
        return len(sequence) - 1 if str(sequence[-1]) == "a shut blue" else None

    assert Shrinker(Doors, play, 20).shrink(long, 8) == steps("a open blue, a shut blue")
    assert trials[0] == [step for step in long if step.actor == "a"]
    assert trials[1] == steps("a open blue, a paint blue, a paint blue, a shut blue")


def _fails(trials: list[list[Step]]) -> Any:
    """Painting blue after red was opened is what fails."""

    def play(sequence: list[Step]) -> int | None:
        trials.append(sequence)
        world = Doors()
        for at, step in enumerate(sequence):
            world.apply(step)
            if str(step) == "a paint blue" and "red" in world.open:
                return at
        return None

    return play


def test_a_failing_sequence_is_shrunk_to_what_it_needs() -> None:
    trials: list[list[Step]] = []
    long = steps(
        "a open blue, a paint blue, a shut blue, a open red, a paint red, a open blue, a paint red, a paint blue, a shut red"
    )
    shrinker = Shrinker(Doors, _fails(trials), 100)
    assert shrinker.shrink(long, 7) == steps("a open red, a open blue, a paint blue")
    assert shrinker.trials == len(trials) == len({tuple(trial) for trial in trials})
    for trial in trials:
        checked(Doors(), trial)


def test_shrinking_stops_after_so_many_trials_and_keeps_the_best() -> None:
    long = steps("a open red, a paint red, a paint red, a paint red, a open blue, a paint blue")
    trials: list[list[Step]] = []
    shrinker = Shrinker(Doors, _fails(trials), 2)
    found = shrinker.shrink(long, 5)
    assert len(trials) == 2
    assert _fails([])(found) is not None


def test_nothing_is_tried_and_nothing_counted_when_there_is_no_time_for_it() -> None:
    long = steps("a open red, a open blue, a paint blue, a shut red")
    shrinker = Shrinker(Doors, _fails([]), 20, more=lambda: False)
    assert shrinker.shrink(long, 2) == long[:3]
    assert shrinker.trials == 0


def test_what_does_not_fail_again_stays_as_long_as_it_was() -> None:
    long = steps("a open red, a open blue, a paint blue, a shut red")
    assert Shrinker(Doors, lambda sequence: None, 20).shrink(long, 2) == long[:3]


# The loop ----------------------------------------------------------------------------------------------------------


class DoorPlayer:
    """Plays without a guest: painting a door that was shut before sticks, shutting creaks."""

    def __init__(self, run: Run, machine: Machine) -> None:
        self.shut: set[str] = set()

    def play(self, step: Step) -> list[Failure]:
        door = step.arguments[0]
        if step.operation == "shut":
            self.shut.add(door)
            return [Failure("creaks", f"{step}: creaks", "creaks")]
        if step.operation == "paint" and door in self.shut:
            return [Failure("paint sticks", f"{step}: sticks")]
        return []

    def finish(self) -> list[Failure]:
        return []


SETUP = Setup[Machine]("a house", (), {}, Machine.of)
EXPLORATION = Exploration[Machine](SETUP, Doors, DoorPlayer)


class Guests:
    """Stands for the runner: carries scenarios out without a guest."""

    def __init__(self) -> None:
        self.has_guest = True
        self.played: list[Scenario[Machine]] = []
        self.broken = ""

    def run_one(self, scenario: Scenario[Machine]) -> Result:
        self.played.append(scenario)
        result = Result(scenario.described("houses"), Verdict.PASS, properties={"kernel": "7.3.4"})
        if self.broken:
            result.verdict, result.reason = Verdict.FAIL, self.broken
            return result
        run = Run(create_autospec(KernelLog, instance=True))
        try:
            scenario.run(run, create_autospec(Machine, instance=True))
        except Failed as failed:
            result.verdict, result.reason = Verdict.FAIL, str(failed)
        except KnownDefect as known:
            result.verdict, result.defect, result.reason = Verdict.EXPECTED_FAIL, known.defect, known.evidence
        return result


@pytest.fixture
def guests() -> Guests:
    return Guests()


def explorer(guests: Guests, **options: Any) -> Explorer[Machine]:
    runner = create_autospec(Runner, instance=True)
    runner.run_one.side_effect = guests.run_one
    runner.has_guest = guests.has_guest
    return Explorer(EXPLORATION, runner, **({"seed": 1, "length": 15} | options))


def test_what_fails_is_found_once_made_short_and_counted(guests: Guests) -> None:
    explored = explorer(guests).explore(60, 10)
    found = {found.failure.signature: found for found in explored.found}
    assert set(found) == {"creaks", "paint sticks"}
    assert len(found["creaks"].steps) == 2
    assert [step.operation for step in found["paint sticks"].steps] == ["open", "shut", "open", "paint"]
    assert found["creaks"].seen > 1
    assert explored.sequences == 10
    assert explored.trials == sum(one.trials for one in explored.found)
    assert len(guests.played) == 10 + explored.trials


def test_a_known_defect_costs_fewer_trials_than_a_new_one(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer_module, "_MOST_OF_A_KNOWN_ONE", 1)
    found = {one.failure.signature: one for one in explorer(guests).explore(60, 10).found}
    assert found["creaks"].failure.defect
    assert found["creaks"].trials == 1
    assert found["paint sticks"].trials > 1


def test_when_the_time_is_over_only_what_has_no_name_is_made_short(guests: Guests) -> None:
    explored = explorer(guests).explore(0.01, 10)
    assert explored.sequences < 10
    made = explorer(guests)
    walked = steps("a open red, a shut red, a open red, a paint red")
    made._look_at(Played(walked, 4, [(1, Failure("creaks", "", "creaks")), (3, Failure("paint sticks", ""))]), 1, 0)
    trials = {found.failure.signature: found.trials for found in made.explored.found}
    assert trials["creaks"] == 0
    assert trials["paint sticks"] > 0


def test_what_comes_after_a_failure_without_a_name_waits_until_it_comes_alone(guests: Guests) -> None:
    made = explorer(guests)
    first, second, named = Failure("falls", "it falls"), Failure("breaks", "it breaks"), Failure("creaks", "", "creaks")
    walked = steps("a open red, a shut red")

    def seen(*failures: Failure) -> dict[str, Found]:
        made._look_at(Played(walked, 0, [(1, failure) for failure in failures]), 1, 0)
        return {found.failure.signature: found for found in made.explored.found}

    assert set(seen(first, second, named)) == {"falls", "creaks"}
    assert seen(first, second)["falls"].besides == ["breaks"]
    assert set(seen(named, second)) == {"falls", "creaks", "breaks"}


def test_the_same_seed_finds_the_same(guests: Guests) -> None:
    made = [explorer(Guests()).explore(60, 6) for _ in range(2)]
    assert made[0].found == made[1].found
    assert made[0].coverage == made[1].coverage


def test_nothing_new_is_begun_when_the_time_is_over(guests: Guests) -> None:
    assert explorer(guests).explore(0).sequences == 0
    assert not guests.played


def test_an_exploration_without_guests_ends_and_says_why(guests: Guests) -> None:
    guests.broken = "the scenario could not be run: no kernel"
    with pytest.raises(GuestError, match="no kernel"):
        explorer(guests).explore(60)
    assert len(guests.played) == 4, "two sequences, each tried twice"


def test_what_only_the_judge_saw_is_a_failure_of_the_last_step() -> None:
    played = Played(steps("a open red, a shut red"), done=2)
    played.result = Result(Case("s", "g", "n"), Verdict.FAIL, "the kernel reported: unreferenced object 0xff of size 8")
    of_the_judge(played)
    assert played.failures[0][0] == 1
    assert "unreferenced object" in played.failures[0][1].text


def test_what_a_step_showed_already_is_not_found_twice() -> None:
    played = Played(steps("a open red"), done=1, failures=[(0, Failure("x", "a open red: sticks"))])
    played.result = Result(Case("s", "g", "n"), Verdict.FAIL, "a open red: sticks")
    of_the_judge(played)
    assert len(played.failures) == 1


def test_a_new_failure_fails_the_scenario_and_a_known_one_does_not() -> None:
    run = Run(create_autospec(KernelLog, instance=True))
    known, new = Failure("creaks", "creaks", "creaks"), Failure("sticks", "it sticks")
    judged(run, [])
    with pytest.raises(KnownDefect):
        judged(run, [known])
    with pytest.raises(Failed, match="it sticks"):
        judged(run, [known, new])


# What it writes ------------------------------------------------------------------------------------------------------


def test_failures_are_kept_as_files_that_can_be_replayed(guests: Guests) -> None:
    files: dict[str, list[int]] = {}

    def keep(found: Found, explored: Explored) -> None:
        read = Kept.parse(str(kept(found, explored, "houses")))
        assert list(read.steps) == found.steps
        assert read.fields["failure"] == found.failure.text
        checked(Doors(), read.steps)
        files.setdefault(kept_name(found, explored), []).append(len(read.steps))

    explored = explorer(guests, keep=keep).explore(60, 5)
    assert [name[:3] for name in files] == [f"{number:02}-" for number in range(1, len(explored.found) + 1)]
    for lengths in files.values():
        assert len(lengths) == 2, "at once, and again when it was made short"
        assert lengths[1] <= lengths[0]


def test_what_was_found_before_guests_came_up_no_more_is_written(
    guests: Guests, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run_one(scenario: Scenario[Machine]) -> Result:
        if len(guests.played) == 4:
            guests.broken = "the scenario could not be run: no memory for a guest"
        return guests.run_one(scenario)

    runner = create_autospec(Runner, instance=True)
    runner.run_one.side_effect = run_one
    monkeypatch.setattr(cli, "runner_of", lambda *options: runner)
    monkeypatch.setattr(cli, "load_suite", lambda name: Suite(name, [], {}, exploration=EXPLORATION))
    data, page = tmp_path / "out.json", tmp_path / "out.html"
    done = CliRunner().invoke(cli.app, ["explore", "--json", str(data), "--report", str(page)])
    assert done.exit_code == 1
    assert "2 sequences could not be played: the scenario could not be run: no memory for a guest" in done.stderr
    assert "creaks" in [failure["signature"] for failure in json.loads(data.read_text())["failures"]]
    assert "no memory for a guest" in page.read_text()
