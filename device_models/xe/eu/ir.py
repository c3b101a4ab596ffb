"""The intermediate form: what back ends execute, the disassembler prints, and the assembler writes.

    program = decode(read, entry)         # `decode.py`
    for instruction in program.instructions:
        match instruction:
            case Alu(): ...               # reads sources, writes a destination and maybe flags
            case Dpas(): ...
            case Branch(): ...            # moves lanes
            case Send(): ...              # a message, served by a `MessagePort`
            case Sync() | Nop() | Illegal(): ...

**Addresses** are bytes from the instruction base. They name instructions everywhere: in branch targets, in the places of
lanes, in `ip`. Nothing of an encoding is left but what the disassembler and the encoder need.

**Storage.** A register operand is an offset into the thread's storage (`registers.py`), GRF first and ARFs behind it.
Element `k` of a source is at `offset + (k // width * vertical + k % width * horizontal) * size`, of a destination at
`offset + k * horizontal * size`. Lane `k` of the operand belongs to lane `first_lane + k` of the thread. Direct operands,
payloads and responses lie inside of their file: an instruction for which they do not is `Illegal` (`bounds.py`).

**Lanes** (execution.md 1.6). A thread has 32 lanes; each has a place (an address, or `ENDED`) and a call depth. The
thread's own place is that of the deepest lanes, and among these the lowest address; lanes there are active. An
instruction acts on the lanes `first_lane + k` for `k < width` that are active, or, with `no_mask`, on all of these lanes.
Then the predicate is applied. A branch moves lanes (`Branch.leavers`), all other active lanes of the thread move to the next
instruction, including those outside of the instruction's `first_lane` and `width`. A place is picked up by arriving there:
`endif` and `join` do nothing of their own. Lanes can wait only at `Program.labels`, so code between labels has one mask.

**Flags.** The flags are 128 bits, f0 to f3 from `registers.F0` on; lane `first_lane + k` uses bit `flag + k`.

**Arithmetic** is specified in `semantics.py`, exactly enough for back ends to agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from vfio_user_xe.device_models.xe.eu.data_types import DataType, Packed
from vfio_user_xe.device_models.xe.eu.messages.message import Message
from vfio_user_xe.device_models.xe.eu.opcodes import Condition, MathFunction, Opcode, PredicateMode, Sfid, SyncFunction
from vfio_user_xe.device_models.xe.eu.registers import ARF_BASE, GRF_BYTES, LIVE, Arf, arf_offset

LANES = 32
ADDRESS_MASK = 0xFFFF_FFF8
"""Addresses of instructions (ip) have 32 bits, of which the lowest three are 0, since the shortest instruction has 8 bytes:
a branch beyond wraps, and one into the middle of 8 bytes goes to their begin."""
ENDED = (1 << 62) - 1
"""The place of a lane that is gone, or was never there: higher than any address."""

SENDS_AT_MOST = 31
"""General registers in one part of a message's payload."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register region, as source or destination.

    `number` is a general register, or an architecture register (`arf`) with its kind in the high nibble. As destination
    only `horizontal` counts.
    """

    type: DataType
    number: int
    byte: int = 0
    """Offset in the register."""
    arf: bool = False
    vertical: int = 1
    """Elements between rows."""
    width: int = 1
    """Elements in a row."""
    horizontal: int = 0
    """Elements between elements of a row."""
    negate: bool = False
    """`-x`; for `opcodes.LOGIC` the complement. Comes after `absolute`."""
    absolute: bool = False

    @property
    def is_null(self) -> bool:
        """Reads as zero, and what is written is dropped."""
        return self.arf and self.number >> 4 == Arf.NULL

    @property
    def offset(self) -> int:
        """Where it begins in storage."""
        return (arf_offset(self.number) if self.arf else self.number * GRF_BYTES) + self.byte

    @property
    def is_live(self) -> bool:
        """Its value must be computed before it is read."""
        return self.arf and self.number >> 4 in LIVE

    def element(self, index: int) -> int:
        """Offset in storage of a source's element `index`."""
        row, column = divmod(index, self.width)
        return self.offset + (row * self.vertical + column * self.horizontal) * self.type.size


