"""Instructions that the compiled back end leaves to the reference one are counted by kind."""

from __future__ import annotations

import logging

import pytest

from tests.support.logs import messages
from tests.support.xe.compute_kernels import LINEAR, STORE
from tests.support.xe.compute_lab import DATA, EOT, ComputeLab
from vfio_user_xe.device_models.xe.compute import dispatch
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.engines import engine
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.decode import decode
from vfio_user_xe.device_models.xe.eu.kinds import describe_kind

SUM = "add (16|M0)  (ov)f0.0  r20.0<1>:d  r12.0<1;1,0>:d  1:d\n"
"""An overflow is for the reference back end."""
STORED = f"""
    add (16|M0)  r30.0<1>:uq  r1.0<0;1,0>:uq  r12.0<1;1,0>:ud
    send.ugm (16|M0)  null  r30  r20:1  0x0  {STORE}
"""


def interpreted(lab: ComputeLab) -> dict[str, int]:
    (found,) = [one["interpreted"] for one in lab.engines.inspect() if one["name"] == "ccs0"]
    return dict(found)


def test_an_instruction_without_a_handler_is_counted_for_each_thread(
    lab: ComputeLab, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        job = lab.dispatch(LINEAR + SUM + SUM + STORED + EOT, inline=[DATA, 0], groups=(3, 1, 1))
    assert job.data(0, 3) == [1, 5, 9]
    if isinstance(dispatch.units(), ReferenceUnits):
        assert interpreted(lab) == {}
        return
    assert interpreted(lab) == {"add (16) d, d, d ov": 6}
    told = [text for text in messages(caplog, engine.log) if "interpreted" in text]
    assert told == ["ccs0: the compiled back end has no handler for add (16) d, d, d ov: it is interpreted"]


def test_nothing_is_counted_where_all_instructions_have_handlers(lab: ComputeLab) -> None:
    lab.dispatch(LINEAR + SUM.replace("(ov)f0.0  ", "") + STORED + EOT, inline=[DATA, 0])
    assert interpreted(lab) == {}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("add (16|M0)  r20.0<1>:d  r12.0<1;1,0>:d  1:d", "add (16) d, d, d"),
        ("add (8|M0)  (sat)r20.0<1>:ub  r12.0<1;1,0>:d  1:d", "add (8) ub, d, d sat"),
        ("math.inv (16|M0)  r20.0<1>:f  r12.0<1;1,0>:f", "math.inv (16) f, f"),
        (f"send.ugm (16|M0)  null  r30  r20:1  0x40000  {STORE}", "send (16) store.ugm.d32.a64"),
        (EOT, "send (1) end_of_thread EOT"),
        ("nop", "nop"),
    ],
)
def test_a_kind_has_no_registers_and_no_offsets(text: str, kind: str) -> None:
    code = assemble(text)
    program = decode(lambda address, count: (code + bytes(32))[address : address + count], 0)
    assert describe_kind(program.instructions[0]) == kind
