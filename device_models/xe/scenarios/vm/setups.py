"""The machines of the suite `vm`: a host, and beside it guests that use the VFs which it passes on."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.setups import SERVE, guest
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host
from vfio_user_xe.emulator.guest.ports import PortRole
from vfio_user_xe.emulator.guest.settings import Beside, GuestSettings
from vfio_user_xe.emulator.scenarios.scenario import Setup

_SERVE = (*SERVE, "--topology", "passthrough")


def _host(vms: int) -> GuestSettings:
    settings = guest()
    settings["ports"] = {f"vm{n}": PortRole.LISTENS for n in range(1, vms + 1)}
    return settings


def _machine(number: int) -> Beside:
    settings: GuestSettings = {
        "modules": ("xe",),
        "memory": 1024,
        "unplugged": True,
        "ports": {f"vm{number}": PortRole.CONNECTS},
    }
    return Beside((f"vf{number}",), settings)


def mesa(vms: int, userland: str = "graphics") -> Setup[Host]:
    """A host and virtual machines that have Mesa, in a fetched userland."""
    return Setup(
        f"{'one virtual machine' if vms == 1 else f'{vms} virtual machines'}, Mesa",
        _SERVE,
        {**_host(vms), "userland": userland, "memory": 2048},
        Host.of,
        beside=tuple(
            Beside((f"vf{n}",), {**_machine(n).guest, "userland": userland, "memory": 1536}) for n in range(1, vms + 1)
        ),
    )


ONE = Setup("one virtual machine", _SERVE, _host(1), Host.of, beside=(_machine(1),))
TWO = Setup("two virtual machines", _SERVE, _host(2), Host.of, beside=(_machine(1), _machine(2)))
MESA = mesa(1)
