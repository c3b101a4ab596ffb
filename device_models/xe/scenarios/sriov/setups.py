"""The machines that the scenarios of SR-IOV's life run on."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.card import CPU, MODULES
from vfio_user_xe.device_models.xe.scenarios.setups import PATIENT
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.emulator.guest.settings import GuestSettings
from vfio_user_xe.emulator.scenarios.scenario import Setup

GIB = 1 << 30


def guest(append: str = "iommu=pt", *, iommu: bool = True) -> GuestSettings:
    """What each of these guests has."""
    return {
        "modules": (*MODULES, "configfs?", "button?"),
        "memory": 1536,
        "cpus": 2,
        "iommu": iommu,
        "append": f"{append} {PATIENT}".strip(),
    }


SERVE = ("--vfs", "3", "--set", "vram=2GiB", "--set", "vf_bar2=64MiB")
USUAL = Setup(
    "two GTs, four compute engines, a vIOMMU",
    (*SERVE, "--set", "media=true", "--set", "ccs=4"),
    guest(),
    SriovMachine.of,
)
"""Most scenarios share this one's guest."""
MANY = Setup(
    "24 VFs", ("--vfs", "24", "--set", "vram=4GiB", "--set", "vf_bar2=64MiB"), guest("", iommu=False), SriovMachine.of
)
SMALL_VRAM = Setup(
    "1 GiB of VRAM",
    ("--vfs", "2", "--set", "vram=1GiB", "--set", "vf_bar2=64MiB"),
    guest("", iommu=False),
    SriovMachine.of,
)
SMALL_BAR = Setup(
    "small BARs",
    ("--vfs", "2", "--set", "vram=4GiB", "--set", "bar2=256MiB", "--set", "vf_bar2=64MiB"),
    guest("", iommu=False),
    SriovMachine.of,
)
NO_ROOM = Setup(
    "a root port without room for VFs",
    ("--vfs", "24", "--set", "vram=4GiB", "--set", "vf_bar2=8GiB"),
    {**guest("", iommu=False), "window": 8 * GIB},
    SriovMachine.of,
)
POWER = Setup(
    "UEFI firmware",
    ("--vfs", "3", "--set", "vram=2GiB"),
    {**guest("no_console_suspend", iommu=False), "ovmf": True, "image": True},
    SriovMachine.of,
)
"""Suspending to RAM: SeaBIOS leaves MMCONFIG disabled when it wakes up, and a kernel that QEMU loads itself is not resumed.

BAR2 of VFs is as large as usual, so that the VFs' memory while the PF has no driver lies where that driver's VRAM was."""
HOT_PLUG = Setup(
    "a slot without a card",
    SERVE,
    {**guest("", iommu=False), "unplugged": True, "window": 8 * GIB},
    SriovMachine.without_driver,
)
_CARD = ("--vfs", "0", "--set", "vram=1GiB")
THREE_CARDS = Setup(
    "three cards, AMD",
    _CARD,
    {**guest("", iommu=False), "cpu": CPU, "memory": 2048},
    SriovMachine.of,
    others=(_CARD, _CARD),
)
"""Shared virtual memory; the processor is one behind whose host bridge Linux lets peer-to-peer traffic through."""
