"""A recording without bytes of others, such as firmware that a driver uploads, which may not be passed on.

Wherever the recording has a stretch of a file's content, it is set to zero, except for the few bytes without which the
card does not do as recorded. Which those are is found by trying: halves of what is left, as long as a replay differs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vfio_user_xe.emulator.recording import format as rec
from vfio_user_xe.emulator.recording.format import Event, Recording, RecordingError
from vfio_user_xe.emulator.recording.player import replay

_CHUNK = 64
"""Bytes that must be the same to be called the file's."""
_PIECE = 8
_ORDINARY = 3
"""A chunk of fewer different bytes proves nothing: zeros, a pattern."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Bytes `[start, end)` of an event's data."""

    event: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Redaction:
    """What was found of the files: bytes in all, and how many of them had to stay, with where they stand."""

    found: int
    kept: int
    kept_at: list[tuple[int, int, bytes]]
    """Event, offset in its data, the bytes."""
    replays: int


def redact(path: Path, files: Sequence[bytes], target: Path) -> Redaction:
    """Write the recording at `path` to `target` without the content of `files`.

    Register values are left alone: a file that is uploaded through registers is not found.

    Raises:
        RecordingError: the recording cannot be replayed as it is.
        OSError: a file cannot be read or written.
    """
    recording = Recording(path)
    first = replay(path)
    if first.difference is not None:
        raise RecordingError(f"{path}: does not replay: {first.difference}")
    chunks = {
        chunk
        for content in files
        for at in (*range(0, len(content) - _CHUNK + 1, _PIECE), max(0, len(content) - _CHUNK))
        if len(set(chunk := content[at : at + _CHUNK])) >= _ORDINARY
    }
    events = list(recording.events())
    pieces = [
        _Stretch(event.number, at, min(at + _PIECE, end))
        for event in events
        for start, end in _found(event, chunks)
        for at in range(start, end, _PIECE)
    ]
    search = _Search(path, events)
    # What a model logs about firmware that is not there: most of the replays are meant to fail.
    before = logging.root.manager.disable
    logging.disable()
    try:
        gone = search.removable(pieces, [])
    finally:
        logging.disable(before)
    removed = {(piece.event, piece.start) for piece in gone}
    with rec.create(target) as file:
        rec.write_header(file, recording.header)
        for event in _zeroed(events, gone):
            rec.write_event(file, event)
    by_number = {event.number: event for event in events}
    kept = [
        (piece.event, piece.start, by_number[piece.event].data[piece.start : piece.end])
        for piece in pieces
        if (piece.event, piece.start) not in removed
    ]
    return Redaction(sum(p.end - p.start for p in pieces), sum(len(k[2]) for k in kept), kept, search.replays)


class _Search:
    def __init__(self, path: Path, events: list[Event]) -> None:
        self._path = path
        self._events = events
        self.replays = 0

    def removable(self, pieces: list[_Stretch], gone: list[_Stretch]) -> list[_Stretch]:
        """`gone` and those of `pieces` that can go with it."""
        if not pieces or self._same(gone + pieces):
            return gone + pieces
        if len(pieces) == 1:
            return gone
        middle = len(pieces) // 2
        return self.removable(pieces[middle:], self.removable(pieces[:middle], gone))

    def _same(self, gone: list[_Stretch]) -> bool:
        self.replays += 1
        return replay(self._path, _zeroed(self._events, gone)).difference is None


def _found(event: Event, chunks: set[bytes]) -> Iterator[tuple[int, int]]:
    """Stretches of an event's data that are made of `chunks`."""
    if event.kind not in (rec.MEMORY, rec.DMA_READ, rec.DMA_WRITE) or len(event.data) < _CHUNK:
        return
    start = end = -1
    for at in range(0, len(event.data) - _CHUNK + 1, 4):
        if event.data[at : at + _CHUNK] not in chunks:
            continue
        if start >= 0 and at > end:
            yield start, end
            start = at
        if start < 0:
            start = at
        end = at + _CHUNK
    if start >= 0:
        yield start, end


def _zeroed(events: list[Event], gone: list[_Stretch]) -> Iterator[Event]:
    by_event: dict[int, list[_Stretch]] = {}
    for stretch in gone:
        by_event.setdefault(stretch.event, []).append(stretch)
    for event in events:
        stretches = by_event.get(event.number)
        if not stretches:
            yield event
            continue
        data = bytearray(event.data)
        for stretch in stretches:
            data[stretch.start : stretch.end] = bytes(stretch.end - stretch.start)
        yield replace(event, data=bytes(data))
