"""`remote`: memory of a card in another process, which may serve another guest, by file descriptors over a socket.

    { name = "remote", card = "/tmp/other", function = "vf1", length = "64 MiB", address = 0x10000000000 }

The other card's server hands the memory's descriptor over and keeps a lease on it: access is without a copy and without
a message, until the memory changes its owner there, its owner is reset, or the server ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Initiator, Space, Way, Window
from vfio_user_xe.emulator.model.card import Card, CardError, Option
from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.plugins.peering import PeerMemory, Reach


class Remote:
    """Memory of a function of another card, at an address of this card's functions."""

    API_VERSION = (2, 0)
    way: Way = "other"
    OPTIONS: tuple[Option, ...] = (
        Option("card", "str", "", "socket folder of the server of the other card"),
        Option("function", "str", "vf1", "whose memory: a function of the other card"),
        Option("offset", "size", 0, "where in that function's device addresses it begins", multiple_of=PAGE_SIZE),
        Option("length", "size", 64 << 20, "how much of it", minimum=PAGE_SIZE, multiple_of=PAGE_SIZE),
        Option("address", "int", 1 << 40, "where this card's functions see it", minimum=0, hexadecimal=True),
        Option(
            "space",
            "str",
            Space.DEVICE,
            "among which addresses of theirs: device memory, or DMA",
            choices=(Space.DEVICE, Space.SYSTEM),
        ),
        Option("write", "bool", True, "whether it may be written to"),
    )

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None:
        self.name = "remote"
        if not options["card"]:
            raise CardError("give the socket folder of the other card's server", key="card")
        if options["address"] % PAGE_SIZE:
            raise CardError(f"{options['address']:#x} is not a multiple of {PAGE_SIZE}", key="address")
        self._writable = bool(options["write"])
        self._memory = PeerMemory(card, str(options["card"]), self.name)
        self._reach = Reach(
            options["space"], options["address"], options["length"], options["function"], None, options["offset"]
        )

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        if not self._reach.covers(space, address):
            return None
        if write and not self._writable:
            raise AccessFault(initiator, space, address, "the other card's memory may only be read (write=false)")
        return self._memory.window(self._reach, initiator, address, length, kind, write=write)
