"""What a scenario works with: a card, the guest that has it, and the one way to run commands there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, TypeVar

from vfio_user_xe.emulator.guest.channel import Result as Output


class Shell(Protocol):
    """What runs commands in a guest: `vfio_user_xe.emulator.guest.BlockingGuest` does."""

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60, check: bool = False) -> Output:
        """See `vfio_user_xe.emulator.guest.guest.Guest.run`."""
        ...


class VirtualMachine(Shell, Protocol):
    """A guest together with the machine that it runs on: what suspends it, boots it anew, plugs devices in."""

    @property
    def pid(self) -> int:
        """The process id of its QEMU."""
        ...

    @property
    def qmp_events(self) -> list[dict[str, Any]]:
        """The latest events that QEMU told of."""
        ...

    def qmp(self, command: str, arguments: dict[str, Any] | None = None, *, timeout: float = 20) -> Any:
        """See `vfio_user_xe.emulator.guest.guest.Guest.qmp`."""
        ...

    def reboot(self, command: str = "reboot -f", *, timeout: float | None = None) -> None:
        """See `vfio_user_xe.emulator.guest.guest.Guest.reboot`. A scenario calls `Run.rebooted` afterwards."""
        ...

    def reset(self, *, timeout: float | None = None) -> None:
        """See `vfio_user_xe.emulator.guest.guest.Guest.reset`. A scenario calls `Run.rebooted` afterwards."""
        ...

    def console_tail(self, lines: int = 30) -> str:
        """The last lines that the console wrote."""
        ...


class Card(Protocol):
    """A card's control socket."""

    def call(self, command: str, /, **arguments: Any) -> Any:
        """The command's result (docs/control-socket.md).

        Raises:
            CommandError: the command failed.
            OSError: the server does not answer.
        """
        ...


class ServedCard(Card, Protocol):
    """A card together with the process that serves it."""

    @property
    def pid(self) -> int: ...


class Neighbour(Protocol):
    """A further guest of the card: `vfio_user_xe.emulator.testing.lab.Neighbour` is one."""

    @property
    def guest(self) -> VirtualMachine: ...

    @property
    def devices(self) -> list[dict[str, Any]]:
        """QMP's arguments of `device_add` for its functions, function 0 first."""
        ...


class Booted(Protocol):
    """A guest that has booted with its cards: `vfio_user_xe.emulator.testing.lab.Lab` is one."""

    @property
    def guest(self) -> VirtualMachine: ...

    @property
    def card(self) -> ServedCard: ...

    @property
    def others(self) -> Sequence[Card]:
        """Further cards of the same guest."""
        ...

    @property
    def beside(self) -> Sequence[Neighbour]:
        """Further guests of the card."""
        ...

    @property
    def devices(self) -> list[dict[str, Any]]:
        """QMP's arguments of `device_add` for the functions of the first card, function 0 first."""
        ...


class Machine:
    """A card in a guest. Suites derive theirs, with what their scenarios know of the driver and its programs.

    Not safe to use from several threads.
    """

    card: Card
    others: Sequence[Card]
    """Further cards of the same guest."""

    def __init__(self, shell: Shell, card: Card, others: Sequence[Card] = ()) -> None:
        self.shell = shell
        self.card = card
        self.others = others

    @classmethod
    def of(cls, booted: Booted) -> Self:
        """The machine of a guest that has booted."""
        return cls(booted.guest, booted.card, booted.others)

    def run(self, command: str, timeout: float = 60) -> Output:
        """Run a shell command in the guest; how it ended.

        Raises:
            CommandTimeout: it ran longer than `timeout` seconds and was killed.
            GuestError: the guest does not answer.
        """
        return self.shell.run(command, timeout=timeout)

    def sh(self, command: str, timeout: float = 60) -> str:
        """Run a command that must succeed; its output without the last newline.

        Raises:
            CommandFailed: its exit code is not 0.
            GuestError: as `run`.
        """
        return self.shell.run(command, timeout=timeout, check=True).stdout.rstrip("\n")


MachineT = TypeVar("MachineT", bound=Machine)
