"""The calls: structures of `xe_drm.h`, `drm.h` and `dma-buf.h` by field, and which values are worth a try for each.

A field's value in a step is a number, `sN` for what a call kept in slot N, or `@N` for page N of the process' arena. Fields that
a step does not name are zero. A structure that a field points at lies in an arena page of its own; its fields have the name of
the pointing field before them, as in `bind.op`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

ARENA, PAGE = 0x7E00_0000_0000, 0x1000

Chooser = Callable[[random.Random], str]


@dataclass(frozen=True)
class Kind:
    """What a call makes and others take: slots `first` to `first + count - 1` keep it."""

    name: str
    first: int
    count: int

    def slots(self) -> range:
        """The numbers of its slots."""
        return range(self.first, self.first + self.count)


FILE = Kind("drm file", 0, 2)
VM = Kind("vm", 4, 4)
QUEUE = Kind("exec queue", 8, 4)
BO = Kind("buffer", 12, 6)
SYNC = Kind("syncobj", 18, 4)
DMABUF = Kind("dma-buf", 22, 4)
FENCE = Kind("fence or stream", 26, 4)
KINDS = (FILE, VM, QUEUE, BO, SYNC, DMABUF, FENCE)


@dataclass(frozen=True)
class Field:
    """`width` bytes. `choose` gives a value; None: mostly zero. `makes` says that the kernel writes a handle of this kind."""

    name: str
    width: int
    choose: Chooser | None = None
    to: Struct | None = None
    """What it points at; `page` of the arena is where that lies."""
    page: int = 0
    makes: Kind | None = None


@dataclass(frozen=True)
class Struct:
    """Fields one after the other."""

    name: str
    fields: Sequence[Field]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(one.width for one in self.fields)

    def offset(self, name: str) -> int:
        """Where a field is.

        Raises:
            KeyError: there is none of that name.
        """
        at = 0
        for one in self.fields:
            if one.name == name:
                return at
            at += one.width
        raise KeyError(name)


@dataclass(frozen=True)
class Call:
    """An ioctl on a descriptor of `on`; `result` says that its own result is a descriptor of this kind."""

    name: str
    on: Kind
    request: int
    struct: Struct
    weight: float = 1.0
    result: Kind | None = None
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Values that it mostly has: without them hardly any call would get past the first check."""

    @property
    def makes(self) -> tuple[Kind, int | None] | None:
        """The kind that it makes, and where in what comes back that is; None there: it is the result."""
        if self.result is not None:
            return self.result, None
        made = next((one for one in self.struct.fields if one.makes is not None), None)
        return (made.makes, self.struct.offset(made.name)) if made is not None and made.makes is not None else None


# Values -------------------------------------------------------------------------------------------------------------


def one_of(*values: int) -> Chooser:
    """Mostly one of these, sometimes a neighbour."""

    def choose(chance: random.Random) -> str:
        value = chance.choice(values)
        if chance.random() < 0.05:
            value = max(0, value + chance.choice((-1, 1, 0x1000, 1 << 31)))
        return f"{value:#x}"

    return choose


def bits(*values: int) -> Chooser:
    """Each of these bits now and then, seldom another one."""

    def choose(chance: random.Random) -> str:
        value = sum(bit for bit in values if chance.random() < 0.25)
        if chance.random() < 0.05:
            value |= 1 << chance.randrange(32)
        return f"{value:#x}"

    return choose


def slot(kind: Kind) -> Chooser:
    """What a call kept, seldom of another kind."""

    def choose(chance: random.Random) -> str:
        chosen = chance.choice(KINDS) if chance.random() < 0.03 else kind
        return f"s{chance.choice(chosen.slots())}"

    return choose


def maybe(chooser: Chooser, chance_of: float = 0.5) -> Chooser:
    """Zero, or what the other gives."""
    return lambda chance: chooser(chance) if chance.random() < chance_of else "0x0"


