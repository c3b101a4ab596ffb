"""The public API for device models and interconnects: what a plug-in may import, and will find again.

    from vfio_user_xe.emulator.api import Bar, Card, Function, Identity, Msi, Option, Register, RegisterFile

Everything here keeps its meaning while the first number of `API_VERSION` stays; the second one rises when something is
added. Other names of `emulator` may change at any time. Tests of plug-ins may also use `vfio_user_xe.emulator.testing.fake_transport` (a client
without a socket), `vfio_user_xe.emulator.testing.lab` (a served card, a guest that has it), `vfio_user_xe.emulator.recording` (a card's past done again) and
the fixtures of `vfio_user_xe.emulator.testing.pytest_plugin`.

`docs/api.md` is made from the docstrings: `vfio-user-xe api-reference`.
"""

from __future__ import annotations

from vfio_user_xe.emulator import API_VERSION
from vfio_user_xe.emulator.control.dispatch import inline
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.fabric.interconnect import (
    AccessFault,
    Fabric,
    Initiator,
    Interconnect,
    Ledger,
    LedgerEntry,
    Space,
    Way,
    Window,
)
from vfio_user_xe.emulator.model.card import (
    Card,
    CardConfig,
    CardError,
    Command,
    DeviceMemory,
    DeviceModel,
    InterconnectConfig,
    Option,
)
from vfio_user_xe.emulator.model.clock import CardClock
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.faults import FaultPoint, Faults
from vfio_user_xe.emulator.model.memory import PAGE_SIZE, Memory, OutOfBounds
from vfio_user_xe.emulator.model.model_info import ModelInfo, Topology, TraceProcess
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import (
    MASKED,
    PF,
    RO,
    RW,
    VF,
    W1C,
    W1S,
    Field,
    FieldKind,
    Register,
    field,
    flag,
    not_modelled,
    reserved,
)
from vfio_user_xe.emulator.observe.tap import Tap
from vfio_user_xe.emulator.observe.trace import Tracer
from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import (
    Ari,
    DeviceSerialNumber,
    ExtendedVendorSpecific,
    Msi,
    MsiX,
    PowerManagement,
    ResizableBar,
    VendorSpecific,
)
from vfio_user_xe.emulator.pci.capability import Capability
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER, COMMAND_MEMORY, ConfigRegister, ConfigSpace
from vfio_user_xe.emulator.pci.express import LatencyTolerance, PciExpress
from vfio_user_xe.emulator.pci.function import D3HOT, DISABLED, FLR, RESET, Function, Identity
from vfio_user_xe.emulator.pci.sriov import Sriov
from vfio_user_xe.emulator.pci.transport import AccessHandler, DmaError

SECTIONS: dict[str, tuple[str, ...]] = {
    "Cards and plug-ins": (
        "API_VERSION",
        "Card",
        "CardConfig",
        "CardError",
        "Command",
        "CommandError",
        "DeviceModel",
        "InterconnectConfig",
        "ModelInfo",
        "Option",
        "Topology",
        "TraceProcess",
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
        "LatencyTolerance",
        "PowerManagement",
        "DeviceSerialNumber",
        "VendorSpecific",
        "ExtendedVendorSpecific",
        "Ari",
        "ResizableBar",
        "Sriov",
    ),
    "Registers": (
        "Register",
        "Field",
        "FieldKind",
        "flag",
        "field",
        "not_modelled",
        "reserved",
        "RegisterFile",
        "RW",
        "RO",
        "W1C",
        "W1S",
        "MASKED",
        "PF",
        "VF",
    ),
    "Memory and interconnects": (
        "Memory",
        "OutOfBounds",
        "PAGE_SIZE",
        "DeviceMemory",
        "Space",
        "Initiator",
        "Interconnect",
        "Way",
        "Window",
        "Fabric",
        "Ledger",
        "LedgerEntry",
        "AccessFault",
        "DmaError",
    ),
    "Work, time, traces, faults": ("Executor", "CardClock", "Tap", "Tracer", "FaultPoint", "Faults"),
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
    "CardClock",
    "CardConfig",
    "CardError",
    "Command",
    "CommandError",
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
    "Field",
    "FieldKind",
    "Function",
    "Identity",
    "Initiator",
    "Interconnect",
    "InterconnectConfig",
    "LatencyTolerance",
    "Ledger",
    "LedgerEntry",
    "Memory",
    "ModelInfo",
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
    "Tap",
    "Topology",
    "TraceProcess",
    "Tracer",
    "VendorSpecific",
    "Way",
    "Window",
    "field",
    "flag",
    "inline",
    "not_modelled",
    "reserved",
]
