"""Where the payload of a message comes from and its response goes: to registers that have numbers, or to none."""

from __future__ import annotations

import pytest

from tests.unit.xe.eu.kernel import END, reader
from tests.unit.xe.eu.test_compiled_memory import A64, D32, LOAD, descriptor
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.compiled.messages import plain_send
from vfio_user_xe.device_models.xe.eu.decode import decode
from vfio_user_xe.device_models.xe.eu.ir import Send
from vfio_user_xe.device_models.xe.eu.reference.sends import Descriptors, fits


def handled(text: str) -> tuple[bool, bool]:
    """Whether a handler takes the message, and the interpreter."""
    instruction = decode(reader(assemble(f"{text}\n{END}")), 0).instructions[0]
    assert isinstance(instruction, Send)
    assert instruction.message is not None
    return plain_send(instruction) is not None, fits(instruction, Descriptors(instruction.message, None, 0))


@pytest.mark.parametrize(("destination", "takes"), [("r40", True), ("null", True), ("cr0", False), ("dbg0", False)])
def test_a_response_goes_to_no_architecture_register(destination: str, takes: bool) -> None:
    # Of eight registers: what is behind the last architecture register is not the thread's.
    message = descriptor(LOAD, D32, 4, A64, 8, 4)
    assert handled(f"send.ugm (32|M0)  {destination}  r10  null:0  0x0  {message}") == (takes, takes)


@pytest.mark.parametrize(("source", "takes"), [("r10", True), ("sr0", False)])
def test_a_payload_comes_from_no_architecture_register(source: str, takes: bool) -> None:
    message = descriptor(LOAD, D32, 4, A64, 8, 4)
    assert handled(f"send.ugm (32|M0)  r40  {source}  null:0  0x0  {message}") == (takes, takes)
