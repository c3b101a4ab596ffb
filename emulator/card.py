"""A card: its description (a TOML file, options from the command line) and the running thing made of it.

model = "xe"
name = "b580"
interconnects = ["iov", { name = "host_dma" }]      # in the order in which they are asked

[device]                                            # options that the device model declares
vfs = 7
vram = "4 GiB"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from emulator.executor import Executor
from emulator.interconnect import Fabric, Initiator, Interconnect
from emulator.memory import Memory

if TYPE_CHECKING:
    from emulator.pci.function import Function

Kind = Literal["int", "bool", "str", "size", "float"]
Command = Callable[..., Any]
"""A command of the control socket: JSON arguments by keyword, a JSON-able result."""


class CardError(Exception):
    """What is wrong with a card's description: where it stands (`source`, `key`), and what is allowed there.

    A device model raises it as `CardError("must be at least ...", key="vram")`, with the option's name as key.
    """

    def __init__(self, message: str, key: str = "", source: str = "") -> None:
        super().__init__(": ".join(part for part in (source, key, message) if part))
        self.message = message
        self.key = key
        self.source = source


@dataclass(frozen=True, slots=True)
class Option:
    """One option that a device model or an interconnect takes.

    `kind` is "int", "bool", "str", "float" or "size" (bytes; written as an integer or as "4 GiB", "256MiB").
    `minimum` and `maximum` are inclusive.
    """

    name: str
    kind: Kind
    default: Any
    help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] | None = None


@dataclass(slots=True)
class InterconnectConfig:
    """One interconnect of a card: the entry point's name and its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class CardConfig:
    """A card's description, complete and checked: every option that its plug-ins declare has a value."""

    model: str
    name: str
    interconnects: list[InterconnectConfig]
    options: dict[str, Any]
    source: str = "built-in defaults"

    @classmethod
    def load(cls, path: Path | str) -> CardConfig:
        """The card that the TOML file at `path` describes. Raises `CardError`."""
        raise NotImplementedError

    @classmethod
    def default(cls, model: str = "xe") -> CardConfig:
        """A card of `model` with every option at its default. Raises `CardError`."""
        raise NotImplementedError


class DeviceMemory(Protocol):
    """A card's own memory, as the `iov` interconnect asks for it. The device model decides who owns what."""

    def resolve(self, initiator: Initiator, address: int, length: int, write: bool) -> tuple[str, memoryview] | None:
        """Owner's name and the bytes at device address `address` of `initiator` (DPA of a PF, GDPA of a VF).

        The view is contiguous and holds 1 to `length` bytes. None when the address is not this card's memory;
        `AccessFault` when it is and the initiator may not have it.
        """
        ...


class DeviceModel(Protocol):
    """What the entry-point group `vfio_user_xe.device_models` names: a class.

    Its constructor creates the functions and appends them to `card.functions` (the PF first), and may set
    `card.device_memory` and add to `card.commands`, `card.on_start` and `card.on_stop`.
    """

    API_VERSION: ClassVar[tuple[int, int]]
    OPTIONS: ClassVar[tuple[Option, ...]]

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None: ...


class Card:
    """A running card: one executor, one fabric, and the functions that its device model made."""

    def __init__(self, config: CardConfig) -> None:
        """Make the functions and the interconnects; nothing runs before `start`. Raises `CardError`."""
        self.config = config
        self.name = config.name
        self.executor = Executor(config.name)
        self.fabric = Fabric()
        self.functions: list[Function] = []
        """The PF (or the plain device) first, then VF 1 ... VF n."""
        self.device_memory: DeviceMemory | None = None
        self.memories: dict[str, Memory] = {}
        """Memories that the device model owns, by name, for `memory` on the control socket."""
        self.commands: dict[str, Command] = {}
        self.on_start: list[Callable[[], None]] = []
        self.on_stop: list[Callable[[], None]] = []

    def start(self) -> None:
        """Start the executor, then what the device model registered."""
        self.executor.start()
        for callback in self.on_start:
            callback()

    def stop(self) -> None:
        """Stop what runs, in the reverse order. Clients must be detached before."""
        for callback in reversed(self.on_stop):
            callback()
        self.executor.stop()


__all__ = ["Card", "CardConfig", "CardError", "Command", "DeviceMemory", "DeviceModel", "Interconnect", "Option"]
