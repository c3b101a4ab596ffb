"""The public API for device models and interconnects: what a plug-in may import, and will find again.

    from emulator.api import Bar, Card, Function, Identity, Msi, Option, Register, RegisterFile

Everything here keeps its meaning while the first number of `API_VERSION` stays; the second one rises when something is
added. Other names of `emulator` may change at any time. Tests of plug-ins may also use `emulator.testing` (a client
without a socket), `emulator.lab` (a served card, a guest that has it), `emulator.recording` (a card's past done again) and
the fixtures of `emulator.pytest_plugin`.

`docs/api.md` is made from the docstrings: `vfio-user-xe api-reference`.
"""

from __future__ import annotations

from emulator import API_VERSION
from emulator.card import Card, CardConfig, CardError, Command, DeviceMemory, DeviceModel, InterconnectConfig, Option
from emulator.control import inline
from emulator.executor import Executor
from emulator.faults import FaultPoint, Faults
from emulator.interconnect import (
    AccessFault,
    Fabric,
    Initiator,
    Interconnect,
    Ledger,
    LedgerEntry,
    Space,
    Window,
)
from emulator.memory import PAGE_SIZE, Memory, OutOfBounds
from emulator.observe.trace import Channel, Tracer
from emulator.pci import (
    D3HOT,
    DISABLED,
    FLR,
    RESET,
    Ari,
    Bar,
    Capability,
    ConfigRegister,
    ConfigSpace,
    DeviceSerialNumber,
    ExtendedVendorSpecific,
    Function,
    Identity,
    Msi,
    MsiX,
    PciExpress,
    PowerManagement,
    ResizableBar,
    Sriov,
    VendorSpecific,
)
from emulator.pci.function import COMMAND, COMMAND_MASTER, COMMAND_MEMORY
from emulator.pci.transport import AccessHandler, DmaError
from emulator.registers import MASKED, PF, RO, RW, VF, W1C, W1S, Register, RegisterFile

SECTIONS: dict[str, tuple[str, ...]] = {
    "Cards and plug-ins": (
        "API_VERSION",
        "Card",
        "CardConfig",
        "CardError",
        "Command",
        "DeviceModel",
        "InterconnectConfig",
        "Option",
        "inline",
    ),
    "PCI functions": (
        "Function",
        "Identity",
        "Bar",
        "AccessHandler",
        "ConfigSpace",
        "ConfigRegister",
        "COMMAND",
        "COMMAND_MEMORY",
        "COMMAND_MASTER",
        "RESET",
        "FLR",
        "D3HOT",
        "DISABLED",
    ),
    "Capabilities": (
        "Capability",
        "Msi",
        "MsiX",
        "PciExpress",
        "PowerManagement",
        "DeviceSerialNumber",
        "VendorSpecific",
        "ExtendedVendorSpecific",
        "Ari",
        "ResizableBar",
        "Sriov",
    ),
    "Registers": ("Register", "RegisterFile", "RW", "RO", "W1C", "W1S", "MASKED", "PF", "VF"),
    "Memory and interconnects": (
        "Memory",
        "OutOfBounds",
        "PAGE_SIZE",
        "DeviceMemory",
        "Space",
        "Initiator",
        "Interconnect",
        "Window",
        "Fabric",
        "Ledger",
        "LedgerEntry",
        "AccessFault",
        "DmaError",
    ),
    "Work, traces, faults": ("Executor", "Channel", "Tracer", "FaultPoint", "Faults"),
}
"""The public names, as the reference shows them."""

__all__ = [
    "API_VERSION",
    "COMMAND",
    "COMMAND_MASTER",
    "COMMAND_MEMORY",
    "D3HOT",
    "DISABLED",
    "FLR",
    "MASKED",
    "PAGE_SIZE",
    "PF",
    "RESET",
    "RO",
    "RW",
    "SECTIONS",
    "VF",
    "W1C",
    "W1S",
    "AccessFault",
    "AccessHandler",
    "Ari",
    "Bar",
    "Capability",
    "Card",
    "CardConfig",
    "CardError",
    "Channel",
    "Command",
    "ConfigRegister",
    "ConfigSpace",
    "DeviceMemory",
    "DeviceModel",
    "DeviceSerialNumber",
    "DmaError",
    "Executor",
    "ExtendedVendorSpecific",
    "Fabric",
    "FaultPoint",
    "Faults",
    "Function",
    "Identity",
    "Initiator",
    "Interconnect",
    "InterconnectConfig",
    "Ledger",
    "LedgerEntry",
    "Memory",
    "Msi",
    "MsiX",
    "Option",
    "OutOfBounds",
    "PciExpress",
    "PowerManagement",
    "Register",
    "RegisterFile",
    "ResizableBar",
    "Space",
    "Sriov",
    "Tracer",
    "VendorSpecific",
    "Window",
    "inline",
]
