"""PCI functions: configuration space, capabilities, BARs, interrupts, SR-IOV."""

from vfio_user_xe.emulator.pci.bars import Bar
from vfio_user_xe.emulator.pci.capabilities import (
    Ari,
    DeviceSerialNumber,
    ExtendedVendorSpecific,
    Msi,
    MsiX,
    PciExpress,
    PowerManagement,
    ResizableBar,
    VendorSpecific,
)
from vfio_user_xe.emulator.pci.capability import Capability
from vfio_user_xe.emulator.pci.config_space import ConfigRegister, ConfigSpace
from vfio_user_xe.emulator.pci.function import D3HOT, DISABLED, FLR, RESET, Function, Identity
from vfio_user_xe.emulator.pci.sriov import Sriov

__all__ = [
    "D3HOT",
    "DISABLED",
    "FLR",
    "RESET",
    "Ari",
    "Bar",
    "Capability",
    "ConfigRegister",
    "ConfigSpace",
    "DeviceSerialNumber",
    "ExtendedVendorSpecific",
    "Function",
    "Identity",
    "Msi",
    "MsiX",
    "PciExpress",
    "PowerManagement",
    "ResizableBar",
    "Sriov",
    "VendorSpecific",
]
