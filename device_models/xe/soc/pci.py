"""What the functions have in configuration space, at the places of the real cards.

From public `lspci -vvv` of Battlemage cards (e20b, e211, e223) and, where those are cut off, of the generation before, whose
configuration space was published whole (56a0); `docs/hardware/pci.md` compares them line by line.
"""

from __future__ import annotations

from collections.abc import Sequence

from vfio_user_xe.device_models.xe.memory.memory_map import MIB
from vfio_user_xe.device_models.xe.profiles.profile import Profile
from vfio_user_xe.emulator.pci.capabilities import (
    Ari,
    DeviceSerialNumber,
    Msi,
    PowerManagement,
    ResizableBar,
    VendorSpecific,
)
from vfio_user_xe.emulator.pci.capability import Capability
from vfio_user_xe.emulator.pci.express import ASPM_L0S, ASPM_L1, LatencyTolerance, PciExpress

VENDOR, PCIE, MSI, PM = 0x40, 0x70, 0xAC, 0xD0
DSN, ARI, SRIOV, LTR, REBAR = 0x100, 0x200, 0x320, 0x400, 0x420

_INTEL_CAPABILITIES = bytes([0x01, 0x03, 0, 0, 0, 0, 0, 0, 0])
"""Version 1; what its bits mean is not published for graphics cards."""
_LEAST = 256 * MIB
"""The BAR's size at power-on, and the least that the cards list."""
_PME_FROM = 0b01001
"""D0 and D3hot."""


def express() -> PciExpress:
    """The GPU is behind the card's own switch: its link is one lane of 2.5 GT/s on paper, whatever the slot has."""
    return PciExpress(
        PCIE,
        link_speed=1,
        link_width=1,
        aspm=ASPM_L0S | ASPM_L1,
        aspm_optional=True,
        any_latency=True,
        completion_timeouts=0,
        ltr=True,
        tags_10_bit=True,
    )


def pf_capabilities(profile: Profile, serial: int, sriov: bool) -> Sequence[Capability]:
    """The PF's, but for SR-IOV itself."""
    return [
        VendorSpecific(_INTEL_CAPABILITIES, VENDOR),
        express(),
        Msi(1, MSI),
        PowerManagement(PM, pme_support=_PME_FROM),
        DeviceSerialNumber(serial, DSN),
        *([Ari(ARI)] if sriov else []),
        LatencyTolerance(LTR),
        ResizableBar(2, _sizes(profile), REBAR),
    ]


def vf_capabilities(serial: int) -> list[Capability]:
    """A VF's. It has no power management: with one, an idle VF under vfio-pci would be put into D3hot."""
    return [express(), Msi(1, MSI), DeviceSerialNumber(serial, DSN), Ari(ARI)]


def _sizes(profile: Profile) -> list[int]:
    """Powers of two from 256 MiB to what all of VRAM needs; and what the BAR has, if that is less."""
    most = max(profile.bar2, 1 << (profile.vram - 1).bit_length(), _LEAST)
    sizes = [_LEAST << n for n in range((most // _LEAST).bit_length())]
    return sizes if profile.bar2 >= _LEAST else [max(profile.bar2, MIB), *sizes]
