"""Operations of the system: resets by the administrator, drivers and VFs taken away and given back, quotas, suspend."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from vfio_user_xe.device_models.xe.scenarios import devices_suspend
from vfio_user_xe.device_models.xe.scenarios.lifetimes.operation import Arguments, Operation
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import VFS, Content, State


class SysfsReset(Operation):
    """A VF is reset by the administrator, whoever has it."""

    name, weight, of_system = "sysfs-reset", 0.2, True

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf,) for vf in VFS)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return bool(arguments) and arguments[0] in VFS and state.vfs[arguments[0]].enabled and not state.pending

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.vfs[arguments[0]].content = Content.CLEARED

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"echo 1 > /sys/bus/pci/devices/{{{arguments[0]}}}/reset"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1]


class Disable(Operation):
    """All VFs are taken away; this waits for users of VFIO."""

    name, weight, of_system, waits_for_users = "disable-vfs", 0.3, True, True

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        return self.weight * _stake(state, VFS)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return not state.pending and state.pf_bound and all(vf.enabled for vf in state.vfs.values())

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.pending = self.name
        state.awaits = frozenset(VFS)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return ["echo 0 > {sysfs}/sriov_numvfs"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return VFS


class Enable(Operation):
    name, weight, of_system = "enable-vfs", 4.0, True

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return not state.pending and state.pf_bound and not any(vf.enabled for vf in state.vfs.values())

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        for vf in state.vfs.values():
            vf.enabled, vf.driver, vf.content = True, "vfio-pci", Content.UNKNOWN

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return ["echo 2 > {sysfs}/sriov_numvfs && {bind:v1:vfio-pci} && {bind:v2:vfio-pci}"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return VFS


class UnbindVf(Operation):
    """vfio-pci is taken from a VF; this waits for its user."""

    name, weight, of_system, waits_for_users = "unbind-vf", 0.3, True, True

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf,) for vf in VFS)

    def weigh(self, state: State, actor: str, arguments: Arguments) -> float:
        return self.weight * _stake(state, arguments)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        vf = state.vfs.get(arguments[0]) if arguments else None
        return vf is not None and bool(vf.driver) and not state.pending

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.pending = f"{self.name} {arguments[0]}"
        state.awaits = frozenset(arguments[:1])

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"echo {{{arguments[0]}}} > /sys/bus/pci/devices/{{{arguments[0]}}}/driver/unbind"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1]


class BindVf(Operation):
    name, weight, of_system = "bind-vf", 3.0, True

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf,) for vf in VFS)

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        vf = state.vfs.get(arguments[0]) if arguments else None
        return vf is not None and vf.enabled and not vf.driver and not state.pending

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.vfs[arguments[0]].driver = "vfio-pci"

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"{{bind:{arguments[0]}:vfio-pci}}"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1]


class Quota(Operation):
    """A VF's share of VRAM is changed while it is enabled."""

    name, weight, of_system, may_refuse = "quota", 0.1, True, True

    def candidates(self, state: State, actor: str) -> Iterator[Arguments]:
        yield from ((vf, size) for vf in VFS for size in ("half", "whole"))

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        if len(arguments) != 2 or arguments[1] not in ("half", "whole") or state.pending or not state.pf_bound:
            return False
        return arguments[0] in VFS and state.vfs[arguments[0]].enabled

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.vfs[arguments[0]].content = Content.UNKNOWN

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        vf, size = arguments
        return [f"echo {{quota:{size}}} > {{debugfs}}/sriov/{{n:{vf}}}/tile0/vram_quota"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return arguments[:1]


class GtReset(Operation):
    """The PF's GT is reset while it has nothing to do: what runs would be lost, rightly."""

    name, weight, of_system = "gt-reset", 0.1, True

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return state.pf_bound and not state.pending and not any(one.looping for one in state.imports.values())

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return ["cat {debugfs}/gt0/force_reset_sync > /dev/null"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return VFS


class Suspend(GtReset):
    """All devices are suspended and resumed, where the kernel can test that."""

    name, weight = "suspend", 0.15

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return [f"{devices_suspend.POSSIBLE} || exit 0; {devices_suspend.DEVICES}"]


class UnbindPf(Operation):
    """xe is taken from the PF, and with it all VFs; this waits for users of VFIO."""

    name, weight, of_system, waits_for_users = "unbind-pf", 0.05, True, True

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        # Jobs without end would fail in ways that nobody has written down.
        return state.pf_bound and not state.pending and not any(one.looping for one in state.imports.values())

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.pending = self.name
        state.awaits = frozenset(name for name, vf in state.vfs.items() if vf.enabled)

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return ["echo {pf} > /sys/bus/pci/drivers/xe/unbind"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return VFS


class BindPf(Operation):
    name, weight, of_system = "bind-pf", 6.0, True

    def allowed(self, state: State, actor: str, arguments: Arguments) -> bool:
        return not state.pf_bound and not state.pending

    def apply(self, state: State, actor: str, arguments: Arguments) -> None:
        state.pf_bound = True

    def commands(self, state: State, actor: str, arguments: Arguments) -> list[str]:
        return ["echo {pf} > /sys/bus/pci/drivers/xe/bind"]

    def vfs(self, state: State, actor: str, arguments: Arguments) -> Collection[str]:
        return VFS


def _stake(state: State, vfs: Collection[str]) -> float:
    """How much more there is to be seen when these VFs are taken away: most of what can go wrong is about imports."""
    return 1.0 if any(state.mapped(vf) for vf in vfs) else 0.5 if any(map(state.exported, vfs)) else 0.1


def rebound(vf: str) -> str:
    """A command of the shell that takes vfio-pci from a VF and gives it back."""
    return f"echo {{{vf}}} > /sys/bus/pci/devices/{{{vf}}}/driver/unbind && {{bind:{vf}:vfio-pci}}"


def finish_pending(state: State) -> bool:
    """What waited for users that are gone is done; whether there was something."""
    if not state.pending or any(state.vfs[vf].open for vf in state.awaits):
        return False
    for name in state.awaits:
        vf = state.vfs[name]
        vf.driver, vf.content = "", Content.UNKNOWN
        if state.pending in (Disable.name, UnbindPf.name):
            vf.enabled = False
    if state.pending == UnbindPf.name:
        state.pf_bound = False
        for gpu in state.gpus.values():
            gpu.gone = True
    state.pending, state.awaits = "", frozenset()
    return True


OPERATIONS: tuple[Operation, ...] = (
    SysfsReset(), Disable(), Enable(), UnbindVf(), BindVf(), Quota(), GtReset(), Suspend(), UnbindPf(), BindPf(),
)  # fmt: skip
