"""The handlers as this process has them loaded."""

from __future__ import annotations

import ctypes
from functools import cache

from vfio_user_xe.device_models.xe.eu.compiled import build, draw_layout, layout


class Library:
    """The shared object: handlers by name, and the calls that run threads."""

    def __init__(self, shared: ctypes.CDLL) -> None:
        self._shared = shared
        self._addresses: dict[str, int | None] = {}
        shared.eu_sizes.restype = ctypes.POINTER(ctypes.c_uint64)
        expected = layout.SIZES + draw_layout.SIZES
        sizes = tuple(shared.eu_sizes()[index] for index in range(len(expected)))
        if sizes != expected:
            raise RuntimeError(
                f"structures of the handlers have sizes {sizes}, those of layout.py and draw_layout.py {expected}"
            )
        self.run_slot = shared.eu_run
        self.run_slot.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
        self.deadline = shared.eu_deadline
        self.deadline.argtypes = [ctypes.c_int64]
        self.deadline.restype = ctypes.c_int64
        self.run_thread = shared.eu_run_thread
        self.run_thread.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
        self.draw = shared.eu_draw
        self.draw.argtypes = [ctypes.c_void_p, ctypes.c_int64]
        self.end_thread = shared.eu_end_thread
        self.end_thread.argtypes = [ctypes.c_void_p]
        self.end_thread.restype = None
        self.harvest = shared.eu_harvest
        self.harvest.argtypes = [ctypes.c_void_p] * 4
        self.harvest.restype = None
        self.map_insert = shared.eu_map_insert
        self.map_insert.argtypes = [
            ctypes.c_void_p,
            ctypes.c_uint64,
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_uint32,
        ]

    def handler(self, name: str) -> int | None:
        """Address of a handler, or None if there is no such handler."""
        if name not in self._addresses:
            try:
                self._addresses[name] = ctypes.cast(self._shared[name], ctypes.c_void_p).value
            except AttributeError:
                self._addresses[name] = None
        return self._addresses[name]


@cache
def load() -> Library:
    """The handlers, built first if this machine has none yet.

    Raises:
        build.NoCompiler: they cannot be built.
    """
    return Library(ctypes.CDLL(str(build.library())))
