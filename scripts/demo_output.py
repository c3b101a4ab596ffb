"""What the demos print with, and how a step of them fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


class DemoFailed(Exception):
    """A step did not show what it should."""


@contextmanager
def step(text: str) -> Iterator[None]:
    """Announce a step, and say how long it took."""
    console.print(f"[bold cyan]==>[/] [bold]{text}[/]")
    started = time.monotonic()
    yield
    console.print(f"    [dim]({time.monotonic() - started:.1f} s)[/]")


def show(text: str) -> None:
    """Print what was seen, indented."""
    for line in text.rstrip().splitlines():
        console.print(f"    {line}", markup=False)


def require(condition: bool, what: str) -> None:
    """Fail the demo unless `condition`."""
    if not condition:
        raise DemoFailed(what)


def ledger_table(entries: Sequence[dict[str, Any]]) -> None:
    """Entries of the ledger, printed."""
    table = Table("initiator", "owner", "interconnect", "kind", "reads", "bytes read", "writes", "bytes written")
    for e in entries:
        counts = (e["reads"], e["bytes_read"], e["writes"], e["bytes_written"])
        table.add_row(e["initiator"], e["owner"], e["interconnect"], e["kind"], *(f"{n:,}" for n in counts))
    console.print(table)
