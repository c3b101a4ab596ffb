"""What the scenarios of SR-IOV's life work with: a card whose PF xe drives, without VFs; each scenario enables its own."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Self

from vfio_user_xe.device_models.xe.scenarios.card import XeCard
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, Step
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.scenarios.machine import Booted, Machine
from vfio_user_xe.emulator.scenarios.run import Run

HUNG_SECONDS = 5
CONFIGFS = "/sys/kernel/config/xe"
"""Where xe has a folder of settings for each device that a user makes one for."""
_PROBE = 180.0
"""Seconds for xe's probe, of several VFs on a slow kernel."""


class SriovMachine(Machine):
    """xe on the PF, no VFs."""

    card: XeCard

    def __init__(self, booted: Booted, *, load: bool = True) -> None:
        """Load the drivers, or leave that to scenarios.

        Raises:
            GuestError: it does not answer, or a driver cannot be loaded.
        """
        super().__init__(booted.guest, booted.card, booted.others)
        self.vm = booted.guest
        self.devices = booted.devices
        self.server = booted.card.pid
        self.card = XeCard(booted.guest, booted.card)
        self._numbers = itertools.count()
        self.run(
            "echo -1 > /proc/sys/kernel/hung_task_warnings; echo 1 > /proc/sys/kernel/sysrq; mkdir -p /sys/kernel/config; modprobe configfs;"
            " mount -t configfs none /sys/kernel/config; modprobe button"
        )
        self._report_hung_tasks_after(HUNG_SECONDS)
        if load:
            self.card.load_drivers()
            self.run("echo 2 > /sys/module/drm/parameters/debug")

    @classmethod
    def of(cls, booted: Booted) -> Self:
        """The machine of a guest that has booted."""
        return cls(booted)

    @classmethod
    def without_driver(cls, booted: Booted) -> Self:
        """The machine of a guest in which no driver is loaded yet."""
        return cls(booted, load=False)

    @contextlib.contextmanager
    def waits_of(self, seconds: int) -> Iterator[None]:
        """Meanwhile tasks may sleep uninterruptibly for up to `seconds` before the kernel reports them.

        For what holds a lock for long and lets it go. What never ends is reported still.
        """
        self._report_hung_tasks_after(seconds)
        try:
            yield
        finally:
            # A guest that is gone has another, first error.
            with contextlib.suppress(GuestError):
                self._report_hung_tasks_after(HUNG_SECONDS)

    def _report_hung_tasks_after(self, seconds: int) -> None:
        self.run(f"echo {seconds} > /proc/sys/kernel/hung_task_timeout_secs; true")

    def start(self, observer: Callable[[Step], None]) -> Program:
        """A new process of the guest program; its caller ends it.

        Raises:
            ProgramError: it does not start.
        """
        made = Program(self.shell, f"s{next(self._numbers)}", observer)
        made.start()
        return made

    def vfs(self) -> list[str]:
        """Addresses of the VFs that are enabled, in their order."""
        links = self.sh(
            f"for link in {self.card.sysfs}/virtfn*; do test -e $link && echo ${{link##*virtfn}} $(basename $(readlink $link)); done; true"
        )
        found = [line.split() for line in links.splitlines()]
        return [address for _, address in sorted(found, key=lambda pair: int(pair[0]))]

    def driver(self, address: str) -> str:
        """The driver of a device; empty: none."""
        return self.sh(f"basename $(readlink /sys/bus/pci/devices/{address}/driver 2>/dev/null) 2>/dev/null; true")

    def enable(self, count: int, driver: str = "xe") -> list[str]:
        """Enable VFs; their addresses. xe probes them before this returns.

        Raises:
            GuestError: the kernel refuses, or the guest does not answer.
        """
        if driver != "xe":
            self.card.enable_vfs(count, driver)
            return self.vfs()
        self.sh(
            f"echo 1 > {self.card.sysfs}/sriov_drivers_autoprobe; echo {count} > {self.card.sysfs}/sriov_numvfs",
            timeout=_PROBE,
        )
        return self.vfs()

    def numvfs(self) -> int:
        """How many are enabled."""
        return int(self.sh(f"cat {self.card.sysfs}/sriov_numvfs"))

    def bind(self, address: str, driver: str = "xe") -> None:
        """Bind a device without a driver.

        Raises:
            CommandFailed: its probe fails.
        """
        self.sh(f"echo {address} > /sys/bus/pci/drivers/{driver}/bind", timeout=_PROBE)

    def unbind(self, address: str) -> None:
        """Take a device's driver away.

        Raises:
            CommandFailed: it has none.
        """
        self.sh(f"echo {address} > /sys/bus/pci/devices/{address}/driver/unbind", timeout=_PROBE)

    def rescan(self) -> bool:
        """Look for devices; whether the PF is there, with xe."""
        self.sh("echo 1 > /sys/bus/pci/rescan", timeout=_PROBE)
        return self.wait(lambda: self.driver(self.card.pf) == "xe", 20)

    def ctb(self, number: int) -> list[bool]:
        """Whether the GuC of each GT has a CT buffer of VF `number`."""
        clients = [client for gt in self.card.call("guc") for client in gt["clients"]]
        return [bool(client["ctb"]) for client in clients if client["function"] == f"vf{number}"]

    def provisioned(self) -> dict[str, int]:
        """What VFs have of the card: bytes of VRAM, by VF."""
        given = self.card.call("vram_map")["vfs"]
        return {name: sum(block["size"] for block in blocks) for name, blocks in given.items() if blocks}

    @staticmethod
    def wait(condition: Callable[[], bool], seconds: float) -> bool:
        """Whether it holds within `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def as_before(self, run: Run) -> None:
        """No VFs, xe on the PF, no override: what each scenario begins with. What cannot be had gives the guest up."""
        try:
            vfs = " ".join(f"/sys/bus/pci/devices/{self.card.vf(number)}" for number in (1, 2, 3))
            self.run(f"for d in {vfs}; do test -e $d && echo > $d/driver_override; done; true")
            if self.driver(self.card.pf) != "xe":
                self.run("modprobe xe", timeout=_PROBE)
                self.run(f"echo {self.card.pf} > /sys/bus/pci/drivers/xe/bind", timeout=_PROBE)
            self.sh(f"f={self.card.sysfs}/sriov_numvfs; test ! -e $f || test $(cat $f) = 0 || echo 0 > $f", timeout=60)
            self.run(
                f"echo 1 > {self.card.sysfs}/sriov_drivers_autoprobe;"
                f" for f in {self.card.sysfs}/sriov_admin/vf*/profile/vram_quota; do test -e $f && echo 0 > $f; done"
            )
            self.card.share_evenly()
        except GuestError as error:
            run.give_up(f"the machine is not as it was before: {str(error).splitlines()[0]}")


def account(machine: SriovMachine) -> dict[str, int]:
    """VRAM that xe on the PF has given away."""
    return {"VRAM in use": machine.card.vram_used()}
