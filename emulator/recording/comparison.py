"""What a device does to its guest, compared with what it did: guest memory and interrupts.

A device may do the same a little earlier or later than it did. So the two are compared whenever the device has nothing left
to do, and a difference is one only when it lasts until the end; what is reported is when it began.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.recording import format as rec
from vfio_user_xe.emulator.recording.guest import pieces


@dataclass(frozen=True, slots=True)
class Lasting:
    """A difference that has not gone since the event `since`."""

    since: int
    where: str
    expected: str
    got: str


class _Page:
    """The bytes that were written to a page of guest memory."""

    __slots__ = ("content", "telling", "written")

    def __init__(self) -> None:
        self.content = bytearray(PAGE_SIZE)
        self.written = bytearray(PAGE_SIZE)
        self.telling = bytearray()
        """Which bytes tell the time; empty: none ever did."""

    def write(self, start: int, data: bytes | memoryview, *, tells: bool = False) -> None:
        self.content[start : start + len(data)] = data
        self.written[start : start + len(data)] = b"\1" * len(data)
        if tells and not self.telling:
            self.telling = bytearray(PAGE_SIZE)
        if self.telling:
            self.telling[start : start + len(data)] = bytes((tells,)) * len(data)

    def difference(self, made: _Page) -> int | None:
        """The first byte that was written otherwise, where it does not tell the time; None: there is none."""
        if self.written == made.written and self.content == made.content:
            return None
        telling = made.telling or bytes(PAGE_SIZE)
        for at in range(PAGE_SIZE):
            same = self.content[at] == made.content[at] and self.written[at] == made.written[at]
            if not same and not (telling[at] and self.written[at]):
                return at
        return None

    def byte(self, offset: int) -> str:
        return f"{self.content[offset]:#04x}" if self.written[offset] else "not written"


_Pages = dict[tuple[int, int], _Page]
_Key = tuple[int, ...] | tuple[int, int, int, bytes]


class Comparison:
    """Both sides' writes and interrupts. Addresses are as events have them: signed."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names` are those of the functions."""
        self._names = names
        self._recorded: _Pages = {}
        self._made: _Pages = {}
        self._touched: set[tuple[int, int]] = set()
        self._different: dict[tuple[int, int], int] = {}
        """Pages, and since which event."""
        self._counts: dict[_Key, list[int]] = {}
        """Interrupts (function, index, vector) and large writes (function, address, length, digest): recorded, made."""
        self._counts_since: dict[_Key, int] = {}

    def write(self, function: int, address: int, data: bytes, *, made: bool, tells: bool = False) -> None:
        """A write to guest memory: `made` now, or recorded. Bytes that tell the time now may differ (`CardClock.telling`)."""
        pages = self._made if made else self._recorded
        for page, start, count, at in pieces(address, len(data)):
            key = (function, page)
            pages.setdefault(key, _Page()).write(start, data[at : at + count], tells=tells)
            self._touched.add(key)

    def write_large(self, function: int, address: int, length: int, digest: bytes, *, made: bool) -> None:
        """A write of which only a digest is kept."""
        self._counts.setdefault((function, address, length, digest), [0, 0])[made] += 1

    def interrupt(self, function: int, index: int, vector: int, *, made: bool) -> None:
        """A signal that was delivered."""
        self._counts.setdefault((function, index, vector), [0, 0])[made] += 1

    def look(self, event: int) -> bool:
        """Compare, because nothing was left to do at `event`; whether both sides are the same."""
        for key in self._touched:
            recorded, made = self._recorded.get(key), self._made.get(key)
            if recorded is not None and made is not None and recorded.difference(made) is None:
                self._different.pop(key, None)
            else:
                self._different.setdefault(key, event)
        self._touched.clear()
        self._counts_since = {
            key: self._counts_since.get(key, event)
            for key, (recorded, made) in self._counts.items()
            if recorded != made
        }
        return not self._different and not self._counts_since

    def lasting(self) -> list[Lasting]:
        """What is different as of the last look, the earliest first."""
        return sorted([*self._memory(), *self._counted()], key=lambda found: found.since)

    def _memory(self) -> Iterator[Lasting]:
        nothing = _Page()
        for key, since in self._different.items():
            recorded, made = self._recorded.get(key, nothing), self._made.get(key, nothing)
            offset = recorded.difference(made)
            if offset is None:
                continue  # written since the last look
            address = rec.unsigned(key[1] * PAGE_SIZE + offset)
            where = f"{self._names[key[0]]}: guest memory at {address:#x}"
            yield Lasting(since, where, recorded.byte(offset), made.byte(offset))

    def _counted(self) -> Iterator[Lasting]:
        for key, since in self._counts_since.items():
            recorded, made = self._counts[key]
            name = self._names[key[0]]
            if len(key) == 3:
                where = f"{name}: vector {key[2]} of interrupt index {key[1]}"
                yield Lasting(since, where, f"{recorded} in all", f"{made} signals in all")
            else:
                where = f"{name}: {key[2]} bytes of guest memory at {rec.unsigned(key[1]):#x}"
                yield Lasting(since, where, f"{recorded} times", f"written {made} times with the same bytes")
