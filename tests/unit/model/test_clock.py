"""The clock of a card: what device models ask, and what a recording replaces."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe.gt.clock import REFERENCE_CLOCK
from vfio_user_xe.device_models.xe.guc.engine_activity import MISC_STATUS_0
from vfio_user_xe.device_models.xe.soc.telemetry import ENERGY_STATUS, PACKAGE_ENERGY, PLATFORM_ENERGY
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.model.clock import CardClock
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.recording.clock import RecordingClock
from vfio_user_xe.emulator.recording.stand_ins import recorded_card

MODELS = Path(__file__).parents[3] / "device_models"
FILES = [path for path in sorted(MODELS.rglob("*.py")) if "scenarios" not in path.parts]
"""All but what runs outside of a card."""


class Hand:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 5.0
        self.clock = CardClock(lambda: round(self.now * 1e9), lambda: self.now)


def registers_of(card: Card) -> RegisterFile:
    return next(file for file in card.register_files if file.name == "pf")


def test_registers_that_count_time_count_that_of_the_cards_clock() -> None:
    hand = Hand()
    card = Card(CardConfig.default("xe"), Executor("xe", hand.clock))
    assert card.clock is hand.clock
    registers = registers_of(card)
    assert registers.read(PACKAGE_ENERGY, 4) == 0
    assert registers.read(MISC_STATUS_0, 4) == 5 * REFERENCE_CLOCK
    hand.now += 2
    assert registers.read(MISC_STATUS_0, 4) == 7 * REFERENCE_CLOCK
    package, card_energy = registers.read(PACKAGE_ENERGY, 4), registers.read(PLATFORM_ENERGY, 4)
    assert package == 2 * 14 << 14, "14 W in units of 1/16384 J"
    assert card_energy == 2 * 19 << 14, "what is on the card beside the package counts too"
    assert [registers.read(ENERGY_STATUS + 4 * n, 4) for n in range(2)] == [package, card_energy]
    card.stop()


def test_timers_of_the_executor_come_due_by_its_clock() -> None:
    hand, done = Hand(), []
    executor = Executor("test", hand.clock)
    executor.call_later(3600, lambda: done.append("timer"))
    hand.now += 3601
    executor.start()
    executor.run_sync(lambda: None, 10)
    executor.stop()
    assert done == ["timer"]


def test_a_recording_has_a_clock_of_its_own_and_leaves_module_time_alone(tmp_path: Path) -> None:
    before = [getattr(time, name) for name in ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")]
    with recorded_card(tmp_path / "r.gz", CardConfig.default("xe")) as (card, _):
        assert isinstance(card.clock, RecordingClock)
        after = [getattr(time, name) for name in ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")]
        assert after == before


def test_a_look_that_is_no_part_of_the_recording_sees_the_hosts_time() -> None:
    clock = RecordingClock(lambda: None)
    before = time.monotonic_ns()
    assert before <= clock.ns() <= clock.seconds() * 1e9 + 1000
    assert RecordingClock(lambda: 2_500_000_000).seconds() == 2.5


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MODELS)))
def test_device_models_ask_no_other_clock(path: Path) -> None:
    imported = {
        name.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    assert "time" not in imported


def test_what_tells_the_time_does_so_until_the_outermost_has_ended() -> None:
    clock = CardClock()
    with clock.telling():
        with pytest.raises(ZeroDivisionError), clock.telling():
            raise ZeroDivisionError
        assert clock.tells
    assert not clock.tells
