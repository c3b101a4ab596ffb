"""A card in a process of its own whose VF's memory other cards reach: its PF and its VF 1 are driven over their sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.support.xe.layout import SRIOV
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.testing.lab import CONFIG, LiveCard, open_card
from vfio_user_xe.emulator.vfio_user.client import Client

PF_BAR0, PF_BAR2, VF_BAR0, VF_BAR2 = 0xF000000000, 0xF100000000, 0xF300000000, 0xF400000000
PCIE, FLR = 0x70, 1 << 15


class Owner:
    """The card `b` in a process of its own, with a driver for its PF and its VF 1."""

    def __init__(self, card: LiveCard, stack: ExitStack) -> None:
        self.card = card
        self.folder = card.folder
        self.pf = self._client("pf", stack)
        self.vf = self._client("vf1", stack)
        self.program()

    def program(self) -> None:
        """As at the beginning: BARs at their addresses, VF 1 there."""
        for client in (self.pf, self.vf):
            client.write(CONFIG, COMMAND, 2, 6)
        self.pf.write(0, 0x48B0, 4, 0)
        self.disable()
        for register, address in ((0x10, PF_BAR0), (0x18, PF_BAR2), (SRIOV + 0x24, VF_BAR0), (SRIOV + 0x2C, VF_BAR2)):
            self.pf.write(CONFIG, register, 4, address & 0xFFFFFFFF)
            self.pf.write(CONFIG, register + 4, 4, address >> 32)
        self.enable()

    def _client(self, name: str, stack: ExitStack) -> Client:
        client = self.card.client(name)
        stack.callback(client.close)
        client.write(CONFIG, COMMAND, 2, 6)
        client.serve_in_background()
        return client

    def enable(self) -> None:
        """VF 1 exists, with as much memory as its BAR2 shows."""
        self.pf.write(CONFIG, SRIOV + 0x10, 2, 1)
        self.pf.write(CONFIG, SRIOV + 0x08, 2, 9)
        self.settle()

    def disable(self) -> None:
        """Its memory is the PF's again."""
        self.pf.write(CONFIG, SRIOV + 0x08, 2, 0)
        self.settle()

    def settle(self) -> None:
        """Until the card has done what it was told."""
        self.card.call("ledger")

    def memory(self, offset: int, length: int) -> memoryview:
        """Of VF 1, as its guest has it mapped."""
        return self.vf.map_region(2).at(offset, length)


@contextmanager
def serving(*serve: str) -> Iterator[Owner]:
    with ExitStack() as stack:
        arguments = ["--vfs", "2", "--set", "name=b", "--set", "vram=1GiB", "--set", "vf_bar2=64MiB", *serve]
        yield Owner(stack.enter_context(open_card(arguments)), stack)
