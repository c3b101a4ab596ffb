"""A served card and a guest that has it: what tests of drivers and device models work with.

    with open_lab(["--vfs", "2"], modules=["vfio-pci"]) as lab:
        lab.sh("modprobe vfio-pci")
        assert lab.card.call("status")["functions"][0]["attached"]

The pytest plug-in (`vfio_user_xe.emulator.testing.pytest_plugin`) makes fixtures of it; this module needs no pytest.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.guest import GuestSpec
from vfio_user_xe.emulator.guest.initramfs import known_firmware
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.machine import Iommu, Machine
from vfio_user_xe.emulator.guest.ports import port_arguments
from vfio_user_xe.emulator.guest.qemu_arguments import (
    DEFAULT_PORT,
    ROOT_BUS,
    cards_arguments,
    device_properties,
    needs_iommu,
)
from vfio_user_xe.emulator.guest.served import ServedCard, served_card
from vfio_user_xe.emulator.guest.settings import USUAL_MEMORY, Beside, GuestSettings
from vfio_user_xe.emulator.guest.userland import locate_userland
from vfio_user_xe.emulator.pci.transport import CONFIG_REGION as CONFIG
from vfio_user_xe.emulator.pci.transport import MSI, MSIX
from vfio_user_xe.emulator.vfio_user.client import Client
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient

__all__ = [
    "CONFIG",
    "MSI",
    "MSIX",
    "Beside",
    "BlockingGuest",
    "Client",
    "CommandError",
    "GuestError",
    "GuestSettings",
    "Kernel",
    "Lab",
    "LiveCard",
    "Neighbour",
    "open_card",
    "open_guest",
    "open_lab",
]

_TAIL_BYTES = 64 << 10


@dataclass(repr=False)
class LiveCard(ServedCard):
    """A card that a process of its own serves, with its control socket at hand."""

    arguments: tuple[str, ...] = ()
    """What `vfio-user-xe serve` was given."""
    _client: ControlClient | None = field(default=None, init=False, repr=False)
    _stalls_before: int = field(default=0, init=False, repr=False)

    def call(self, command: str, /, **arguments: Any) -> Any:
        """A command of the control socket (docs/control-socket.md).

        Raises:
            CommandError: the card refused the command.
            OSError: the server does not answer.

        From one thread at a time.
        """
        if self._client is None:
            self._client = ControlClient(self.control)
        try:
            return self._client.call(command, **arguments)
        except OSError:
            self.disconnect()
            raise

    def __repr__(self) -> str:
        return f"<{self.description.model} card {self.description.card!r}, process {self.pid}>"

    def socket(self, function: str | None = None) -> str:
        """The socket of a function ("pf", "vf1", ...); of the first one without a name.

        Raises:
            LookupError: The card has no such function.

        From any thread.
        """
        sockets = {known.name: known.socket for known in self.description.functions}
        if function is None:
            return next(iter(sockets.values()))
        if function not in sockets:
            raise LookupError(f"the card has no function {function!r} (allowed: {', '.join(sockets)})")
        return sockets[function]

    def client(self, function: str | None = None) -> Client:
        """A vfio-user client of a function, in a guest's stead; close it.

        Raises:
            OSError: the function has a client already.

        From one thread at a time.
        """
        client = Client(self.socket(function))
        # A device is reset for a new client, on its executor; a test should not have to know. This waits for its turn.
        self.call("ledger")
        return client

    def conformance(self, *cases: str, function: str | None = None, skip: Mapping[str, str] | None = None) -> list[str]:
        """Run the conformance suite against a function that has no other client; returns what failed, in words.

        `cases` are patterns such as "dma.*" (none: all but the slow ones); `skip` gives reasons by pattern.
        """
        from vfio_user_xe.emulator.conformance.profile import Profile
        from vfio_user_xe.emulator.conformance.suite import run
        from vfio_user_xe.emulator.results import Verdict

        profile = Profile(self.description.card, self.pid, skip=skip or {})
        results = run(self.socket(function), profile, cases=cases)
        return [f"{result.case.label}: {result.reason}" for result in results if result.verdict is Verdict.FAIL]

    def disconnect(self) -> None:
        """Close the connection to the control socket; the next `call` opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self.process.poll() is None

    @property
    def trace_file(self) -> Path:
        """Where `begin` lets the card trace to."""
        return self.log.with_name("trace.txt")

    def begin(self, trace: Sequence[str] = ()) -> None:
        """A test begins: no fault is injected, the trace starts anew.

        `trace` are categories ("all": every one), without those that begin with "-"; none: it is off.
        """
        self.call("heal")
        if trace:
            known = self.call("trace")["categories"]
            wanted = [name for name in trace if not name.startswith("-")]
            wanted = list(known) if "all" in wanted else wanted
            wanted = [name for name in wanted if f"-{name}" not in trace]
            self.call("trace_on", categories=wanted, file=str(self.trace_file))
        self._stalls_before = self.call("status")["stalls"]

    def stalls(self) -> list[dict[str, Any]]:
        """Registers that a guest was seen to poll for over a second since `begin`."""
        found: list[dict[str, Any]] = self.call("stalls")
        return found[self._stalls_before :] if len(found) >= self._stalls_before else found

    def trace_tail(self, lines: int = 40) -> str:
        """The end of the trace, which is ended by this."""
        self.call("trace_off")
        return _tail(self.trace_file, lines)

    def report(self) -> list[tuple[str, str]]:
        """What explains a failure, as (title, text): stalled registers, the trace's end, the server's log."""
        sections = [("card: stalled registers", _survives(self._stalled))]
        sections.append(("card: end of the trace", _survives(lambda: _tail_if_there(self))))
        sections.append(("card: end of the server's log", _survives(self.log_tail)))
        return [(title, text) for title, text in sections if text.strip()]

    def _stalled(self) -> str:
        return "\n".join(
            f"{stall['function']} polls {stall['register']} ({stall['offset']:#x}): {stall['reads']} reads in"
            f" {stall['seconds']} s, value {stall['value']:#010x}; never changed: {stall['stuck_at_1']:#010x} set,"
            f" {stall['stuck_at_0']:#010x} clear {json.dumps(stall['fields']) if stall['fields'] else ''}".rstrip()
            for stall in self.stalls()
        )


