"""The language that register blocks are declared in: registers, and the fields of registers.

A hardware block returns a list of `Register`s: name, offset, reset value, how writes behave, methods for those that do
something, and the fields that the bits of the register are. A `RegisterFile` (`register_file.py`) answers accesses to them.

    class Forcewake:
        def registers(self) -> list[Register]:
            return [
                Register("FORCEWAKE_GT", 0xA188, access=MASKED, write=self.wake_gt, fields=[flag(0, "KERNEL")]),
                Register("FORCEWAKE_ACK_GT", 0x0DFC, access=RO, fields=[flag(0, "KERNEL"), reserved(16, 31)]),
            ]

Traces, `inspect` and the reports of stalls show values field by field. A field that is reserved or not modelled costs a test
of a mask in each write of its register: the report of unmodelled registers then says which of its bits a driver has set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

RW = "rw"
"""Writes replace the bits of `mask`."""
RO = "ro"
"""Writes are ignored."""
W1C = "w1c"
"""Writing 1 clears a bit, writing 0 leaves it."""
W1S = "w1s"
"""Writing 1 sets a bit, writing 0 leaves it."""
MASKED = "masked"
"""Bits 31:16 of the written value say which of bits 15:0 change; bits 31:16 are stored as 0."""
ACCESSES = (RW, RO, W1C, W1S, MASKED)

PF = "pf"
"""The kind of a register file that is a PF's, or a plain device's."""
VF = "vf"
"""The kind of a register file that is a VF's."""

_ALL = 0xFFFFFFFF


class FieldKind(Enum):
    """What the device model knows of the bits of a field."""

    MODELLED = "modelled"
    """The model does what they say, or stores them because nothing else is to be done."""
    NOT_MODELLED = "not modelled"
    """Hardware does something when they are set, the model does not."""
    RESERVED = "reserved"
    """Nobody should set them."""


@dataclass(frozen=True, slots=True)
class Field:
    """Bits `low` to `high` (both included) of a register; `values` are the names that some of its values have.

    Made by `flag`, `field`, `not_modelled` and `reserved`.
    """

    low: int
    high: int
    name: str
    values: Mapping[int, str] = dataclasses.field(default_factory=dict)
    kind: FieldKind = FieldKind.MODELLED

    @property
    def mask(self) -> int:
        """Its bits in the register."""
        return ((2 << self.high - self.low) - 1) << self.low

    def of(self, value: int) -> int:
        """Its value in the register's `value`."""
        return value >> self.low & ((2 << self.high - self.low) - 1)

    def text(self, value: int) -> str | int:
        """Its value in the register's `value`: the value's name where it has one."""
        part = self.of(value)
        return self.values.get(part, part)


def flag(bit: int, name: str) -> Field:
    """One bit that the model knows."""
    return Field(bit, bit, name)


def field(low: int, high: int, name: str, values: Mapping[int, str] | None = None) -> Field:
    """Bits `low` to `high` (both included) that the model knows; `values` names values: `{2: "GOOD"}`."""
    return Field(low, high, name, values or {})


def not_modelled(bit: int, name: str, high: int | None = None, values: Mapping[int, str] | None = None) -> Field:
    """Bit `bit`, or bits `bit` to `high`, that do something in hardware and nothing here: reported when a driver sets them."""
    return Field(bit, bit if high is None else high, name, values or {}, FieldKind.NOT_MODELLED)


def reserved(low: int, high: int | None = None) -> Field:
    """Bit `low`, or bits `low` to `high`, that mean nothing: reported when a driver sets them. Called "reserved(high:low)"."""
    top = low if high is None else high
    return Field(low, top, f"reserved({top}:{low})" if top != low else f"reserved({low})", kind=FieldKind.RESERVED)


