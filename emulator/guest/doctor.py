"""Checks whether this machine has what guests need: each finding with its remedy."""

from __future__ import annotations

import datetime
import importlib
import importlib.util
import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from vfio_user_xe.emulator.guest import accelerator, environment
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.host import NIXOS, Distribution, distribution, meminfo
from vfio_user_xe.emulator.guest.userland import locate_userland, userland_names
from vfio_user_xe.emulator.model.plugin_loading import find_plugins

_MEMORY = 2 << 30
"""Bytes that a guest with its card wants."""
_FILES = 1024
_OLD = 90
"""Days after which an environment's kernel and QEMU are no longer what Debian has."""
_KERNEL_TOOLS = ("make", "flex", "bison", "bc")
_MODULES = Path("/sys/module")


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
    host = distribution()
    yield from _machine()
    yield _numpy(host)
    for plugin in find_plugins():
        if plugin.error:
            yield Finding("note", f"plug-in {plugin.name}", plugin.error, f"update or remove {plugin.distribution}")
    yield from _guests()
    yield from _userlands()
    yield from _tools(host)
    udmabuf = Path("/dev/udmabuf")
    if udmabuf.exists():
        yield Finding("ok", "/dev/udmabuf", "VF memory can be exported as a dma-buf of the host")
    else:
        yield Finding(
            "note", "/dev/udmabuf", "absent: exported VF memory is a memfd", "modprobe udmabuf, if you need it"
        )


def _machine() -> Iterator[Finding]:
    """Processor, memory, limits."""
    yield Finding("ok", "Python", ".".join(map(str, sys.version_info[:3])))
    kind = platform.machine()
    if kind in ("x86_64", "AMD64"):
        yield Finding("ok", "architecture", kind)
    else:
        yield Finding("MISSING", "architecture", f"{kind}: the guest environment's programs are for x86-64")
    cores = len(os.sched_getaffinity(0))
    yield Finding("ok" if cores > 1 else "note", "processors", f"{cores}", "" if cores > 1 else "guests will be slow")
    yield _memory()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _FILES:
        yield Finding("ok", "open files", f"at most {_limit(soft)}")
    else:
        yield Finding(
            "note", "open files", f"at most {soft}: cards with many VFs need more", f"ulimit -n {min(hard, 4096)}"
        )
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    yield Finding("ok", "locked memory", f"at most {_limit(soft)} bytes; no memory of a guest is locked")
    yield _shared_memory()
    yield _kvm()
    yield from _nested()


def _limit(value: int) -> str:
    return "any number" if value == resource.RLIM_INFINITY else f"{value}"


_NUMPY_LIBRARIES = ("libstdc++", "libgcc", "libz")
"""What its wheels take of the machine."""


def _numpy(host: Distribution) -> Finding:
    """Its wheels take libraries of the machine: where these are not, or not where programs look for them, nothing can be served."""
    try:
        loaded = importlib.import_module("numpy")
    # Not ImportError alone: where the processor lacks what numpy was built for, its import ends with a RuntimeError.
    except Exception as error:
        # numpy's own text is long and speaks of its build; what the loader said began it.
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        said = str(first).strip() or type(first).__name__
        if not any(library in said for library in _NUMPY_LIBRARIES):
            cure = f"{sys.executable} -m pip install --force-reinstall numpy"
        elif host is NIXOS:
            cure = "name the libraries in LD_LIBRARY_PATH, as docs/hosts.md says of NixOS"
        else:
            cure = host.install("libstdc++")
        return Finding("MISSING", "numpy", f"cannot be loaded: {said.splitlines()[0]}", cure)
    return Finding("ok", "numpy", loaded.__version__)


def _memory() -> Finding:
    free = meminfo().get("MemAvailable", 0) * 1024
    if free >= _MEMORY:
        return Finding("ok", "memory", f"{decimal(free)} are free")
    return Finding(
        "note", "memory", f"{decimal(free)} are free", f"a guest with its card wants {decimal(_MEMORY)}; see --memory"
    )


