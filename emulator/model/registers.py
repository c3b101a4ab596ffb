"""The language that register blocks are declared in, and the register file that answers accesses.

A hardware block returns a list of `Register`s: name, offset, reset value, how writes behave, and methods for those
that do something. A `RegisterFile` compiles them into one dictionary look-up an access. Offsets that nobody
declared behave as plain storage and are counted: the list of them (`unmodelled`) is the burn-down of a device under
construction.

    class Forcewake:
        def registers(self) -> list[Register]:
            return [
                Register("FORCEWAKE_GT", 0xA188, access=MASKED, write=self.wake_gt),
                Register("FORCEWAKE_ACK_GT", 0x0DFC, access=RO, fields={"ACK": (0, 0)}),
            ]
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from vfio_user_xe.emulator.observe.tap import Tap

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


@dataclass(frozen=True, slots=True)
class Register:
    """One 32- or 64-bit register.

    `read()` computes the value of a read; without it the stored value is read. `write(value)` is called after the
    stored value changed by `access`, with the raw value as written. Both run inside an access: they compute, store
    or queue, and never wait. `fields` are (high, low) bit numbers by name, for traces and `inspect`. A register
    that a function's kind does not see (`visible`) reads as 0 there and ignores writes. The two dwords of a 64-bit
    register (`width=8`, storage only) may be accessed one by one. `mask` are the bits that writes can change, by
    default all.
    """

    name: str
    offset: int
    reset: int = 0
    access: str = RW
    mask: int = -1
    read: Callable[[], int] | None = None
    write: Callable[[int], None] | None = None
    fields: Mapping[str, tuple[int, int]] = field(default_factory=dict)
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
        for name, (high, low) in self.fields.items():
            if not 0 <= low <= high < self.width * 8:
                raise ValueError(f"register {self.name}: field {name} is ({high}, {low}), not (high, low) bits of it")

    def decode(self, value: int) -> dict[str, int]:
        """The fields of `value` by name."""
        return {name: value >> low & ((2 << high - low) - 1) for name, (high, low) in self.fields.items()}


@dataclass(slots=True)
class Unmodelled:
    """Accesses to an offset that no block declares."""

    offset: int
    reads: int = 0
    writes: int = 0
    first_value: int = 0
    """The first value written, or read when it was never written."""


class ReadWatch:
    """The values that reads of one register returned while it was watched."""

    __slots__ = ("_reader", "all_ones", "all_zeros", "last", "reads")

    def __init__(self, reader: Callable[[], int]) -> None:
        self.reads = 0
        self.last = 0
        self.all_ones = _ALL
        """Bits that were 1 in every read."""
        self.all_zeros = _ALL
        """Bits that were 0 in every read."""
        self._reader = reader

    def __call__(self) -> int:
        value = self._reader()
        self.last = value
        self.all_ones &= value
        self.all_zeros &= ~value
        self.reads += 1
        return value


class RegisterFile:
    """The registers of one function's window: `size` bytes, little endian, accessed by 1, 2, 4 or 8 bytes.

    Accesses come from the function's transport thread while models change registers from theirs: change single bits
    with `update`, which cannot lose a guest's write to other bits of the same register.
    """

    def __init__(self, name: str, size: int, kind: str = PF) -> None:
        """`kind` is `PF` or `VF`: it picks which registers are visible. `size` is a multiple of 4."""
        if size <= 0 or size % 4:
            raise ValueError(f"register file {name}: size {size:#x} is not a positive multiple of 4")
        self.name = name
        self.size = size
        self.kind = kind
        self.tap = Tap("mmio", "registers read and written, by name")
        """Told of every dword: accesses of 8 bytes as two of 4, those of 1 or 2 bytes as the dword around them."""
        self.registers: dict[int, Register] = {}
        self.unmodelled: dict[int, Unmodelled] = {}
        self.unmodelled_storage = True
        """Whether undeclared offsets store what is written (a PF) or read as 0 (a VF, whose window is small)."""
        self.reads = 0
        self.writes = 0
        self.last_read = -1
        """Offset of the last 32-bit read: with `reads` growing and this standing still, the guest polls it."""
        self._readers: dict[int, Callable[[], int]] = {}
        self._writers: dict[int, Callable[[int], None]] = {}
        self._plain: list[tuple[str, int, int]] = []
        self._lock = threading.Lock()
        self._bytes = memoryview(bytearray(size))
        self._storage = self._bytes.cast("I")

    def add(self, registers: Iterable[Register]) -> None:
        """Declare `registers`.

        Raises:
            ValueError: a register is outside the file, or at an offset that is taken.
        """
        for register in registers:
            if register.offset < 0 or register.offset + register.width > self.size:
                raise ValueError(f"{self.name}: register {register.name} at {register.offset:#x} is outside the file")
            for offset in range(register.offset, register.offset + register.width, 4):
                if offset in self.registers:
                    taken = self.registers[offset].name
                    raise ValueError(f"{self.name}: {register.name} and {taken} are both at {offset:#x}")
                self.registers[offset] = register
                self._compile(register, offset)
                self._reset(register)

    def add_storage(self, name: str, offset: int, length: int) -> memoryview:
        """Declare `[offset, offset + length)` (multiples of 4) as plain storage, not worth reporting; returns it.

        Raises:
            ValueError: the offset is outside the file.
        """
        if offset < 0 or length <= 0 or offset + length > self.size or offset % 4 or length % 4:
            raise ValueError(
                f"{self.name}: storage {name} [{offset:#x}, +{length:#x}) is outside the file or unaligned"
            )
        self._plain.append((name, offset, offset + length))
        return self._bytes[offset : offset + length]

    def reset(self) -> None:
        """All declared registers to their reset values, all other storage to 0. Hooks are not called."""
        with self._lock:
            self._bytes[:] = bytes(self.size)
            for register in self.registers.values():
                self._reset(register)

    def by_name(self, name: str) -> Register:
        """The register called `name`, in any case. Raises KeyError with near names."""
        names: dict[str, Register] = {}
        for register in self.registers.values():
            names.setdefault(register.name.lower(), register)
        if name.lower() in names:
            return names[name.lower()]
        near = [r.name for key, r in names.items() if name.lower() in key][:8]
        near = near or [names[key].name for key in difflib.get_close_matches(name.lower(), names, n=4)]
        raise KeyError(f"{self.name} has no register {name!r}" + (f"; similar: {', '.join(near)}" if near else ""))

    def name_of(self, offset: int) -> str:
        """The register's name at `offset`, or that of plain storage and the distance, or the offset in hexadecimal."""
        offset &= ~3
        register = self.registers.get(offset)
        if register:
            return register.name if offset == register.offset else f"{register.name}+4"
        for name, start, end in self._plain:
            if start <= offset < end:
                return f"{name}+{offset - start:#x}"
        return f"{offset:#x}"

    def peek(self, offset: int) -> int:
        """The stored dword at `offset` (a multiple of 4): no hook, nothing counted."""
        return self._storage[offset >> 2]

    def poke(self, offset: int, value: int) -> None:
        """Store a dword at `offset`: how a model changes what a register reads as. No hook, nothing counted."""
        self._storage[offset >> 2] = value & _ALL

    def update(self, offset: int, *, set: int = 0, clear: int = 0) -> int:
        """Clear, then set, bits of the stored dword at `offset`, and return it. No hook, nothing counted.

        In one step for all who change bits: other updates, and writes with an access other than plain RW.
        """
        with self._lock:
            value = self._storage[offset >> 2] & ~clear & _ALL | set
            self._storage[offset >> 2] = value
        return value

    def describe(self, offset: int, value: int) -> dict[str, str | int]:
        """An access in names: the register, its offset, the value, and the fields of it that are not 0."""
        register = self.registers.get(offset)
        fields: dict[str, str | int] = {"register": self.name_of(offset), "offset": offset, "value": value}
        if register is not None and register.fields and offset == register.offset:
            fields |= {name: part for name, part in register.decode(value).items() if part}
        return fields

    def watch(self, offset: int) -> ReadWatch:
        """Record what reads of the dword at `offset` return, until `unwatch`."""
        reader = self._readers.get(offset) or (lambda: self._read_unmodelled(offset))
        watch = reader if isinstance(reader, ReadWatch) else ReadWatch(reader)
        self._readers[offset] = watch
        return watch

    def unwatch(self, offset: int) -> None:
        """End what `watch` began."""
        reader = self._readers.get(offset)
        if isinstance(reader, ReadWatch):
            if offset in self.registers:
                self._readers[offset] = reader._reader
            else:
                del self._readers[offset]

    # The access path: called by the transport for every trapped access.

    def read(self, offset: int, size: int) -> int:
        """The value of an aligned access of 1, 2, 4 or 8 bytes."""
        if size == 4:
            self.reads += 1
            self.last_read = offset
            reader = self._readers.get(offset)
            value = reader() if reader is not None else self._read_unmodelled(offset)
            if self.tap.on:
                self.tap(self.name, "read", partial(self.describe, offset, value))
            return value
        if size == 8:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        shift = (offset & 3) * 8
        return (self.read(offset & ~3, 4) >> shift) & ((1 << size * 8) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Store an aligned access of 1, 2, 4 or 8 bytes."""
        if size == 4:
            self.writes += 1
            if self.tap.on:
                # Before the hook, so that what the write causes comes after it in a trace.
                self.tap(self.name, "write", partial(self.describe, offset, value))
            writer = self._writers.get(offset)
            if writer is not None:
                writer(value)
            else:
                self._write_unmodelled(offset, value)
        elif size == 8:
            self.write(offset, 4, value & _ALL)
            self.write(offset + 4, 4, value >> 32)
        else:
            base, shift = offset & ~3, (offset & 3) * 8
            lane = ((1 << size * 8) - 1) << shift
            register = self.registers.get(base)
            # Bytes that were not written must not trigger write-1 semantics.
            keep = self._storage[base >> 2] & ~lane if register is None or register.access == RW else 0
            self.write(base, 4, keep | (value << shift & lane))

    def _read_unmodelled(self, offset: int) -> int:
        value = self._storage[offset >> 2]
        for _, start, end in self._plain:
            if start <= offset < end:
                return value
        record = self.unmodelled.get(offset)
        if record is None:
            record = self.unmodelled[offset] = Unmodelled(offset, first_value=value)
        record.reads += 1
        return value

    def _write_unmodelled(self, offset: int, value: int) -> None:
        for _, start, end in self._plain:
            if start <= offset < end:
                self._storage[offset >> 2] = value
                return
        record = self.unmodelled.get(offset)
        if record is None:
            record = self.unmodelled[offset] = Unmodelled(offset, first_value=value)
        record.writes += 1
        if self.unmodelled_storage:
            self._storage[offset >> 2] = value

    def _reset(self, register: Register) -> None:
        self._storage[register.offset >> 2] = register.reset & _ALL
        if register.width == 8:
            self._storage[(register.offset >> 2) + 1] = register.reset >> 32

    def _compile(self, register: Register, offset: int) -> None:
        """One closure a direction, so that an access costs a look-up and a call."""
        readers, writers = self._readers, self._writers
        if self.kind not in register.visible:
            readers[offset] = lambda: 0
            writers[offset] = lambda value: None
            return
        storage, index = self._storage, offset >> 2
        readers[offset] = register.read or (lambda: storage[index])
        mask = register.mask >> (offset - register.offset) * 8 & _ALL
        store = _STORES[register.access](storage, index, mask, self._lock)
        hook = register.write
        if hook is None:
            writers[offset] = store
        elif register.access == RO:
            writers[offset] = hook
        else:

            def store_then_hook(value: int) -> None:
                store(value)
                hook(value)

            writers[offset] = store_then_hook


Store = Callable[[int], None]


def _store_rw(storage: memoryview, index: int, mask: int, lock: threading.Lock) -> Store:
    if mask == _ALL:

        def store_all(value: int) -> None:
            storage[index] = value

        return store_all

    def store(value: int) -> None:
        with lock:
            storage[index] = (storage[index] & ~mask) | (value & mask)

    return store


def _store_ro(storage: memoryview, index: int, mask: int, lock: threading.Lock) -> Store:
    return lambda value: None


def _store_w1c(storage: memoryview, index: int, mask: int, lock: threading.Lock) -> Store:
    def store(value: int) -> None:
        with lock:
            storage[index] &= ~(value & mask) & _ALL

    return store


def _store_w1s(storage: memoryview, index: int, mask: int, lock: threading.Lock) -> Store:
    def store(value: int) -> None:
        with lock:
            storage[index] |= value & mask

    return store


def _store_masked(storage: memoryview, index: int, mask: int, lock: threading.Lock) -> Store:
    def store(value: int) -> None:
        change = value >> 16 & mask
        with lock:
            storage[index] = (storage[index] & 0xFFFF & ~change) | (value & change)

    return store


_STORES: dict[str, Callable[[memoryview, int, int, threading.Lock], Store]] = {
    RW: _store_rw,
    RO: _store_ro,
    W1C: _store_w1c,
    W1S: _store_w1s,
    MASKED: _store_masked,
}
