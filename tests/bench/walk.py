"""How far a reader has to walk: `python -m tests.bench.walk [--files | --calls | --json FILE]`.

A PF's driver on a card in this process submits a job: it writes the doorbell of the GuC, the GuC enables the context, the
copy engine executes a store and MI_USER_INTERRUPT, and the function raises its MSI. Everything between the store to the
doorbell and the MSI is recorded with `sys.setprofile`, on the thread of the access and on the card's executor. Three
figures come out: calls, distinct files, and changes of file (how often a reader who follows the calls and returns opens
another file). Only files of the project count. `docs/following-a-write.md` quotes them.

The transport (`emulator/vfio_user`) is not part of the walk, because the driver writes the register file directly: a read
of the socket comes before it (`session.py`), and a write of an eventfd after it (`interrupts.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections import Counter
from pathlib import Path
from struct import pack
from types import FrameType

from tests.support.xe.bench import Bench
from tests.support.xe.commands import GGTT, NOOP, USER_INTERRUPT, sdi
from tests.support.xe.contexts import COPY_CLASS, SET_MODE, lrc_image, registration
from tests.support.xe.guc_driver import DOORBELL, GucDriver
from vfio_user_xe import emulator
from vfio_user_xe.emulator.pci.function import COMMAND, COMMAND_MASTER
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport

GGTT_BASE, VRAM_BASE, MAPPED = 0x100_0000, 0x1000_0000, 1 << 20
CONTEXT, RING, TARGET = GGTT_BASE + 0x4_0000, GGTT_BASE + 0x6_0000, GGTT_BASE + 0x7_0000
RING_SIZE = 0x1000
RENDER_COPY_ENABLE, MASTER_INTERRUPT = 0x190030, 0x190008
"""The GuC's interrupt (0x190038) stays off, so that the MSI is the engine's (`xe_irq.c:xe_irq_enable_hwe`)."""
_ROOT = str(Path(emulator.__file__).resolve().parents[1]) + "/"
_NOT_WALKED = ("tests/", "emulator/testing/", ".", "<")
"""The driver and the client are not what is read, nor is code that `dataclass` generates."""


class Walk:
    """Calls and returns between the start and the end, in order, of all threads that it was set on."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []
        """("call" or "return", file, function)."""
        self.threads: set[int] = set()
        self.on = False
        self._names: dict[str, str | None] = {}

    def profile(self, frame: FrameType, event: str, argument: object) -> None:
        """For `sys.setprofile`."""
        if not self.on or event not in ("call", "return"):
            return
        code = frame.f_code
        name = self._file(code.co_filename)
        if name is not None:
            self.threads.add(threading.get_ident())
            self.events.append((event, name, code.co_qualname))

    def _file(self, path: str) -> str | None:
        if path not in self._names:
            name = path if path.startswith("<") else str(Path(path).resolve()).removeprefix(_ROOT)
            ours = not name.startswith("/") and not name.startswith(_NOT_WALKED)
            self._names[path] = name if ours else None
        return self._names[path]

    def calls(self) -> list[tuple[str, str]]:
        """(file, function) of every call."""
        return [(name, function) for event, name, function in self.events if event == "call"]

    def stays(self) -> list[str]:
        """The file of each stretch of calls that stay within one file; a return to another file is not a stretch of its own."""
        stays: list[str] = []
        for name, _ in self.calls():
            if not stays or stays[-1] != name:
                stays.append(name)
        return stays

    def figures(self) -> dict[str, int]:
        """What `docs/following-a-write.md` quotes."""
        calls = self.calls()
        return {
            "calls": len(calls),
            "files": len({name for name, _ in calls}),
            "changes of file": len(self.stays()) - 1,
            "functions": len(set(calls)),
            "threads": len(self.threads),
        }


class Client(FakeTransport):
    """A client that ends the walk with the first MSI."""

    def __init__(self, walk: Walk) -> None:
        super().__init__()
        self.walk = walk
        self.interrupted = threading.Event()

    def trigger(self, index: int, vector: int) -> bool:
        self.walk.on = False
        self.interrupted.set()
        return super().trigger(index, vector)


def walk_a_doorbell() -> Walk:
    """Submit one job on a card of this process and record the walk from its doorbell to its MSI.

    Raises:
        TimeoutError: no MSI was raised within 10 s.
    """
    walk = Walk()
    bench = Bench(vfs=2)
    try:
        client = Client(walk)
        bench.pf.pci.attached(client)
        bench.pf.pci.config.write(COMMAND, 2, COMMAND_MASTER | 2)
        bench.map_ggtt(GGTT_BASE, MAPPED, VRAM_BASE)
        driver = GucDriver(bench)
        driver.boot()
        driver.start_ct()
        _context(driver)
        bench.write(RENDER_COPY_ENABLE, 0x0011_0011)
        bench.write(MASTER_INTERRUPT, 1 << 31)
        driver.fence += 1
        driver.ct.put(driver.fence << 16 | 3, (SET_MODE | 2 << 28, 1, 1))
        bench.settle()
        client.interrupted.clear()
        bench.run(lambda: sys.setprofile(walk.profile))
        bench.settle()
        # An engine's slice ends by the clock, and being watched takes longer than a slice.
        now = bench.card.clock.ns()
        bench.card.clock.ns, bench.card.clock.seconds = lambda: now, lambda: now / 1e9
        sys.setprofile(walk.profile)
        walk.on = True
        bench.write(DOORBELL[0], 0)
        sys.setprofile(None)
        if not client.interrupted.wait(10):
            raise TimeoutError("the job raised no MSI")
        bench.run(lambda: sys.setprofile(None))
    finally:
        walk.on = False
        bench.close()
    return walk


def _context(driver: GucDriver[Bench]) -> None:
    """A context of BCS0 that is registered and not enabled, its ring a store and MI_USER_INTERRUPT."""
    ring = (*sdi(TARGET, 42, flags=GGTT), USER_INTERRUPT, NOOP)
    driver.poke(RING, pack(f"<{len(ring)}I", *ring))
    for index, value in lrc_image(RING, RING_SIZE, tail=4 * len(ring)).items():
        driver.poke_dwords(CONTEXT + 0x1000 + 4 * index, value)
    driver.send(*registration(1, COPY_CLASS, 1, CONTEXT | 0x119))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--files", action="store_true", help="also the files, in the order in which they are reached")
    parser.add_argument("--calls", action="store_true", help="also every call, indented by depth")
    parser.add_argument("--json", type=Path, help="write the figures and the calls to this file")
    arguments = parser.parse_args()
    walk = walk_a_doorbell()
    for name, value in walk.figures().items():
        print(f"{name:16s} {value:5d}")
    if arguments.files:
        counts = Counter(name for name, _ in walk.calls())
        for name in dict.fromkeys(name for name, _ in walk.calls()):
            print(f"{counts[name]:5d}  {name}")
    if arguments.calls:
        depth = 0
        for event, name, function in walk.events:
            if event == "call":
                print(f"{'  ' * depth}{name}: {function}")
            depth = max(0, depth + (1 if event == "call" else -1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"figures": walk.figures(), "calls": walk.calls()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
