"""What reports of the scenarios show of the card: VRAM by owner, and what changed owner, in the card's own addresses."""

from __future__ import annotations

from typing import TypedDict, cast

from vfio_user_xe.emulator.model.options import format_size
from vfio_user_xe.emulator.results import Evidence, MemoryMap, Range, Table
from vfio_user_xe.emulator.scenarios.records import Ownership, Records

RECORDS = ("vram_map",)
"""Commands of the card whose answers `exhibits` wants, besides those that every card has."""

_MOST_CHANGES = 40


class Block(TypedDict):
    """Memory that LMTT gives a VF, in bytes."""

    gdpa: int
    dpa: int
    size: int


class VramMap(TypedDict):
    """What the card's command `vram_map` answers."""

    size: int
    vfs: dict[str, list[Block]]


def exhibits(records: Records) -> list[Evidence]:
    """The evidence in what the card told after a scenario."""
    found: list[Evidence] = []
    vram = cast("VramMap | None", records.of_suite.get("vram_map"))
    if vram is not None and vram["vfs"]:
        found.append(_memory_map(vram))
    if records.ownership.get("changes") or records.ownership.get("resets"):
        found.append(_ownership(records.ownership))
    return found


def _memory_map(vram: VramMap) -> MemoryMap:
    """VRAM by owner, and where the owners' addresses lead (LMTT)."""
    ranges, rows, legend = [], [], {}
    for owner, parts in vram["vfs"].items():
        legend[owner] = f"{owner} ({format_size(sum(part['size'] for part in parts))})"
        for part in parts:
            gdpa, dpa, size = f"{part['gdpa']:#x}", f"{part['dpa']:#x}", format_size(part["size"])
            ranges.append(Range(owner, part["dpa"], part["size"], f"{owner}: GDPA {gdpa} is DPA {dpa}, {size}"))
            rows.append([owner, gdpa, dpa, size])
    table = Table(
        f"Where owners' addresses lead: {len(rows)} ranges",
        ["owner", "GDPA", "DPA", "size"],
        rows,
        ["GDPA", "DPA", "size"],
    )
    name = f"VRAM by owner at the end, {format_size(vram['size'])}"
    return MemoryMap(name, vram["size"], ranges, legend, "pf", table)


def _ownership(found: Ownership) -> Table:
    """What changed hands, and resets, in the ledger's time."""
    rows = [
        (c["time"], f"{format_size(c['length'])} from DPA {c['address']:#x} on: {c['old']} → {c['new']}")
        for c in found.get("changes", [])
    ]
    for reset in found.get("resets", []):
        ended = "lasts" if reset["ended"] is None else f"took {reset['ended'] - reset['began']:.3f} s"
        rows.append((reset["began"], f"reset of {reset['owner']}, {ended}"))
    rows.sort()
    return Table(
        f"Owners that changed and resets: {len(rows)}",
        ["card's time", "what"],
        [[f"{time:.3f} s", text] for time, text in rows[:_MOST_CHANGES]],
        ["card's time"],
        omitted=max(0, len(rows) - _MOST_CHANGES),
    )
