"""What a server holds when it has no guest, and whether that grows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from statistics import median

from tests.soak.state import Rest
from tests.support.processes import PROC, descriptors
from vfio_user_xe.emulator.testing.lab import LiveCard

MIB = 1 << 20
_SLACK_MIB = 24.0
"""Own memory may grow by caches that have a limit: kernels that were translated, page tables that were walked."""
_FEWEST = 4
"""Rests of a server from which growth of its memory can be told."""


def measure(card: LiveCard, hours: float, server: int, guests: int) -> Rest:
    """What the server of this card holds now.

    Raises:
        OSError: its process has gone, or does not answer.
    """
    status = (PROC / str(card.pid) / "status").read_text()
    own = re.search(r"^RssAnon:\s+(\d+)", status, re.MULTILINE)
    threads = re.search(r"^Threads:\s+(\d+)", status, re.MULTILINE)
    if own is None or threads is None:
        raise ProcessLookupError(f"the server, process {card.pid}, has ended")
    return Rest(
        hours=round(hours, 4),
        server=server,
        guests=guests,
        descriptors=len(descriptors(card.pid)),
        threads=int(threads[1]),
        own=int(own[1]) / 1024,
        memory=card.call("memory")["resident"] / MIB,
    )


def growth(rests: Sequence[Rest]) -> Iterator[tuple[str, str]]:
    """What has grown from the first rest of a server to its last, in words.

    Descriptors must be as many as after the first guest; threads, too, but for those that execute kernels and those that draw, which are
    made, one for each processor, when a kernel or a draw first takes long. Memory has to be flat between the first half and the second, up to caches.
    """
    first, last = rests[0], rests[-1]
    for name, before, after, more in (
        ("descriptors", first.descriptors, last.descriptors, 0),
        ("threads", first.threads, last.threads, 2 * len(os.sched_getaffinity(0))),
    ):
        if after > before + more:
            yield (
                name,
                f"{after} after guest {last.guests} of server {last.server}, {before} after its guest {first.guests}",
            )
    if len(rests) >= _FEWEST:
        half = len(rests) // 2
        early, late = (median(rest.own for rest in part) for part in (rests[:half], rests[half:]))
        if late > early + _SLACK_MIB:
            yield (
                "own memory",
                f"{late:.0f} MiB in the second half of server {last.server}'s life, {early:.0f} before",
            )


def left_over(card: LiveCard) -> Iterator[tuple[str, str]]:
    """What a server must not have: accesses of a VF to foreign memory by device address, failed jobs.

    That a guest lets VFs reach each other as PCI devices is its own affair, and what one scenario is about (`sibling-imports`).

    Raises:
        OSError: it does not answer.
    """
    if foreign := [pair for pair in card.call("verdicts")["foreign"] if pair["path"] != "legacy"]:
        yield "foreign accesses", str(foreign)
    if failures := card.call("status")["executor"]["failures"]:
        yield "executor", f"{failures} jobs failed: {card.log_tail(3)}"
