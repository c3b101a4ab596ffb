"""Commands of the control socket that look into the card, and the trace of context switches.

`walk`: every level of the page tables between an address and the bytes behind it: PPGTT (`xe_pt.c`), GGTT
(`xe_ggtt.c`), and for a VF's device addresses LMTT (`xe_lmtt_ml.c`). `activity`: how long engines computed for whom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.function import Gpu, XeFunction
from vfio_user_xe.device_models.xe.memory import lmtt, ppgtt
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpaces, TranslationFault
from vfio_user_xe.device_models.xe.memory.ggtt import ADDRESS_MASK, DEVICE_MEMORY, PRESENT, VFID_MASK, VFID_SHIFT
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.options import unknown
from vfio_user_xe.emulator.observe.trace import Channel

_GGTT_WINDOW = 8 << 20
_LEVEL_SHIFTS = (12, 21, 30, 39, 48)
_SPACES = ("ggtt", "ppgtt", "device")

Step = dict[str, Any]


def register(card: Card, gpu: Gpu, lmtt_root: Callable[[], int | None]) -> None:
    """Add the commands and the trace channel to `card`; `lmtt_root` is LMTT's directory, None while LMTT is off."""
    inspector = Inspector(gpu, lmtt_root)
    card.commands["walk"] = inspector.walk
    card.commands["activity"] = inspector.activity
    channel = card.tracer.channel("engine", "contexts that engines switch in and out")
    channel.on_switch.append(lambda on: gpu.executor.submit(lambda: _trace_switches(gpu, channel, on)))


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
        self, function: str, address: int, space: str = "ggtt", asid: int | None = None, root: int | None = None
    ) -> dict[str, Any]:
        """Page tables from an address ("ggtt", "ppgtt" or "device") to the bytes, level by level."""
        xe = self._function(function)
        steps: list[Step] = []
        target: tuple[str | None, int]
        try:
            if space == "ggtt":
                target = self._ggtt(xe, address, steps)
            elif space == "ppgtt":
                target = self._ppgtt(self._space(xe, asid, root), address, steps)
            elif space == Space.DEVICE:
                target = (Space.DEVICE, address)
            else:
                raise ValueError(unknown(space, "address space", _SPACES))
            where = self._device(xe, target[1], steps) if target[0] == Space.DEVICE else _place(*target)
        except (TranslationFault, AccessFault, lmtt.LmttFault) as fault:
            return {"steps": steps, "target": None, "fault": str(fault)}
        return {"steps": steps, "target": where, "fault": None}

    def _function(self, name: str) -> XeFunction:
        for function in self._gpu.functions:
            if function.name == name:
                return function
        raise KeyError(unknown(name, "function", [function.name for function in self._gpu.functions]))

    def _ggtt(self, xe: XeFunction, address: int, steps: list[Step]) -> tuple[str, int]:
        page = address >> 12
        if 0 <= page < len(xe.ggtt.entries):
            entry = xe.ggtt.entries[page]
            place = f"{xe.name} BAR0+{_GGTT_WINDOW + 8 * page:#x}"
            steps.append(_step("GGTT", 0, page, place, entry, _ggtt_meaning(entry)))
        space, target, _ = xe.ggtt.translate(address)
        return space, target

    def _space(self, xe: XeFunction, asid: int | None, root: int | None) -> PpgttSpace:
        """Which PPGTT is meant. Raises LookupError with what there is."""
        if root is not None:
            return PpgttSpace(xe, root, asid or 0)
        known = [
            space
            for space in AddressSpaces.of(self._gpu.fabric).spaces()
            if isinstance(space, PpgttSpace) and space.function is xe
        ]
        for space in known:
            if space.asid == asid or (asid is None and len(known) == 1):
                return space
        there = ", ".join(f"ASID {space.asid} (root {space.root:#x})" for space in known) or "none"
        raise LookupError(f"say which PPGTT of {xe.name}, by asid or root; contexts use: {there}")

    def _ppgtt(self, space: PpgttSpace, address: int, steps: list[Step]) -> tuple[str | None, int]:
        address &= ppgtt.VA_MASK
        table, compact = space.root, False
        for level, entry in space.describe(address):
            shift = 16 if compact else _LEVEL_SHIFTS[level]
            index = address >> shift & (0x1F if compact else 0x1FF)
            place = f"{space.function.pci.name} device {table + 8 * index:#x}"
            leaf = not level or bool(entry & ppgtt.LARGE and level <= 2)
            steps.append(_step("PPGTT", level, index, place, entry, _ppgtt_meaning(entry, level, leaf)))
            table, compact = entry & ADDRESS_MASK, level == 1 and bool(entry & ppgtt.COMPACT_64K)
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
        directory = self._entry("LMTT", 2, root, vfid, 8, steps)
        if not directory & 1:
            raise lmtt.LmttFault(f"VF {vfid} has no LMTT table")
        index = gdpa // (lmtt.LEAF_ENTRIES << 21)
        if index >= lmtt.TABLE_ENTRIES:
            raise lmtt.LmttFault(f"GDPA {gdpa:#x} is beyond what LMTT can map")
        table = self._entry("LMTT", 1, (directory & ~0xF) << 12, index, 8, steps)
        if not table & 1:
            raise lmtt.LmttFault(f"VF {vfid}: LMTT maps nothing around GDPA {gdpa:#x}")
        leaf = self._entry("LMTT", 0, (table & ~0xF) << 12, gdpa >> 21 & lmtt.LEAF_ENTRIES - 1, 4, steps)
        if not leaf & 1:
            raise lmtt.LmttFault(f"VF {vfid}: LMTT maps nothing at GDPA {gdpa:#x}")

    def _entry(self, name: str, level: int, table: int, index: int, size: int, steps: list[Step]) -> int:
        place = table + size * index
        found = self._gpu.vram.resolve(self._gpu.pf.pci, place, size, False)
        if found is None:
            raise lmtt.LmttFault(f"LMTT level {level}: DPA {place:#x} is outside of VRAM")
        entry = int.from_bytes(found[1], "little")
        if not entry & 1:
            meaning = "not valid"
        elif level:
            meaning = f"table at DPA {(entry & ~0xF) << 12:#x}"
        else:
            meaning = f"2 MiB at DPA {entry >> 5 << 21:#x}"
        steps.append(_step(name, level, index, f"DPA {place:#x}", entry, meaning))
        return entry