_VA = one_of(0x10_0000, 0x20_0000, 0x30_0000, 0x100_0000, 0x1_0000_0000, 0xFFFF_8000_0000_0000, ARENA + 8 * PAGE)
_RANGE = one_of(0x1000, 0x1_0000, 0x10_0000, 0x20_0000, 0x40_0000)
_OFFSET = maybe(one_of(0x1000, 0x1_0000, 0x10_0000), 0.3)
_MEMORY = maybe(one_of(ARENA + 8 * PAGE, ARENA + 9 * PAGE, ARENA + 0x10), 0.9)

# Structures ---------------------------------------------------------------------------------------------------------

_EXTENSION = Struct(
    "extension",
    [
        Field("next", 8), Field("name", 4, maybe(one_of(1), 0.1)), Field("pad", 4),
        Field("property", 4, one_of(0, 1, 2, 3, 4, 5)), Field("pad2", 4), Field("value", 8, one_of(0, 1, 2, 10, 1000, 1 << 32)),
        Field("reserved", 16),
    ],
)  # fmt: skip
_EXTENSIONS = Field("extensions", 8, maybe(lambda chance: "@1", 0.15), _EXTENSION, 1)
_SYNC = Struct(
    "sync",
    [
        Field("extensions", 8), Field("type", 4, one_of(0, 1, 2)), Field("flags", 4, bits(1)),
        Field("handle", 8, slot(SYNC)), Field("timeline", 8, one_of(0, 1, 2, 100)), Field("reserved", 16),
    ],
)  # fmt: skip
_SYNCS = (Field("num_syncs", 4, maybe(one_of(1), 0.6)), Field("syncs", 8, lambda chance: "@2", _SYNC, 2))
_BIND = (
    Field("bind.extensions", 8), Field("bind.obj", 4, maybe(slot(BO), 0.8)),
    Field("bind.pat", 2, one_of(0, 1, 2, 3, 9, 20)), Field("bind.pad", 2),
    Field("bind.offset", 8, maybe(_MEMORY, 0.2)), Field("bind.range", 8, _RANGE), Field("bind.addr", 8, _VA),
    Field("bind.op", 4, one_of(0, 0, 0, 1, 2, 3, 4)), Field("bind.flags", 4, bits(1, 2, 4, 8, 32, 64)),
    Field("bind.region", 4, one_of(0, 1, 0xFFFF_FFFF)), Field("bind.pad2", 4), Field("bind.reserved", 24),
)  # fmt: skip
_INSTANCE = Struct(
    "instance",
    [
        Field("class", 2, one_of(0, 1, 1, 4, 5)), Field("instance", 2, one_of(0, 0, 1, 8)), Field("gt", 2, maybe(one_of(1), 0.1)),
        Field("pad", 2),
    ],
)  # fmt: skip


def _xe(number: int, size: int) -> int:
    return _drm(0x40 + number, size)


def _drm(number: int, size: int) -> int:
    """DRM_IOWR."""
    return 3 << 30 | size << 16 | ord("d") << 8 | number


def _call(
    name: str, number: int, fields: Sequence[Field], *, weight: float = 1.0, fixed: Mapping[str, str] | None = None
) -> Call:
    struct = Struct(name, fields)
    return Call(name, FILE, _xe(number, struct.size), struct, weight, fixed=fixed or {})


def _core(
    name: str, number: int, fields: Sequence[Field], *, weight: float = 1.0, fixed: Mapping[str, str] | None = None
) -> Call:
    struct = Struct(name, fields)
    return Call(name, FILE, _drm(number, struct.size), struct, weight, fixed=fixed or {})


def _dmabuf(name: str, direction: int, number: int, fields: Sequence[Field]) -> Call:
    struct = Struct(name, fields)
    return Call(name, DMABUF, direction << 30 | struct.size << 16 | ord("b") << 8 | number, struct, 0.5)


