"""The QEMU arguments that attach a served card to a machine.

Facts (tried with QEMU 11.1.3): VF n sits at the PF's device and function number plus First VF Offset plus (n - 1) times VF Stride;
a function 0 of a device that has others must say `multifunction`; guest memory must be shared; the CPU must be an Intel
one with 46 address bits, or firmware puts the 64-bit PCI window where QEMU reserves a hole for AMD's HyperTransport.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emulator.card import Card

DESCRIPTION_FILE = "card.json"
MESSAGE_TIMEOUT = 20_000
"""Milliseconds that QEMU waits for an answer; a late one kills the device for good, so rather wait long."""
_FUNCTIONS_A_DEVICE = 8
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FunctionDescription:
    """One served function: its socket, and where it sits relative to the PF's device number."""

    name: str
    socket: str
    devfn: int
    prefetchable: int
    """Bytes of 64-bit prefetchable BARs, for the root port's window."""


@dataclass(frozen=True, slots=True)
class CardDescription:
    """A served card, as the server leaves it in its socket folder for whoever attaches a QEMU."""

    card: str
    model: str
    functions: list[FunctionDescription]
    qtest: str | None = None
    control: str | None = None
    ready: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, card: Card, sockets: dict[str, str], *, qtest: str | None, control: str | None) -> CardDescription:
        """Describe a running card whose functions listen at `sockets` (paths by function name)."""
        sriov = card.functions[0].sriov
        functions = []
        for function in card.functions:
            devfn = 0
            if function.index and sriov is not None:
                devfn = sriov.first_offset + (function.index - 1) * sriov.stride
            reserve = sum(bar.size for bar in function.bars.values() if bar.is_64bit and bar.prefetchable)
            if function.is_vf:
                # The window of all VF BARs lies in the PF's SR-IOV capability, whatever their type bits.
                reserve = sum(bar.size for bar in function.bars.values())
            functions.append(FunctionDescription(function.name, sockets[function.name], devfn, reserve))
        return cls(card.name, card.config.model, functions, qtest, control)

    def write(self, folder: Path) -> None:
        """Leave the description in `folder`, whole or not at all."""
        temporary = folder / f".{DESCRIPTION_FILE}.new"
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n")
        temporary.replace(folder / DESCRIPTION_FILE)

    @classmethod
    def read(cls, folder: Path) -> CardDescription:
        """The description of the card served in `folder`. Raises FileNotFoundError with what to do."""
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
    port: str = "vfuport",
    chassis: int = 1,
    functions: Iterable[str] | None = None,
    qtest: bool = True,
) -> list[str]:
    """Root port, functions and qtest socket, as QEMU arguments.

    `port` and `chassis` must differ between cards of one machine. `functions` picks some by name (the default is all);
    a picked VF without the PF sits alone at function 0. `qtest` lets the server program the VF BARs in every IOMMU mode.
    """
    chosen = [f for f in card.functions if functions is None or f.name in set(functions)]
    window = _power_of_two(sum(function.prefetchable for function in chosen) + _MIB)
    arguments = ["-device", f"pcie-root-port,id={port},chassis={chassis},slot={chassis},pref64-reserve={window}"]
    alone = len(chosen) == 1
    devices = {function.devfn // _FUNCTIONS_A_DEVICE for function in chosen}
    for function in chosen:
        slot, number = divmod(0 if alone else function.devfn, _FUNCTIONS_A_DEVICE)
        device: dict[str, Any] = {
            "driver": "vfio-user-pci",
            "id": f"{port}-{function.name}",
            "bus": port,
            "addr": f"{slot:x}.{number}",
            "x-msg-timeout": MESSAGE_TIMEOUT,
            "socket": {"type": "unix", "path": function.socket},
        }
        if number == 0 and not alone and slot in devices:
            device["multifunction"] = True
        arguments += ["-device", json.dumps(device, separators=(",", ":"))]
    if qtest and card.qtest and len(card.functions) > 1:
        arguments += ["-qtest", f"unix:{card.qtest}", "-qtest-log", "none"]
    return arguments


def machine_arguments(memory: str = "2G", cpus: int = 1) -> list[str]:
    """The machine a card needs: shared memory, and a CPU model with room for its BARs."""
    return [
        "-machine",
        "q35,memory-backend=ram",
        "-object",
        f"memory-backend-memfd,id=ram,size={memory},share=on",
        "-m",
        memory,
        "-smp",
        str(cpus),
        "-cpu",
        "max,vendor=GenuineIntel,phys-bits=46",
    ]


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
