"""How fast the server is: `python -m tests.bench`.

Every figure stands beside a bare exchange of the same sizes on a Unix socket, without any protocol, measured in the
same run and in turn with it: figures of different machines do not compare. Rates suffer where others use the
machine, too; the processor time that an exchange costs the server is a steadier figure.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench.load import Load, Loader, bare_python, compiled, connected
from tests.support.processes import processor_nanoseconds
from tests.support.served import served
from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.conformance.driver import Driver
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, EventFd, default_capabilities, encode
from vfio_user_xe.emulator.vfio_user.interrupts import Interrupts

BASE = 0x1000_0000
KIB, MIB = 1 << 10, 1 << 20
BURST = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: exchanges a second, and microseconds of processor time that each cost the server."""

    rate: float
    cpu: float = 0.0


@dataclass(slots=True)
class Row:
    """One line of the table, by what was measured ("ours", "python", "c"). `bytes` is what one exchange moves."""

    name: str
    samples: dict[str, list[Sample]]
    bytes: int = 0

    def rate(self, who: str) -> float:
        """The median, 0 where it was not measured."""
        return median(sample.rate for sample in self.samples[who]) if who in self.samples else 0.0

    def cpu(self, who: str) -> float:
        """The median, 0 where it was not measured."""
        return median(sample.cpu for sample in self.samples[who]) if who in self.samples else 0.0

    def ratio(self, who: str) -> float:
        """Ours against another's: the median over the rounds, in each of which both ran one after the other."""
        if who not in self.samples:
            return 0.0
        pairs = zip(self.samples["ours"], self.samples[who], strict=True)
        return median(ours.rate / other.rate for ours, other in pairs)


def _read(region: int, offset: int, count: int) -> bytes:
    return encode(wire.REGION_READ, wire.REGION_ACCESS.pack(offset, region, count))


def _write(region: int, offset: int, count: int, *, posted: bool = False) -> bytes:
    body = wire.REGION_ACCESS.pack(offset, region, count) + bytes(count)
    return encode(wire.REGION_WRITE, body, flags=wire.FLAG_NO_REPLY if posted else 0)


def loads() -> list[Load]:
    """The exchanges that are measured."""
    register, scratch = device.REG_VERSION, device.REG_SCRATCH
    answer = wire.HEADER_SIZE + wire.REGION_ACCESS.size
    loads = [
        Load("read 4 B", _read(device.REGISTERS, register, 4), answer + 4),
        Load("write 4 B", _write(device.REGISTERS, scratch, 4), answer),
        Load(
            "posted write 4 B",
            _write(device.REGISTERS, scratch, 4, posted=True),
            answer + 4,
            burst=BURST,
            sync=_read(device.REGISTERS, register, 4),
        ),
        Load("read 4 B, 16 under way", _read(device.REGISTERS, register, 4), answer + 4, depth=16),
    ]
    for size, text in ((4 * KIB, "4 KiB"), (64 * KIB, "64 KiB"), (MIB, "1 MiB")):
        loads.append(Load(f"read {text}", _read(device.MAPPED, 0, size), answer + size, payload=size))
        loads.append(Load(f"write {text}", _write(device.MAPPED, 0, size), answer, payload=size))
    return loads


@dataclass(frozen=True, slots=True)
class BareServer:
    """A server without a protocol."""

    path: str
    pid: int


