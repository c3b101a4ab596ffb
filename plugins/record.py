"""`record`: another interconnect whose accesses are written to a file, a JSON line each.

A line has the time in seconds since the card was made, initiator, owner, interconnect, kind, "r" or "w", address in the
initiator's space, and length in bytes; with `data`, also the bytes in hexadecimal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import Window
from vfio_user_xe.emulator.model.card import Card, CardError, Option
from vfio_user_xe.plugins.wrapping import WRAPPER_OPTIONS, WatchedWindow, Wrapper


class Record(Wrapper):
    """Another interconnect whose accesses are written to a file."""

    OPTIONS: tuple[Option, ...] = (
        *WRAPPER_OPTIONS,
        Option("file", "str", "accesses.jsonl", "where the accesses go"),
        Option("data", "bool", False, "also what was read and written"),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        super().__init__("record", card, options)
        self.data = bool(options["data"])
        self._start = time.monotonic()
        try:
            self._file = open(options["file"], "w", encoding="utf-8")  # noqa: SIM115 - closed when the card stops
        except OSError as exc:
            raise CardError(f"cannot be written: {exc.strerror}", "file") from None
        card.on_stop.append(self._file.close)

    def wrap(self, window: Window, write: bool) -> Window:
        return _Recorded(window, self)

    def line(self, window: Window, access: str, offset: int, data: bytes | memoryview) -> None:
        """Write one access down."""
        entry = window.entry
        record: dict[str, Any] = {
            "time": round(time.monotonic() - self._start, 6),
            "initiator": entry.initiator,
            "owner": entry.owner,
            "interconnect": entry.interconnect,
            "kind": entry.kind,
            "access": access,
            "address": window.address + offset,
            "length": len(data),
        }
        if self.data:
            record["data"] = bytes(data).hex()
        self._file.write(json.dumps(record) + "\n")


class _Recorded(WatchedWindow):
    __slots__ = ("_recorder",)

    def __init__(self, inner: Window, recorder: Record) -> None:
        super().__init__(inner)
        self._recorder = recorder

    def after_read(self, offset: int, data: bytes) -> bytes:
        self._recorder.line(self, "r", offset, data)
        return data

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        super()._write(offset, data)
        self._recorder.line(self, "w", offset, data)
