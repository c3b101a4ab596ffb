"""Scenarios 36: a dma-buf of which only an O_PATH descriptor is left, and then a revocation.

An O_PATH descriptor holds the buffer's directory entry, so the exporter's list still has the buffer, and lets the file go. In 36h and
36i the VF, which nobody has open any more, is taken away: that must not wait for who has such a descriptor.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios.background import PATIENCE, Background
from vfio_user_xe.device_models.xe.scenarios.machine import MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.patience import TURNS, Patience
from vfio_user_xe.device_models.xe.scenarios.revocation import LOW_POWER_ENTRY, LOW_POWER_EXIT
from vfio_user_xe.device_models.xe.scenarios.steps import UNREGISTERS, opened, scenario, settle
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.scenarios.run import Run

STALE = "stale"
_BOUND = 5
"""Seconds that taking VFs away may take before it is looked at whether it waits."""
_EXPECTED = "the file that is gone is not touched"


def _revoked(run: Run, machine: XeMachine, *commands: str, imported: bool = False, path: bool = True) -> None:
    with opened(run, machine) as made:
        made.step(f"export v 2 0+{MIB:#x} d")
        if imported:
            made.do("import g d i", "gem-close i")
        if path:
            made.step("path d p")
        made.step("close d")
        for command in commands:
            made.step(command)
    run.read_kernel_log()
    if path and not run.reports() and not machine.kasan:
        run.not_applicable("nothing is seen without KASAN: the file's memory was not given to anybody else meanwhile")


@scenario("36", "close() of the device while an O_PATH descriptor is left of a dma-buf", _EXPECTED, group=STALE)
def path_left_at_close(run: Run, machine: XeMachine) -> None:
    _revoked(run, machine, "release v")


@scenario("36b", "VFIO_DEVICE_RESET while an O_PATH descriptor is left", _EXPECTED, group=STALE)
def path_left_at_reset(run: Run, machine: XeMachine) -> None:
    _revoked(run, machine, "reset v")


@scenario("36c", "memory disabled in COMMAND while an O_PATH descriptor is left", _EXPECTED, group=STALE)
def path_left_at_memory_disable(run: Run, machine: XeMachine) -> None:
    _revoked(run, machine, f"config v {COMMAND} 2 0", f"config v {COMMAND} 2 6")


@scenario("36d", "low power while an O_PATH descriptor is left", _EXPECTED, group=STALE)
def path_left_at_low_power(run: Run, machine: XeMachine) -> None:
    _revoked(run, machine, f"try feature v {LOW_POWER_ENTRY:#x}", f"try feature v {LOW_POWER_EXIT:#x}")


@scenario("36e", "FLR through configuration space while an O_PATH descriptor is left", _EXPECTED, group=STALE)
def path_left_at_flr(run: Run, machine: XeMachine) -> None:
    _revoked(run, machine, "flr v")


@scenario("36f", "a reset while an O_PATH descriptor is left of a buffer that was imported", _EXPECTED, group=STALE)
def path_left_after_an_import(run: Run, machine: XeMachine) -> None:
    _revoked(run, machine, "reset v", imported=True)


@scenario("36g", "all of these without an O_PATH descriptor", "nothing is left to be touched", group=STALE)
def no_path_left(run: Run, machine: XeMachine) -> None:
    for commands in (("reset v",), (f"config v {COMMAND} 2 0",), ("flr v",), ("release v",)):
        _revoked(run, machine, *commands, path=False)


@scenario("36h", "VFs disabled while an O_PATH descriptor is left of a VF that is closed", "done at once", group=STALE)
def vfs_disabled_with_a_path_left(run: Run, machine: XeMachine) -> None:
    _taken_away(run, machine, f"echo 0 > {machine.card.sysfs}/sriov_numvfs")


@scenario("36i", "vfio-pci unbound while an O_PATH descriptor is left", "done at once", group=STALE)
def unbound_with_a_path_left(run: Run, machine: XeMachine) -> None:
    _taken_away(run, machine, f"echo {machine.card.vf(1)} > /sys/bus/pci/drivers/vfio-pci/unbind")


def _taken_away(run: Run, machine: XeMachine, command: str) -> None:
    """`command` with a descriptor of the buffer itself, which the close of the device has cleaned up; then with an O_PATH one."""
    try:
        with opened(run, machine) as made, run.step("control: the dma-buf is closed after its device"):
            made.do(f"export v 2 0+{MIB:#x} d", "path d p", "release v", "close d")
            settle(machine)  # a VF that is taken away in the middle of its reset is another matter
            background = Background(machine, command)
            background.must_end(run, f"{command} waits although the dma-buf is cleaned up")
            run.check(background.code() == 0, f"{command}: {background.output()}")
        machine.restore_quotas(run)
        with opened(run, machine) as made:
            made.do(f"export v 2 0+{MIB:#x} d", "path d p", "close d", "release v")
            settle(machine)
            with run.step(command):
                background = Background(machine, command)
                waits = _unregisters(machine, background)
                if not waits:
                    background.must_end(run, f"{command} waits elsewhere than in {UNREGISTERS}: {background.stack()}")
            if waits:
                run.evidence("the command waits in", background.stack())
                with run.step("what frees it: closing the O_PATH descriptor"):
                    made.step("close p")
                    background.must_end(run, f"{command}: nothing frees it")
            run.check(background.code() == 0, f"{command}: {background.output()}")
            if waits:
                run.known(defects.REGISTRATION_HELD, f"{command} waited until the O_PATH descriptor was closed")
    finally:
        if not run.given_up:
            machine.restore_quotas(run)


def _unregisters(machine: XeMachine, background: Background) -> bool:
    """Whether a command comes to where VFIO waits for a registration, and stays there. On a busy machine it may be late, and then end."""
    if background.ended(_BOUND):
        return False
    Patience(machine).within(PATIENCE, lambda: background.ended(1) or UNREGISTERS in background.stack())
    return UNREGISTERS in background.stack() and background.standing(_BOUND, TURNS) is not None
