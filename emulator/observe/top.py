"""`vfio-user-xe top`: what a card does now, from two looks at its counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from vfio_user_xe.emulator.control.errors import CommandError

Call = Callable[..., Any]
"""`ControlClient.call`."""

Link = tuple[str, str, str, str]
"""Initiator, owner, interconnect, kind."""


@dataclass
class Sample:
    """A card's counters at one moment; `time` in seconds."""

    time: float
    status: Mapping[str, Any]
    accesses: dict[str, tuple[int, int]]
    """Reads and writes of registers by register file, which mostly has its function's name."""
    engines: dict[tuple[str, str], int]
    """Nanoseconds that each (engine, function) computed."""
    links: dict[Link, tuple[int, int]]
    """Bytes read and written."""
    resident: int
    """Bytes of host memory that the card's memories cost."""
    stalls: list[dict[str, Any]] = field(default_factory=list)


def take(call: Call) -> Sample:
    """Look at a card."""
    status = call("status")
    try:
        activity = call("activity")
    except CommandError:  # a model without engines
        activity = []
    return Sample(
        time=time.monotonic(),
        status=status,
        accesses={entry["name"]: (entry["reads"], entry["writes"]) for entry in call("accesses")},
        engines={(entry["engine"], entry["function"]): entry["busy_ns"] for entry in activity},
        links={
            (row["initiator"], row["owner"], row["interconnect"], row["kind"]): (
                row["bytes_read"],
                row["bytes_written"],
            )
            for row in call("ledger")
        },
        resident=call("memory")["resident"],
        stalls=call("stalls")[-3:],
    )


def tables(before: Sample, now: Sample) -> list[Table]:
    """The activity between two samples, as tables: functions, engines, links. Rates are per second."""
    seconds = max(now.time - before.time, 1e-6)
    return [_functions(before, now, seconds), _engines(before, now, seconds), _links(before, now, seconds)]


def screen(before: Sample, now: Sample) -> Group:
    """The whole of it, for a terminal."""
    status = now.status
    trace = f"   tracing {','.join(status['trace'])}" if status["trace"] else ""
    head = f"{status['card']} ({status['model']})   {size_in_words(now.resident)} of host memory{trace}"
    parts: list[Text | Table] = [Text(head, style="bold")]
    parts += [table for table in tables(before, now) if table.row_count]
    for stall in now.stalls:
        polled = f"{stall['function']} polled {stall['register']} for {stall['seconds']} s ({stall['reads']} reads)"
        parts.append(Text(polled, style="red"))
    return Group(*parts)


def _functions(before: Sample, now: Sample, seconds: float) -> Table:
    table = Table(title="functions", title_justify="left", box=None)
    for column in ("function", "guest", "state", "VFs"):
        table.add_column(column)
    for column in ("reads/s", "writes/s", "reads", "writes"):
        table.add_column(column, justify="right")
    for function in now.status["functions"]:
        name = function["name"]
        sriov = function.get("sriov")
        vfs = f"{sriov['num_vfs'] if sriov['enabled'] else 0} of {sriov['total_vfs']}" if sriov else ""
        reads, writes = now.accesses.get(name, (0, 0))
        reads_before, writes_before = before.accesses.get(name, (0, 0))
        table.add_row(
            name,
            "attached" if function["attached"] else "-",
            state_in_words(function),
            vfs,
            f"{(reads - reads_before) / seconds:,.0f}",
            f"{(writes - writes_before) / seconds:,.0f}",
            f"{reads:,}",
            f"{writes:,}",
        )
    return table


def state_in_words(function: Mapping[str, Any]) -> str:
    """What a guest has switched on; registers without a guest have what the last one left, or the values at reset."""
    if not function["attached"]:
        return "-"
    state = "memory" if function["memory_enable"] else "off"
    state += ", DMA" if function["bus_master"] else ""
    return state + (f", D{function['power_state']}" if function["power_state"] else "")


def _engines(before: Sample, now: Sample, seconds: float) -> Table:
    table = Table("engine", "function", title="engines", title_justify="left", box=None)
    table.add_column("busy", justify="right")
    table.add_column("total", justify="right")
    for (engine, function), busy in sorted(now.engines.items()):
        part = (busy - before.engines.get((engine, function), 0)) / 1e9 / seconds
        table.add_row(engine, function, f"{min(part, 1):.0%}", f"{busy / 1e9:.3f} s")
    return table


def _links(before: Sample, now: Sample, seconds: float) -> Table:
    table = Table("initiator", "owner", "interconnect", "kind", title="links", title_justify="left", box=None)
    for column in ("read/s", "written/s", "read", "written"):
        table.add_column(column, justify="right")
    for link, (read, written) in sorted(now.links.items(), key=lambda item: -sum(item[1])):
        # A ledger that was cleared meanwhile begins anew.
        read_before, written_before = before.links.get(link, (0, 0))
        rates = (max(read - read_before, 0) / seconds, max(written - written_before, 0) / seconds)
        table.add_row(
            *link, *(f"{size_in_words(rate)}/s" for rate in rates), size_in_words(read), size_in_words(written)
        )
    return table


def size_in_words(count: float) -> str:
    """A number of bytes with the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
