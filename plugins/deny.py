"""`deny`: another interconnect that refuses the accesses that are meant, as a link without permission does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Window
from vfio_user_xe.emulator.model.card import Card, Option
from vfio_user_xe.plugins.wrapping import WRAPPER_OPTIONS, Wrapper


class Deny(Wrapper):
    """Another interconnect that refuses some accesses."""

    OPTIONS: tuple[Option, ...] = (
        *WRAPPER_OPTIONS,
        Option("access", "str", "both", "which accesses are refused", choices=("read", "write", "both")),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        super().__init__("deny", card, options)
        self._access = options["access"]

    def wrap(self, window: Window, write: bool) -> Window:
        if self._access in ("both", "write" if write else "read"):
            reason = f"denied: {window.owner}'s memory over {self.inner.name}"
            raise AccessFault(window.initiator, window.space, window.address, reason)
        return window
