"""The chips behind Battlemage's device ids: G21 and G31, and what of each a product has.

Ids: `include/drm/intel/pciids.h:INTEL_BMG_IDS`, divided as the compute runtime does (`device_ids_configs_bmg.h`). Xe cores, render
slices and the memory bus are those of Intel's product pages: B580 (e20b) 20 cores in 5 slices, 192 bits; B570 (e20c) 18, 160 bits;
Pro B60 (e211) as B580; Pro B50 (e212) 16 in 4 slices, 128 bits; Pro B65 (e222) 20 in 5 slices, 256 bits; Pro B70 (e223) 32 in 8
slices, 256 bits. An id without a product has all that its chip has. A channel of GDDR6 is 16 bits wide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

XE_CORES_PER_SLICE = 4
EUS_PER_XE_CORE = 8
THREADS_PER_EU = 8
_BITS_PER_CHANNEL = 16


@dataclass(frozen=True, slots=True)
class Part:
    """What of a chip is not fused off."""

    chip: str
    xe_cores: int
    memory_bits: int
    prefetchable_registers: bool = True
    """Whether the PF's BAR0 says that it is prefetchable; a B580's does not (public `lspci -vvv`)."""

    @property
    def slices(self) -> int:
        """Render slices with at least one Xe core."""
        return -(-self.xe_cores // XE_CORES_PER_SLICE)

    @property
    def eus(self) -> int:
        """Execution units of all Xe cores."""
        return self.xe_cores * EUS_PER_XE_CORE

    @property
    def threads(self) -> int:
        """Threads that all execution units hold at once."""
        return self.eus * THREADS_PER_EU

    @property
    def memory_channels(self) -> int:
        """Channels of GDDR6."""
        return self.memory_bits // _BITS_PER_CHANNEL


_G21 = Part("G21", xe_cores=20, memory_bits=192)
_G31 = Part("G31", xe_cores=32, memory_bits=256)

PARTS = {
    0xE202: _G21,
    0xE209: _G21,
    0xE20B: replace(_G21, prefetchable_registers=False),
    0xE20C: Part("G21", xe_cores=18, memory_bits=160),
    0xE20D: _G21,
    0xE210: _G21,
    0xE211: _G21,
    0xE212: Part("G21", xe_cores=16, memory_bits=128),
    0xE216: _G21,
    0xE220: _G31,
    0xE221: _G31,
    0xE222: Part("G31", xe_cores=20, memory_bits=256),
    0xE223: _G31,
}
"""By PCI device id."""
