"""`delay`: another interconnect, with a latency for every access and a bandwidth.

The card's executor waits, so everything else that runs there waits too: as if the link were what limits the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import sleep
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import Window
from vfio_user_xe.emulator.model.card import Card, Option
from vfio_user_xe.plugins.wrapping import WRAPPER_OPTIONS, WatchedWindow, Wrapper


class Delay(Wrapper):
    """Another interconnect, slower: a latency for every access, and a bandwidth."""

    OPTIONS: tuple[Option, ...] = (
        *WRAPPER_OPTIONS,
        Option("latency_us", "float", 10.0, "microseconds that every access takes", minimum=0, maximum=1e6),
        Option("bandwidth", "size", 0, "bytes a second; 0: no limit", minimum=0),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        super().__init__("delay", card, options)
        self.latency = float(options["latency_us"]) * 1e-6
        self.bandwidth = int(options["bandwidth"])

    def wrap(self, window: Window, write: bool) -> Window:
        return _Slow(window, self)


class _Slow(WatchedWindow):
    __slots__ = ("_link",)

    def __init__(self, inner: Window, link: Delay) -> None:
        super().__init__(inner)
        self._link = link

    def before(self, offset: int, length: int, write: bool) -> None:
        seconds = self._link.latency
        if self._link.bandwidth:
            seconds += length / self._link.bandwidth
        sleep(seconds)
