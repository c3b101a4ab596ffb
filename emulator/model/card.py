"""A card: its description (a TOML file, options from the command line) and the running thing made of it.

    model = "blinker"
    name = "desk"
    interconnects = ["iov", { name = "host_dma" }]      # in the order in which they are asked

    [device]                                            # options that the device model declares
    vfs = 7
    vram = "4 GiB"

`docs/card-file.md` explains the file to its users.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, get_args

from vfio_user_xe.emulator.fabric.interconnect import Fabric, Initiator, Interconnect, Space, Way
from vfio_user_xe.emulator.fabric.leases import Leases
from vfio_user_xe.emulator.fabric.peers import Dial
from vfio_user_xe.emulator.model.clock import CardClock
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.faults import Faults
from vfio_user_xe.emulator.model.made_card import check_functions, mistakes_of
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.model.options import CardError, Option, UnknownName, check_options, unknown
from vfio_user_xe.emulator.model.plugin_loading import (
    DEVICE_MODEL,
    INTERCONNECT,
    Plugin,
    PluginError,
    default_model,
    load_plugin,
)
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.observe.links import link_tap
from vfio_user_xe.emulator.observe.stalls import StallWatchdog
from vfio_user_xe.emulator.observe.trace import Tracer
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER
from vfio_user_xe.emulator.pci.function import Function
from vfio_user_xe.emulator.pci.interrupts import MsiXHandler

__all__ = ["Card", "CardConfig", "CardError", "Command", "DeviceMemory", "DeviceModel", "InterconnectConfig", "Option"]

DEFAULT_INTERCONNECTS = ("iov", "p2p", "host_dma")
"""The interconnects of a card whose file names none: its own memory, then what a switch would decode, then its guest's memory."""

Command = Callable[..., Any]
"""A command of the control socket: JSON arguments by keyword, a JSON-able result."""

_KEYS = ("model", "name", "interconnects", "device")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class InterconnectConfig:
    """One interconnect of a card: the entry point's name and its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CardConfig:
    """A card's description, complete and checked: every option that its plug-ins declare has a value."""

    model: str
    name: str
    interconnects: list[InterconnectConfig]
    options: dict[str, Any]
    source: str = "defaults"
    """Where it comes from, for errors: the file's name."""
    arguments: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Options of the device model that a command line gave instead, each with its words, for errors."""

    @classmethod
    def load(cls, path: Path | str) -> CardConfig:
        """The card that the TOML file at `path` describes.

        Raises:
            CardError: The file cannot be read, or does not describe a card.

        From any thread.
        """
        source = str(path)
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise CardError(f"cannot read the card file: {reason}", source=source) from None
        return cls.parse(text, source)

    @classmethod
    def parse(cls, text: str, source: str) -> CardConfig:
        """The card that the TOML `text` describes; errors name `source`.

        Raises:
            CardError: The text is not TOML, or does not describe a card.

        From any thread.
        """
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise CardError(f"is not a TOML file: {error}", source=source) from None
        return cls.of(table, source)

    @classmethod
    def of(cls, table: Mapping[str, Any], source: str) -> CardConfig:
        """The card that a card file's table describes; errors name `source`.

        Raises:
            CardError: A key or a value is none that a card file may have; the message names it.

        From any thread.
        """
        try:
            return _from_table(table, source)
        except CardError as error:
            raise error.within("", source) from None

    @classmethod
    def default(cls, model: str | None = None) -> CardConfig:
        """A card of `model` (None: of the default model) with every option at its default.

        Raises:
            CardError: there is no such model.

        From any thread.
        """
        return _from_table({} if model is None else {"model": model}, "defaults")

    def override(
        self,
        *,
        vfs: int | None = None,
        topology: str | None = None,
        settings: Iterable[str] = (),
        interconnects: Iterable[str] = (),
    ) -> CardConfig:
        """This card with what a command line says instead.

        `vfs` and `topology` are the device model's options of these names. `settings` are "key=value", where key is an option of the device model, or "name". `interconnects`, when there
        are any, replace the card's: "name" or "name:key=value,...".

        Raises:
            CardError: An argument is not of its form, or names no option; the message names it.

        From any thread.
        """
        options, name, arguments = dict(self.options), self.name, dict(self.arguments)
        declared = {option.name: option for option in _plugin(DEVICE_MODEL, self.model).options}
        given = [(f"--set {setting}", setting) for setting in settings]
        given += [
            (f"--{key} {value}", f"{key}={value}")
            for key, value in (("vfs", vfs), ("topology", topology))
            if value is not None
        ]
        for source, setting in given:
            key, equals, value = setting.partition("=")
            key = key.strip().removeprefix("device.")
            if not equals:
                raise CardError("is not of the form key=value", source=source)
            if key == "name":
                name = _checked_name(value.strip(), source)
            elif key in declared:
                with _located("", source):
                    options[key] = declared[key].parse(value.strip())
                arguments[key] = source
            else:
                raise CardError(unknown(key, f"option of the device model {self.model}", declared), source=source)
        chosen = []
        for item in interconnects:
            with _located("", f"--interconnect {item}"):
                chosen.append(interconnect_config(item))
        return replace(
            self, name=name, options=options, interconnects=chosen or self.interconnects, arguments=arguments
        )


class DeviceMemory(Protocol):
    """The interface to a card's own memory that the `iov` interconnect uses. The device model decides who owns what."""

    def resolve(self, initiator: Initiator, address: int, length: int, write: bool) -> tuple[str, memoryview] | None:
        """Owner's name and the bytes at device address `address`, as `initiator` (a PF or a VF) numbers it.

        The view is contiguous and holds 1 to `length` bytes. None when the address is not this card's memory;
        `AccessFault` when it is and the initiator may not have it. When ownership changes, the model calls
        `card.fabric.revoke`. A model with a method `share` too (`vfio_user_xe.emulator.fabric.leases.SharedDeviceMemory`) lets other cards and
        programs of the host use its memory.
        """
        ...


