"""`fault`: another interconnect that breaks: it fails, corrupts what is read, or loses its path in the middle of its use.

The fault is a fault point of the card ("interconnect.fault"): options arm it when the card starts, and the control socket's
`inject` and `heal` at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emulator.card import Card, Option
from emulator.interconnect import AccessFault, Window
from plugins.wrapping import WRAPPER_OPTIONS, WatchedWindow, Wrapper

FAIL, CORRUPT, REVOKE = "fail", "corrupt", "revoke"
_CORRUPTION = 0xA5


class Fault(Wrapper):
    """Another interconnect that fails, corrupts or is revoked after some accesses, or at a page."""

    OPTIONS: tuple[Option, ...] = (
        *WRAPPER_OPTIONS,
        Option("mode", "str", FAIL, "what happens", choices=(FAIL, CORRUPT, REVOKE)),
        Option("after", "int", 0, "accesses that pass before it happens", minimum=0),
        Option("times", "int", 1, "how often it happens; 0: from then on always", minimum=0),
        Option("page", "int", -1, "only at the 4 KiB page of this number in the initiator's space; -1: anywhere"),
        Option("armed", "bool", True, "whether it is armed when the card starts"),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        super().__init__("fault", card, options)
        self.mode: str = options["mode"]
        self.page: int = options["page"]
        self.point = card.faults.point("interconnect.fault", f"an access over {self.inner.name}: {self.mode}")
        if options["armed"]:
            self.point.arm(options["after"], options["times"])

    def wrap(self, window: Window, write: bool) -> Window:
        return _Breaking(window, self)


class _Breaking(WatchedWindow):
    __slots__ = ("_corrupt", "_link")

    def __init__(self, inner: Window, link: Fault) -> None:
        super().__init__(inner)
        self._link = link
        self._corrupt = False

    def before(self, offset: int, length: int, write: bool) -> None:
        link = self._link
        if link.page >= 0:
            first, last = (self.address + offset) >> 12, (self.address + offset + length - 1) >> 12
            if not first <= link.page <= last:
                return
        self._corrupt = False
        if not link.point.armed or (arguments := link.point.take()) is None:
            return
        mode = arguments.get("mode", link.mode)
        if mode == CORRUPT:
            self._corrupt = True
            return
        if mode == REVOKE:
            self.valid = False
        reason = "the path was revoked (injected)" if mode == REVOKE else "the link failed (injected)"
        raise AccessFault(self.initiator, self.space, self.address + offset, reason)

    def after_read(self, offset: int, data: bytes) -> bytes:
        if not self._corrupt or not data:
            return data
        return bytes([data[0] ^ _CORRUPTION]) + data[1:]
