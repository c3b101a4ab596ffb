"""Frames that Mesa draws in a virtual machine, and Mesa composes in the host."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator

from vfio_user_xe.device_models.xe.frames.picture import Difference, picture
from vfio_user_xe.device_models.xe.frames.play import Source, play
from vfio_user_xe.device_models.xe.frames.programs import COMPOSITOR as PROGRAM
from vfio_user_xe.device_models.xe.frames.programs import RENDERER
from vfio_user_xe.device_models.xe.scenarios.vm import steps as s
from vfio_user_xe.device_models.xe.scenarios.vm.machine import COMPOSITOR, Host, VirtualMachine
from vfio_user_xe.device_models.xe.scenarios.vm.setups import MESA
from vfio_user_xe.device_models.xe.scenarios.vm.steps import scenario
from vfio_user_xe.device_models.xe.scenarios.vm.vmm import VGPU
from vfio_user_xe.emulator.scenarios.machine import Shell
from vfio_user_xe.emulator.scenarios.run import Run

_NODE = "/dev/dri/renderD128"
"""The PF's in the host, the VF's in a machine: the first and only one."""
_WIDTH, _HEIGHT = 160, 100
_WINDOW = (200, 150)
_FRAMES = 2
_TOLERANCE = 8
"""Pixels of a picture that may differ by more than two steps of 255: at edges of the cube."""
_PATIENCE = 600.0
_SHOWN, _EXPECTED, _VGPU_SOCKET = "/tmp/shown", "/tmp/expected", "/run/vgpu.sock"


@contextlib.contextmanager
def _background(run: Run, shell: Shell, command: str, log: str, ready: str) -> Iterator[None]:
    """A program that has said `ready`; killed afterwards, and what it said is kept."""
    started = shell.run(f"setsid {command} > {log} 2>&1 < /dev/null 3>&- & echo $!", check=True)
    try:
        _said(shell, log, ready)
        yield
    finally:
        run.fact(log, shell.run(f"cat {log}").stdout)
        shell.run(f"kill -9 {int(started.stdout)} 2>/dev/null")


def _said(shell: Shell, log: str, text: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while shell.run(f"grep -q {shlex.quote(text)} {log}").returncode:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {text!r} in {log}: {shell.run(f'tail -5 {log}').stdout}")
        time.sleep(0.5)


def _render(run: Run, vm: VirtualMachine, modifier: str) -> None:
    """Draw the frames on the VF by Mesa; xe-vgpu passes them to the VMM."""
    command = f"{VGPU} {vm.name} {vm.address} {_VGPU_SOCKET}"
    renderer = (
        f"GL_DEVICE={_NODE} {RENDERER} --socket {_VGPU_SOCKET} --name {vm.name} --modifier {modifier}"
        f" --width {_WIDTH} --height {_HEIGHT} --frames {_FRAMES}"
    )
    with _background(run, vm.guest, command, "/run/vgpu.log", "ready"), run.step(renderer):
        vm.sh(renderer, timeout=_PATIENCE)
        run.evidence("the machine's surfaces", vm.sh("grep ^create /run/vgpu.log").splitlines())


def _compare(run: Run, host: Host, vm: VirtualMachine) -> None:
    """What was shown is what llvmpipe draws and composes, but for pixels at edges."""
    soft = Source(vm.name, None, width=_WIDTH, height=_HEIGHT)
    width, height = _WINDOW
    expected = play(
        host.shell, None, [soft], frames=_FRAMES, width=width, height=height, folder=_EXPECTED, timeout=_PATIENCE
    )
    for wanted in expected.pictures:
        name = wanted.path.rpartition("/")[2]
        shown, right = (
            picture(host.shell.run(f"cat {path}", check=True).stdout_bytes)
            for path in (f"{_SHOWN}/{name}", wanted.path)
        )
        found = Difference.between(shown, right)
        run.evidence(name, f"{found.noticeable} pixels differ by more than two steps, the worst by {found.worst}")
        run.check(found.noticeable <= _TOLERANCE, f"{name} is not what llvmpipe draws: {found}")
    run.check(len(expected.pictures) == _FRAMES, f"llvmpipe composed {len(expected.pictures)} pictures")


def _mesa(run: Run, host: Host, modifier: str) -> None:
    [vm] = host.vms
    width, height = _WINDOW
    host.sh(f"rm -rf {_SHOWN}; mkdir -p {_SHOWN}")
    compositor = (
        f"env GL_DEVICE={_NODE} {PROGRAM} --socket {COMPOSITOR} --windows {vm.name} --width {width} --height {height}"
        f" --together --frames {_FRAMES} --save {_SHOWN}"
    )
    with (
        _background(run, host.shell, compositor, "/run/compositor.log", "ready"),
        s.running(run, host, vm) as vmm,
    ):
        host.card.call("ledger", clear=True)
        _render(run, vm, modifier)
        _said(host.shell, "/run/compositor.log", f"composed {_FRAMES} ")
        run.evidence("the VMM", vmm.log())
        entries = [e for e in host.card.call("ledger") if (e["initiator"], e["owner"]) == ("pf", f"vf{vm.vfid}")]
        read = run.evidence(
            "bytes that the PF read of the VF", {f"{e['interconnect']}, {e['kind']}": e["bytes_read"] for e in entries}
        )
        wanted = "iov" if host.zero_copy else "p2p"
        run.check({e["interconnect"] for e in entries} == {wanted}, f"another path than {wanted}: {read}")
        count = sum(e["bytes_read"] for e in entries)
        run.check(count >= 4 * _WIDTH * _HEIGHT * _FRAMES, f"less than {_FRAMES} frames were read: {read}")
        s.check_machine(run, vm)
    _compare(run, host, vm)


@scenario(
    "7",
    "Mesa draws linear buffers in a machine, and Mesa composes them in the host",
    "the pictures are llvmpipe's but for edges; every byte by the kernel's path, none through a processor",
    MESA,
    groups=("mesa",),
)
def mesa_linear(run: Run, machine: Host) -> None:
    _mesa(run, machine, "linear")


@scenario("7b", "the same with buffers in Tile4", "the same", MESA, groups=("mesa",))
def mesa_tiled(run: Run, machine: Host) -> None:
    _mesa(run, machine, "tile4")
