"""The trace category "link": what the ledger counts, sampled, so that a trace shows traffic over time."""

from __future__ import annotations

from vfio_user_xe.emulator.fabric.interconnect import Fabric, LedgerEntry
from vfio_user_xe.emulator.observe.tap import Sampler, Tap


def link_tap(fabric: Fabric) -> Tap:
    """A tap that tells the totals of every link of `fabric` that moved something."""

    def begin() -> Sampler:
        return _Links(tap, fabric).sample

    tap = Tap("link", "traffic between functions: totals of the ledger, sampled", begin)
    return tap


class _Links:
    """The links in one trace. On the tracer's thread."""

    def __init__(self, tap: Tap, fabric: Fabric) -> None:
        self._tap = tap
        self._fabric = fabric
        self._seen: dict[int, tuple[int, int]] = {}

    def sample(self) -> None:
        """Tell the totals of what has changed since the last time."""
        for entry in self._fabric.ledger:
            totals = entry.bytes_read, entry.bytes_written
            if self._seen.get(id(entry)) != totals:
                self._seen[id(entry)] = totals
                self._tap(entry.initiator, "traffic", _fields(entry, totals))


def _fields(entry: LedgerEntry, totals: tuple[int, int]) -> dict[str, str | int]:
    return {
        "owner": entry.owner,
        "interconnect": entry.interconnect,
        "kind": entry.kind,
        "bytes_read": totals[0],
        "bytes_written": totals[1],
    }
