"""The mappings of PPGTTs as ranges: contiguous on both sides, with entries that differ only in their address.

A range is {"va", "size", "pages" (size of a page), "kind", "address", "writable", "entry" (the first one)}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vfio_user_xe.device_models.xe.memory.formats.ppgtt import DEVICE_MEMORY, NULL, VA_BITS, WRITABLE, Leaf, target
from vfio_user_xe.device_models.xe.memory.function import Device
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.model.options import UnknownName

_SIZES = {12: "4K", 16: "64K", 21: "2M", 30: "1G"}


def ppgtt_command(gpu: Device) -> Callable[..., list[dict[str, Any]]]:
    """The control socket's `ppgtt` for this card."""

    def ppgtt(
        function: str | None = None, asid: int | None = None, start: int = 0, end: int = 1 << VA_BITS
    ) -> list[dict[str, Any]]:
        """PPGTTs that contexts use now, and what they map in [start, end); the kernel's own has ASID 0."""
        names = [known.pci.name for known in gpu.functions]
        if function is not None and function not in names:
            raise UnknownName(function, "function", names)
        if not 0 <= start < end <= 1 << VA_BITS:
            raise CommandError(f"[{start:#x}, {end:#x}) is not a range of [0, {1 << VA_BITS:#x})")
        found = []
        for space in gpu.spaces.spaces():
            if not isinstance(space, PpgttSpace):
                continue
            name = space.function.pci.name
            if function in (None, name) and asid in (None, space.asid):
                ranges = list(_merged(space.leaves(start, end)))
                found.append({"function": name, "asid": space.asid, "root": space.root, "ranges": ranges})
        return sorted(found, key=lambda entry: (str(entry["function"]), entry["asid"], entry["root"]))

    return ppgtt


def _merged(leaves: Iterator[Leaf]) -> Iterator[dict[str, Any]]:
    current: dict[str, Any] | None = None
    attributes = 0
    for address, entry, shift in leaves:
        place = target(entry, shift)
        flags = entry ^ place
        if (
            current is not None
            and flags == attributes
            and _SIZES[shift] == current["pages"]
            and current["va"] + current["size"] == address
            and (current["address"] + current["size"] == place or entry & NULL)
        ):
            current["size"] += 1 << shift
            continue
        if current is not None:
            yield current
        kind = "null" if entry & NULL else "vram" if entry & DEVICE_MEMORY else "system"
        attributes = flags
        current = {
            "va": address,
            "size": 1 << shift,
            "pages": _SIZES[shift],
            "kind": kind,
            "address": place,
            "writable": bool(entry & WRITABLE),
            "entry": entry,
        }
    if current is not None:
        yield current