class DeviceModel(Protocol):
    """What the entry-point group `vfio_user_xe.device_models` names: a class.

    It may have an attribute `INFO`, a `ModelInfo`: its title, firmware, suites of tests, and what else the engine has to
    know of it. `OPTIONS` is optional, too.

    Its constructor creates the functions and appends them to `card.functions` (the PF first), and may set
    `card.device_memory` and add to `card.commands`, `card.memories`, `card.on_start` and `card.on_stop`.
    """

    API_VERSION: ClassVar[tuple[int, int]]
    OPTIONS: ClassVar[tuple[Option, ...]]

    def __init__(self, card: Card, options: Mapping[str, Any]) -> None: ...


class Card:
    """A running card: one executor, one fabric, and the functions that its device model made."""

    def __init__(self, config: CardConfig, executor: Executor | None = None) -> None:
        """Make the functions and the interconnects; nothing runs before `start`.

        `executor` is for those who need another kind of it: to record a card, to replay one.

        Raises:
            CardError: an option is not allowed, or a plug-in cannot be loaded, fails, or makes what cannot be used.

        From any thread.
        """
        self.config = config
        self.name = config.name
        self.executor = executor or Executor(config.name)
        self.clock: CardClock = self.executor.clock
        """The time that the device lives by: what registers, schedulers and timeouts of the model count."""
        self.fabric = Fabric()
        self.tracer = Tracer()
        self.client_tap = self.tracer.tap(
            "client", "what clients ask of functions and get, but single accesses: messages, decoded"
        )
        """For the transport, which a card does not know."""
        self.faults = Faults()
        self.functions: list[Function] = []
        """The PF (or the plain device) first, then VF 1 ... VF n."""
        self.served: list[Function] = []
        """The functions that clients can attach; all `functions` unless the device model says otherwise."""
        self.device_memory: DeviceMemory | None = None
        self.memories: dict[str, Memory] = {}
        """Memories that the device model owns, by name; those of its BARs are found without being named here."""
        self.register_files: list[RegisterFile] = []
        """Register files, for traces and reports; those that handle a BAR are found without being named here."""
        self.watchdog = StallWatchdog(self.register_files)
        self.commands: dict[str, Command] = {}
        """Commands of the device model on the control socket, besides those of every card."""
        self.on_start: list[Callable[[], None]] = []
        self.on_stop: list[Callable[[], None]] = []
        """Called when the executor has ended: nothing uses what is closed here."""
        plugin = _plugin(DEVICE_MODEL, config.model)
        assert plugin.factory is not None
        self.info = plugin.info
        """What the device model says of itself."""
        try:
            with mistakes_of(plugin):
                self.model: DeviceModel = plugin.factory(self, config.options)
        except CardError as error:
            argument = config.arguments.get(error.key)
            raise (error.within("device", config.source) if argument is None else error.within("", argument)) from None
        self._plugin = plugin
        if not self.served:
            self.served += self.functions
        for functions in (self.functions, self.served):
            check_functions(config.model, functions)
        self.leases = Leases(self)
        """Memory of the card that other processes use."""
        self.beside: Sequence[Card] = ()
        """Other cards of this process: their functions are in the same machine."""
        self.dial: Dial | None = None
        """The way to cards in other processes; there is one once the card is served."""
        self.fabric.interconnects = [
            self.make_interconnect(item.name, item.options, f"interconnects[{index}]")
            for index, item in enumerate(config.interconnects)
        ]
        self._collect()

    def start(self) -> None:
        """Start the executor and the stall watchdog, then what the device model registered.

        Raises:
            CardError: what the device model registered fails.

        From any thread, once.
        """
        self.executor.start()
        self.watchdog.start()
        with mistakes_of(self._plugin):
            for callback in self.on_start:
                callback()

    def stop(self) -> None:
        """Stop what runs, then all that the device model registered, in reverse. Clients must be detached before.

        Raises:
            CardError: some of what the device model registered fails.

        From any thread but the executor's, once.
        """
        self.watchdog.stop()
        self.executor.stop()
        with ExitStack() as last:
            last.callback(self.tracer.stop)
            with mistakes_of(self._plugin), ExitStack() as registered:
                for callback in self.on_stop:
                    registered.callback(callback)

    def make_interconnect(self, name: str, options: Mapping[str, Any], key: str = "") -> Interconnect:
        """The interconnect `name` for this card. For interconnects that wrap others, too.

        Raises:
            CardError: No such interconnect is installed, an option is wrong, or the way that it declares is none.

        While the card is made, before it starts.
        """
        plugin = _plugin(INTERCONNECT, name)
        assert plugin.factory is not None
        with _located(key, self.config.source), mistakes_of(plugin):
            made: Interconnect = plugin.factory(self, check_options(plugin.options, options))
            way: Way = getattr(made, "way", "other")
            if way not in get_args(Way):
                raise CardError(f"interconnect {name} declares the way {way!r} (allowed: {', '.join(get_args(Way))})")
        self.fabric.ledger.ways[made.name] = way
        return made

    def function(self, name: str) -> Function:
        """The function called `name` ("pf", "vf1").

        Raises:
            UnknownName: There is none (a KeyError); the message lists the names there are.

        From any thread.
        """
        for function in self.functions:
            if function.name == name:
                return function
        raise UnknownName(name, "function", [function.name for function in self.functions])

    def _collect(self) -> None:
        """Connect what every card has in common to the functions that the model made."""
        for function in self.functions:
            self._revoke_with_guest_memory(function)
            self.tracer.join(function.config.tap)
            self.tracer.join(function.irq_tap)
            for region in function.regions:
                handler = region.handler if region else None
                if isinstance(handler, MsiXHandler):
                    handler = handler.below
                if isinstance(handler, RegisterFile) and handler not in self.register_files:
                    self.register_files.append(handler)
        for file in self.register_files:
            self.tracer.join(file.tap)
        for tap in (self.fabric.tap, self.leases.tap, link_tap(self.fabric)):
            self.tracer.join(tap)

    def _revoke_with_guest_memory(self, function: Function) -> None:
        """No window may outlive the mapping, the client, or the permission that it was opened by."""

        def unmapped(address: int, length: int) -> None:
            self.fabric.revoke_range(function, Space.SYSTEM, address, length)

        def all_of_it() -> None:
            self.fabric.revoke_range(function, Space.SYSTEM, 0, 1 << 64)

        def command_written(old: int, written: int) -> None:
            if old & ~written & COMMAND_MASTER:
                all_of_it()

        function.on_unmapped.append(unmapped)
        function.on_detached.append(all_of_it)
        function.on_reset.append(lambda reason: all_of_it())
        function.config.watch(COMMAND, 2, command_written)


