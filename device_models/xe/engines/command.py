"""What a declaration of a command says. `commands.py` has those of the pipelines, `mi_commands.py` and `blt_commands.py` the others."""

from __future__ import annotations

from dataclasses import dataclass

from vfio_user_xe.device_models.xe.engines.command_streamer import Handler

MI, BLT, GFXPIPE, STATE, BARRIER = 0, 2, 3, 4, 5
"""Bits 31:29 of a command (instructions/xe_instr_defs.h)."""


@dataclass(frozen=True)
class Field:
    """Bits `high`:`low` of dword `dword` of a command; `high` may reach into the next dword."""

    name: str
    dword: int
    high: int
    low: int = 0

    def of(self, words: memoryview | list[int], index: int = 0) -> int:
        """Its value in the command at `words[index]`."""
        value = words[index + self.dword]
        if self.high > 31 and index + self.dword + 1 < len(words):
            value |= words[index + self.dword + 1] << 32
        return value >> self.low & ((2 << self.high - self.low) - 1)


@dataclass(frozen=True)
class Command:
    """A command: its first dword is `header` in the bits of `mask`.

    `length` is its number of dwords, or 0: then it is two more than the bits of `length_mask` say. With `predicable`
    off it is executed even where MI_SET_PREDICATE makes commands no-ops. Without `execute` it is skipped; `work` says
    that a driver requested something that the device cannot do.
    """

    name: str
    header: int
    mask: int
    execute: Handler | None = None
    length: int = 0
    length_mask: int = 0xFF
    fields: tuple[Field, ...] = ()
    predicable: bool = True
    work: bool = False
    note: str = ""
    pipeline: str = ""
    """The package that executes it, which gives its handler to `Tables`."""


ADDRESS = 63
"""High bit of a field that is an address in two dwords."""
