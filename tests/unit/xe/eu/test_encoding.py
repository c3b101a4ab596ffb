from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.xe.eu.kernel import END, reader
from tests.unit.xe.eu.strategies import ADDRESS, instructions
from vfio_user_xe.device_models.xe.eu import compaction
from vfio_user_xe.device_models.xe.eu.assembler import AssemblyError, assemble, parse_instruction
from vfio_user_xe.device_models.xe.eu.decode import decode, decode_at
from vfio_user_xe.device_models.xe.eu.decode_instruction import decode_instruction
from vfio_user_xe.device_models.xe.eu.disassembler import disassemble, disassemble_program
from vfio_user_xe.device_models.xe.eu.encode import encode, encode_native
from vfio_user_xe.device_models.xe.eu.fields import EncodingError
from vfio_user_xe.device_models.xe.eu.ir import Alu, Illegal, Send
from vfio_user_xe.device_models.xe.eu.opcodes import Opcode, Shape

RECORDED = json.loads((Path(__file__).parent / "encodings.json").read_text())
"""Encodings of Intel's assembler library for Xe2, with the text that this project prints for them."""


@settings(max_examples=150, deadline=None)
@given(instructions())
def test_an_instruction_survives_encoding_and_decoding(instruction: Any) -> None:
    assert decode_instruction(encode_native(instruction), ADDRESS, 16) == instruction


@settings(max_examples=150, deadline=None)
@given(instructions())
def test_an_instruction_survives_disassembling_and_assembling(instruction: Any) -> None:
    text = disassemble(instruction)
    again = parse_instruction(text, ADDRESS)
    assert again == instruction, text
    assert encode(again) == encode(instruction)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, (1 << 128) - 1), st.sampled_from(Opcode))
def test_any_bits_decode_to_an_instruction_that_encodes_to_equal_meaning(bits: int, opcode: Opcode) -> None:
    bits = bits & ~0x7F & ~(1 << 29) | opcode.number
    instruction = decode_instruction(bits, ADDRESS, 16)
    if not isinstance(instruction, Illegal):
        assert decode_instruction(encode_native(instruction), ADDRESS, 16) == instruction


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([o for o in Opcode if o.shape in (Shape.ONE, Shape.TWO, Shape.THREE)]),
)
def test_a_compact_instruction_has_a_native_form_with_the_same_compact_form(bits: int, opcode: Opcode) -> None:
    compact = bits & ~0x7F | opcode.number | 1 << 29
    native = compaction.expand(compact)
    again = compaction.shrink(native)
    assert again is not None
    assert compaction.expand(again) == native


@pytest.mark.parametrize(("code", "text"), RECORDED, ids=[text.split("  ")[0] for _, text in RECORDED])
def test_encodings_are_those_of_intels_assembler(code: str, text: str) -> None:
    data = bytes.fromhex(code)
    instruction = decode_at(reader(data), 0)
    assert disassemble(instruction) == text
    assert instruction.size == len(data)
    if len(data) == 16:
        assert encode(instruction) == data
    assert encode(parse_instruction(text)) == encode(instruction)


def test_reachability_follows_branches_and_stops_at_the_end_of_a_thread() -> None:
    code = assemble(
        f"""
        (f0.0) goto (16|M0)  far far
        mov (16|M0)  r1.0<1>:f  1.0:f
        {END}
        illegal
        far: mov (16|M0)  r2.0<1>:f  2.0:f
        {END}
        illegal
        """
    )
    program = decode(reader(code), 0)
    assert [instruction.address for instruction in program.instructions] == [0, 16, 32, 64, 80]
    assert program.labels == {0, 16, 64}
    assert [[i.address for i in block] for block in program.blocks()] == [[0], [16, 32], [64, 80]]
    assert not program.is_open


def test_text_of_a_program_assembles_to_the_same_program() -> None:
    code = assemble(
        f"""
        top: add (16|M0)  r1.0<1>:d  r1.0<1;1,0>:d  1:d
        cmp (16|M0)  (lt)f0.0  null<1>:d  r1.0<1;1,0>:d  9:d
        (f0.0) while (16|M0)  top
        {END}
        """
    )
    assert assemble(disassemble_program(decode(reader(code), 0))) == code


def test_code_that_ends_without_an_end_is_illegal_there() -> None:
    program = decode(reader(assemble("nop")), 0)
    assert isinstance(program.instructions[-1], Illegal)


