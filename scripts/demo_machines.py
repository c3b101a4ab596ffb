"""The demo of virtual machines: two render on VFs with unmodified Mesa, the PF shows their frames, and one of them reboots."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from demo_output import console, ledger_table, require, show, step
from numpy.typing import NDArray
from rich.table import Table

from vfio_user_xe.device_models.xe.frames import programs
from vfio_user_xe.device_models.xe.frames.picture import Difference, picture
from vfio_user_xe.device_models.xe.frames.play import Picture, Play, Source, patient, pictures, play
from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios.guest_program import ProgramError
from vfio_user_xe.device_models.xe.scenarios.steps import blocked_tasks, lost_reset
from vfio_user_xe.device_models.xe.scenarios.vm import mesa_programs as mesa
from vfio_user_xe.device_models.xe.scenarios.vm import vmm as vmm_program
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host, VirtualMachine
from vfio_user_xe.device_models.xe.scenarios.vm.setups import mesa as machines_with_mesa
from vfio_user_xe.device_models.xe.scenarios.vm.vmm import Vmm
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.qemu_arguments import device_properties
from vfio_user_xe.emulator.guest.settings import GuestSettings
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.observe.png import png
from vfio_user_xe.emulator.scenarios.machine import Shell
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.testing.lab import Lab, Neighbour, open_card, open_guest

FRAMES, AGAIN = 10, 2
"""Of each machine; of the one that has rebooted."""
SIZE = (280, 170)
COMPOSED = (640, 220)
SHOWN, EXPECTED = "/tmp/shown", "/tmp/expected"
TOLERANCE = 8
"""Pixels of a window that may differ from llvmpipe's by more than two steps of 255."""
DARK = 32
"""A channel's value, of 255, that a dark window has less than."""
WINDOWS = ("vm1", "vm2")
LINKS = {"iov": "the card's own link, by device address", "p2p": "PCI peer-to-peer, in the VF's BAR"}


def show_machines(folder: Path, userland: str) -> None:
    """The whole demo; PNGs are left in `folder`. Raises what went wrong."""
    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        with step("Serve a card; boot the host, which has PF and VFs, and beside it two virtual machines"):
            lab = _boot(stack, pool, userland)
        with step("The host: xe takes the PF and provisions two VFs, vfio-pci takes those"):
            host = Host.of(lab)
            show(host.sh("lspci -nnk -d 8086: | grep -A2 '^01'"))
            patient(host.shell)
            host.wait_for_preemption()
        with step("Each VF is opened by its VMM's part, plugged into its machine, and xe takes it there"):
            vmms = [_passed_on(host, vm) for vm in host.vms]
            list(pool.map(_plug, host.vms))
            for vm in host.vms:
                show(
                    f"{vm.name}: {vm.sh('ls -l /sys/class/drm/renderD128/device | sed s/.*-..//')}, {host.passed_on(vm)}"
                )
        compositor = stack.enter_context(
            mesa.composing(host.shell, WINDOWS, width=COMPOSED[0], height=COMPOSED[1], folder=SHOWN)
        )
        with step(f"OpenGL ES in both machines (iris): {FRAMES} frames each; the PF imports and composes them"):
            before: list[dict[str, Any]] = lab.card.call("activity")
            lab.card.call("ledger", clear=True)
            for drawing in pool.map(lambda vm: _draw(vm, FRAMES), host.vms):
                stack.enter_context(drawing)
            show(compositor.all())
            for name in WINDOWS:
                seen = {found.frames[name] for found in pictures(compositor.all(), SHOWN)}
                require(set(range(1, FRAMES + 1)) <= seen, f"not every frame of {name} was shown: {sorted(seen)}")
        with step("Who had which engine for how long"):
            _print_shares(before, lab.card.call("activity"))
        with step("By which way the frames came, by the ledger"):
            _check_path(lab, host)
        expected = pool.submit(_by_llvmpipe, host.vms[1])
        with step("VM 1 reboots: its VMM revokes its frames, and resets its VF by VFIO"):
            came_back = _reboot(host, host.vms[0], vmms[0], compositor)
        if came_back:
            with step("VM 1 draws again"):
                stack.enter_context(_draw(host.vms[0], AGAIN))
                show(compositor.all().splitlines()[-1])
        found = pictures(compositor.all(), SHOWN)
        with step("Pictures"):
            _save(lab, found, folder)
        with step("The same by Mesa's software renderer"):
            _compare(lab, found, expected.result())