@dataclass(slots=True)
class Neighbour:
    """A further guest of the same card."""

    guest: BlockingGuest
    devices: list[dict[str, Any]]
    """QMP's arguments of `device_add` for its functions, function 0 first."""


@dataclass(slots=True, repr=False)
class Lab:
    """A card and a guest that has it."""

    card: LiveCard
    guest: BlockingGuest
    others: list[LiveCard] = field(default_factory=list)
    """Further cards of the guest, behind root ports of their own."""
    beside: list[Neighbour] = field(default_factory=list)
    """Further guests of the card, in the order in which they were asked for."""

    def __repr__(self) -> str:
        return f"<lab: {self.card!r} in a guest with {self.guest.accelerator.name}>"

    @property
    def devices(self) -> list[dict[str, Any]]:
        """QMP's arguments of `device_add` for the functions of the first card, function 0 first."""
        return device_properties(self.card.description)

    def sh(self, command: str, timeout: float = 60) -> str:
        """Run a command that must succeed; its output without the last newline.

        Raises:
            CommandFailed: its exit code is not 0.

        From any thread.
        """
        return self.guest.run(command, timeout=timeout, check=True).stdout.rstrip("\n")

    def usable(self) -> bool:
        """Whether the server runs and the guest answers."""
        if not all(card.alive for card in (self.card, *self.others)):
            return False
        try:
            guests = [self.guest, *(neighbour.guest for neighbour in self.beside)]
            return all(guest.run("true", timeout=20).returncode == 0 for guest in guests)
        except GuestError:
            return False

    def report(self) -> list[tuple[str, str]]:
        """What explains a failure, as (title, text)."""
        console = _survives(lambda: self.guest.console_tail(40))
        return [*([("guest: end of the console", console)] if console.strip() else []), *self.card.report()]


@contextlib.contextmanager
def open_card(serve: Sequence[str] = ()) -> Iterator[LiveCard]:
    """Serve a card with these arguments of `vfio-user-xe serve`; gone afterwards.

    Raises:
        ServedCardError: the card is not served.

    From any thread.
    """
    with served_card(serve) as served:
        card = LiveCard(served.folder, served.process, served.description, served.log, tuple(serve))
        try:
            yield card
        finally:
            card.disconnect()


