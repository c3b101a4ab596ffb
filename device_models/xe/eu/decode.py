"""Programs from instruction memory, by reachability from an entry (execution.md 1.1: never linearly)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vfio_user_xe.device_models.xe.eu.compaction import native_bits
from vfio_user_xe.device_models.xe.eu.decode_instruction import decode_instruction
from vfio_user_xe.device_models.xe.eu.ir import AnyInstruction, Branch, Illegal, Leavers, Link, Program, Send
from vfio_user_xe.device_models.xe.eu.operand_types import executable

Reader = Callable[[int, int], bytes | memoryview]
"""Reads instruction memory: (address from the instruction base, bytes) to that many bytes, or fewer at its end.

It may raise, for example a page fault; `decode` lets that pass, and nothing is lost.
"""

LONGEST = 1 << 20
"""Instructions of a program at most; a larger one is not a program."""


class ProgramTooLong(ValueError):
    """More than `LONGEST` instructions can be reached."""


def decode_at(read: Reader, address: int) -> AnyInstruction:
    """The instruction at `address`; where memory ends it is `Illegal`."""
    data = read(address, 16)
    if len(data) < 16 and not (len(data) >= 8 and data[3] & 0x20):
        return decode_instruction(0, address, 16)
    bits, size = native_bits(data)
    return decode_instruction(bits, address, size)


def decode(read: Reader, *entries: int, known: Program | None = None) -> Program:
    """All instructions that can be reached from `entries`, and those of `known`.

    A branch whose target is in a register adds none (`Program.is_open`); an executor that arrives at an address which is
    not in the program extends it with that address as a further entry.

    Raises:
        ProgramTooLong: see `LONGEST`.
    """
    found: dict[int, AnyInstruction] = dict(known.by_address) if known is not None else {}
    labels = set(entries) | (known.labels if known is not None else set())
    waiting = list(entries)
    while waiting:
        address = waiting.pop()
        while address not in found:
            if len(found) >= LONGEST:
                raise ProgramTooLong(f"more than {LONGEST} instructions can be reached from {_hex(entries)}")
            instruction = executable(decode_at(read, address))
            found[address] = instruction
            if isinstance(instruction, Illegal) or (isinstance(instruction, Send) and instruction.end_of_thread):
                break
            if isinstance(instruction, Branch):
                targets = list(_targets(instruction))
                labels.update(targets)
                waiting.extend(targets)
                if not instruction.falls_through:
                    break
            address = instruction.next
    ordered = tuple(found[address] for address in sorted(found))
    before = known.entries if known is not None else ()
    return Program((*before, *entries), ordered, frozenset(labels))


def _targets(branch: Branch) -> Iterable[int]:
    if branch.target is not None:
        yield branch.target
    if (branch.falls_through and branch.leavers is not Leavers.NONE) or branch.link is Link.CALL:
        yield branch.next


def _hex(addresses: Iterable[int]) -> str:
    return ", ".join(f"0x{address:x}" for address in addresses)