def _boot(stack: ExitStack, pool: ThreadPoolExecutor, userland: str) -> Lab:
    setup = machines_with_mesa(2, userland)
    environment = locate()
    files = {**programs.compiled(environment), **vmm_program.with_clients(environment)}
    card = stack.enter_context(open_card(setup.serve))

    def boot(settings: GuestSettings, functions: tuple[str, ...] | None = None) -> BlockingGuest:
        settings = {**settings, "files": files}
        return stack.enter_context(open_guest(card, functions=functions, **settings))

    booting = [pool.submit(boot, setup.guest), *(pool.submit(boot, one.guest, one.functions) for one in setup.beside)]
    wait(booting)
    guest, *others = (one.result() for one in booting)
    show(f"Linux {guest.run('uname -r').stdout.strip()} under {guest.accelerator.name}")
    return Lab(
        card,
        guest,
        [],
        [
            Neighbour(one, device_properties(card.description, functions=beside.functions))
            for one, beside in zip(others, setup.beside, strict=True)
        ],
    )


def _passed_on(host: Host, vm: VirtualMachine) -> Vmm:
    made = host.vmm(vm)
    made.start()
    require(host.state(vm, "open"), f"the VF is {host.passed_on(vm)} although its VMM has it open")
    host.card.settle(vm.vfid)
    return made


def _plug(vm: VirtualMachine) -> None:
    vm.plug()
    patient(vm.guest)


def _draw(vm: VirtualMachine, frames: int) -> ExitStack:
    """Frames of a machine; its window shows the last of them until the stack is closed."""
    with ExitStack() as stack:
        stack.enter_context(mesa.scanning_out(vm))
        stack.enter_context(mesa.rendering(vm, mesa.source_of(vm, *SIZE), frames))
        return stack.pop_all()


