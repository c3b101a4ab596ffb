"""Commands of the control socket that look into the card.

`walk`: every level of the page tables between an address and the bytes behind it: PPGTT (`xe_pt.c`), GGTT
(`xe_ggtt.c`), and for a VF's device addresses LMTT (`xe_lmtt_ml.c`). `activity`: how long engines computed for whom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vfio_user_xe.device_models.xe.gpu import Gpu
from vfio_user_xe.device_models.xe.info import GGTT, INFO, PPGTT
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.device_models.xe.memory.formats import ggtt, lmtt, ppgtt
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.options import UnknownName

_GGTT_WINDOW = 8 << 20
_ROOT_BITS = 52

Step = dict[str, Any]


def register(card: Card, gpu: Gpu, lmtt_root: Callable[[], int | None]) -> None:
    """Add the commands to `card`; `lmtt_root` is LMTT's directory, None while LMTT is off."""
    inspector = Inspector(gpu, lmtt_root)
    card.commands["walk"] = inspector.walk
    card.commands["activity"] = inspector.activity


class Inspector:
    """Looks into one card. On the executor."""

    def __init__(self, gpu: Gpu, lmtt_root: Callable[[], int | None]) -> None:
        self._gpu = gpu
        self._lmtt_root = lmtt_root

    def activity(self) -> list[dict[str, Any]]:
        """Nanoseconds that each engine computed for each function."""
        return [
            {"engine": engine, "function": self._gpu.functions[vfid].name, "busy_ns": busy}
            for gt in self._gpu.gts
            for (engine, vfid), busy in gt.engines.activity().items()
        ]

    def walk(
        self, function: str, address: int, space: str = GGTT, asid: int | None = None, root: int | None = None
    ) -> dict[str, Any]:
        """Page tables from an address ("ggtt", "ppgtt" or "device") to the bytes, level by level."""
        xe = self._function(function)
        if space not in INFO.address_spaces:
            raise UnknownName(space, "address space", INFO.address_spaces)
        _check_address(space, address)
        if root is not None:
            _check_root(root)
        steps: list[Step] = []
        target: tuple[str | None, int]
        try:
            if space == GGTT:
                target = self._ggtt(xe, address, steps)
            elif space == PPGTT:
                target = self._ppgtt(self._space(xe, asid, root), address, steps)
            else:
                target = (Space.DEVICE, address)
            where = self._device(xe, target[1], steps) if target[0] == Space.DEVICE else _place(*target)
        except (TranslationFault, AccessFault, lmtt.LmttFault) as fault:
            return {"steps": steps, "target": None, "fault": str(fault)}
        return {"steps": steps, "target": where, "fault": None}

    def _function(self, name: str) -> XeFunction:
        for function in self._gpu.functions:
            if function.name == name:
                return function
        raise UnknownName(name, "function", [function.name for function in self._gpu.functions])

    def _ggtt(self, xe: XeFunction, address: int, steps: list[Step]) -> tuple[str, int]:
        page = address >> 12
        if 0 <= page < len(xe.ggtt.entries):
            entry = xe.ggtt.entries[page]
            place = f"{xe.name} BAR0+{_GGTT_WINDOW + 8 * page:#x}"
            steps.append(_step("GGTT", 0, page, place, entry, ggtt.meaning(entry)))
        space, target, _ = xe.ggtt.translate(address)
        return space, target

    def _space(self, xe: XeFunction, asid: int | None, root: int | None) -> PpgttSpace:
        """Which PPGTT is meant.

        Raises:
            CommandError: none fits, or neither is given and there is not exactly one; the text lists those in use.
        """
        if root is not None:
            return PpgttSpace(xe, root, asid or 0)
        known = [space for space in self._gpu.spaces.spaces() if isinstance(space, PpgttSpace) and space.function is xe]
        for space in known:
            if space.asid == asid or (asid is None and len(known) == 1):
                return space
        there = ", ".join(f"ASID {space.asid} (root {space.root:#x})" for space in known) or "none"
        raise CommandError(f"say which PPGTT of {xe.name}, by asid or root; contexts use: {there}")

    def _ppgtt(self, space: PpgttSpace, address: int, steps: list[Step]) -> tuple[str | None, int]:
        address &= ppgtt.VA_MASK
        for step in space.describe(address):
            place = f"{space.function.pci.name} device {step.table + 8 * step.slot:#x}"
            steps.append(_step("PPGTT", step.level, step.slot, place, step.entry, ppgtt.meaning(step)))
        extent = space.extent(address, 1, False)
        return extent.space, extent.address

    def _device(self, xe: XeFunction, address: int, steps: list[Step]) -> dict[str, Any]:
        """A device address of `xe`: a DPA of the PF as it is, a GDPA of a VF through LMTT."""
        root = self._lmtt_root()
        if xe.vfid and root is not None:
            self._lmtt(root, xe.vfid, address, steps)
        dpa = self._gpu.vram.to_dpa(xe.pci, address)
        if dpa is None:
            raise AccessFault(xe.pci, Space.DEVICE, address, "it has no VRAM there")
        owner = self._gpu.vram.owner(dpa)
        return _place(Space.DEVICE, dpa, self._gpu.functions[owner].name)

    def _lmtt(self, root: int, vfid: int, gdpa: int, steps: list[Step]) -> None:
        for step in lmtt.walk(self._lmtt_entry, root, vfid, gdpa):
            steps.append(_step("LMTT", step.level, step.slot, f"DPA {step.place:#x}", step.entry, lmtt.meaning(step)))

    def _lmtt_entry(self, dpa: int, size: int) -> int:
        found = self._gpu.vram.resolve(self._gpu.pf.pci, dpa, size, False)
        if found is None:
            raise lmtt.LmttFault(f"LMTT entry: DPA {dpa:#x} is outside of VRAM")
        return int.from_bytes(found[1], "little")


def _check_address(space: str, address: int) -> None:
    """That `space` has `address`: GGTT has 4 GiB, a PPGTT 256 TiB (also written with bit 47 extended), the device 64 bits."""
    end = {GGTT: ggtt.GGTT_SIZE, PPGTT: 1 << ppgtt.VA_BITS}.get(space, 1 << 64)
    extended = space == PPGTT and (1 << 64) - (1 << ppgtt.VA_BITS - 1) <= address < 1 << 64
    if not (0 <= address < end or extended):
        raise CommandError(f"address {address:#x} is not in {space}: allowed is 0 to {end - 1:#x}")


def _check_root(root: int) -> None:
    if not 0 <= root < 1 << _ROOT_BITS or root & 0xFFF:
        raise CommandError(
            f"root {root:#x} is no page table's address: allowed are multiples of 0x1000 below {1 << _ROOT_BITS:#x}"
        )


def _step(table: str, level: int, index: int, place: str, entry: int, meaning: str) -> Step:
    return {"table": table, "level": level, "index": index, "at": place, "entry": entry, "meaning": meaning}


def _place(space: str | None, address: int, owner: str = "") -> dict[str, Any]:
    return {"space": space or "null", "address": address, "owner": owner}
