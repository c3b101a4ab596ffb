"""What interconnects that wrap another one share: which accesses they mean, and windows that look at every access.

    { name = "fault", inner = "iov", initiator = "pf", owner = "vf1", after = 10 }

`inner` names the wrapped interconnect, with options as on the command line. Inside of an option ';' stands for ',', and one
level deeper ';;': "delay:inner=fault:inner=p2p:registers=no;;acs_redirect=yes;mode=corrupt,latency_us=5". `initiator`, `owner` and `kind` pick the accesses that are meant; the others pass untouched.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import Initiator, Way, Window
from vfio_user_xe.emulator.model.card import Card, Option, interconnect_config

ANY = "*"
_SEPARATORS = re.compile(";+")

WRAPPER_OPTIONS: tuple[Option, ...] = (
    Option("inner", "str", "iov", "the interconnect that is wrapped, with its options: NAME[:KEY=VALUE;...]"),
    Option("initiator", "str", ANY, "only accesses of this function (pf, vf1, ...); * for all"),
    Option("owner", "str", ANY, "only accesses to memory of this owner; * for all"),
    Option("kind", "str", ANY, "only accesses of this kind of the ledger; * for all"),
)


class Wrapper(ABC):
    """An interconnect around another one."""

    API_VERSION = (2, 0)
    way: Way = "other"
    """Accesses through it count as those of the interconnect that it wraps."""

    def __init__(self, name: str, card: Card, options: Mapping[str, Any]) -> None:
        self.name = name
        self.card = card
        config = interconnect_config(_SEPARATORS.sub(lambda found: found[0][1:] or ",", str(options["inner"])))
        self.inner = card.make_interconnect(config.name, config.options, "inner")
        self._wanted = {key: str(options[key]) for key in ("initiator", "owner", "kind")}

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        window = self.inner.open(initiator, space, address, length, write, kind)
        if window is None or not self._meant(initiator, window, kind):
            return window
        window.initiator, window.space = initiator, space
        return self.wrap(window, write)

    @abstractmethod
    def wrap(self, window: Window, write: bool) -> Window:
        """What an access that is meant gets instead of `window`. May raise `AccessFault`."""

    def _meant(self, initiator: Initiator, window: Window, kind: str) -> bool:
        found = {"initiator": initiator.name, "owner": window.owner, "kind": kind}
        return all(wanted in (ANY, found[key]) for key, wanted in self._wanted.items())


class WatchedWindow(Window):
    """A window without a view, so that `before` sees every access; then the wrapped window serves it."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Window) -> None:
        super().__init__(inner.address, inner.length, None, inner.owner, inner.entry)
        self._inner = inner

    def before(self, offset: int, length: int, write: bool) -> None:
        """An access is about to happen: wait, count, or raise."""

    def after_read(self, offset: int, data: bytes) -> bytes:
        """What the initiator gets of what was read."""
        return data

    def before_write(self, offset: int, data: bytes | memoryview) -> bytes | memoryview:
        """What is stored of what the initiator writes."""
        return data

    def _read(self, offset: int, length: int) -> bytes:
        self.before(offset, length, False)
        # Not inner.read(): this window counts already.
        return self.after_read(offset, self._inner._read(offset, length))

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        self.before(offset, len(data), True)
        self._inner._write(offset, self.before_write(offset, data))
