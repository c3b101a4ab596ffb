"""Which accelerator runs a guest: KVM only after it was seen to run one, else TCG, and why."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vfio_user_xe.emulator.guest import cache
from vfio_user_xe.emulator.guest.cpio import Cpio
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.errors import NotUsable
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.process import Process, describe_exit
from vfio_user_xe.emulator.guest.tsc import host_tsc_khz

_PROOF_SECONDS = 20
_TOKEN = "kvm-runs-guests"
_INIT = f"#!/bin/busybox sh\necho {_TOKEN}\n/bin/busybox poweroff -f\n"


@dataclass(frozen=True)
class Accelerator:
    """`kvm` or `tcg`, and the reason for it in words."""

    name: str
    reason: str

    @property
    def tsc_khz(self) -> int | None:
        """The rate of the guest's time-stamp counter, where it is the host's and can be measured: 50 ms at the first use in a process."""
        return host_tsc_khz() if self.name == "tcg" else None


def choose(environment: Environment, wanted: str = "auto") -> Accelerator:
    """The accelerator to use.  `auto` takes KVM if it has booted the fetched kernel once since this machine started.

    /dev/kvm can exist and yet not run guests, so `auto` boots that kernel with a tiny /init and a time limit of 20 s
    before it trusts KVM; the outcome is remembered until the machine restarts.

    Raises:
        NotUsable: the name is unknown.
    """
    if wanted in ("tcg", "kvm"):
        return Accelerator(wanted, "asked for")
    if wanted != "auto":
        raise NotUsable(f"accelerator {wanted!r}: allowed are auto, kvm and tcg")
    if problem := device_problem():
        return Accelerator("tcg", f"TCG, because {problem}")
    key = [_boot_id(), environment.qemu.version, environment.qemu.origin, environment.manifest.kernel]
    remembered = cache.cache_dir() / "accelerator.json"
    with cache.lock(cache.cache_dir() / "accelerator.lock"):
        try:
            known = json.loads(remembered.read_bytes())
            if known["key"] == key:
                return Accelerator(**known["accelerator"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        accelerator = _prove(environment)
        entry = {"key": key, "accelerator": asdict(accelerator)}
        cache.write_atomically(remembered, json.dumps(entry).encode())
    return accelerator


def device_problem() -> str:
    """Why this user cannot open /dev/kvm; "" if nothing is wrong."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "this machine has no /dev/kvm"
    except PermissionError:
        return "/dev/kvm may not be opened by this user (is it in the group kvm?)"
    except OSError as error:
        return f"/dev/kvm cannot be opened ({error.strerror})"
    return ""


def _prove(environment: Environment) -> Accelerator:
    kernel = Kernel.packaged(environment)
    archive = cache.cache_dir() / "accelerator.cpio"
    cache.write_atomically(archive, _tiny_initramfs(environment))
    command = [*environment.qemu.command, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]
    command += ["-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256M", "-serial", "stdio"]
    command += ["-kernel", str(kernel.image), "-initrd", str(archive), "-append", "console=ttyS0 quiet panic=-1"]
    process = Process(command, environment.qemu.variables)
    try:
        said, ended = _watch(process)
    finally:
        process.close()
    if _TOKEN in said:
        return Accelerator("kvm", "KVM booted a kernel on this machine")
    told = _telling_line(said)
    return Accelerator("tcg", f"TCG, because KVM did not boot a kernel ({told or ended})")


def _watch(process: Process) -> tuple[str, str]:
    """What QEMU and the kernel wrote until the outcome was clear, and how it ended."""
    deadline = time.monotonic() + _PROOF_SECONDS
    while time.monotonic() < deadline:
        code = process.returncode
        said = process.output()
        if code is not None:
            return said, f"QEMU: {describe_exit(code)}"
        # QEMU stays, with the machine stopped, after it has reported this.
        if _TOKEN in said or "KVM internal error" in said:
            return said, ""
        time.sleep(0.05)
    return process.output(), f"no result within {_PROOF_SECONDS} s"


def _telling_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "fail" in line.lower()]
    return "; ".join((telling or lines)[:2])[:300]


def _tiny_initramfs(environment: Environment) -> bytes:
    archive = Cpio()
    archive.directory("dev")
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", environment.path("usr/bin/busybox").read_bytes(), 0o755)
    archive.file("init", _INIT.encode(), 0o755)
    return archive.to_bytes()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
