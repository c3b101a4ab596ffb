"""Ops, messages and constants of a kernel while it is translated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vfio_user_xe.device_models.xe.eu.compiled.layout import CONSTANT, OP
from vfio_user_xe.device_models.xe.eu.ir import Instruction

Handlers = Callable[[str], int | None]
"""Address of a handler by name, None if there is none (`library.Library.handler`)."""


class NotHere(Exception):
    """This instruction is for the interpreter."""


@dataclass(slots=True)
class Op:
    """One `struct op`, with a handler's name in place of its address."""

    handler: str
    destination: int = 0
    sources: tuple[int, int, int] = (0, 0, 0)
    modified: tuple[int, int, int] = (0, 0, 0)
    width: int = 1
    flag: int = 0
    first_lane: int = 0
    no_mask: bool = True
    predicate: int = 0
    inverse: bool = False
    condition: int = 0
    saturate: bool = False
    detail: int = 0
    final: int = 0
    strides: tuple[int, int] = (0, 0)
    message: int | None = None
    """Offset of a message in the kernel's messages."""
    target: int | None = None
    """Address that a branch goes to."""

    def masked(self, instruction: Instruction) -> Op:
        """The same op, with the lanes, predicate and flags of an instruction."""
        self.width = instruction.width
        self.flag = instruction.flag
        self.first_lane = instruction.first_lane
        self.no_mask = instruction.no_mask
        if instruction.predicate is not None:
            self.predicate = int(instruction.predicate.mode)
            self.inverse = instruction.predicate.inverse
        return self


@dataclass
class Constants:
    """Bytes that ops refer to; equal ones are kept once."""

    data: bytearray = field(default_factory=bytearray)
    _known: dict[bytes, int] = field(default_factory=dict)

    def offset(self, value: bytes) -> int:
        """Where `value` is, as an offset for a source."""
        if value not in self._known:
            self.data.extend(bytes(-len(self.data) % 64))
            self._known[value] = len(self.data)
            self.data.extend(value)
        return CONSTANT | self._known[value]


def pack(op: Op, handler: int, address: int, begins: bool, extra: int) -> bytes:
    """The op as `struct op`, with whatever the caller has in place of pointers."""
    return OP.pack(
        handler,
        op.destination,
        *op.sources,
        (1 << op.width) - 1,
        address,
        op.flag,
        op.first_lane,
        op.no_mask,
        op.predicate,
        op.inverse,
        op.condition,
        op.saturate,
        *op.modified,
        begins,
        op.detail,
        op.final,
        *op.strides,
        extra,
    )