@contextlib.contextmanager
def open_lab(
    serve: Sequence[str] = (),
    *,
    others: Sequence[Sequence[str]] = (),
    beside: Sequence[Beside] = (),
    **guest: Unpack[GuestSettings],
) -> Iterator[Lab]:
    """Serve a card with these arguments of `serve`, boot a guest with it, end both.

    `others` are arguments of `serve` for further cards of the same guest, `beside` further guests of the card.

    Raises:
        ServedCardError: a card is not served.
        GuestError: the guest does not boot.

    From any thread.
    """
    with contextlib.ExitStack() as stack:
        card, *more = [stack.enter_context(open_card(arguments)) for arguments in (serve, *others)]
        lab = Lab(card, stack.enter_context(open_guest(card, *more, **guest)), more)
        for one in beside:
            machine = stack.enter_context(open_guest(card, functions=one.functions, **one.guest))
            lab.beside.append(Neighbour(machine, device_properties(card.description, functions=one.functions)))
        yield lab


@contextlib.contextmanager
def open_guest(
    *cards: LiveCard, functions: Sequence[str] | None = None, **settings: Unpack[GuestSettings]
) -> Iterator[BlockingGuest]:
    """Boot a guest with cards that are served already; end it, and leave the cards.

    `functions` are those that this guest has, by name (a VF of a card with topology "split"); None: what belongs into
    the guest of the card's first function. A server of several cards (`serve --cards`) brings all of them.

    Raises:
        GuestError: The guest does not boot, or does not answer.
        TypeError: There is no such setting.

    From any thread.
    """
    if unknown := sorted(set(settings) - set(GuestSettings.__annotations__)):
        raise TypeError(f"a guest has no setting {unknown[0]!r} (allowed: {', '.join(GuestSettings.__annotations__)})")
    modules, load = settings.get("modules", ()), settings.get("load", ())
    firmware = settings.get("firmware")
    if firmware is None:
        firmware = known_firmware([*modules, *load])
    userland = settings.get("userland")
    if userland and settings.get("root"):
        raise TypeError("a guest has one root file system: either the setting 'userland' or 'root'")
    descriptions = [description for card in cards for description in card.descriptions]
    port = ROOT_BUS if settings.get("root_bus") else DEFAULT_PORT
    spec = GuestSpec(
        machine=Machine(
            memory=settings.get("memory", USUAL_MEMORY),
            cpus=settings.get("cpus", 1),
            cpu=settings.get("cpu"),
            iommu=Iommu() if settings.get("iommu") or needs_iommu(descriptions) else None,
            ovmf=settings.get("ovmf", False),
            arguments=[
                *cards_arguments(
                    descriptions,
                    functions=functions,
                    qtest=settings.get("qtest", True),
                    port=port,
                    unplugged=settings.get("unplugged", False),
                    window=settings.get("window"),
                ),
                *port_arguments(settings.get("ports", {}), cards[0].folder),
                *settings.get("qemu_arguments", ()),
            ],
        ),
        modules=tuple(modules),
        load=tuple(load),
        firmware=tuple(firmware),
        files=dict(settings.get("files") or {}),
        append=settings.get("append", ""),
        kernel=settings.get("kernel"),
        accelerator=settings.get("accelerator", "auto"),
        boot_timeout=settings.get("boot_timeout", GuestSpec.boot_timeout),
        console_log=settings.get("console"),
        direct_boot=settings.get("direct_boot", True),
        root=locate_userland(userland).image if userland else settings.get("root"),
    )
    if settings.get("image"):
        kernel = spec.kernel or Kernel.packaged(locate())
        spec = replace(spec, files={**spec.files, "/boot/kernel": kernel.image})
    with contextlib.ExitStack() as stack:
        try:
            guest = stack.enter_context(BlockingGuest(spec))
        except GuestError as error:
            for card in cards:
                for title, text in card.report():
                    error.add_note(f"{title}:\n{text}")
            raise
        yield guest


def guest_settings() -> list[str]:
    """The keyword arguments of `open_lab`."""
    return [*GuestSettings.__annotations__, "others"]


def _tail_if_there(card: LiveCard) -> str:
    return card.trace_tail() if card.trace_file.exists() else ""


def _tail(path: Path, lines: int) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def _survives(part: Callable[[], str]) -> str:
    """A part of a report that cannot be had must not cost the others."""
    try:
        return part()
    except (GuestError, CommandError, OSError) as error:
        return f"(not to be had: {error})"