CALLS: dict[str, Call] = {
    call.name: call
    for call in (
        _call("query", 0, [_EXTENSIONS, Field("query", 4, one_of(*range(11))), Field("size", 4, one_of(0, 8, 0x800)),
                           Field("data", 8, _MEMORY), Field("reserved", 16)], weight=0.5),
        _call("gem-create", 1, [_EXTENSIONS, Field("size", 8, _RANGE), Field("placement", 4, one_of(1, 2, 2, 3)),
                                Field("flags", 4, bits(1, 2, 4, 8)), Field("vm", 4, maybe(slot(VM), 0.4)),
                                Field("handle", 4, makes=BO), Field("caching", 2, one_of(1, 2, 2)), Field("pad", 6), Field("reserved", 16)],
              weight=2, fixed={"placement": "0x2", "caching": "0x2", "flags": "0x0"}),
        _call("mmap-offset", 2, [Field("extensions", 8), Field("handle", 4, slot(BO)), Field("flags", 4, bits(1)),
                                 Field("offset", 8), Field("reserved", 16)], weight=0.5),
        _call("vm-create", 3, [_EXTENSIONS, Field("flags", 4, bits(1, 2, 4, 8)), Field("vm", 4, makes=VM), Field("reserved", 16)],
              fixed={"extensions": "0x0"}),
        _call("vm-destroy", 4, [Field("vm", 4, slot(VM)), Field("pad", 4), Field("reserved", 16)], weight=0.3),
        _call("vm-bind", 5, [_EXTENSIONS, Field("vm", 4, slot(VM)), Field("queue", 4, maybe(slot(QUEUE), 0.1)), Field("pad", 4),
                             Field("num_binds", 4, one_of(1)), *_BIND, Field("pad2", 4), *_SYNCS, Field("reserved", 16)],
              weight=3, fixed={"num_binds": "0x1", "extensions": "0x0"}),
        _call("queue-create", 6, [_EXTENSIONS, Field("width", 2, one_of(1)), Field("placements", 2, one_of(1)),
                                  Field("vm", 4, slot(VM)), Field("flags", 4, bits(1)), Field("queue", 4, makes=QUEUE),
                                  Field("instances", 8, lambda chance: "@3", _INSTANCE, 3), Field("reserved", 16)],
              weight=2, fixed={"width": "0x1", "placements": "0x1", "flags": "0x0"}),
        _call("queue-destroy", 7, [Field("queue", 4, slot(QUEUE)), Field("pad", 4), Field("reserved", 16)], weight=0.4),
        _call("queue-property", 8, [Field("extensions", 8), Field("queue", 4, slot(QUEUE)), Field("property", 4, one_of(0, 1)),
                                    Field("value", 8), Field("reserved", 16)], weight=0.3),
        _call("exec", 9, [_EXTENSIONS, Field("queue", 4, slot(QUEUE)), *_SYNCS, Field("address", 8, _VA),
                          Field("batches", 2, one_of(1, 1, 1, 0)), Field("pad", 6), Field("reserved", 16)],
              weight=3, fixed={"extensions": "0x0", "batches": "0x1"}),
        _call("wait-fence", 10, [Field("extensions", 8), Field("addr", 8, _MEMORY), Field("op", 2, one_of(*range(6))),
                                 Field("flags", 2, bits(1)), Field("pad", 4), Field("value", 8, one_of(0, 1, 2)),
                                 Field("mask", 8, one_of(0, 0xFF, 0xFFFF_FFFF_FFFF_FFFF)), Field("timeout", 8, one_of(0, 1000, 1_000_000)),
                                 Field("queue", 4, maybe(slot(QUEUE))), Field("pad2", 4), Field("reserved", 16)], weight=0.6),
        _call("madvise", 12, [_EXTENSIONS, Field("start", 8, _VA), Field("range", 8, _RANGE), Field("vm", 4, slot(VM)),
                              Field("type", 4, one_of(0, 1, 2, 3)), Field("value", 4, one_of(0, 1, 2, 3, 0xFFFF_FFFF)),
                              Field("value2", 4, one_of(0, 1)), Field("pad", 8), Field("reserved", 16)], weight=0.6),
        _core("gem-close", 0x09, [Field("handle", 4, slot(BO)), Field("pad", 4)], weight=0.7),
        _core("prime-export", 0x2D, [Field("handle", 4, slot(BO)), Field("flags", 4, one_of(0x80000, 0x80002, 0)),
                                     Field("fd", 4, makes=DMABUF)]),
        _core("prime-import", 0x2E, [Field("handle", 4, makes=BO), Field("flags", 4), Field("fd", 4, slot(DMABUF))]),
        _core("syncobj-create", 0xBF, [Field("handle", 4, makes=SYNC), Field("flags", 4, bits(1))]),
        _core("syncobj-destroy", 0xC0, [Field("handle", 4, slot(SYNC)), Field("pad", 4)], weight=0.3),
        _core("syncobj-export", 0xC1, [Field("handle", 4, slot(SYNC)), Field("flags", 4, bits(1)), Field("fd", 4, makes=FENCE),
                                       Field("pad", 4), Field("point", 8)], weight=0.4),
        _core("syncobj-import", 0xC2, [Field("handle", 4, slot(SYNC)), Field("flags", 4, bits(1)), Field("fd", 4, slot(FENCE)),
                                       Field("pad", 4), Field("point", 8)], weight=0.4),
        _dmabuf("sync", 1, 0, [Field("flags", 8, one_of(1, 2, 3, 5, 6, 7))]),
        _dmabuf("export-fence", 3, 2, [Field("flags", 4, one_of(1, 2, 3)), Field("fd", 4, makes=FENCE)]),
        _dmabuf("import-fence", 1, 3, [Field("flags", 4, one_of(1, 2, 3)), Field("fd", 4, slot(FENCE))]),
    )
}  # fmt: skip
"""By name."""


