"""Whether a library is what `library` declares: it has to serve a small function to a client, on a private socket.

Every call that the back end makes is tried, and what comes out at the other end is looked at. This runs in a process of
its own: a library of another level may do anything, crash first of all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from vfio_user_xe.emulator.model.memory import PAGE_SIZE, Memory
from vfio_user_xe.emulator.pci.transport import CONFIG_REGION, MSI, AccessHandler, Region, Served, Transport
from vfio_user_xe.emulator.temporary import temporary_folder
from vfio_user_xe.emulator.vfio_user.client import Client
from vfio_user_xe.emulator.vfio_user.libvfio_user import BackendError
from vfio_user_xe.emulator.vfio_user.libvfio_user.context import Context
from vfio_user_xe.emulator.vfio_user.libvfio_user.library import LEVELS, Library
from vfio_user_xe.emulator.vfio_user.libvfio_user.process import Crash, isolated

_TRAPPED, _MAPPED = 0, 2
_BY_MESSAGE, _BY_DESCRIPTOR = 0x10_0000, 0x20_0000
_TIMEOUT = 10.0


def tested_level(path: str) -> str:
    """The level that the library at `path` is of.

    Raises:
        BackendError: it is of none that is known.
    """
    failures = []
    for level in LEVELS:
        # Made here: a library that crashes leaves behind what its process made.
        with temporary_folder() as folder:
            work = partial(_try, path, level, folder / "s")
            try:
                failure = isolated(work, silent=True)
            except Crash as crash:
                failure = f"it {crash}"
        if not failure:
            return level
        if failure.startswith("!"):
            raise BackendError(failure[1:])
        failures.append(f"as of {level}: {failure}")
    raise BackendError(
        f"{path} does not behave as any libvfio-user that is known ({'; '.join(failures)}): use one of 2022-05 or later,"
        " or the back end of this project"
    )


def _try(path: str, level: str, socket: Path) -> str:
    try:
        library = Library(path, level)
    except BackendError as exc:
        # The same whatever the level.
        return f"!{exc}"
    try:
        exercise(library, socket)
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"
    return ""


def exercise(library: Library, path: Path) -> None:
    """Serve the probe at `path` and use all of it.

    Raises:
        Exception: what was wrong; of whatever class that comes as.
    """
    probe = _Probe()
    context = Context(library, probe, path)
    thread = threading.Thread(target=context.run, daemon=True)
    thread.start()
    try:
        with Client(path, timeout=_TIMEOUT) as client:
            _use(client, probe)
        _equal(probe.gone.wait(_TIMEOUT), True, "the end of the client is seen")
    finally:
        context.stop()
        thread.join(_TIMEOUT)
    if thread.is_alive():
        raise RuntimeError("it does not end")
    context.close()
    probe.memory.close()


def _use(client: Client, probe: _Probe) -> None:
    _equal(client.read(CONFIG_REGION, 0, 4), 0x1234_5678, "configuration space")
    _equal(client.region_read(CONFIG_REGION, 0, 16)[:4], bytes.fromhex("78563412"), "configuration space as a whole")
    client.write(_TRAPPED, 8, 8, 0x1122334455667788)
    _equal(probe.registers.values, {8: 0x1122334455667788}, "a write that is trapped")
    _equal(client.read(_TRAPPED, 8, 8), 0x1122334455667788, "a read that is trapped")
    info = client.region_info(_MAPPED)
    _equal((info.size, list(info.areas)), (4 * PAGE_SIZE, probe.regions_[_MAPPED].areas), "a region that is mapped")
    client.map_region(_MAPPED).at(PAGE_SIZE, 4)[:] = b"here"
    _equal(bytes(probe.memory.view[PAGE_SIZE : PAGE_SIZE + 4]), b"here", "what a client writes into mapped memory")

    shared = client.map_memory(_BY_DESCRIPTOR, PAGE_SIZE)
    shared.at(_BY_DESCRIPTOR, 4)[:] = b"ram1"
    view = probe.transport.view(_BY_DESCRIPTOR, PAGE_SIZE, True)
    _equal(bytes(view[:4]) if view is not None else None, b"ram1", "guest memory by its descriptor")
    private = client.map_memory(_BY_MESSAGE, PAGE_SIZE, shared=False)
    private.at(_BY_MESSAGE, 4)[:] = b"ram2"
    _equal(probe.transport.view(_BY_MESSAGE, 4, False), None, "guest memory without a descriptor")
    _equal(_beside(client, lambda: probe.transport.read(_BY_MESSAGE, 4)), b"ram2", "a DMA_READ")
    _beside(client, lambda: probe.transport.write(_BY_MESSAGE, b"back"))
    _equal(bytes(private.at(_BY_MESSAGE, 4)), b"back", "a DMA_WRITE")

    _equal(probe.transport.trigger(MSI, 0), False, "an interrupt that is not wired")
    (event,) = client.enable_irqs(MSI, 1)
    _equal(probe.transport.trigger(MSI, 0), True, "an interrupt that is wired")
    _equal(event.wait(_TIMEOUT), 1, "signals of the interrupt")
    client.reset()
    _equal(probe.resets, 1, "resets")
    client.unmap_memory(shared)
    _equal(probe.lost, [(_BY_DESCRIPTOR, PAGE_SIZE)], "ranges that were taken back")
    _equal(probe.transport.mapped(_BY_DESCRIPTOR, 1, False), False, "whether such a range is still mapped")
    if view is not None:
        # Must not crash: a view that is still in use keeps its memory.
        view[0] = 0


def _beside(client: Client, work: Callable[[], bytes | None]) -> bytes | None:
    """Do `work` on another thread while the client answers DMA."""
    results: list[bytes | BaseException | None] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as exc:
            results.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    client.serve(lambda: bool(results), _TIMEOUT, "the device's DMA")
    (result,) = results
    if isinstance(result, BaseException):
        raise result
    return result


def _equal(got: object, want: object, what: str) -> None:
    if got != want:
        raise AssertionError(f"{what}: {got!r}, want {want!r}")


class _Registers(AccessHandler):
    def __init__(self) -> None:
        self.values: dict[int, int] = {}

    def read(self, offset: int, size: int) -> int:
        return self.values.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        self.values[offset] = value


class _Probe(Served):
    """A function that has one of everything."""

    def __init__(self) -> None:
        self.name = "self-test"
        self.registers = _Registers()
        self.memory = Memory(4 * PAGE_SIZE, "self-test")
        config = _Registers()
        config.values[0] = 0x1234_5678
        self.regions_ = {
            _TRAPPED: Region(PAGE_SIZE, handler=self.registers),
            _MAPPED: Region(
                4 * PAGE_SIZE, memory=self.memory, areas=[(PAGE_SIZE, PAGE_SIZE), (3 * PAGE_SIZE, PAGE_SIZE)]
            ),
            CONFIG_REGION: Region(PAGE_SIZE, handler=config),
        }
        self.transport: Transport
        self.gone = threading.Event()
        self.resets = 0
        self.lost: list[tuple[int, int]] = []

    @property
    def regions(self) -> Sequence[Region | None]:
        return [self.regions_.get(index) for index in range(9)]

    @property
    def interrupts(self) -> Sequence[int]:
        return [0, 1, 0, 0, 0]

    def attached(self, transport: Transport) -> None:
        self.transport = transport

    def detached(self) -> None:
        self.gone.set()

    def reset(self) -> None:
        self.resets += 1

    def wired(self, index: int, start: int, count: int) -> None:
        pass

    def drop_windows(self, address: int, length: int) -> None:
        self.lost.append((address, length))
