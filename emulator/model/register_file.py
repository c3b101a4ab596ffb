"""The register file: the registers of one function's window, compiled into one dictionary look-up an access.

Offsets that nobody declared behave as plain storage and are counted: the list of them (`unmodelled`) is the burn-down of a
device under construction. So are writes that set bits which are declared as reserved or not modelled (`unmodelled_bits`).
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable
from functools import partial

from vfio_user_xe.emulator.model.register_stores import STORES
from vfio_user_xe.emulator.model.register_use import ReadWatch, Unmodelled, UnmodelledBits
from vfio_user_xe.emulator.model.registers import MASKED, PF, RO, RW, Register
from vfio_user_xe.emulator.observe.tap import Tap

_ALL = 0xFFFFFFFF


class RegisterFile:
    """The registers of one function's window: `size` bytes, little endian, accessed by 1, 2, 4 or 8 bytes.

    Accesses come from the function's transport thread while models change registers from theirs: change single bits
    with `update`, which cannot lose a guest's write to other bits of the same register.
    """

    def __init__(self, name: str, size: int, kind: str = PF) -> None:
        """`kind` is `PF` or `VF`: it picks which registers are visible. `size` is a multiple of 4.

        Raises:
            ValueError: `size` is not a positive multiple of 4.

        From any thread.
        """
        if size <= 0 or size % 4:
            raise ValueError(f"register file {name}: size {size:#x} is not a positive multiple of 4")
        self.name = name
        self.size = size
        self.kind = kind
        self.tap = Tap("mmio", "registers read and written, by name")
        """Told of every dword: accesses of 8 bytes as two of 4, those of 1 or 2 bytes as the dword around them."""
        self.registers: dict[int, Register] = {}
        self.unmodelled: dict[int, Unmodelled] = {}
        self.unmodelled_bits: dict[int, UnmodelledBits] = {}
        """Writes of bits that are reserved or not modelled, by the offset of the dword."""
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

        While the card is made.
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
            ValueError: the range is outside the file, or `offset` or `length` is not a multiple of 4.

        While the card is made.
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
        """The register called `name`; upper and lower case do not matter.

        Raises:
            KeyError: there is none; the message lists similar names.

        From any thread.
        """
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

    def describe(self, offset: int, value: int, written: bool = False) -> dict[str, str | int]:
        """An access in names: the register, its offset, the value, and the fields of it that are not 0.

        `written`: `value` is what a write brought, so of a MASKED register the fields that it selects count.
        """
        register = self.registers.get(offset)
        shown: dict[str, str | int] = {"register": self.name_of(offset), "offset": offset, "value": value}
        if register is not None and register.fields:
            value <<= 8 * (offset - register.offset)
            shown |= register.written(value) if written else register.shown(value)
        return shown

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
                self._readers[offset] = reader.reader
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
                self.tap(self.name, "write", partial(self.describe, offset, value, True))
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
        store = STORES[register.access](storage, index, mask, self._lock)
        hook = register.write
        writer = store
        if hook is not None and register.access == RO:
            writer = hook
        elif hook is not None:
            writer = _both(store, hook)
        watched = register.unmodelled_bits >> (offset - register.offset) * 8 & _ALL
        if watched and register.access == MASKED:
            writer = self._noting_masked(offset, watched, writer)
        elif watched:
            writer = self._noting(offset, watched, writer)
        writers[offset] = writer

    def _noting(self, offset: int, watched: int, writer: Callable[[int], None]) -> Callable[[int], None]:
        def note_then_write(value: int) -> None:
            if value & watched:
                self._note(offset, value & watched, value)
            writer(value)

        return note_then_write

    def _noting_masked(self, offset: int, watched: int, writer: Callable[[int], None]) -> Callable[[int], None]:
        def note_then_write(value: int) -> None:
            if value & watched & value >> 16:
                self._note(offset, value & watched & value >> 16, value)
            writer(value)

        return note_then_write

    def _note(self, offset: int, bits: int, value: int) -> None:
        record = self.unmodelled_bits.get(offset)
        if record is None:
            record = self.unmodelled_bits[offset] = UnmodelledBits(offset, first_value=value)
        record.writes += 1
        record.bits |= bits


def _both(store: Callable[[int], None], hook: Callable[[int], None]) -> Callable[[int], None]:
    def store_then_hook(value: int) -> None:
        store(value)
        hook(value)

    return store_then_hook