@dataclass(frozen=True, slots=True)
class Register:
    """One 32- or 64-bit register.

    `read()` computes the value of a read; without it the stored value is read. `write(value)` is called after the
    stored value changed by `access`, with the raw value as written. Both run inside an access, on the thread of the
    function's transport (or on the executor, where a command streamer makes the access): they compute, store or queue,
    and never wait. A register that a function's kind does not see (`visible`) reads as 0 there and ignores writes. The
    two dwords of a 64-bit register (`width=8`, storage only) may be accessed one by one. `mask` are the bits that writes
    can change, by default all. `fields` are its bits by name (`flag`, `field`, `not_modelled`, `reserved`); they do not
    overlap, and bits that none of them has are shown by value only.

    Raises:
        ValueError: the declaration makes no sense; the message says which register and what.
    """

    name: str
    offset: int
    reset: int = 0
    access: str = RW
    mask: int = -1
    read: Callable[[], int] | None = None
    write: Callable[[int], None] | None = None
    fields: Sequence[Field] = ()
    width: int = 4
    visible: frozenset[str] = frozenset({PF, VF})

    def __post_init__(self) -> None:
        if self.access not in ACCESSES:
            raise ValueError(f"register {self.name}: access {self.access!r} is none of {', '.join(ACCESSES)}")
        if self.width not in (4, 8) or self.offset % 4:
            raise ValueError(f"register {self.name}: must be 4 or 8 bytes wide at a multiple of 4")
        if self.width == 8 and (self.read or self.write):
            raise ValueError(f"register {self.name}: a 64-bit register is storage only; declare its halves instead")
        if not 0 <= self.reset < 1 << self.width * 8:
            raise ValueError(f"register {self.name}: reset value {self.reset:#x} does not fit {self.width} bytes")
        self._check_fields()

    @property
    def unmodelled_bits(self) -> int:
        """Bits that are reserved or not modelled: a write that sets one is reported."""
        bits = 0
        for one in self.fields:
            if one.kind is not FieldKind.MODELLED:
                bits |= one.mask
        return bits

    def decode(self, value: int) -> dict[str, int]:
        """The fields of `value` by name; reserved ones only if a bit of them is set."""
        return {
            one.name: one.of(value) for one in self.fields if one.kind is not FieldKind.RESERVED or value & one.mask
        }

    def shown(self, value: int) -> dict[str, str | int]:
        """The fields of `value` that are not 0, by name; their values by name too where they have one."""
        return {one.name: one.text(value) for one in self.fields if value & one.mask}

    def meanings(self, value: int) -> dict[str, str]:
        """The names of the values that fields of `value` have, of those that have one."""
        return {one.name: name for one in self.fields if (name := one.values.get(one.of(value))) is not None}

    def written(self, value: int) -> dict[str, str | int]:
        """As `shown`, for `value` as a write brings it: of a MASKED register the fields that it selects, whether 0 or not."""
        if self.access != MASKED:
            return self.shown(value)
        change = value >> 16 & 0xFFFF
        return {one.name: one.text(value & change) for one in self.fields if change & one.mask}

    def unmodelled_fields(self, bits: int) -> list[str]:
        """The names of the reserved and not modelled fields that have any of `bits`."""
        return [one.name for one in self.fields if one.kind is not FieldKind.MODELLED and one.mask & bits]

    def _check_fields(self) -> None:
        taken: dict[int, str] = {}
        names: set[str] = set()
        # Bits 31:16 of a masked register's value select bits; they are never stored.
        bits = 16 if self.access == MASKED else self.width * 8
        for one in self.fields:
            if not 0 <= one.low <= one.high < bits:
                raise ValueError(
                    f"register {self.name}: field {one.name} is bits {one.low} to {one.high},"
                    f" not low to high of bits 0 to {bits - 1}"
                )
            if one.name in names:
                raise ValueError(f"register {self.name}: two fields are called {one.name}")
            names.add(one.name)
            for bit in range(one.low, one.high + 1):
                if bit in taken:
                    raise ValueError(f"register {self.name}: fields {taken[bit]} and {one.name} both have bit {bit}")
                taken[bit] = one.name
