"""What requests need of a connection: `session.py` carries requests out by `requests.py`, which works on this."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

from vfio_user_xe.emulator.model.states import Machine
from vfio_user_xe.emulator.pci.transport import Region, Served
from vfio_user_xe.emulator.vfio_user.dirty_pages import DirtyPages
from vfio_user_xe.emulator.vfio_user.dma_messages import DmaMessages
from vfio_user_xe.emulator.vfio_user.guest_memory import GuestMemory
from vfio_user_xe.emulator.vfio_user.interrupts import Interrupts
from vfio_user_xe.emulator.vfio_user.region_access import RegionAccess
from vfio_user_xe.emulator.vfio_user.session_state import SessionState


class SessionView(Protocol):
    """One client's connection, on its thread; `session.Session` is one."""

    @property
    def function(self) -> Served:
        """What it serves."""
        ...

    @property
    def regions(self) -> Sequence[Region | None]:
        """By region index."""
        ...

    @property
    def access(self) -> Sequence[RegionAccess | None]:
        """How each region is read and written."""
        ...

    @property
    def memory(self) -> GuestMemory:
        """What the client has mapped."""
        ...

    @property
    def dirty(self) -> DirtyPages:
        """The log of what was written in it."""
        ...

    @property
    def interrupts(self) -> Interrupts:
        """Event descriptors by vector."""
        ...

    @property
    def messages(self) -> DmaMessages | None:
        """DMA by messages; None before VERSION was answered."""
        ...

    @property
    def state(self) -> Machine[SessionState]:
        """Where the connection is."""
        ...

    def negotiation_done(self, max_data_xfer_size: int, twin: socket.socket | None, /) -> None:
        """VERSION was answered. The size is the client's, in bytes."""
        ...
