"""The owners of a card's memory, as text and as a picture, from the command `vram_map`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vfio_user_xe.emulator.model.options import format_size
from vfio_user_xe.emulator.observe.png import png

COLUMNS = 64
_ROWS = 32
_LETTERS = "123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ*"
_SCALE = 10
_BACKGROUND = (0xF4, 0xF4, 0xF0)
_GAP = (0xFF, 0xFF, 0xFF)
_COLOURS = (
    (0x1F, 0x77, 0xB4),
    (0xFF, 0x7F, 0x0E),
    (0x2C, 0xA0, 0x2C),
    (0xD6, 0x27, 0x28),
    (0x94, 0x67, 0xBD),
    (0x8C, 0x56, 0x4B),
    (0xE3, 0x77, 0xC2),
    (0x17, 0xBE, 0xCF),
    (0xBC, 0xBD, 0x22),
)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class MemoryMap:
    """`size` bytes, of which others than the PF have some: (start, length) in bytes by name, in order."""

    size: int
    owners: Mapping[str, Sequence[tuple[int, int]]]

    @property
    def step(self) -> int:
        """Bytes that one cell of the map stands for."""
        step = 1 << 21
        while step * COLUMNS * _ROWS < self.size:
            step *= 2
        return step

    def cells(self) -> list[int]:
        """For each step the number of the owner that has most of it: 0 none (the PF), 1 the first owner, ..."""
        step = self.step
        most = [(0, 0)] * -(-self.size // step)
        for number, ranges in enumerate(self.owners.values(), 1):
            shares: dict[int, int] = {}
            for start, length in ranges:
                for cell in range(start // step, -(-(start + length) // step)):
                    low, high = max(start, cell * step), min(start + length, (cell + 1) * step)
                    shares[cell] = shares.get(cell, 0) + high - low
            for cell, share in shares.items():
                most[cell] = max(most[cell], (share, number))
        return [number for _, number in most]

    def text(self) -> str:
        """A line for each row of cells, and who is who."""
        cells = self.cells()
        lines = [f"{format_size(self.size)}; a character is {format_size(self.step)}; . is the PF's"]
        for start in range(0, len(cells), COLUMNS):
            row = "".join(_letter(number) if number else "." for number in cells[start : start + COLUMNS])
            lines.append(f"{start * self.step:#14x}  {row}")
        for number, (name, ranges) in enumerate(self.owners.items(), 1):
            places = ", ".join(f"[{start:#x}, {start + length:#x})" for start, length in ranges)
            total = format_size(sum(length for _, length in ranges))
            lines.append(f"{_letter(number)}  {name}: {total} in {places}")
        return "\n".join(lines) + "\n"

    def png(self) -> bytes:
        """A picture: a square a cell, row by row as in `text`, a colour an owner."""
        cells = self.cells()
        rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
        width, height = COLUMNS * _SCALE, len(rows) * _SCALE
        lines = []
        for row in rows:
            colours = [_colour(number) for number in row] + [_GAP] * (COLUMNS - len(row))
            edge = bytes(_GAP)
            line = b"".join(bytes(colour) * (_SCALE - 1) + edge for colour in colours)
            lines += [line] * (_SCALE - 1) + [edge * width]
        return png(width, height, b"".join(lines))


def _letter(number: int) -> str:
    return _LETTERS[min(number, len(_LETTERS)) - 1]


def _colour(number: int) -> Colour:
    return _COLOURS[(number - 1) % len(_COLOURS)] if number else _BACKGROUND