@contextmanager
def _located(table: str, source: str) -> Iterator[None]:
    """Errors of plug-ins leave with the place that they are about."""
    try:
        yield
    except CardError as error:
        raise error.within(table, source) from None


def _plugin(kind: str, name: str, key: str = "") -> Plugin:
    try:
        return load_plugin(kind, name)
    except PluginError as error:
        raise CardError(str(error), key) from None


def _default_model() -> str:
    try:
        return default_model().name
    except PluginError as error:
        raise CardError(str(error), "model") from None


def _from_table(table: Mapping[str, Any], source: str) -> CardConfig:
    for key in table:
        if key not in _KEYS:
            hint = " (options of the device model belong under [device])" if key in _device_options(table) else ""
            raise CardError(unknown(key, "key", _KEYS) + hint, key)
    model = table["model"] if "model" in table else _default_model()
    if not isinstance(model, str):
        raise CardError("must be a string, the name of a device model", "model")
    plugin = _plugin(DEVICE_MODEL, model, "model")
    device = table.get("device", {})
    if not isinstance(device, dict):
        raise CardError("must be a table: [device]", "device")
    with _located("device", source):
        options = check_options(plugin.options, device)
    listed = table.get("interconnects", list(DEFAULT_INTERCONNECTS))
    if not isinstance(listed, list):
        raise CardError('must be a list such as ["iov", "host_dma"]', "interconnects")
    interconnects = []
    for index, item in enumerate(listed):
        with _located(f"interconnects[{index}]", source):
            interconnects.append(interconnect_config(item))
    name = _checked_name(table.get("name", model), source, "name")
    return CardConfig(model, name, interconnects, options, source)