def _shared_memory() -> Finding:
    """Memory of guests and VRAM are memfds, which /dev/shm's size does not limit; other programs' buffers are there."""
    try:
        state = os.statvfs("/dev/shm")
    except OSError as error:
        return Finding(
            "note", "/dev/shm", f"{error.strerror}", "mount -t tmpfs tmpfs /dev/shm; in a container: --shm-size"
        )
    return Finding(
        "ok", "/dev/shm", f"{decimal(state.f_bavail * state.f_frsize)} are free; guests' memory is not in it"
    )


def _kvm() -> Finding:
    problem = accelerator.device_problem()
    if not problem:
        return Finding("ok", "KVM", "/dev/kvm can be opened")
    cure = "a guest boots in about a second with KVM: modprobe kvm_intel or kvm_amd; join the group kvm; in a container: --device /dev/kvm"
    return Finding("note", "KVM", problem, cure)


def _nested() -> Iterator[Finding]:
    for name in ("kvm_intel", "kvm_amd"):
        file = _MODULES / name / "parameters" / "nested"
        if file.is_file():
            on = file.read_text("ascii").strip() in ("Y", "1")
            cure = "" if on else f"modprobe -r {name}; modprobe {name} nested=1, if guests are to run guests with KVM"
            yield Finding("ok" if on else "note", "nested KVM", "on" if on else "off", cure)


def _guests() -> Iterator[Finding]:
    try:
        found = environment.locate()
    except GuestError as exc:
        cure = "vfio-user-xe guest fetch"
        if shutil.which("apt-get") is None:
            cure = (
                "vfio-user-xe guest fetch --mirror URL of a Debian mirror, or --from FILE, with a file that "
                "`vfio-user-xe guest bundle FILE` made elsewhere"
            )
        yield Finding("MISSING", "guest environment", str(exc).splitlines()[0], cure)
        return
    yield Finding("ok", "QEMU", str(found.qemu))
    yield _age(found)
    chosen = accelerator.choose(found)
    yield Finding("ok" if chosen.name == "kvm" else "note", "accelerator", f"{chosen.name}: {chosen.reason}")


def _age(found: environment.Environment) -> Finding:
    text = f"{found.root}, kernel {found.manifest.kernel}"
    try:
        made = datetime.datetime.fromisoformat(found.manifest.created)
        days = (datetime.datetime.now(datetime.UTC) - made).days
    except (ValueError, TypeError):
        return Finding("ok", "guest environment", text)
    if days <= _OLD:
        return Finding("ok", "guest environment", f"{text}, {days} days old")
    return Finding("note", "guest environment", f"{text}, {days} days old", "vfio-user-xe guest fetch --update")


def _userlands() -> Iterator[Finding]:
    there = []
    for name in userland_names():
        try:
            locate_userland(name)
        except GuestError:
            continue
        there.append(name)
    if there:
        yield Finding("ok", "userlands", ", ".join(there))
    else:
        yield Finding(
            "note",
            "userlands",
            "none: no programs for OpenCL, Vulkan and OpenGL",
            "vfio-user-xe guest fetch --userland compute",
        )


def _tools(host: Distribution) -> Iterator[Finding]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler:
        yield Finding("ok", "C compiler", f"{compiler} (builds the guest programs of scenarios)")
    else:
        yield Finding("note", "C compiler", "none: scenarios with guest programs cannot run", host.install("cc"))
    if compiler is None and importlib.util.find_spec("ziglang") is None:
        cure = f"pip install ziglang, or {host.install('cc')}"
        yield Finding("note", "compiled kernels", "shaders run in Python, which is much slower", cure)
    if shutil.which("zstd") is None:
        yield Finding("note", "zstd", "none: bundles that end with .tar.zst cannot be read", host.install("zstd"))
    lacking = [name for name in _KERNEL_TOOLS if shutil.which(name) is None]
    if lacking:
        text = f"{', '.join(lacking)} missing: `vfio-user-xe kernel build` cannot run"
        yield Finding("note", "kernel builds", text, host.install(*lacking, "libelf"))
