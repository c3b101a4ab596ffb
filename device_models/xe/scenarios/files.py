"""Scenarios 36: a dma-buf of which only an O_PATH descriptor is left, and then a revocation.

An O_PATH descriptor holds the buffer's directory entry, so the exporter's list still has the buffer, and lets the file go.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.machine import MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.revocation import LOW_POWER_ENTRY, LOW_POWER_EXIT
from vfio_user_xe.device_models.xe.scenarios.steps import opened, scenario
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.scenarios.run import Run

STALE = "stale"
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
