"""The card's engines for processes that have `render_node.c` preloaded: each connection gets a card's engines of its own.

No GuC, no scheduling against others, no page faults: a batch is executed when it is submitted, and answered when it has ended.
What goes wrong is told on standard error: faults, what the engines report, and what was interpreted.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tests.support.xe.engine_lab import Job, Lab
from tests.support.xe.rig import MIB, PageTables
from vfio_user_xe.device_models.xe.compute.back_end import units
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, COPY, RENDER
from vfio_user_xe.emulator.child_process import end_with_parent
from vfio_user_xe.emulator.model.memory import Memory

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.memory.function import XeFunction

BIND, UNBIND, QUEUE, EXECUTE, CYCLES = range(1, 6)
_REQUEST, _ANSWER = struct.Struct("<5Q"), struct.Struct("<q")
_CLASSES = {0: RENDER, 1: COPY, 4: COMPUTE}
"""Classes of engines as xe numbers them for programs (`DRM_XE_ENGINE_CLASS_RENDER`)."""
_MEMORY = 1 << 40
"""Bytes of the file that buffers are in: those that are closed do not give their place back, only their pages."""
_TABLES, _TABLES_OF_VM, _VRAM = 256 * MIB, 48 * MIB, 1024 * MIB
"""Where page tables begin, how much those of a VM may take, and where they end."""
_PAGE, _LARGE = 0x1000, 2 * MIB
_NO_LIMIT = 1 << 40
"""Jobs of the executor until a batch has ended."""


class Tables(PageTables):
    """A VM's page tables, written a range at a time."""

    def __init__(self, lab: Lab, number: int) -> None:
        super().__init__(lab, lab.pf, _TABLES + _TABLES_OF_VM * number)
        self.asid = 0x1000 + number

    def bind(self, va: int, size: int, target: int | None) -> None:
        """Pages of guest memory from `target` on, or none, at `va`."""
        end = va + size
        while va < end:
            large = not (va | (target or 0)) % _LARGE and end - va >= _LARGE
            page, level = (_LARGE, 1) if large else (_PAGE, 0)
            table, first = self._place(va, level)
            count = min(512 - first, -(-(end - va) // page))
            entries = np.zeros(count, np.uint64)
            if target is not None:
                entries = np.arange(count, dtype=np.uint64) * np.uint64(page) + np.uint64(
                    target | (0x83 if large else 3)
                )
                target += count * page
            table[first : first + count] = memoryview(entries.tobytes()).cast("Q")
            va += count * page

    def _place(self, va: int, level: int) -> tuple[memoryview, int]:
        """The table of `level` for `va`, and the index of its entry; a large page in its way goes."""
        table = self.root
        for above in range(4, level, -1):
            place = table + 8 * (va >> (12 + 9 * above) & 0x1FF)
            found = self.load(place)
            if not found & 1 or found & 0x80:
                found = self.new_table() | self.table_flags
                self.store(place, found)
            table = found & 0xFFFF_FFFF_F000
        return self.table(table), va >> (12 + 9 * level) & 0x1FF


class Card:
    """The engines of one process."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self._connection, self._name = connection, name
        self._lab = Lab(vram=_VRAM)
        memory = Memory(_MEMORY, "buffers")
        self._lab.ram.size = _MEMORY
        self._lab.ram._memories["pf"] = memory
        self._vms: dict[int, Tables] = {}
        self._queues: dict[int, Job] = {}
        self._stale: set[int] = set()
        self._told: set[tuple[str, str]] = set()
        self._batches, self._seconds, self._busy = 0, 0.0, 0.0
        socket.send_fds(connection, [b"."], [memory.fd])

    def serve(self) -> None:
        """Until the process ends, or is killed."""
        with contextlib.suppress(ConnectionError), self._connection.makefile("rb") as requests:
            while len(request := requests.read(_REQUEST.size)) == _REQUEST.size:
                what, *values = _REQUEST.unpack(request)
                self._connection.sendall(_ANSWER.pack(self._answer(what, values)))
        for engine in self._lab.engines.inspect():
            if engine["interpreted"]:
                self._tell(f"{engine['name']} interpreted {engine['interpreted']}")
        self._tell(f"{self._batches} batches took {self._seconds:.2f} s, and {self._busy:.2f} s of processors")

    def _answer(self, what: int, values: list[int]) -> int:
        if what in (BIND, UNBIND):
            vm, address, size, target = values
            self._vm(vm).bind(address & (1 << 48) - 1, size, target if what == BIND else None)
            self._stale.add(vm)
            return 0
        if what == QUEUE:
            return self._queue(*values[:3])
        if what == CYCLES:
            return self._lab.engines.engines[0].timestamp()
        return self._execute(self._queues[values[0]], values[1])

    def _vm(self, number: int) -> Tables:
        if number not in self._vms:
            self._vms[number] = Tables(self._lab, len(self._vms))
        return self._vms[number]

    def _queue(self, number: int, vm: int, engine_class: int) -> int:
        if engine_class not in _CLASSES:
            return -errno.ENODEV
        tables = self._vm(vm)
        job = self._queues[number] = Job(self._lab, len(self._queues), engine_class=_CLASSES[engine_class])
        job.set_image(0x2F, tables.asid)
        job.set_image(0x31, tables.root >> 32)
        job.set_image(0x33, tables.root & 0xFFFFFFFF | 0x1B)
        return 0

    def _execute(self, job: Job, batch: int) -> int:
        for vm in self._stale:
            self._lab.engines.invalidate(cast("XeFunction", job.function), self._vms[vm].asid)
        self._stale.clear()
        begun, busy = time.monotonic(), time.process_time()
        job.ring(*job.start(batch & (1 << 48) - 1))
        job.submit()
        self._lab.run(limit=_NO_LIMIT)
        self._batches += 1
        self._seconds += time.monotonic() - begun
        self._busy += time.process_time() - busy
        return self._noticed()

    def _noticed(self) -> int:
        """Tell what the engines did not like; the error that the batch ends with."""
        listener = self._lab.listener
        wrong: list[Any] = [*listener.faults, *listener.of("context reset")]
        listener.faults.clear()
        listener.events.clear()
        for problem in wrong:
            self._tell(repr(problem))
        for engine in self._lab.engines.engines:
            for report in engine.reports:
                if (engine.name, str(report)) not in self._told:
                    self._told.add((engine.name, str(report)))
                    self._tell(f"{engine.name}: {report}")
        if wrong:
            self._tell(json.dumps([state["threads"] for state in self._lab.engines.inspect()]))
        return -errno.EIO if wrong else 0

    def _tell(self, what: str) -> None:
        print(f"{self._name}: {what}", file=sys.stderr, flush=True)


def listen(path: Path) -> None:
    """Serve whoever connects to the socket, each in a process of its own; for ever."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        units()  # so that it is loaded once
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            connection, _ = server.accept()
            with connection:
                if not os.fork():
                    end_with_parent(signal.SIGKILL)
                    server.close()
                    _serve(connection)


def _serve(connection: socket.socket) -> None:
    try:
        process = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        command = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        Card(connection, f"{process} {command.strip()[-60:]}").serve()
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)
