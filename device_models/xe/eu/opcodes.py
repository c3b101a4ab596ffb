"""Opcodes and sub-functions of Xe2 (iga ModelXe2.hpp, iga_bxml_enums.hpp: numbers only)."""

from __future__ import annotations

from enum import Enum, IntEnum


class Shape(Enum):
    """Which layout of fields an instruction has."""

    NONE = "no operands"
    ONE = "one source"
    TWO = "two sources"
    THREE = "three sources"
    DPAS = "dpas"
    MATH = "math"
    SYNC = "sync"
    BRANCH = "branch"
    SEND = "send"


class Opcode(Enum):
    """An opcode: `(number in bits 6:0, shape)`; its name in lower case is the mnemonic."""

    ILLEGAL = (0x00, Shape.NONE)
    SYNC = (0x01, Shape.SYNC)
    JMPI = (0x20, Shape.BRANCH)
    BRD = (0x21, Shape.BRANCH)
    IF = (0x22, Shape.BRANCH)
    BRC = (0x23, Shape.BRANCH)
    ELSE = (0x24, Shape.BRANCH)
    ENDIF = (0x25, Shape.BRANCH)
    WHILE = (0x27, Shape.BRANCH)
    BREAK = (0x28, Shape.BRANCH)
    CONT = (0x29, Shape.BRANCH)
    HALT = (0x2A, Shape.BRANCH)
    CALLA = (0x2B, Shape.BRANCH)
    CALL = (0x2C, Shape.BRANCH)
    RET = (0x2D, Shape.BRANCH)
    GOTO = (0x2E, Shape.BRANCH)
    JOIN = (0x2F, Shape.BRANCH)
    SEND = (0x31, Shape.SEND)
    SENDC = (0x32, Shape.SEND)
    MATH = (0x38, Shape.MATH)
    ADD = (0x40, Shape.TWO)
    MUL = (0x41, Shape.TWO)
    AVG = (0x42, Shape.TWO)
    FRC = (0x43, Shape.ONE)
    RNDU = (0x44, Shape.ONE)
    RNDD = (0x45, Shape.ONE)
    RNDE = (0x46, Shape.ONE)
    RNDZ = (0x47, Shape.ONE)
    MAC = (0x48, Shape.TWO)
    MACH = (0x49, Shape.TWO)
    LZD = (0x4A, Shape.ONE)
    FBH = (0x4B, Shape.ONE)
    FBL = (0x4C, Shape.ONE)
    CBIT = (0x4D, Shape.ONE)
    ADDC = (0x4E, Shape.TWO)
    SUBB = (0x4F, Shape.TWO)
    ADD3 = (0x52, Shape.THREE)
    MACL = (0x53, Shape.TWO)
    SRND = (0x54, Shape.TWO)
    DP4A = (0x58, Shape.THREE)
    DPAS = (0x59, Shape.DPAS)
    MAD = (0x5B, Shape.THREE)
    MADM = (0x5D, Shape.THREE)
    NOP = (0x60, Shape.NONE)
    MOV = (0x61, Shape.ONE)
    SEL = (0x62, Shape.TWO)
    MOVI = (0x63, Shape.TWO)
    NOT = (0x64, Shape.ONE)
    AND = (0x65, Shape.TWO)
    OR = (0x66, Shape.TWO)
    XOR = (0x67, Shape.TWO)
    SHR = (0x68, Shape.TWO)
    SHL = (0x69, Shape.TWO)
    BFN = (0x6B, Shape.THREE)
    ASR = (0x6C, Shape.TWO)
    ROR = (0x6E, Shape.TWO)
    ROL = (0x6F, Shape.TWO)
    CMP = (0x70, Shape.TWO)
    CMPN = (0x71, Shape.TWO)
    CSEL = (0x72, Shape.THREE)
    BFREV = (0x77, Shape.ONE)
    BFE = (0x78, Shape.THREE)
    BFI1 = (0x79, Shape.TWO)
    BFI2 = (0x7A, Shape.THREE)

    def __init__(self, number: int, shape: Shape) -> None:
        self.number = number
        self.shape = shape

    @property
    def mnemonic(self) -> str:
        return self.name.lower()


BY_NUMBER: dict[int, Opcode] = {opcode.number: opcode for opcode in Opcode}
BY_MNEMONIC: dict[str, Opcode] = {opcode.mnemonic: opcode for opcode in Opcode}

LOGIC = frozenset({Opcode.NOT, Opcode.AND, Opcode.OR, Opcode.XOR})
"""Where the negate modifier of a source is the bitwise complement (iga `IS_BITWISE` with source modifiers, less shifts)."""


class Condition(IntEnum):
    """What a condition modifier tests of a result, or cmp of its sources (bits 95:92)."""

    NONE = 0
    EQ = 1
    NE = 2
    GT = 3
    GE = 4
    LT = 5
    LE = 6
    OV = 8
    UN = 9


class PredicateMode(IntEnum):
    """How flags become a predicate (bits 27:26)."""

    NONE = 0
    LANE = 1
    ANY = 2
    ALL = 3


class MathFunction(IntEnum):
    """What `math` computes (bits 95:92; iga `MathFC`)."""

    INV = 1
    LOG = 2
    EXP = 3
    SQT = 4
    RSQT = 5
    SIN = 6
    COS = 7
    FDIV = 9
    POW = 10
    IDIV = 11
    IQOT = 12
    IREM = 13
    INVM = 14
    RSQTM = 15

    @property
    def sources(self) -> int:
        """How many sources it has (iga `GetSourceCount`)."""
        return 2 if self in _BINARY_MATH else 1


_BINARY_MATH = frozenset(
    {
        MathFunction.FDIV,
        MathFunction.POW,
        MathFunction.IDIV,
        MathFunction.IQOT,
        MathFunction.IREM,
        MathFunction.INVM,
    }
)


class SyncFunction(IntEnum):
    """What `sync` waits for (bits 95:92; iga `SyncFC`)."""

    NOP = 0
    ALLRD = 2
    ALLWR = 3
    FLUSH = 12
    FENCE = 13
    BAR = 14
    HOST = 15


class Sfid(IntEnum):
    """Shared function that a send addresses (bits 95:92)."""

    NULL = 0
    UGML = 1
    SMPL = 2
    GTWY = 3
    DC2 = 4
    RC = 5
    URB = 6
    BTD = 7
    RTA = 8
    DCRO = 9
    DC0 = 10
    PIXI = 11
    DC1 = 12
    TGM = 13
    SLM = 14
    UGM = 15
