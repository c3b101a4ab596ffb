"""Fault injection: places where a device model can be told to fail, armed over the control socket.

self._lose = card.faults.point("firmware.lose_reply", "drop a message instead of sending it")
...
if self._lose.armed and self._lose.take() is not None:
    return
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.model.options import UnknownName


class FaultPoint:
    """One place where something can go wrong. Look at `armed` first: it is all that costs when nothing is injected."""

    __slots__ = ("_after", "_lock", "_times", "arguments", "armed", "help", "name", "taken")

    def __init__(self, name: str, help: str) -> None:
        self.name = name
        self.help = help
        self.armed = False
        self.arguments: Mapping[str, Any] = {}
        self.taken = 0
        """How often the fault happened since it was armed."""
        self._after = 0
        self._times = 0
        self._lock = threading.Lock()

    def take(self) -> Mapping[str, Any] | None:
        """The fault's arguments when it is to happen now, else None. From any thread."""
        with self._lock:
            if not self.armed:
                return None
            if self._after:
                self._after -= 1
                return None
            self.taken += 1
            if self._times:
                self._times -= 1
                self.armed = self._times > 0
            return self.arguments

    def arm(self, after: int = 0, times: int = 1, arguments: Mapping[str, Any] | None = None) -> None:
        """Let the fault happen `times` times (0: always) after `after` chances have passed.

        Raises:
            ValueError: `after` or `times` is negative.

        From any thread.
        """
        if after < 0 or times < 0:
            raise ValueError(f"fault {self.name}: after and times must not be negative")
        with self._lock:
            self._after, self._times, self.arguments, self.taken = after, times, dict(arguments or {}), 0
            self.armed = True

    def disarm(self) -> None:
        """Let it not happen any more."""
        with self._lock:
            self.armed = False

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for the control socket."""
        return {"name": self.name, "help": self.help, "armed": self.armed, "taken": self.taken}


class Faults:
    """A card's fault points by name."""

    def __init__(self) -> None:
        self._points: dict[str, FaultPoint] = {}

    def point(self, name: str, help: str) -> FaultPoint:
        """The point `name`, made at its first use."""
        return self._points.setdefault(name, FaultPoint(name, help))

    def __getitem__(self, name: str) -> FaultPoint:
        """The point `name`.

        Raises:
            UnknownName: There is none (a KeyError); the message lists the points there are.

        From any thread.
        """
        if name not in self._points:
            raise UnknownName(name, "fault", self._points)
        return self._points[name]

    def as_list(self) -> list[dict[str, Any]]:
        """Every point as plain data, by name."""
        return [self._points[name].as_dict() for name in sorted(self._points)]

    def clear(self) -> None:
        """Disarm all."""
        for point in self._points.values():
            point.disarm()