def test_a_program_with_a_call_through_a_register_is_open() -> None:
    program = decode(reader(assemble(f"call (16|M0)  r10.0  r11.0\n{END}")), 0)
    assert program.is_open


def test_compacted_instruction_takes_eight_bytes() -> None:
    code = assemble("(W) mov (16|M0)  r5.0<1>:f  r6.0<1;1,0>:f  {Compacted}")
    assert len(code) == 8
    instruction = decode_at(reader(code), 0)
    assert replace(instruction, size=16) == parse_instruction("(W) mov (16|M0)  r5.0<1>:f  r6.0<1;1,0>:f")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mov (16|M0)  r5.0<1>:x  r6.0<1;1,0>:f", "type x does not exist"),
        ("mov (3|M0)  r5.0<1>:f  r6.0<1;1,0>:f", "execution size 3"),
        ("frob (16|M0)  r5.0<1>:f", "no instruction is called frob"),
        ("goto (16|M0)  nowhere nowhere", "label nowhere does not exist"),
        ("add (16|M0)  r5.0<1>:f  1.0:f  r6.0<1;1,0>:f", "source 0 of two cannot be an immediate"),
        ("mov (16|M0)  r300.0<1>:f  r6.0<1;1,0>:f", "register r300 does not exist"),
        ("mad (16|M0)  r5.0<1>:f  r6.0<1;0>:d  r7.0<1;0>:f  r8.0<1>:f", "cannot mix integers and floats"),
        ("mov (16|M0)  r5.0<1>:f  r6.0<3;1,0>:f", "vertical stride 3"),
        ("mov (16|M0)  r5.0<1>:f  r6.0<1;1,0>:f  {Quickly}", "option Quickly does not exist"),
    ],
)
def test_malformed_text_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(AssemblyError, match="line 2.*" + reason):
        assemble("nop\n" + text)


@pytest.mark.parametrize("register", ["r250", "r255"])
def test_a_region_that_leaves_the_register_file_is_illegal(register: str) -> None:
    bits = (
        encode_native(parse_instruction("mov (32|M0)  r5.0<4>:f  r6.0<1;1,0>:f")) & ~(0xFF << 56)
        | int(register[1:]) << 56
    )
    instruction = decode_instruction(bits, 0, 16)
    assert isinstance(instruction, Illegal)
    assert "register file" in instruction.reason


def test_a_message_whose_payload_leaves_the_register_file_is_illegal() -> None:
    bits = encode_native(parse_instruction("send.ugm (32|M0)  r14  r25  null:0  0x0  0x08200580")) | 0xFE << 72
    assert isinstance(decode_instruction(bits, 0, 16), Illegal)


def test_bit_39_is_offset_for_ugm_and_exbso_for_others() -> None:
    ugm = parse_instruction("send.ugm (1|M0)  r14  r10  null:0  a0.2+0x88000  0x4200D500")
    assert isinstance(ugm, Send)
    assert encode_native(ugm) >> 39 & 1
    again = decode_instruction(encode_native(ugm), 0, 16)
    assert isinstance(again, Send)
    assert (again.extended, again.extended_bso) == (0x88000, False)
    sampler = parse_instruction("send.smpl (16|M0)  r14  r10  r20:2  a0.2  0x420405FC  {ExBSO}")
    again = decode_instruction(encode_native(sampler), 0, 16)
    assert isinstance(again, Send)
    assert (again.extended, again.extended_bso) == (0, True)


def test_bfn_reads_its_truth_table_where_others_have_modifiers() -> None:
    instruction = parse_instruction("bfn.0xF8 (16|M0)  r5.0<1>:ud  r6.0<1;0>:ud  r7.0<1;0>:ud  r8.0<1>:ud")
    assert isinstance(instruction, Alu)
    assert not any(source.negate or source.absolute for source in instruction.sources)  # type: ignore[union-attr]
    assert instruction.truth == 0xF8


def test_encoding_errors_name_field_and_limits() -> None:
    instruction = parse_instruction("mov (16|M0)  r5.0<1>:f  r6.0<1;1,0>:f")
    with pytest.raises(EncodingError, match=r"mask offset 4 cannot be encoded \(allowed: 0, 8, 16, 24\)"):
        encode(replace(instruction, first_lane=4))
