"""The QEMU arguments that attach a served card to a machine (which is described in `machine.py`).

Facts (tried with QEMU 11.1.3): VF n sits at the PF's device and function number plus First VF Offset plus (n - 1) times VF Stride;
a function 0 of a device that has others must say `multifunction`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vfio_user_xe.emulator.model.model_info import Topology

if TYPE_CHECKING:
    from vfio_user_xe.emulator.model.card import Card

DESCRIPTION_FILE = "card.json"
CARD_FOLDER = "card"
"""With a number behind it: a card's own folder, where a server has several."""
MESSAGE_TIMEOUT = 20_000
"""Milliseconds that QEMU waits for an answer; a late answer kills the device until QEMU ends, so the limit is long."""
DEFAULT_PORT = "vfuport"
ROOT_BUS = "pcie.0"
"""The machine's own bus."""
_ROOT_SLOT = 4
"""Cards on the root bus come behind this device; QEMU's own are at 0 and 0x1f."""
_FUNCTIONS_A_DEVICE = 8
_SLOTS = 256
"""QEMU keeps a port's slot number in a byte."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FunctionDescription:
    """One served function: its socket, and where it sits relative to the PF's device number."""

    name: str
    socket: str
    devfn: int
    prefetchable: int
    """Bytes of 64-bit prefetchable BARs, for the root port's window."""
    apart: bool = False
    """Whether it belongs into another guest than the card's first function."""


@dataclass(frozen=True, slots=True)
class CardDescription:
    """A served card, as the server records it in its socket folder, for programs that attach a QEMU."""

    card: str
    model: str
    functions: list[FunctionDescription]
    qtest: str | None = None
    control: str | None = None
    topology: str = ""
    """How the card's functions are spread over guests, for device models that have a choice (docs/topologies.md)."""
    iommu: bool = False
    """Whether that takes a vIOMMU in the guest."""
    ready: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, card: Card, sockets: dict[str, str], *, qtest: str | None, control: str | None) -> CardDescription:
        """Describe a running card whose functions listen at `sockets` (paths by function name)."""
        sriov = card.functions[0].sriov
        first = card.served[0]
        functions = []
        for function in card.served:
            devfn = function.index - first.index
            if function.index and sriov is not None:
                devfn = sriov.routing_offset(function.index)
            reserve = sum(bar.size for bar in function.bars.values() if bar.is_64bit and bar.prefetchable)
            if function.is_vf:
                # The window of all VF BARs lies in the PF's SR-IOV capability, whatever their type bits.
                reserve = sum(bar.size for bar in function.bars.values())
            apart = function.assigned and not first.assigned
            functions.append(FunctionDescription(function.name, sockets[function.name], devfn, reserve, apart))
        topology = str(card.config.options.get("topology", ""))
        iommu = card.info.topologies.get(topology, Topology()).iommu
        return cls(card.name, card.config.model, functions, qtest, control, topology, iommu)

    def write(self, folder: Path) -> None:
        """Leave the description in `folder`, whole or not at all."""
        temporary = folder / f".{DESCRIPTION_FILE}.new"
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n")
        temporary.replace(folder / DESCRIPTION_FILE)

    @classmethod
    def read_all(cls, folders: Iterable[Path]) -> list[CardDescription]:
        """The cards served in `folders`: one of each, or those of a server of several (`serve --cards`), in order.

        Raises:
            FileNotFoundError: no card is served in a folder; the text says what to do.
        """
        found = []
        for folder in folders:
            parts = sorted(folder.glob(f"{CARD_FOLDER}*/{DESCRIPTION_FILE}"), key=lambda path: _number(path.parent))
            found += [cls.read(part.parent) for part in parts] or [cls.read(folder)]
        return found

    @classmethod
    def read(cls, folder: Path) -> CardDescription:
        """The description of the card served in `folder`.

        Raises:
            FileNotFoundError: no card is served there; the text says what to do.
        """
        try:
            data = json.loads((folder / DESCRIPTION_FILE).read_text())
        except FileNotFoundError:
            raise FileNotFoundError(
                f"no card is served in {folder}: start one with 'vfio-user-xe serve --socket-dir {folder}'"
            ) from None
        data["functions"] = [FunctionDescription(**function) for function in data["functions"]]
        return cls(**data)


def device_arguments(
    card: CardDescription,
    *,
    port: str = DEFAULT_PORT,
    chassis: int = 1,
    functions: Iterable[str] | None = None,
    qtest: bool = True,
    unplugged: bool = False,
    window: int | None = None,
    switches: int = 0,
) -> list[str]:
    """Root port, functions and qtest socket, as QEMU arguments.

    `port` and `chassis` must differ between cards of one machine; with `ROOT_BUS` for a port there is none, and the
    functions are endpoints of the root complex. `functions` picks some by name; the default is all
    that belong into the guest of the card's first function. Picked VFs without the PF sit at function 0 and those that
    follow. `qtest` lets the server program the VF BARs in every IOMMU mode. `unplugged` leaves the functions out:
    `device_properties` are what QMP's `device_add` takes. `window` is the size in bytes of what is behind the root port
    for 64-bit prefetchable BARs; None: as large as they need. So many `switches` lie between the root port and the
    functions, which are behind the last one's downstream port, `port`.
    """
    functions = None if functions is None else tuple(functions)
    chosen = _chosen(card, functions)
    if window is None:
        window = _power_of_two(sum(function.prefetchable for function in chosen) + _MIB)
    top = f"{port}-root" if switches else port
    arguments = ["-device", f"pcie-root-port,id={top},chassis={chassis},slot={chassis},pref64-reserve={window}"]
    if port == ROOT_BUS:
        arguments = []
    else:
        arguments += _switches(port, chassis, switches)
    if not unplugged:
        for device in device_properties(card, port=port, chassis=chassis, functions=functions):
            arguments += ["-device", json.dumps(device, separators=(",", ":"))]
    if qtest and _programs(card, functions):
        arguments += _qtest_arguments(str(card.qtest))
    return arguments


