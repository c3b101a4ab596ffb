"""Which back end kernels run on: the compiled one once its handlers are there, else the reference back end.

Handlers are built once on a machine, which takes many seconds; the executor must not wait for that, or the guest's driver
takes the GuC for dead.
"""

from __future__ import annotations

import logging
import threading
from functools import cache

from vfio_user_xe.device_models.xe.compute.compiled_units import CompiledUnits
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.eu.compiled import build
from vfio_user_xe.device_models.xe.eu.compiled.library import load

log = logging.getLogger(__name__)

_BUILDING = "eu_handlers"


def prepare() -> None:
    """Begin to build the handlers on a thread of its own where this machine has none yet.

    May be called from any thread, and more than once: a process builds once.
    """
    _preparation()


def units() -> CompiledUnits | ReferenceUnits:
    """The back end for a kernel that begins now; from the executor's thread.

    While `prepare` builds the handlers it is the reference back end; and it stays that, with a warning once, where they
    cannot be built.
    """
    builder = _preparation() if _prepared.is_set() else None
    if builder is not None and builder.is_alive():
        return _reference()
    return _loaded()


_prepared = threading.Event()


@cache
def _preparation() -> threading.Thread | None:
    """The thread that builds, None where nothing has to be built."""
    thread = None
    if not build.is_built():
        log.info("the execution units' handlers are built now; kernels run on the reference back end until then")
        thread = threading.Thread(target=_build, name=_BUILDING, daemon=True)
        thread.start()
    _prepared.set()
    return thread


def _build() -> None:
    try:
        build.library()
    except build.NoCompiler:
        return  # `_loaded` says it
    log.info("the execution units' handlers are built; kernels run on the compiled back end")


@cache
def _loaded() -> CompiledUnits | ReferenceUnits:
    try:
        return CompiledUnits(load())
    except build.NoCompiler as reason:
        log.warning("kernels run on the reference back end, which is slow: %s", reason)
        return _reference()


@cache
def _reference() -> ReferenceUnits:
    return ReferenceUnits()
