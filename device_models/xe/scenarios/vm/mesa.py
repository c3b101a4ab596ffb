"""Frames that Mesa draws in a virtual machine, and Mesa composes in the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vfio_user_xe.device_models.xe.frames.picture import Difference, picture
from vfio_user_xe.device_models.xe.frames.play import Source, play
from vfio_user_xe.device_models.xe.scenarios.vm import mesa_programs as p
from vfio_user_xe.device_models.xe.scenarios.vm import steps as s
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host, VirtualMachine
from vfio_user_xe.device_models.xe.scenarios.vm.setups import MESA
from vfio_user_xe.device_models.xe.scenarios.vm.steps import scenario
from vfio_user_xe.emulator.scenarios.run import Run

_WIDTH, _HEIGHT = 160, 100
_WINDOW = (200, 150)
_FRAMES = 2
_TOLERANCE = 8
"""Pixels of a picture that may differ by more than two steps of 255: at edges of the cube."""
_SHOWN, _EXPECTED = "/tmp/shown", "/tmp/expected"


@contextlib.contextmanager
def kept(run: Run, program: p.Background) -> Iterator[None]:
    """What the program says is kept with the run."""
    try:
        yield
    finally:
        run.fact(program.log, program.all())


def _render(run: Run, vm: VirtualMachine, modifier: str) -> None:
    """Draw the frames on the VF by Mesa; xe-vgpu passes them to the VMM."""
    renderer = p.renderer_command(Source(vm.name, p.NODE, _WIDTH, _HEIGHT, modifier), _FRAMES)
    with p.scanning_out(vm) as passing, kept(run, passing), run.step(renderer):
        vm.sh(renderer, timeout=p.PATIENCE)
        run.evidence("the machine's surfaces", vm.sh(f"grep ^create {p.VGPU_LOG}").splitlines())


def _compare(run: Run, host: Host, vm: VirtualMachine) -> None:
    """What was shown is what llvmpipe draws and composes, but for pixels at edges."""
    soft = Source(vm.name, None, width=_WIDTH, height=_HEIGHT)
    width, height = _WINDOW
    expected = play(
        host.shell, None, [soft], frames=_FRAMES, width=width, height=height, folder=_EXPECTED, timeout=p.PATIENCE
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


def check_path(run: Run, host: Host, vm: VirtualMachine, least: int) -> None:
    """Since the ledger was cleared the PF has read at least so many bytes of the machine's VF, all by this kernel's path."""
    entries = [e for e in host.card.call("ledger") if (e["initiator"], e["owner"]) == ("pf", f"vf{vm.vfid}")]
    read = run.evidence(
        "bytes that the PF read of the VF", {f"{e['interconnect']}, {e['kind']}": e["bytes_read"] for e in entries}
    )
    wanted = "iov" if host.zero_copy else "p2p"
    run.check({e["interconnect"] for e in entries} == {wanted}, f"another path than {wanted}: {read}")
    run.check(sum(e["bytes_read"] for e in entries) >= least, f"less than {least} bytes were read: {read}")


def _mesa(run: Run, host: Host, modifier: str) -> None:
    [vm] = host.vms
    width, height = _WINDOW
    more = f"--together --frames {_FRAMES}"
    with (
        p.composing(host.shell, [vm.name], width=width, height=height, folder=_SHOWN, more=more) as compositor,
        kept(run, compositor),
        s.running(run, host, vm) as vmm,
    ):
        host.card.call("ledger", clear=True)
        _render(run, vm, modifier)
        compositor.said(f"composed {_FRAMES} ")
        run.evidence("the VMM", vmm.log())
        check_path(run, host, vm, 4 * _WIDTH * _HEIGHT * _FRAMES)
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
