"""The programs of Mesa's frames on their places: renderers in virtual machines, the compositor in the host.

with composing(host.shell, ["vm1"], width=640, height=220, folder="/tmp/shown") as compositor:
    ...                                             # xe-vmm has VF 1 open, and the machine has the VF plugged in
    with scanning_out(vm), rendering(vm, source_of(vm, 280, 170), 10):
        pictures(compositor.all(), "/tmp/shown")    # of frames.play: ten, and the window shows the last
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vfio_user_xe.device_models.xe.frames.play import Source
from vfio_user_xe.device_models.xe.frames.programs import COMPOSITOR, DISPLAY
from vfio_user_xe.device_models.xe.scenarios.guest_program import ProgramError
from vfio_user_xe.device_models.xe.scenarios.vm.machine import COMPOSITOR as COMPOSITOR_SOCKET
from vfio_user_xe.device_models.xe.scenarios.vm.machine import VirtualMachine
from vfio_user_xe.device_models.xe.scenarios.vm.vmm import VGPU
from vfio_user_xe.emulator.scenarios.machine import Shell

NODE = "/dev/dri/renderD128"
"""The PF's in the host, the VF's in a machine: the first and only one."""
COMPOSITOR_LOG, VGPU_LOG, RENDERER_LOG = "/run/compositor.log", "/run/vgpu.log", "/run/renderer.log"
DISPLAY_LOG = "/run/display.log"
_VGPU_SOCKET, _HELD = "/run/vgpu.sock", "/run/held"
_RUNTIME = "/run/wayland"
_BOOT = "/proc/sys/kernel/random/boot_id"
PATIENCE = 600.0
"""Seconds: more than a machine needs for its first frames on a busy host, where Mesa's shaders are compiled."""


@dataclass(frozen=True)
class Background:
    """A program that runs in a guest, and what it has said so far."""

    shell: Shell
    pid: int
    log: str

    def said(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait until it has said this.

        Raises:
            TimeoutError: it does not within `seconds`.
            ProgramError: it has ended before.
        """
        deadline = time.monotonic() + seconds
        looked = f"ended=0; kill -0 {self.pid} 2>/dev/null || ended=1; grep -q {shlex.quote(text)} {self.log} || exit $((1 + ended))"
        while found := self.shell.run(looked).returncode:
            last = self.shell.run(f"tail -5 {self.log}").stdout
            if found > 1:
                raise ProgramError(f"the program has ended without {text!r} in {self.log}: {last}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {text!r} in {self.log} within {seconds:g} s: {last}")
            time.sleep(0.2)

    def all(self) -> str:
        """What it has said."""
        return self.shell.run(f"cat {self.log}", check=True).stdout


@contextlib.contextmanager
def background(shell: Shell, command: str, log: str, ready: str) -> Iterator[Background]:
    """A program that has said `ready`; killed afterwards, unless the guest has booted anew and its number may be another's.

    Raises:
        TimeoutError: it does not say so.
        ProgramError: it has ended before.
    """
    started = shell.run(f"setsid {command} > {log} 2>&1 < /dev/null 3>&- & echo $! $(cat {_BOOT})", check=True)
    number, boot = started.stdout.split()
    program = Background(shell, int(number), log)
    try:
        program.said(ready)
        yield program
    finally:
        shell.run(f"test $(cat {_BOOT}) = {boot} && kill -9 {program.pid} 2>/dev/null")


def composing(
    shell: Shell, windows: Sequence[str], *, width: int, height: int, folder: str | None = None, more: str = ""
) -> contextlib.AbstractContextManager[Background]:
    """The compositor on the PF, which sources may connect to; its pictures are left in `folder`, if there is one."""
    saved = f"--save {folder}" if folder else ""
    if folder:
        shell.run(f"rm -rf {folder}; mkdir -p {folder}", check=True)
    command = (
        f"env GL_DEVICE={NODE} {COMPOSITOR} --socket {COMPOSITOR_SOCKET} --windows {shlex.quote(','.join(windows))}"
        f" --width {width} --height {height} {saved} {more}"
    )
    return background(shell, command, COMPOSITOR_LOG, "ready")


def scanning_out(vm: VirtualMachine) -> contextlib.AbstractContextManager[Background]:
    """The machine's end of its scan-out, which a renderer may connect to."""
    return background(vm.guest, f"{VGPU} {vm.name} {vm.address} {_VGPU_SOCKET}", VGPU_LOG, "ready")


def displaying(vm: VirtualMachine, width: int, height: int) -> contextlib.AbstractContextManager[Background]:
    """A display for Wayland's clients in the machine (`on_display`), whose frames go to `scanning_out`."""
    vm.sh(f"mkdir -p -m 700 {_RUNTIME}")
    command = (
        f"env GL_DEVICE={NODE} {DISPLAY} --display {_RUNTIME}/{vm.name} --socket {_VGPU_SOCKET} --name {vm.name}"
        f" --width {width} --height {height}"
    )
    return background(vm.guest, command, DISPLAY_LOG, "ready")


def on_display(vm: VirtualMachine) -> str:
    """What comes before the command of a program that shows itself on `displaying`."""
    return f"env XDG_RUNTIME_DIR={_RUNTIME} WAYLAND_DISPLAY={vm.name}"


def source_of(vm: VirtualMachine, width: int, height: int, modifier: str = "tile4") -> Source:
    """A renderer on the machine's VF, with a colour of its own; sizes in pixels."""
    return Source(vm.name, NODE, width, height, modifier, hue=vm.vfid)


def renderer_command(source: Source, count: int) -> str:
    """Draw `count` frames in a machine, and pass them to `scanning_out`."""
    return f"env {source.command} --socket {_VGPU_SOCKET} --frames {count}"


@contextlib.contextmanager
def rendering(vm: VirtualMachine, source: Source, count: int) -> Iterator[Background]:
    """A renderer in the machine that has drawn `count` frames; the window shows the last until the block is left.

    Raises:
        TimeoutError: it does not draw them.
        ProgramError: it has ended before.
    """
    vm.sh(f"rm -f {_HELD}; mkfifo {_HELD}")
    command = f"sh -c {shlex.quote(f'exec {renderer_command(source, count)} --hold <> {_HELD}')}"
    with background(vm.guest, command, RENDERER_LOG, f"frames={count} ") as program:
        yield program