def fields_of(call: Call) -> dict[str, Field]:
    """Its fields by the name that steps give them, those of structures that it points at too."""
    named = {one.name: one for one in call.struct.fields}
    for one in call.struct.fields:
        if one.to is not None:
            named |= {f"{one.name}.{part.name}": part for part in one.to.fields}
    return named


def arguments(call: Call, chance: random.Random) -> Iterator[str]:
    """Values for a call's fields that are not zero: "name=value"."""
    for name, one in fields_of(call).items():
        value = "0x0"
        if name in call.fixed and chance.random() < 0.9:
            value = call.fixed[name]
        elif one.choose is not None:
            value = one.choose(chance)
        elif one.makes is None and chance.random() < 0.01:
            value = f"{1 << chance.randrange(8 * min(one.width, 8)):#x}"
        if value.startswith("0x"):
            value = f"{int(value, 0) & (1 << 8 * one.width) - 1:#x}"
        if value != "0x0":
            yield f"{name}={value}"


def encoded(struct: Struct, values: Mapping[str, str], prefix: str = "") -> str:
    """The bytes as the guest program takes them (`client/raw.c`): dwords in hex, `zN` zeros, `sN` slots.

    Raises:
        ValueError: a value is none, or does not fit.
    """
    dwords: dict[int, str | int] = {}
    at = 0
    for one in struct.fields:
        text = values.get(prefix + one.name, "0")
        if text.startswith("s"):
            if one.width < 4 or at % 4:
                raise ValueError(f"{one.name}: a slot needs four bytes")
            dwords[at // 4] = f"s{int(text[1:])}"
        else:
            number = ARENA + int(text[1:]) * PAGE if text.startswith("@") else int(text, 0)
            if not 0 <= number < 1 << 8 * one.width:
                raise ValueError(f"{one.name}: {text} does not fit {one.width} bytes")
            for index in range(one.width):
                byte = number >> 8 * index & 0xFF
                if byte:
                    where = (at + index) // 4
                    dwords[where] = int(dwords.get(where, 0)) | byte << 8 * ((at + index) % 4)
        at += one.width
    return _written(dwords, -(-struct.size // 4))


def _written(dwords: Mapping[int, str | int], count: int) -> str:
    words: list[str] = []
    zeros = 0
    for index in range(count):
        value = dwords.get(index, 0)
        if value == 0:
            zeros += 1
            continue
        if zeros:
            words.append(f"z{zeros}")
            zeros = 0
        words.append(value if isinstance(value, str) else f"{value:x}")
    if zeros:
        words.append(f"z{zeros}")
    return ".".join(words)
