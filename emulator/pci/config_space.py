"""Configuration space: 4096 bytes whose every bit knows how a write changes it.

It is built from declared `ConfigRegister`s and answers region 7. What is not declared reads as 0 and ignores writes.
Changes take effect at once, inside the access; callbacks of registers run there too, so they store or queue and
never wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vfio_user_xe.emulator.observe.tap import Tap

COMMAND = 0x04
"""Offset of the command register."""
COMMAND_MEMORY = 0x2
"""Its bit for memory BARs."""
COMMAND_MASTER = 0x4
"""Its bit for DMA and message signalled interrupts."""
CONFIG_SIZE = 4096
EXTENDED_START = 0x100

_SHOWN = 64
"""Bytes of a block that a trace shows."""

WriteHook = Callable[[int, int], None]
"""`(old, written)`: the register before the write, and the value written (bytes that were not written as before)."""


@dataclass(frozen=True, slots=True)
class ConfigRegister:
    """One field of configuration space, 1 to 8 bytes at `offset` (bytes from the start of its capability).

    Bits of `writable` are replaced by a write, bits of `w1c` cleared by writing 1, all others read-only. Bits of
    `sticky` keep their value over a function level reset (PCIe base spec, "ROS, RWS, RW1CS"). `write(old, written)`
    is called after the bits changed.
    """

    name: str
    offset: int
    size: int
    reset: int = 0
    writable: int = 0
    w1c: int = 0
    sticky: int = 0
    write: WriteHook | None = None

    def __post_init__(self) -> None:
        if self.size not in (1, 2, 3, 4, 8):
            raise ValueError(f"config register {self.name}: size {self.size} is none of 1, 2, 3, 4, 8")
        limit = (1 << self.size * 8) - 1
        for what, bits in (("reset", self.reset), ("writable", self.writable), ("w1c", self.w1c)):
            if bits & ~limit or bits < 0:
                raise ValueError(f"config register {self.name}: {what} {bits:#x} has more than {self.size} bytes")
        if self.writable & self.w1c:
            raise ValueError(f"config register {self.name}: bits {self.writable & self.w1c:#x} are both RW and W1C")


class ConfigSpace:
    """The configuration space of one function; an `AccessHandler` for region 7.

    `disguise` hides an extended capability from a client that reads all 4096 bytes at once and decides from them
    what to show its guest, as QEMU does (docs/hardware/pci.md); every other read tells the truth.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tap = Tap("config", "configuration space read and written")
        """Told of every access of a client; not of `peek` and `poke`."""
        self.registers: dict[int, ConfigRegister] = {}
        """By absolute offset of the first byte."""
        self._data = bytearray(CONFIG_SIZE)
        self._reset = bytearray(CONFIG_SIZE)
        self._writable = bytearray(CONFIG_SIZE)
        self._w1c = bytearray(CONFIG_SIZE)
        self._sticky = bytearray(CONFIG_SIZE)
        self._owner: list[str | None] = [None] * CONFIG_SIZE
        self._watches: dict[int, list[_Watch]] = {}
        self._disguised: dict[int, int] = {}

    def add(self, registers: Iterable[ConfigRegister], base: int = 0, owner: str = "header") -> None:
        """Declare `registers` at `base`.

        Raises:
            ValueError: a register is outside the space, or at bytes that are taken.

        While the card is made.
        """
        for register in registers:
            offset = base + register.offset
            self.claim(offset, register.size, f"{owner} {register.name}")
            self.registers[offset] = register
            self._put(self._reset, offset, register.size, register.reset)
            self._put(self._data, offset, register.size, register.reset)
            self._put(self._writable, offset, register.size, register.writable)
            self._put(self._w1c, offset, register.size, register.w1c)
            self._put(self._sticky, offset, register.size, register.sticky)
            if register.write is not None:
                self.watch(offset, register.size, register.write)

    def claim(self, offset: int, length: int, owner: str) -> None:
        """Take `[offset, offset + length)` for `owner`.

        Raises:
            ValueError: Somebody has a byte of it already, whom the message names, or it is outside of configuration space.

        While the card is made, before it starts.
        """
        if offset < 0 or length <= 0 or offset + length > CONFIG_SIZE:
            raise ValueError(
                f"{self.name}: {owner} at [{offset:#x}, {offset + length:#x}) is outside of [0x0, {CONFIG_SIZE:#x})"
            )
        for byte in range(offset, offset + length):
            if self._owner[byte] is not None:
                raise ValueError(
                    f"{self.name}: {owner} at [{offset:#x}, {offset + length:#x}) overlaps {self._owner[byte]}"
                    f" at {byte:#x}"
                )
        self._owner[offset : offset + length] = [owner] * length

    def owner(self, offset: int) -> str | None:
        """Whose byte `offset` is: a capability and register, or None."""
        return self._owner[offset]

    def watch(self, offset: int, size: int, callback: WriteHook) -> None:
        """Call `callback(old, written)` after every write that touches `[offset, offset + size)`."""
        watch = _Watch(offset, size, callback)
        for byte in range(offset, offset + size):
            self._watches.setdefault(byte, []).append(watch)

    def disguise(self, header: int, capability_id: int) -> None:
        """Show `capability_id` in the extended capability header at `header` to reads of the whole space at once."""
        self._disguised[header] = capability_id

    def set_writable(self, offset: int, size: int, mask: int) -> None:
        """Change which bits a write replaces: registers that another one locks."""
        self._put(self._writable, offset, size, mask)

    def peek(self, offset: int, size: int) -> int:
        """The stored value; any size, any alignment."""
        return int.from_bytes(self._data[offset : offset + size], "little")

    def poke(self, offset: int, size: int, value: int) -> None:
        """Store a value without regard to the masks, and call no callbacks: a model changes what is read."""
        self._put(self._data, offset, size, value)

    def reset(self, *, keep_sticky: bool = False) -> None:
        """Everything to its reset value; with `keep_sticky` (a function level reset) all but the sticky bits.

        Callbacks are not called. Locked registers (`set_writable`) stay locked until their owner unlocks them.
        """
        if keep_sticky:
            data, reset, sticky = self._data, self._reset, self._sticky
            data[:] = bytes((d & s) | (r & ~s) for d, r, s in zip(data, reset, sticky, strict=True))
        else:
            self._data[:] = self._reset

    # Region 7.

    def read(self, offset: int, size: int) -> int:
        """The value of 1 to 8 bytes."""
        value = int.from_bytes(self._data[offset : offset + size], "little")
        if self.tap.on:
            self.tap(self.name, "read", {"offset": offset, "size": size, "value": value})
        return value

    def read_block(self, offset: int, length: int) -> bytes:
        """Any number of bytes; all 4096 at once come with the disguise on."""
        block = self._data[offset : offset + length]
        if offset == 0 and length == CONFIG_SIZE:
            for header, capability_id in self._disguised.items():
                self._put(block, header, 2, capability_id)
        if self.tap.on:
            more = "..." if length > _SHOWN else ""
            shown = {"offset": offset, "size": length, "data": block[:_SHOWN].hex() + more}
            self.tap(self.name, "read-block", shown)
        return bytes(block)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write 1 to 8 bytes through the masks, then call the watchers of what was touched."""
        if self.tap.on:
            self.tap(self.name, "write", {"offset": offset, "size": size, "value": value})
        watches = self._watches
        touched: list[tuple[_Watch, int]] = []
        for byte in range(offset, offset + size):
            for watch in watches.get(byte, ()):
                if all(watch is not known for known, _ in touched):
                    touched.append((watch, self.peek(watch.offset, watch.size)))
        data = self._data
        raw = (value & ((1 << size * 8) - 1)).to_bytes(size, "little")
        for byte, new in enumerate(raw, offset):
            mask = self._writable[byte]
            data[byte] = (data[byte] & ~mask & ~(self._w1c[byte] & new) & 0xFF) | (new & mask)
        for watch, old in touched:
            written = bytearray(old.to_bytes(watch.size, "little"))
            first, last = max(offset, watch.offset), min(offset + size, watch.offset + watch.size)
            written[first - watch.offset : last - watch.offset] = raw[first - offset : last - offset]
            watch.callback(old, int.from_bytes(written, "little"))

    @staticmethod
    def _put(target: bytearray, offset: int, size: int, value: int) -> None:
        target[offset : offset + size] = (value & ((1 << size * 8) - 1)).to_bytes(size, "little")


@dataclass(frozen=True, slots=True)
class _Watch:
    offset: int
    size: int
    callback: WriteHook
