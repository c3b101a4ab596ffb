"""Checks whether this machine has what guests need: each finding with its remedy."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vfio_user_xe.emulator.guest import accelerator, environment
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.model.plugin_loading import find_plugins


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `mark` is ok, note or MISSING; `cure` is what to do."""

    mark: str
    what: str
    text: str
    cure: str = ""

    @property
    def fatal(self) -> bool:
        """Whether guests cannot run without it."""
        return self.mark == "MISSING"


def examine() -> Iterator[Finding]:
    """Look at everything, the cheap things first."""
    yield Finding("ok", "Python", ".".join(map(str, sys.version_info[:3])))
    cores = len(os.sched_getaffinity(0))
    yield Finding("ok" if cores > 1 else "note", "processors", f"{cores}", "" if cores > 1 else "guests will be slow")
    for plugin in find_plugins():
        if plugin.error:
            yield Finding("note", f"plug-in {plugin.name}", plugin.error, f"update or remove {plugin.distribution}")
    yield from _guests()
    yield _compiler()
    udmabuf = Path("/dev/udmabuf")
    if udmabuf.exists():
        yield Finding("ok", "/dev/udmabuf", "VF memory can be exported as a dma-buf of the host")
    else:
        yield Finding(
            "note", "/dev/udmabuf", "absent: exported VF memory is a memfd", "modprobe udmabuf, if you need it"
        )


def _guests() -> Iterator[Finding]:
    try:
        found = environment.locate()
    except GuestError as exc:
        yield Finding("MISSING", "guest environment", str(exc).splitlines()[0], "vfio-user-xe guest fetch")
        return
    yield Finding("ok", "QEMU", str(found.qemu))
    yield Finding("ok", "guest environment", str(found.root))
    chosen = accelerator.choose(found)
    yield Finding("ok" if chosen.name == "kvm" else "note", "accelerator", f"{chosen.name}: {chosen.reason}")


def _compiler() -> Finding:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler:
        return Finding("ok", "C compiler", f"{compiler} (builds the guest programs of the tests)")
    return Finding("note", "C compiler", "none: guest tests with programs are skipped", "apt-get install gcc libc6-dev")