def _device_options(table: Mapping[str, Any]) -> list[str]:
    try:
        model = table["model"] if "model" in table else _default_model()
        return [option.name for option in load_plugin(DEVICE_MODEL, model).options]
    except (PluginError, CardError, TypeError):
        return []


def _checked_name(name: Any, source: str, key: str = "") -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CardError("must be a name of letters, digits, '-', '_' and '.'", key, source)
    return name


def interconnect_config(item: Any) -> InterconnectConfig:
    """From a card file: "name", "name:key=value,..." or { name = ..., key = value }; from a command line: text.

    Raises:
        CardError: it is of neither form, or names an option that the interconnect does not have.
    """
    if isinstance(item, dict):
        options = dict(item)
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise CardError('a table must have a "name", the name of an interconnect')
        return InterconnectConfig(name, check_options(_plugin(INTERCONNECT, name).options, options))
    if not isinstance(item, str):
        raise CardError('must be "name", "name:key=value,..." or { name = "...", key = value }')
    name, _, rest = item.partition(":")
    plugin = _plugin(INTERCONNECT, name.strip())
    declared = {option.name: option for option in plugin.options}
    options = {}
    for setting in filter(None, rest.split(",")):
        key, equals, value = setting.partition("=")
        key = key.strip()
        if not equals:
            raise CardError(f'"{setting}" is not of the form key=value')
        if key not in declared:
            raise CardError(unknown(key, f"option of the interconnect {plugin.name}", declared), key)
        options[key] = declared[key].parse(value.strip())
    return InterconnectConfig(plugin.name, check_options(plugin.options, options))
