"""Commands as text, and the declarations behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe.engines import disassembler
from vfio_user_xe.device_models.xe.engines.command import Command
from vfio_user_xe.device_models.xe.engines.command_tables import TABLES
from vfio_user_xe.device_models.xe.engines.commands import COMMANDS, find, length_of, name_of

STREAMS = Path(__file__).parent / "streams"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([0x0000_0000], "MI_NOOP"),
        ([0x0280_0101], "MI_ARB_CHECK preparser_disable=0x1 mask=0x1"),
        ([0x1040_0002, 0x1316008, 0, 0xFFFFFF81], "MI_STORE_DATA_IMM ggtt=0x1 address=0x1316008 data=0xffffff81 dwords=0x1"),
        ([0x1880_0101, 0x800000, 0x12], "MI_BATCH_BUFFER_START ppgtt=0x1 address=0x1200800000"),
        ([0x0E40_C003, 0xDEAD, 0x1000, 0, 0], "MI_SEMAPHORE_WAIT ggtt=0x1 poll=0x1 compare=0x4 data=0xdead address=0x1000"),
        ([0x0D00_0002, 0x0800_8001, 0x1010_0000, 0x1800_0C31], "MI_MATH alu=LOAD SRCA R1, SUB, STORE R3 ACCU"),
        ([0x1780_0501, 0x1000, 0], "MI_ATOMIC opcode=INC32 address=0x1000"),
        ([0x1780_2701, 0x1000, 0], "MI_ATOMIC opcode=ADD64 address=0x1000"),
        ([0x1100_0003, 0x6204, 1, 0x6208, 2], "MI_LOAD_REGISTER_IMM register=0x6204 value=0x1 registers=0x2"),
        ([0x7834_0001, 1, 2], "GFXPIPE_7834 dwords=78340001 00000001 00000002"),
        ([0x1F80_0000, 5], "MI_3F dwords=1f800000 00000005"),
    ],
)  # fmt: skip
def test_a_line(words: list[int], text: str) -> None:
    assert disassembler.line(words) == text


def test_a_batch_up_to_its_end() -> None:
    words = [0x1000_0002, 0x1000, 0, 7, 0x0280_0000, 0x0500_0000, 0xDEAD]
    assert list(disassembler.disassemble(words, 0x4000)) == [
        (0x4000, "MI_STORE_DATA_IMM address=0x1000 data=0x7 dwords=0x1"),
        (0x4010, "MI_ARB_CHECK"),
        (0x4014, "MI_BATCH_BUFFER_END"),
    ]


def test_declarations_are_distinct() -> None:
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    assert len({(command.mask, command.header) for command in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_a_declaration_finds_itself(command: Command) -> None:
    assert find(command.header) is command
    assert name_of(command.header) == command.name
    fields = [field for field in command.fields if field.dword == 0]
    assert not command.header & command.mask & sum((2 << f.high) - (1 << f.low) for f in fields)


def test_every_command_that_is_executed_is_in_the_table() -> None:
    for command in COMMANDS:
        if command.execute is not None and command.name != "PIPE_CONTROL":
            assert TABLES.normal[command.header >> 22][0] is command.execute


@pytest.mark.parametrize("path", sorted(STREAMS.glob("*.txt")), ids=lambda path: str(path.stem))
def test_lengths_and_names_agree_with_recorded_streams(path: Path) -> None:
    """Streams that a driver wrote: each line is the command's first dword, its length, and its short name."""
    aliases = {
        "SDI": "MI_STORE_DATA_IMM", "SRM": "MI_STORE_REGISTER_MEM", "LRI": "MI_LOAD_REGISTER_IMM",
        "LRM": "MI_LOAD_REGISTER_MEM", "LRR": "MI_LOAD_REGISTER_REG", "BB_START": "MI_BATCH_BUFFER_START",
        "BB_END": "MI_BATCH_BUFFER_END", "FLUSH_DW": "MI_FLUSH_DW", "SEMAPHORE": "MI_SEMAPHORE_WAIT",
    }  # fmt: skip
    checked = 0
    for line in path.read_text().splitlines():
        header, length, name = line.split()
        assert length_of(int(header, 16)) == int(length), line
        if not re.match(r"3D_|GFX", name):
            expected = aliases.get(name, name)
            assert name_of(int(header, 16)) in (expected, f"MI_{expected}"), line
        checked += 1
    assert checked
