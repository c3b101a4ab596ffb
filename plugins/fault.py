"""`fault`: another interconnect that breaks: it fails, corrupts what passes, or loses its path in the middle of its use.

The fault is a fault point of the card, "interconnect.fault" unless `point` names another: options arm it when the card
starts, and the control socket's `inject` and `heal` at any time. Links with the same point share it: what is injected
happens on whichever of them is used first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Window
from vfio_user_xe.emulator.model.card import Card, Option
from vfio_user_xe.plugins.wrapping import WRAPPER_OPTIONS, WatchedWindow, Wrapper

FAIL, CORRUPT, REVOKE = "fail", "corrupt", "revoke"
_WRONG_READ, _WRONG_WRITE = 0xA5, 0x5A
"""What a wrong byte is XORed with: not the same, or a byte that is wrong both ways would be right."""
_PAGE_SHIFT = 12


class Fault(Wrapper):
    """Another interconnect that fails, corrupts or is revoked after some accesses, or at a page."""

    OPTIONS: tuple[Option, ...] = (
        *WRAPPER_OPTIONS,
        Option("mode", "str", FAIL, "what happens", choices=(FAIL, CORRUPT, REVOKE)),
        Option("after", "int", 0, "accesses that pass before it happens", minimum=0),
        Option("times", "int", 1, "how often it happens; 0: from then on always", minimum=0),
        Option("page", "int", -1, "only at the 4 KiB page of this number in the initiator's space; -1: anywhere"),
        Option("armed", "bool", True, "whether it is armed when the card starts"),
        Option("point", "str", "interconnect.fault", "the fault point that arms it"),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        super().__init__("fault", card, options)
        self.mode: str = options["mode"]
        self.page: int = options["page"]
        self.point = card.faults.point(str(options["point"]), f"an access over {self.inner.name}: {self.mode}")
        if options["armed"]:
            self.point.arm(options["after"], options["times"])

    def wrap(self, window: Window, write: bool) -> Window:
        return _Breaking(window, self)


class _Breaking(WatchedWindow):
    __slots__ = ("_corrupt", "_link")

    def __init__(self, inner: Window, link: Fault) -> None:
        super().__init__(inner)
        self._link = link
        self._corrupt: int | None = None
        """Which byte of the access that is going on is to be wrong."""

    def before(self, offset: int, length: int, write: bool) -> None:
        link = self._link
        self._corrupt = None
        at = 0
        if link.page >= 0:
            start = self.address + offset
            at = max(0, (link.page << _PAGE_SHIFT) - start)
            if at >= length or start >> _PAGE_SHIFT > link.page:
                return
        if not link.point.armed or (arguments := link.point.take()) is None:
            return
        mode = arguments.get("mode", link.mode)
        if mode == CORRUPT:
            self._corrupt = at
            return
        if mode == REVOKE:
            self.valid = False
        reason = "the path was revoked (injected)" if mode == REVOKE else "the link failed (injected)"
        raise AccessFault(self.initiator, self.space, self.address + offset + at, reason)

    def after_read(self, offset: int, data: bytes) -> bytes:
        return self._corrupted(data, _WRONG_READ)

    def before_write(self, offset: int, data: bytes | memoryview) -> bytes | memoryview:
        return self._corrupted(data, _WRONG_WRITE) if self._corrupt is not None else data

    def _corrupted(self, data: bytes | memoryview, how: int) -> bytes:
        at = self._corrupt
        if at is None or at >= len(data):
            return bytes(data)
        wrong = bytearray(data)
        wrong[at] ^= how
        return bytes(wrong)