@dataclass(frozen=True, slots=True)
class Indirect:
    """A region whose place comes from a0: word `pointer` of a0 plus `displacement` is a byte offset in the GRF.

    With `vertical` None each row has a pointer of its own, from word `pointer` on (VxH; Vx1 if `width` is 1).
    What reaches outside of the GRF reads as zero, and is not written.
    """

    type: DataType
    pointer: int
    displacement: int = 0
    """Signed bytes."""
    vertical: int | None = 1
    width: int = 1
    horizontal: int = 0
    negate: bool = False
    absolute: bool = False

    def pointer_of(self, index: int) -> int:
        """Which word of a0 element `index` uses."""
        return self.pointer + (index // self.width if self.vertical is None else 0)

    def element(self, index: int) -> int:
        """Bytes from the pointer's value plus `displacement` to element `index`."""
        row, column = divmod(index, self.width)
        return ((0 if self.vertical is None else row * self.vertical) + column * self.horizontal) * self.type.size


@dataclass(frozen=True, slots=True)
class Immediate:
    """A value in the instruction: one for all lanes, as a bit pattern of `type`."""

    type: DataType
    bits: int


@dataclass(frozen=True, slots=True)
class Vector:
    """A packed immediate: lane `k` of the operand has element `k % packed.count`."""

    packed: Packed
    bits: int

    @property
    def type(self) -> DataType:
        return self.packed.element

    def element(self, index: int) -> int:
        """Element of lane `index` as a bit pattern of `type`."""
        return self.packed.unpack(self.bits)[index % self.packed.count]


Source = Register | Indirect | Immediate | Vector
Destination = Register | Indirect


@dataclass(frozen=True, slots=True)
class Predicate:
    """Which lanes take part: flag bits, or one answer from all flag bits of the instruction's width.

    `ANY` and `ALL` look at the bits of all `width` lanes, active or not. `inverse` turns the outcome around.
    """

    mode: PredicateMode
    inverse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What all instructions have."""

    address: int = 0
    size: int = 16
    """Bytes; 8 if it was compacted."""
    opcode: Opcode
    width: int = 1
    """Execution size: 1, 2, 4, 8, 16 or 32 lanes."""
    first_lane: int = 0
    """Mask offset: 0, 8, 16 or 24 (M0 … M24)."""
    no_mask: bool = False
    """Acts on all lanes, whether active or not."""
    predicate: Predicate | None = None
    flag_number: int = 0
    """The flag register, 0 to 3, and its 16-bit half, of the predicate and of the condition modifier."""
    flag_half: int = 0
    atomic: bool = False
    swsb: int = 0
    """Bits 17:8, the scoreboard. Instructions complete in order here, so that back ends ignore it."""
    breakpoint: bool = False

    @property
    def next(self) -> int:
        """Address of the instruction behind it."""
        return self.address + self.size

    @property
    def flag(self) -> int:
        """The flag bit (0 to 127) of lane `first_lane`."""
        bit = 16 * self.flag_half + self.first_lane
        if bit + self.width > LANES:
            bit = self.first_lane
        return LANES * self.flag_number + bit


@dataclass(frozen=True, slots=True, kw_only=True)
class Alu(Instruction):
    """Computes lane by lane: moves, logic, arithmetic, `math`, two and three sources."""

    destination: Destination
    sources: tuple[Source, ...]
    condition: Condition = Condition.NONE
    """For cmp, cmpn, sel and csel part of the operation; for others a test of the result against zero."""
    saturate: bool = False
    function: MathFunction | None = None
    """Of `math`."""
    truth: int = 0
    """Of `bfn`: bit `s0 + 2 * s1 + 4 * s2` is the result for these source bits."""
    macro: tuple[int, ...] = ()
    """Of `madm` and the `math` macros: the accumulators (mme numbers; 8 is none) of destination and sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dpas(Instruction):
    """Systolic `destination = accumulator + a · b` (execution.md 1.7): `repeat` rows of 16 columns, `depth` steps.

    `sources` are the accumulator (null: zero), `b` and `a`, as the instruction has them.
    """

    destination: Register
    sources: tuple[Register, Register, Register]
    repeat: int = 8
    depth: int = 8
    bits_b: int = 8
    """Bits of an element of `b` (source 1) if its type is ub or b: 8, 4 or 2."""
    bits_a: int = 8


class Leavers(Enum):
    """Which active lanes a branch moves to its target; the others go on with the next instruction."""

    NONE = "none"
    """`endif` and `join`: places where lanes meet."""
    TRUE = "true"
    """Those for which the predicate holds: goto, break, cont, while, halt, call, calla, ret, brd, brc."""
    FALSE = "false"
    """Those for which it does not: if."""
    ALL = "all"
    """else, whatever the predicate."""
    UNIFORM = "uniform"
    """jmpi: all active lanes if the predicate holds for lane `first_lane`, else none."""


class Link(Enum):
    """What a branch does to the call depth of the lanes that it moves."""

    NONE = 0
    CALL = 1
    """One deeper. The destination's first dword becomes the address behind the call, its second the lanes that went."""
    RETURN = -1
    """One up. The target is the source's first dword: an address, not a distance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch(Instruction):
    """Moves lanes.

    `target` is an address; where it is None, `source` holds it at run time: a distance from this instruction (jmpi,
    brd, call; for brc the second dword), or an address (ret, calla).
    """

    leavers: Leavers
    link: Link = Link.NONE
    target: int | None = None
    source: Register | None = None
    destination: Register | None = None
    """Of call and calla."""
    backward: bool = False
    """BranchCtrl: of no meaning for lanes that have places of their own."""
    jip: int | None = None
    """The distances as encoded, in bytes from this instruction; back ends use `target`."""
    uip: int | None = None

    @property
    def falls_through(self) -> bool:
        """Lanes may go on with the next instruction."""
        if self.leavers is Leavers.ALL:
            return False
        return self.leavers in (Leavers.NONE, Leavers.FALSE) or self.predicate is not None or self.link is Link.CALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Send(Instruction):
    """A message to a shared function; `end_of_thread` ends the thread once it is sent.

    The payload is `source0` (`message.length0` registers) followed by `source1` (`length1` registers).
    """

    sfid: Sfid
    destination: Register
    """Where the response begins; null if there is none."""
    source0: Register
    source1: Register
    length1: int = 0
    descriptor: int | None = 0
    """None: in a0.0 at run time."""
    extended: int = 0
    """The extended descriptor in the instruction. With `extended_pointer` only the immediate offset in it counts."""
    extended_pointer: int | None = None
    """The dword of a0 that holds the extended descriptor."""
    end_of_thread: bool = False
    extended_bso: bool = False
    """Bit 39: ExBSO; for ugm it is part of the immediate offset, and is in `extended` too."""
    message: Message | None = None
    """What the descriptor says, where it is in the instruction; `messages.decode` gives it at run time otherwise.
    What comes from a0 at `extended_pointer` (`Message.surface`) is not in it."""

    @property
    def length1_in_extended(self) -> bool:
        """`length1` comes from bits 10:6 of the extended descriptor in a0 (iga Decoder.cpp: no ExBSO, not ugm)."""
        return self.extended_pointer is not None and not self.extended_bso and self.sfid is not Sfid.UGM


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync(Instruction):
    """Waits; of meaning is only `SyncFunction.BAR`: until the barrier that this thread signalled is complete."""

    function: SyncFunction
    source: Source | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nop(Instruction):
    """Does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Illegal(Instruction):
    """`illegal`, an unknown opcode, or an encoding that means nothing: raises the illegal-opcode exception if executed."""

    reason: str = "illegal"
    raw: int = 0
    """The instruction's bits."""


AnyInstruction = Alu | Dpas | Branch | Send | Sync | Nop | Illegal


@dataclass(frozen=True)
class Program:
    """The instructions that can be reached from `entries`, by rising address."""

    entries: tuple[int, ...]
    instructions: tuple[AnyInstruction, ...]
    labels: frozenset[int] = field(default_factory=frozenset)
    """Addresses at which lanes may wait: entries, targets, and what follows branches and calls."""

    @cached_property
    def by_address(self) -> Mapping[int, AnyInstruction]:
        return {instruction.address: instruction for instruction in self.instructions}

    @cached_property
    def is_open(self) -> bool:
        """Some branch has its target in a register: code may be reached that is not decoded yet."""
        return any(
            isinstance(instruction, Branch)
            and instruction.target is None
            and instruction.leavers is not Leavers.NONE
            and instruction.link is not Link.RETURN
            for instruction in self.instructions
        )

    def blocks(self) -> tuple[tuple[AnyInstruction, ...], ...]:
        """Instructions between labels and behind branches: only the last of a block can move lanes or end the thread."""
        blocks: list[tuple[AnyInstruction, ...]] = []
        current: list[AnyInstruction] = []
        for instruction in self.instructions:
            broken = current and current[-1].next != instruction.address
            if current and (broken or instruction.address in self.labels):
                blocks.append(tuple(current))
                current = []
            current.append(instruction)
            if isinstance(instruction, Branch) or (isinstance(instruction, Send) and instruction.end_of_thread):
                blocks.append(tuple(current))
                current = []
        if current:
            blocks.append(tuple(current))
        return tuple(blocks)


def is_arf(offset: int) -> bool:
    """Whether an offset in storage is behind the GRF."""
    return offset >= ARF_BASE