def _switches(port: str, chassis: int, count: int) -> list[str]:
    """Switches with one downstream port each, below the root port `port`-root; the last downstream port is `port`."""
    arguments: list[str] = []
    above = f"{port}-root"
    for number in range(1, count + 1):
        below = port if number == count else f"{port}-down{number}"
        slot = (chassis + number) % _SLOTS  # the root port of this chassis has the number `chassis`
        arguments += ["-device", f"x3130-upstream,id={port}-up{number},bus={above}"]
        arguments += ["-device", f"xio3130-downstream,id={below},bus={port}-up{number},chassis={chassis},slot={slot}"]
        above = below
    return arguments


def _programs(card: CardDescription, functions: Sequence[str] | None) -> bool:
    """Whether the server programs BARs of these functions over qtest: those of VFs that are with their PF."""
    has_pf = functions is None or card.functions[0].name in functions
    return has_pf and card.qtest is not None and len(card.functions) > 1


def _chosen(card: CardDescription, functions: Iterable[str] | None) -> list[FunctionDescription]:
    names = None if functions is None else set(functions)
    chosen = [f for f in card.functions if (not f.apart if names is None else f.name in names)]
    if chosen and all(function.devfn for function in chosen):
        # Kernels do not scan a device that has no function 0.
        return [replace(function, devfn=number) for number, function in enumerate(chosen)]
    return chosen


def device_properties(
    card: CardDescription, *, port: str = DEFAULT_PORT, chassis: int = 1, functions: Iterable[str] | None = None
) -> list[dict[str, Any]]:
    """The functions as properties of QEMU's devices; see `device_arguments`. Function 0 is the first of its device."""
    chosen = _chosen(card, functions)
    first = _ROOT_SLOT + chassis if port == ROOT_BUS else 0
    alone = len(chosen) == 1
    devices = []
    for function in chosen:
        slot, number = divmod(function.devfn, _FUNCTIONS_A_DEVICE)
        device: dict[str, Any] = {
            "driver": "vfio-user-pci",
            "id": f"{port}-{first}-{function.name}" if first else f"{port}-{function.name}",
            "bus": port,
            "addr": f"{first + slot:x}.{number}",
            "x-msg-timeout": MESSAGE_TIMEOUT,
            "socket": {"type": "unix", "path": function.socket},
        }
        if number == 0 and not alone:
            device["multifunction"] = True
        devices.append(device)
    return devices


def _qtest_arguments(socket: str) -> list[str]:
    return ["-qtest", f"unix:{socket}", "-qtest-log", "none"]


def _number(folder: Path) -> int:
    digits = folder.name.removeprefix(CARD_FOLDER)
    return int(digits) if digits.isdecimal() else 0


def cards_arguments(
    cards: Sequence[CardDescription],
    *,
    port: str = DEFAULT_PORT,
    chassis: int = 1,
    functions: Iterable[str] | None = None,
    qtest: bool = True,
    unplugged: bool = False,
    window: int | None = None,
    switches: int = 0,
) -> list[str]:
    """As `device_arguments`, for all cards of one machine: the second is at `port` + "2" and the next chassis, and so on.

    A machine has one qtest socket. Of cards in several processes the first gets it; the others program their VFs' BARs
    by DMA of the PF, for which no vIOMMU may be in their way.
    """
    arguments: list[str] = []
    functions = None if functions is None else tuple(functions)
    socket = next((card.qtest for card in cards if card.qtest), None)
    for index, card in enumerate(cards):
        name = f"{port}{index + 1}" if index and port != ROOT_BUS else port
        arguments += device_arguments(
            card,
            port=name,
            chassis=chassis + index,
            functions=functions,
            qtest=False,
            unplugged=unplugged,
            window=window,
            switches=switches,
        )
    if qtest and socket is not None and any(_programs(card, functions) for card in cards):
        arguments += _qtest_arguments(socket)
    return arguments


def needs_iommu(cards: Iterable[CardDescription]) -> bool:
    """Whether a card's topology needs a vIOMMU."""
    return any(card.iommu for card in cards)


def as_shell(arguments: Sequence[str]) -> str:
    """Arguments as lines of a shell command."""
    lines: list[str] = []
    for argument in arguments:
        if argument.startswith("-") and not argument.startswith("-_"):
            lines.append(shlex.quote(argument))
        else:
            lines[-1] += " " + shlex.quote(argument)
    return " \\\n".join(lines)


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 1).bit_length()
