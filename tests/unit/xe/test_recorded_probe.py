"""The stock driver's probe of a PF and a VF, recorded once in a guest and replayed on the model of today.

When the model is meant to answer otherwise than it did: `python -m tests.guest.record_probe` makes the recording anew.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vfio_user_xe.emulator.model.card import CardError
from vfio_user_xe.emulator.recording import format as rec
from vfio_user_xe.emulator.recording.format import Recording
from vfio_user_xe.emulator.recording.player import replay

PROBE = Path(__file__).parent / "fixtures/probe.xz"


def test_the_model_does_as_it_did_when_the_driver_probed() -> None:
    outcome = replay(PROBE)
    assert outcome.difference is None, str(outcome.difference)
    assert (outcome.cut_off, outcome.failures) == ("", 0)
    # The PF's probe and the VF's, to the end.
    assert outcome.accesses > 4000
    assert outcome.interrupts > 100


def test_an_interrupt_that_does_not_come_is_noticed() -> None:
    triggers = [event for event in Recording(PROBE).events() if event.kind == rec.TRIGGER]
    middle = triggers[len(triggers) // 2]
    extra, name = middle.number, f"vf{middle.function}" if middle.function else "pf"
    events = (
        replace(event, kind=rec.CLOCK, x=0) if event.number == extra else event for event in Recording(PROBE).events()
    )
    difference = replay(PROBE, events).difference
    assert difference is not None
    assert difference.where == f"{name}: vector 0 of interrupt index 1"
    assert int(difference.got.split()[0]) == int(difference.expected.split()[0]) + 1
    assert difference.event - extra in range(200)


def test_a_card_that_was_recorded_before_an_option_came_has_its_default() -> None:
    header = Recording(PROBE).header
    recorded = header.config("probe").options
    del header.card["options"]["vfs"]
    assert header.config("probe").options["vfs"] != recorded["vfs"]
    header.card["options"]["gone"] = 1
    with pytest.raises(CardError, match=r'probe: device\.gone: there is no option "gone"'):
        header.config("probe")