def _step(table: str, level: int, index: int, place: str, entry: int, meaning: str) -> Step:
    return {"table": table, "level": level, "index": index, "at": place, "entry": entry, "meaning": meaning}


def _place(space: str | None, address: int, owner: str = "") -> dict[str, Any]:
    return {"space": space or "null", "address": address, "owner": owner}


def _ggtt_meaning(entry: int) -> str:
    if not entry & PRESENT:
        return "not present"
    vfid = (entry & VFID_MASK) >> VFID_SHIFT
    whose = f", of VF {vfid}" if vfid else ""
    return f"4 KiB in {'VRAM' if entry & DEVICE_MEMORY else 'system memory'} at {entry & ADDRESS_MASK:#x}{whose}"


def _ppgtt_meaning(entry: int, level: int, leaf: bool) -> str:
    if not entry & ppgtt.PRESENT:
        return "not present"
    if not leaf:
        compact = ", of 64 KiB pages" if level == 1 and entry & ppgtt.COMPACT_64K else ""
        return f"table at {entry & ADDRESS_MASK:#x}{compact}"
    if entry & ppgtt.NULL:
        return "null: reads zero, drops writes"
    size = {0: "page", 1: "2 MiB", 2: "1 GiB"}[level]
    memory = "VRAM" if entry & ppgtt.DEVICE_MEMORY else "system memory"
    flags = "" if entry & ppgtt.WRITABLE else ", read-only"
    flags += ", atomics" if entry & ppgtt.ATOMIC_ENABLE else ""
    return f"{size} in {memory} at {entry & ADDRESS_MASK & -(1 << _LEVEL_SHIFTS[level]):#x}{flags}"


def _trace_switches(gpu: Gpu, channel: Channel, on: bool) -> None:
    for gt in gpu.gts:
        for engine in gt.engines.engines:
            _trace_engine(engine, channel, on)


def _trace_engine(engine: Engine, channel: Channel, on: bool) -> None:
    # Attributes of the instance hide the class's methods while they are there.
    overrides = vars(engine)
    for method in ("switch_in", "switch_out"):
        overrides.pop(method, None)
    if not on:
        return
    plain_in, plain_out = engine.switch_in, engine.switch_out

    def switch_in(context: Context, lrc: Lrc) -> None:
        channel.emit(context.function.name, "in", {"engine": engine.name, "context": context.guc_id})
        plain_in(context, lrc)

    def switch_out(*, save: bool = True) -> None:
        context = engine.context
        plain_out(save=save)
        if context is not None:
            channel.emit(context.function.name, "out", {"engine": engine.name, "context": context.guc_id})

    overrides.update(switch_in=switch_in, switch_out=switch_out)
