"""The two back ends side by side: `python -m tests.bench.backends --libvfio-user PATH`.

The same conformance device behind both, under the same loads, in turn within each round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench.__main__ import KIB, Bench, Row, Sample, figure, loads, microseconds
from tests.bench.load import Load
from tests.support.processes import children
from tests.support.served import ServedCard, served
from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client

OWN, OTHER = "own", "libvfio-user"
# The library damages the stream of larger writes (docs/conformance.md).
LARGEST = 16 * KIB


def process_of(card: ServedCard) -> int:
    """The process that serves: of libvfio-user, the child of the one that was started."""
    return next(iter(children(card.pid)), card.pid)


def exchanges(bench: Bench, cards: dict[str, ServedCard], load: Load) -> Row:
    """Rates and processor time of both under `load`."""
    clients = {name: Client(card.socket) for name, card in cards.items()}

    def measure(name: str) -> Sample:
        sock = clients[name].connection.socket
        return bench.sample(process_of(cards[name]), lambda: bench.loader.rate(sock, load, bench.seconds, bare=False))

    try:
        return Row(load.name, bench.samples({name: partial(measure, name) for name in cards}), load.payload)
    finally:
        for client in clients.values():
            client.close()


def interrupts(bench: Bench, cards: dict[str, ServedCard]) -> Row:
    """A register write to the eventfd that it causes."""
    clients = {name: Client(card.socket) for name, card in cards.items()}
    events = {name: client.enable_irqs(wire.IRQ_MSIX, 1)[0] for name, client in clients.items()}

    def once(name: str) -> None:
        clients[name].write(device.REGISTERS, device.REG_IRQ_TRIGGER, 4, wire.IRQ_MSIX << 16)
        events[name].wait(5.0)

    try:
        measures: dict[str, Callable[[], Sample]] = {name: partial(bench.repeat, partial(once, name)) for name in cards}
        return Row("register write to interrupt", bench.samples(measures))
    finally:
        for client in clients.values():
            client.close()


def line(row: Row) -> str:
    """One line of the table."""
    pairs = zip(row.samples[OWN], row.samples[OTHER], strict=True)
    ratio = median(own.rate / other.rate for own, other in pairs)
    return (
        f"{row.name:30} {figure(row.rate(OWN), row.bytes):>12}{figure(row.rate(OTHER), row.bytes):>14}{ratio:>8.2f}"
        f"   {microseconds(row.cpu(OWN)):>8}{microseconds(row.cpu(OTHER)):>14}"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backends", description=__doc__.splitlines()[0])
    parser.add_argument("--libvfio-user", required=True, metavar="PATH", help="the library")
    parser.add_argument("--seconds", type=float, default=0.1, help="of one measurement (default 0.1)")
    parser.add_argument("--rounds", type=int, default=11, help="measurements of a figure (default 11)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="vub-") as folder,
        served() as own,
        served(arguments=["--backend", OTHER, "--libvfio-user", options.libvfio_user]) as other,
    ):
        bench = Bench(Path(folder), options.seconds, options.rounds, use_c=True)
        cards = {OWN: own, OTHER: other}
        print(f"{'':30} {'exchanges or bytes a second':^26}{'':8}   {'processor time, µs':^22}")
        print(f"{f'client in {bench.loader.name}':30} {OWN:>12}{OTHER:>14}{'ratio':>8}   {OWN:>8}{OTHER:>14}")
        for load in loads():
            if load.payload <= LARGEST:
                print(line(exchanges(bench, cards, load)), flush=True)
        print(line(interrupts(bench, cards)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
