"""What the scenarios of virtual machines work with: the host, whose guest has PF and VFs, and the machines that use VFs."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, Step
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.device_models.xe.scenarios.vm.vmm import Vmm
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.kernel_reports import KernelReport, reports
from vfio_user_xe.emulator.kernel_reports.lines import parse
from vfio_user_xe.emulator.scenarios.excuses import asked_for
from vfio_user_xe.emulator.scenarios.machine import Booted, Neighbour
from vfio_user_xe.emulator.scenarios.run import Run

COMPOSITOR = "/run/compositor.sock"
_APPEARS, _GOES = 600.0, 120.0
_LOAD = 600.0
_PREEMPTION = "sriov_admin/.bulk_profile/preempt_timeout_us"
_QUOTAS = "sriov_admin/.bulk_profile/vram_quota"
"""Unlike the file in debugfs, it leaves the VFs' other resources to xe's own provisioning."""


class VirtualMachine:
    """A guest that uses a VF which the host passes on; the VF is plugged in and pulled out."""

    def __init__(self, name: str, vfid: int, neighbour: Neighbour) -> None:
        """`name` is also that of the port to its VMM."""
        self.name = name
        self.vfid = vfid
        self.guest = neighbour.guest
        self.address = "0000:01:00.0"
        """Of the VF, in this machine."""
        self._device = neighbour.devices[0]
        self._programs = 0
        self.plugged = False
        """Whether it has the VF, or what is left of it."""

    def sh(self, command: str, timeout: float = 60) -> str:
        """Run a command in it that must succeed; its output without the last newline.

        Raises:
            CommandFailed: its exit code is not 0.
        """
        return self.guest.run(command, timeout=timeout, check=True).stdout.rstrip("\n")

    def plug(self) -> None:
        """Plug the VF in and wait for its driver.

        Raises:
            TimeoutError: the driver does not take it.
        """
        # What its driver said of a VF that was pulled out before is not to be judged again.
        self.sh("modprobe xe; dmesg -c > /dev/null", timeout=_LOAD)
        self.guest.qmp("device_add", self._device)
        self.plugged = True
        self.wait_bound()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Meanwhile its QEMU does nothing at all: no processor runs, and no request of the card is answered."""
        os.kill(self.guest.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.guest.pid, signal.SIGCONT)

    def wait_bound(self) -> None:
        """Wait until xe drives the VF.

        Raises:
            TimeoutError: it does not take it.
        """
        self._wait(self.bound, _APPEARS, "xe does not take the VF")

    def unplug(self) -> None:
        """Pull the VF out and wait until the machine has given it up.

        Raises:
            TimeoutError: it does not.
        """
        before = self._deletions()
        self.guest.qmp("device_del", {"id": self._device["id"]})
        self._wait(lambda: self._deletions() > before, _GOES, "the VF is not given up")
        self.plugged = False

    def reset(self) -> None:
        """Reset the machine, and wait until it has booted again.

        Raises:
            BootFailed: it does not boot.
        """
        self.guest.reset()

    def bound(self) -> bool:
        """Whether xe drives the VF, and lets programs use it."""
        return self.guest.run(f"test -e /sys/bus/pci/drivers/xe/{self.address}/drm").returncode == 0

    def program(self, observer: Callable[[Step], None]) -> Program:
        """A new process of the guest program in the machine; its caller ends it."""
        self._programs += 1
        made = Program(self.guest, f"{self.name}-{self._programs}", observer)
        made.start()
        return made

    def reports(self) -> list[KernelReport]:
        """What its kernel has reported of itself since the VF was plugged in, or the machine was reset.

        What its command line asks for is left out: a machine that was reset says it again.
        """
        asked = asked_for(self.sh("cat /proc/cmdline"))
        return [one for one in reports(parse(self.sh("dmesg"))) if not any(excuse.covers(one) for excuse in asked)]

    def _deletions(self) -> int:
        return sum(event["event"] == "DEVICE_DELETED" for event in self.guest.qmp_events)

    def _wait(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {otherwise} within {seconds:g} s")
            time.sleep(0.2)


class Host(XeMachine):
    """The guest that has the card, and its virtual machines."""

    vms: list[VirtualMachine]

    @classmethod
    def of(cls, booted: Booted) -> Self:
        """The host of a card with topology "passthrough", and the guests beside it: VM n uses VF n."""
        made = super().of(booted)
        made.vms = [VirtualMachine(f"vm{n}", n, neighbour) for n, neighbour in enumerate(booted.beside, 1)]
        return made

    def reprovision(self, quota: int) -> None:
        """Both VFs with another quota of VRAM in bytes, and all else that a driver needs.

        Raises:
            GuestError: the driver does not give it.
        """
        self.card.disable_vfs()
        self.sh(f"echo {quota} > {self.card.sysfs}/{_QUOTAS}")
        self.card.enable_vfs(2)

    def restore_quotas(self, run: Run) -> None:
        """Two VFs, with what they had in the beginning."""
        try:
            self.card.disable_vfs()
            self.sh(f"echo 0 > {self.card.sysfs}/{_QUOTAS}")
            self.card.enable_vfs(2)
        except GuestError as error:
            run.give_up(f"the VFs do not get their VRAM back: {str(error).splitlines()[0]}")

    def wait_for_preemption(self) -> None:
        """Let VFs have as long as they need to give an engine up (0: no limit).

        xe gives them 16 ms, and the GuC resets a context that takes longer: draws of a machine on a busy host.

        Raises:
            CommandFailed: this driver does not let it be set.
        """
        self.sh(f"echo 0 > {self.card.sysfs}/{_PREEMPTION}")

    def passed_on(self, vm: VirtualMachine) -> dict[str, Any]:
        """What the card says of the machine's VF (docs/topologies.md)."""
        found: list[dict[str, Any]] = self.card.call("passthrough")
        return next(entry for entry in found if entry["function"] == f"vf{vm.vfid}")

    def state(self, vm: VirtualMachine, wanted: str, seconds: float = 60) -> bool:
        """Whether the machine's VF comes into this state within `seconds`."""
        deadline = time.monotonic() + seconds
        while self.passed_on(vm)["state"] != wanted:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def vmm(self, vm: VirtualMachine, *, by_device: bool = False) -> Vmm:
        """The VMM's part for a machine; not started yet. `by_device`: it opens the VF by its character device, with iommufd."""
        return Vmm(self.shell, vm.name, self.card.vf(vm.vfid), COMPOSITOR, by_device=by_device)