class Bench:
    """One run: `rounds` measurements of `seconds` each for every figure."""

    def __init__(self, folder: Path, seconds: float, rounds: int, use_c: bool) -> None:
        self.folder = folder
        self.seconds = seconds
        self.rounds = rounds
        self.binary = compiled(folder) if use_c else None
        self.loader = Loader(self.binary)

    def samples(self, measures: dict[str, Callable[[], Sample]]) -> dict[str, list[Sample]]:
        """Every measure `rounds` times, in turn, so that a busy moment hits all of them."""
        results: dict[str, list[Sample]] = {name: [] for name in measures}
        for _ in range(self.rounds):
            for name, measure in measures.items():
                results[name].append(measure())
        return results

    @contextmanager
    def bare_servers(self) -> Iterator[dict[str, BareServer]]:
        """The bare servers, by language."""
        path = str(self.folder / "python.sock")
        processes = {"python": (path, bare_python(path))}
        if self.binary is not None:
            path = str(self.folder / "c.sock")
            processes["c"] = (path, subprocess.Popen([str(self.binary), "server", path]))
        try:
            yield {name: BareServer(path, process.pid) for name, (path, process) in processes.items()}
        finally:
            for _, process in processes.values():
                process.terminate()
                process.wait()

    def exchange(self, sock: socket.socket, pid: int, load: Load, bare: dict[str, BareServer], loader: Loader) -> Row:
        """Our server, process `pid`, on `sock`, and the bare ones, under the same load."""
        measures = {"ours": lambda: self.sample(pid, lambda: loader.rate(sock, load, self.seconds, bare=False))}
        measures.update(self._bare(load, bare, loader))
        return Row(load.name, self.samples(measures), load.payload)

    def _bare(self, load: Load, bare: dict[str, BareServer], loader: Loader) -> dict[str, Callable[[], Sample]]:
        def measure(server: BareServer) -> Sample:
            with connected(server.path) as connection:
                connection.sendall(load.setup)
                return self.sample(server.pid, lambda: loader.rate(connection, load, self.seconds, bare=True))

        return {name: partial(measure, server) for name, server in bare.items()}

    def sample(self, pid: int, measure: Callable[[], float]) -> Sample:
        """One measurement, with the processor time that it cost the process `pid`."""
        before = _cpu_seconds(pid)
        rate = measure()
        return Sample(rate, (_cpu_seconds(pid) - before) / (rate * self.seconds) * 1e6)

    # What the socket loads do not show.

    def dma_messages(self, path: str, pid: int, size: int, bare: dict[str, BareServer]) -> Row:
        """DMA_READs of `size` bytes: how many a client answers, against a ping-pong of the same sizes."""
        count = max(16, min(2000, MIB // size))
        with Client(path, capabilities={**default_capabilities(), "max_data_xfer_size": size}) as client:
            client.map_memory(BASE, MIB, shared=False)
            driver = Driver(client)
            sock = client.connection.socket
            request = memoryview(bytearray(wire.HEADER_SIZE + wire.DMA_ACCESS.size))
            data = bytes(size)
            driver.dma(device.DMA_QUERY_READ, BASE, count * size)

            def ours() -> Sample:
                answered, spent, cpu = 0, 0.0, 0.0
                while spent < self.seconds:
                    done = (driver.get(device.REG_DMA_DONE) + 1) & 0xFFFFFFFF
                    client.connection.set_timeout(None)
                    # Without a reply, which might come behind the first request.
                    command = device.DMA_READ | device.DMA_BY_MESSAGE
                    client.write(device.REGISTERS, device.REG_DMA_COMMAND, 4, command, posted=True)
                    _receive(sock, request)
                    before, start = _cpu_seconds(pid), time.perf_counter()
                    # From here on answered as fast as Python can: the benchmark is of the server.
                    for left in reversed(range(count)):
                        message_id = request[0] | request[1] << 8
                        head = wire.HEADER.pack(message_id, wire.DMA_READ, len(request) + size, wire.TYPE_REPLY, 0)
                        if sock.sendmsg((head, request[16:], data)) != len(head) + wire.DMA_ACCESS.size + size:
                            raise RuntimeError("a reply went in pieces")
                        if left:
                            _receive(sock, request)
                    spent += time.perf_counter() - start
                    cpu += _cpu_seconds(pid) - before
                    answered += count
                    if driver.finish_dma(done):
                        raise RuntimeError("the device's DMA failed")
                return Sample(answered / spent, cpu / answered * 1e6)

            load = Load(f"DMA_READ {_size(size)}", bytes(32 + size), 32, depth=2)
            found = self.samples({"ours": ours, **self._bare(load, bare, Loader(None))})
        return Row(load.name, found, size if size >= KIB else 0)

    def busy_read(self, path: str, pid: int, bare: dict[str, BareServer]) -> Row:
        """Register reads while the executor copies guest memory without a pause; bare as if nothing else happened."""
        load = loads()[0]
        with Client(path) as client:
            client.map_memory(BASE, device.MAPPED_SIZE)
            driver = Driver(client)
            driver.start_dma(device.DMA_QUERY_READ, BASE, MIB)
            sock = client.connection.socket

            def ours() -> Sample:
                # A mebibyte takes some 100 microseconds: queue more than the measurement lasts.
                done = driver.get(device.REG_DMA_DONE)
                wanted = int(self.seconds * 20_000) + 1
                for _ in range(wanted):
                    client.write(device.REGISTERS, device.REG_DMA_COMMAND, 4, device.DMA_READ, posted=True)
                sample = self.sample(pid, lambda: self.loader.rate(sock, load, self.seconds, bare=False))
                while (driver.get(device.REG_DMA_DONE) - done) & 0xFFFFFFFF < wanted:
                    time.sleep(0.01)
                return Sample(sample.rate)

            found = self.samples({"ours": ours, **self._bare(load, bare, self.loader)})
        return Row("read 4 B, executor busy", found)

    def mapped_memory(self, path: str) -> Row:
        """Guest RAM through the mapped descriptor: a register write, a copy and an interrupt, against the copy alone."""
        size = device.MAPPED_SIZE
        source, target = Memory(size), Memory(size)
        source.view[:] = bytes(size)
        with Client(path) as client:
            client.map_memory(BASE, size).at(BASE, size)[:] = bytes(size)
            (event,) = client.enable_irqs(wire.IRQ_MSIX, 1)
            command = device.DMA_READ | device.DMA_THEN_MSI
            Driver(client).start_dma(command, BASE, size)
            event.wait(5.0)

            def once() -> None:
                client.write(device.REGISTERS, device.REG_DMA_COMMAND, 4, command)
                event.wait(5.0)

            def copy() -> None:
                target.view[:] = source.view

            found = self.samples({"ours": partial(self.repeat, once), "python": partial(self.repeat, copy)})
        source.close()
        target.close()
        return Row("guest RAM by descriptor, 4 MiB", found, size)

    def interrupt(self, path: str) -> Row:
        """A register write to the eventfd it causes, through the executor."""
        with Client(path) as client:
            (event,) = client.enable_irqs(wire.IRQ_MSIX, 1)

            def once() -> None:
                client.write(device.REGISTERS, device.REG_IRQ_TRIGGER, 4, wire.IRQ_MSIX << 16)
                event.wait(5.0)

            return Row("register write to interrupt", self.samples({"ours": partial(self.repeat, once)}))

    def eventfd(self) -> Row:
        """Signalling a vector in the server, against writing an eventfd."""
        event = EventFd()
        interrupts = Interrupts([0, 0, 1, 0, 0])
        flags = wire.IRQ_SET_DATA_EVENTFD | wire.IRQ_SET_ACTION_TRIGGER
        interrupts.set(flags, wire.IRQ_MSIX, 0, 1, b"", [os.dup(event.fd)])
        found = self.samples(
            {
                "ours": partial(self.repeat, lambda: interrupts.trigger(wire.IRQ_MSIX, 0)),
                "python": partial(self.repeat, lambda: os.eventfd_write(event.fd, 1)),
            }
        )
        interrupts.close()
        event.close()
        return Row("eventfd signalled, in the server", found)

    def repeat(self, action: Callable[[], object]) -> Sample:
        """How often a second."""
        count, start = 0, time.perf_counter()
        end = start + self.seconds
        while time.perf_counter() < end:
            for _ in range(4):
                action()
            count += 4
        return Sample(count / (time.perf_counter() - start))


def _receive(sock: socket.socket, view: memoryview) -> None:
    got = sock.recv_into(view)
    while got < len(view):
        more = sock.recv_into(view[got:])
        if not more:
            raise RuntimeError("the server closed the connection")
        got += more


def idle_load(seconds: float, vfs: int) -> tuple[int, float]:
    """Connected functions of a card nobody uses, and the per cent of a core that they cost."""
    with served("xe", ["--vfs", str(vfs)]) as card, ExitStack() as stack:
        for path in card.sockets.values():
            stack.enter_context(Client(path)).device_info()
        time.sleep(0.5)
        before, start = _cpu_seconds(card.pid), time.monotonic()
        time.sleep(seconds)
        spent = _cpu_seconds(card.pid) - before
        return len(card.sockets), 100 * spent / (time.monotonic() - start)


def _cpu_seconds(pid: int) -> float:
    return processor_nanoseconds(pid) / 1e9


def _size(size: int) -> str:
    return f"{size} B" if size < KIB else f"{size // KIB} KiB" if size < MIB else f"{size // MIB} MiB"


def figure(rate: float, size: int) -> str:
    """A rate as text: of bytes where an exchange moves `size` of them."""
    if not rate:
        return "-"
    if size:
        return f"{rate * size / 1e9:.2f} GB/s" if rate * size >= 1e9 else f"{rate * size / 1e6:.0f} MB/s"
    return f"{rate / 1e6:.2f} M/s" if rate >= 1e6 else f"{rate / 1e3:.1f} k/s"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.0f} %" if ratio else "-"


def microseconds(cpu: float) -> str:
    """Processor time as text."""
    return f"{cpu:.1f}" if cpu else "-"


def table(title: str, rows: list[Row]) -> str:
    """The rows as text: rates, ours against the bare ones, and processor time a exchange in microseconds."""
    who = ("ours", "python", "c")
    lines = [
        f"{'':34} {'exchanges or bytes a second':^36}   {'vfio-user to':^15}   {'processor time, µs':^22}",
        f"{title:34} {'vfio-user':>12}{'bare Python':>12}{'bare C':>12}   {'Python':>8}{'C':>7}   "
        f"{'vfio-user':>10}{'Python':>7}{'C':>5}",
    ]
    for row in rows:
        rates = "".join(f"{figure(row.rate(name), row.bytes):>12}" for name in who)
        ratios = f"{_percent(row.ratio('python')):>8}{_percent(row.ratio('c')):>7}"
        cpus = f"{microseconds(row.cpu('ours')):>10}{microseconds(row.cpu('python')):>7}{microseconds(row.cpu('c')):>5}"
        lines.append(f"{row.name:34} {rates}   {ratios}   {cpus}")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.06, help="of one measurement (default 0.06)")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of a figure (default 9)")
    parser.add_argument("--idle", type=float, default=4.0, help="seconds to watch an idle card; 0 for not at all")
    parser.add_argument("--vfs", type=int, default=24, help="VFs of the idle card (default 24)")
    parser.add_argument("--poll-us", default="0", help="as for 'vfio-user-xe serve'")
    parser.add_argument("--no-c", action="store_true", help="no compiler: client and bare server in Python only")
    parser.add_argument("--only", default="", metavar="TEXT", help="only figures with this in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures for programs")
    options = parser.parse_args()

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vub-") as name:
        bench = Bench(Path(name), options.seconds, options.rounds, not options.no_c)
        rows: list[Row] = []
        python_rows: list[Row] = []
        with served("conformance", ["--poll-us", str(options.poll_us)]) as card, bench.bare_servers() as bare:
            wanted = [load for load in loads() if options.only in load.name]
            for load in wanted:
                with Client(card.socket) as client:
                    rows.append(bench.exchange(client.connection.socket, card.pid, load, bare, bench.loader))
            for load in [load for load in wanted if load.name in ("read 4 B", "write 4 B")]:
                with Client(card.socket) as client:
                    python_rows.append(bench.exchange(client.connection.socket, card.pid, load, bare, Loader(None)))
            others: dict[str, Callable[[], Row]] = {
                **{
                    f"DMA_READ {_size(size)}": partial(bench.dma_messages, card.socket, card.pid, size, bare)
                    for size in (4, 4 * KIB, 64 * KIB)
                },
                "read 4 B, executor busy": partial(bench.busy_read, card.socket, card.pid, bare),
                "guest RAM by descriptor, 4 MiB": partial(bench.mapped_memory, card.socket),
                "register write to interrupt": partial(bench.interrupt, card.socket),
                "eventfd signalled, in the server": bench.eventfd,
            }
            python_rows += [measure() for name, measure in others.items() if options.only in name]
    print(table(f"client in {bench.loader.name}", rows))
    print()
    print(table("client in Python", python_rows))
    idle: tuple[int, float] | None = None
    if options.idle:
        idle = idle_load(options.idle, options.vfs)
        print(f"\nidle: {idle[0]} connected functions cost {idle[1]:.2f} % of a core")
    print(
        f"\n{options.rounds} rounds of {options.seconds:g} s each, medians; {time.monotonic() - started:.0f} s in all"
    )
    if options.json:
        figures = {
            "python": sys.version.split()[0],
            "poll_us": options.poll_us,
            "client": bench.loader.name,
            "rows": [asdict(row) for row in rows],
            "python_client": [asdict(row) for row in python_rows],
            "idle": idle,
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
