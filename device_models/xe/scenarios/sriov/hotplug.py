"""Scenarios 50 and 51: the card comes and goes through a slot."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.sriov import setups
from vfio_user_xe.device_models.xe.scenarios.sriov import steps as s
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import scenario
from vfio_user_xe.emulator.scenarios.run import Run

_TIMES = 20
_APPEARS, _GOES = 60.0, 60.0


def _deletions(machine: SriovMachine) -> int:
    return sum(event["event"] == "DEVICE_DELETED" for event in machine.vm.qmp_events)


def _plugged(run: Run, machine: SriovMachine) -> None:
    # Function 0 comes last: with it the slot tells the guest that there is a card.
    for device in (*machine.devices[1:], machine.devices[0]):
        machine.vm.qmp("device_add", device)
    appeared = machine.wait(lambda: machine.driver(machine.card.pf) == "xe", _APPEARS)
    run.check(appeared, f"xe has no device {_APPEARS:g} s after it was plugged in")


def _unplugged(run: Run, machine: SriovMachine) -> None:
    before = _deletions(machine)
    machine.vm.qmp("device_del", {"id": machine.devices[0]["id"]})
    gone = machine.wait(lambda: _deletions(machine) >= before + len(machine.devices), _GOES)
    run.check(gone, f"the guest has not given the card up within {_GOES:g} s")
    left = machine.sh("ls /sys/bus/pci/devices | grep ^0000:01 || true")
    run.check(not left, f"functions are left: {left}")
    attached = [f["name"] for f in machine.card.call("status")["functions"] if f["attached"]]
    run.check(not attached, f"the server has clients of {attached} still")


@scenario(
    "50",
    f"the card plugged in, two VFs enabled, jobs, unplugged; {_TIMES} times, every other time with VFs enabled",
    "each time as the first",
    setups.HOT_PLUG,
    restore=False,
)
def plugged_and_unplugged(run: Run, machine: SriovMachine) -> None:
    machine.sh("modprobe xe", timeout=180)
    for turn in range(_TIMES):
        with run.step(f"turn {turn + 1}"):
            _plugged(run, machine)
            s.work(run, machine, machine.card.pf, *machine.enable(2))
            if turn % 2:
                machine.card.disable_vfs()
            _unplugged(run, machine)


@scenario(
    "51",
    "the card unplugged while jobs run on PF and VFs",
    "the guest gives it up; the processes end; works when plugged in again",
    setups.HOT_PLUG,
    restore=False,
)
def unplugged_under_jobs(run: Run, machine: SriovMachine) -> None:
    machine.run("modprobe xe", timeout=180)
    _plugged(run, machine)
    vfs = machine.enable(2)
    with s.busy(run, machine, machine.card.pf, *vfs) as user:
        _unplugged(run, machine)
        user.kill()
        run.check(user.gone(20), "the process does not end")
    _plugged(run, machine)
    s.work(run, machine, machine.card.pf, *machine.enable(2))
    _unplugged(run, machine)
