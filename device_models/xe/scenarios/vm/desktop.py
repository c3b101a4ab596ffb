"""A desktop that nobody here wrote, in a virtual machine: its frames are composed by the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.frames.picture import picture
from vfio_user_xe.device_models.xe.frames.play import patient, pictures
from vfio_user_xe.device_models.xe.scenarios.vm import mesa_programs as p
from vfio_user_xe.device_models.xe.scenarios.vm import steps as s
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host
from vfio_user_xe.device_models.xe.scenarios.vm.mesa import check_path, kept
from vfio_user_xe.device_models.xe.scenarios.vm.setups import MESA
from vfio_user_xe.device_models.xe.scenarios.vm.steps import scenario
from vfio_user_xe.emulator.scenarios.run import Run

_WIDTH, _HEIGHT = 160, 100
_WINDOW = (200, 150)
_FRAMES = 6
_SHOWN = "/tmp/shown"
_CLIENT = "/usr/bin/weston-simple-egl"
_WESTON = f"weston --backend=wayland --renderer=gl --fullscreen --shell=kiosk --no-config --socket=inner -- {_CLIENT}"
"""weston is a client of `frame-display`, and the client is weston's."""
_SEEN, _TURNS = 0.001, 3
"""The least part of a picture for each of three colours, of a triangle that is seen from its edge sometimes; and how many pictures must
have it. The first ones are weston's, without its client."""


def _triangle(found: NDArray[np.uint8]) -> list[float]:
    """Which part of the picture is mostly red, green, blue: the client's triangle has a corner of each."""
    colours = found[..., :3].astype(int)
    others = [np.maximum(colours[..., (at + 1) % 3], colours[..., (at + 2) % 3]) for at in range(3)]
    return [float(np.mean((colours[..., at] > 96) & (colours[..., at] > 2 * others[at]))) for at in range(3)]


@scenario(
    "11",
    "weston with its GL renderer and a client that draws a turning triangle, both unmodified, in the machine",
    "the host shows their frames; every byte by the kernel's path, none through a processor",
    MESA,
    groups=("mesa",),
)
def desktop(run: Run, machine: Host) -> None:
    [vm] = machine.vms
    width, height = _WINDOW
    with (
        p.composing(machine.shell, [vm.name], width=width, height=height, folder=_SHOWN) as compositor,
        kept(run, compositor),
        s.running(run, machine, vm),
    ):
        patient(machine.shell)
        patient(vm.guest)
        machine.wait_for_preemption()
        machine.card.call("ledger", clear=True)
        with (
            p.scanning_out(vm) as passing,
            kept(run, passing),
            p.displaying(vm, _WIDTH, _HEIGHT) as display,
            kept(run, display),
            p.background(vm.guest, f"{p.on_display(vm)} {_WESTON}", "/run/weston.log", "enabled") as weston,
            kept(run, weston),
            run.step(f"{_FRAMES} frames"),
        ):
            display.said(f"frame {_FRAMES} ")
            run.evidence("frames that left the display", display.all().splitlines()[1:])
            run.check("dma-buf" in display.all(), "no frame was drawn by the VF's driver")
        shown = [one for one in pictures(compositor.all(), _SHOWN) if one.frames[vm.name]][:_FRAMES]
        check_path(run, machine, vm, 4 * _WIDTH * _HEIGHT * len(shown))
        s.check_machine(run, vm)
    run.check(len(shown) == _FRAMES, f"the compositor has shown {len(shown)} frames of {_FRAMES}")
    found = [
        np.asarray(picture(machine.shell.run(f"cat {one.path}", check=True).stdout_bytes), np.uint8) for one in shown
    ]
    parts = run.evidence("red, green and blue parts of each picture", [_triangle(one) for one in found])
    turns = {one.tobytes() for one, part in zip(found, parts, strict=True) if min(part) > _SEEN}
    run.check(len(turns) >= _TURNS, f"the client's triangle turns in {len(turns)} pictures only: {parts}")