def _print_shares(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    earlier = {(entry["engine"], entry["function"]): entry["busy_ns"] for entry in before}
    table = Table("engine", "function", "busy")
    spent: dict[str, int] = {}
    for entry in after:
        busy = entry["busy_ns"] - earlier.get((entry["engine"], entry["function"]), 0)
        if busy > 0:
            table.add_row(entry["engine"], entry["function"], f"{busy / 1e6:.1f} ms")
            spent[entry["function"]] = spent.get(entry["function"], 0) + busy
    console.print(table)
    require({"pf", "vf1", "vf2"} <= set(spent), f"a function did not get any engine: {spent}")


def _check_path(lab: Lab, host: Host) -> None:
    entries = [entry for entry in lab.card.call("ledger") if entry["kind"].split()[0] in ("eu", "3d")]
    ledger_table(entries)
    wanted = "iov" if host.zero_copy else "p2p"
    for vm in host.vms:
        crossed = [e for e in entries if (e["initiator"], e["owner"]) == ("pf", f"vf{vm.vfid}")]
        count = sum(e["bytes_read"] for e in crossed)
        require({e["interconnect"] for e in crossed} == {wanted}, f"VF {vm.vfid}'s frames did not come by {wanted}")
        require(count >= 4 * SIZE[0] * SIZE[1] * FRAMES, f"the PF read less than {FRAMES} frames of VF {vm.vfid}")
        show(
            f"{vm.name}: {count:,} bytes by {wanted}, {LINKS[wanted]}: no copy, neither by a processor nor by an engine"
        )


def _reboot(host: Host, vm: VirtualMachine, vmm: Vmm, compositor: mesa.Background) -> bool:
    """Whether the machine has come back; else the known defect that it met is shown."""
    vm.reset()
    show(f"{vm.name} has booted again; its VF: {host.passed_on(vm)}")
    vmm.machine_was_reset()
    compositor.said(f"{vm.name}=0 ")
    show(compositor.all().splitlines()[-1] + "   <- its window is dark")
    try:
        show(vmm.wait_for("reset result="))
    except ProgramError:
        stacks = blocked_tasks(host)
        require(any("vfio_pci_dma_buf_move" in stack for stack in stacks.values()), f"the reset does not end: {stacks}")
        return _known(defects.REVOCATION_WAITS, "\n".join(stacks.values()))
    try:
        host.card.settle(vm.vfid)
    except TimeoutError as error:
        run = Run(KernelLog(host.shell, lambda: ""))
        lost = lost_reset(run, host)
        require(bool(lost), str(error))
        return _known(defects.RESET_LOST, lost)
    require(host.state(vm, "open"), f"the VF is {host.passed_on(vm)} after its VMM has reset it")
    vm.sh("modprobe xe", timeout=mesa.PATIENCE)
    vm.wait_bound()
    patient(vm.guest)
    show(f"{vm.name}: xe has its VF again")
    return True


def _known(defect: str, evidence: str) -> bool:
    show(f"this kernel's known defect {defect}: {evidence}\ndocs/findings has a report of it; the window stays dark")
    return False


def _by_llvmpipe(vm: VirtualMachine) -> tuple[Play, Shell]:
    soft = [Source(name, None, *SIZE, hue=number) for number, name in enumerate(WINDOWS, 1)]
    width, height = COMPOSED
    folder, patience = EXPECTED, mesa.PATIENCE
    return play(
        vm.guest, None, soft, frames=FRAMES, width=width, height=height, folder=folder, timeout=patience
    ), vm.guest


def _compare(lab: Lab, found: tuple[Picture, ...], wanted: tuple[Play, Shell]) -> None:
    """Each window of each picture is that frame as llvmpipe draws and composes it, or dark."""
    played, shell = wanted
    right = [picture(shell.run(f"cat {one.path}", check=True).stdout_bytes) for one in played.pictures]
    half = COMPOSED[0] // 2
    worst, noticeable, compared = 0, 0, set[tuple[str, int]]()
    for one in found:
        pixels = picture(lab.guest.get(one.path))
        for number, name in enumerate(WINDOWS):
            window = slice(number * half, (number + 1) * half)
            frame = one.frames[name]
            if not frame:
                inside = pixels[COMPOSED[1] // 2, number * half + half // 2, :3]
                require(int(inside.max()) < DARK, f"{name} has no frame, and its window is not dark: {inside}")
                continue
            difference = Difference.between(pixels[:, window], right[frame - 1][:, window])
            worst, noticeable = max(worst, difference.worst), max(noticeable, difference.noticeable)
            require(
                difference.noticeable <= TOLERANCE,
                f"frame {frame} of {name} in {one.path} is not llvmpipe's: {difference}",
            )
            compared.add((name, frame))
    show(
        f"{len(found)} pictures, {len(compared)} frames: at most {noticeable} pixels of a window differ by more than 2 of 255, by {worst} at most"
    )


def _save(lab: Lab, found: tuple[Picture, ...], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = [picture(lab.guest.get(one.path))[:, :, :3].astype(np.uint8) for one in found]
    for number, pixels in enumerate(made, 1):
        _write(folder / f"composed-{number:02}.png", pixels)
    show(f"{folder}/composed-01.png to {folder}/composed-{len(made):02}.png")
    dark = next(
        (n for n, one in enumerate(found) if not one.frames[WINDOWS[0]] and one.frames[WINDOWS[1]] == FRAMES), 0
    )
    _write(folder / "machines.png", np.vstack([made[dark - 1], made[dark], made[-1]]))
    show(f"{folder}/machines.png: both machines draw, VM 1 reboots, VM 1 draws again")


def _write(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.write_bytes(png(pixels.shape[1], pixels.shape[0], pixels.tobytes()))
