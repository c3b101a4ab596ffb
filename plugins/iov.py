"""`iov`: the card's own link. Any function's access to the memory of its card, without a copy, for every owner of the memory.

Whose memory an address is, and whether the initiator may have it, is the device model's to decide
(`card.device_memory`; on Battlemage through the reverse LMTT map).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import Initiator, Space, Way, Window
from vfio_user_xe.emulator.model.card import Card, Option


class Iov:
    """Memory of the card, reached by device address from any of its functions."""

    API_VERSION = (2, 0)
    way: Way = "zero-copy"
    OPTIONS: tuple[Option, ...] = ()

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.name = "iov"
        self._card = card

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        memory = self._card.device_memory
        if space != Space.DEVICE or memory is None:
            return None
        found = memory.resolve(initiator, address, length, write)
        if found is None:
            return None
        owner, view = found
        entry = self._card.fabric.ledger.entry(initiator.name, owner, self.name, kind)
        return Window(address, len(view), view, owner, entry)
