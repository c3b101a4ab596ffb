"""The trace channel "link": what the ledger counts, sampled, so that a trace shows traffic over time."""

from __future__ import annotations

import threading

from vfio_user_xe.emulator.fabric.interconnect import Fabric, LedgerEntry
from vfio_user_xe.emulator.observe.trace import Channel, Tracer

SAMPLE_EVERY = 0.02


def trace_links(tracer: Tracer, fabric: Fabric) -> None:
    """Totals of every link that moved something, on the channel "link"."""
    sampler = _Sampler(tracer.channel("link", "traffic between functions: totals of the ledger, sampled"), fabric)
    sampler.channel.on_switch.append(sampler.switch)


class _Sampler:
    """A thread that looks at the ledger while the channel is on."""

    def __init__(self, channel: Channel, fabric: Fabric) -> None:
        self.channel = channel
        self._fabric = fabric
        self._seen: dict[int, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def switch(self, on: bool) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
        if on:
            self._stop.clear()
            self._seen.clear()
            self._thread = threading.Thread(target=self._run, name="links", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY):
            self.sample()
        self.sample()

    def sample(self) -> None:
        """Emit the totals of what has changed since the last time."""
        for entry in self._fabric.ledger:
            totals = entry.bytes_read, entry.bytes_written
            if self._seen.get(id(entry)) != totals:
                self._seen[id(entry)] = totals
                self.channel.emit(entry.initiator, "traffic", _fields(entry, totals))


def _fields(entry: LedgerEntry, totals: tuple[int, int]) -> dict[str, str | int]:
    return {
        "owner": entry.owner,
        "interconnect": entry.interconnect,
        "kind": entry.kind,
        "bytes_read": totals[0],
        "bytes_written": totals[1],
    }
