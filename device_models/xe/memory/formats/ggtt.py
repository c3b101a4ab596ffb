"""The global GTT's entries: one level, 8 bytes for each page of 4 KiB (`regs/xe_gtt_defs.h`, `xe_ggtt.c`)."""

from __future__ import annotations

GGTT_SIZE = 1 << 32
"""Bytes of address space."""
PTES_SIZE = GGTT_SIZE // 4096 * 8
"""Bytes of a full window of entries: 8 MiB."""

PRESENT = 1 << 0
DEVICE_MEMORY = 1 << 1
VFID_SHIFT = 2
VFID_MASK = 0x3FF << VFID_SHIFT
ADDRESS_MASK = (1 << 52) - (1 << 12)
"""regs/xe_gtt_defs.h: XE_PAGE_PRESENT, XE_GGTT_PTE_DM, GGTT_PTE_VFID, XE_PAGE_ADDR_MASK."""


def encode(address: int, *, vram: bool, vfid: int = 0) -> int:
    """A present entry for the page at `address`: a device address with `vram`, else a DMA address.

    Raises:
        ValueError: `address` is not that of a page, or `vfid` does not fit into its field.
    """
    if address & ~ADDRESS_MASK or vfid & ~(VFID_MASK >> VFID_SHIFT):
        raise ValueError(f"GGTT entry: address {address:#x} (of a page below {1 << 52:#x}) of VF {vfid} (0 to 1023)")
    return address | PRESENT | (DEVICE_MEMORY if vram else 0) | vfid << VFID_SHIFT


def vfid_of(entry: int) -> int:
    """The VFID field: whose entry of the PF's window it is; 0 is the PF."""
    return (entry & VFID_MASK) >> VFID_SHIFT


def meaning(entry: int) -> str:
    """The meaning of `entry` in words."""
    if not entry & PRESENT:
        return "not present"
    vfid = vfid_of(entry)
    whose = f", of VF {vfid}" if vfid else ""
    return f"4 KiB in {'VRAM' if entry & DEVICE_MEMORY else 'system memory'} at {entry & ADDRESS_MASK:#x}{whose}"
