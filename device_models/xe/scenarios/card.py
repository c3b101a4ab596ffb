"""A card whose PF xe drives in a guest, and its VFs: what scenarios and the demo do with it, and ask it for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.emulator.scenarios.machine import Card, Shell

PF = "0000:01:00.0"
MODULES = ("xe", "vfio-pci", "vfio-iommu-type1")
FIRMWARE = ("xe/bmg_guc_70.bin",)
CPU = "EPYC,phys-bits=46"
"""Linux lets peer-to-peer traffic through the host bridge of AMD's Zen processors (`p2pdma.c:cpu_supports_p2pdma`); its
address bits leave room for VF BARs."""

_PATIENCE = 60.0
"""Seconds that a reset may take: xe gives it up when clearing has taken 5."""
_LOAD_TIMEOUT = 600.0
"""For drivers that load at once, or never: a guest on a machine that is busy took four minutes."""


class Unserved(TimeoutError):
    """The GuC does not serve a VF, whose reset has not ended. `number` is the VF's."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


class XeCard:
    """A card as the guest's drivers have it (`shell` runs commands there) and as its server sees it (`control`).

    `pf` is the PF's address in the guest. Not safe to use from several threads.
    """

    def __init__(self, shell: Shell, control: Card, pf: str = PF) -> None:
        self._shell = shell
        self._control = control
        self.pf = pf
        self.sysfs = f"/sys/bus/pci/devices/{pf}"
        self.debugfs = f"/sys/kernel/debug/dri/{pf}"

    def call(self, command: str, /, **arguments: Any) -> Any:
        """A command of the card's control socket (docs/control-socket.md).

        Raises:
            CommandError: the command failed.
            OSError: the server does not answer.
        """
        return self._control.call(command, **arguments)

    def _sh(self, command: str, timeout: float = 60) -> str:
        return self._shell.run(command, timeout=timeout, check=True).stdout.rstrip("\n")

    def vf(self, number: int) -> str:
        """The address of VF `number` (1 is the first)."""
        domain_bus, _, function = self.pf.rpartition(".")
        return f"{domain_bus}.{int(function) + number}"

    def other_pfs(self) -> list[str]:
        """Addresses of the guest's further cards, in the order of their buses."""
        found = self._sh(
            "for d in /sys/bus/pci/devices/*; do\n"
            f'test "$(cat $d/class)" = 0x030000 && test ! -e $d/physfn && test ${{d##*/}} != {self.pf} && echo ${{d##*/}}\n'
            "done; true"
        )
        return found.split()

    def load_drivers(self) -> None:
        """xe on the PF, and VFIO.

        Raises:
            GuestError: the PF has no driver then: its probe failed, and every scenario in this guest would.
        """
        self._sh(
            "modprobe vfio-iommu-type1; modprobe vfio-pci; modprobe xe;"
            f" test -e {self.sysfs}/driver || {{ echo no driver has probed the PF >&2; exit 1; }}",
            timeout=_LOAD_TIMEOUT,
        )

    def enable_vfs(self, count: int, driver: str = "vfio-pci") -> None:
        """Enable `count` VFs and bind them all to `driver`."""
        self._sh(
            f"echo 0 > {self.sysfs}/sriov_drivers_autoprobe; echo {count} > {self.sysfs}/sriov_numvfs",
            timeout=_LOAD_TIMEOUT,
        )
        for number in range(1, count + 1):
            self.bind(number, driver)
        for number in range(1, count + 1):
            self.settle(number)

    def disable_vfs(self, timeout: float = 60) -> None:
        """Disable all VFs; whoever has one open keeps this waiting."""
        self._sh(f"echo 0 > {self.sysfs}/sriov_numvfs", timeout=timeout)

    def quota_file(self, number: int) -> str:
        """Where the PF's driver takes VF `number`'s share of VRAM: older series have it elsewhere.

        Raises:
            LookupError: this driver has no such file.
        """
        places = f"{self.debugfs}/sriov/vf{number}/tile0/vram_quota {self.debugfs}/gt0/vf{number}/lmem_quota"
        found = self._sh(f"ls -d {places} 2>/dev/null; true")
        if not found:
            raise LookupError(f"there is no file for VF {number}'s quota of VRAM: {places}")
        return found.splitlines()[0]

    def set_quota(self, number: int, size: int) -> None:
        """Give VF `number` `size` bytes of VRAM, while VFs are disabled. From then on xe shares nothing out by itself.

        Raises:
            LookupError: this driver has no file for it.
        """
        self._sh(f"echo {size} > {self.quota_file(number)}")

    def share_evenly(self) -> bool:
        """Let xe share its resources out among VFs by itself again, while VFs are disabled; whether this kernel can."""
        file = f"{self.debugfs}/sriov/restore_auto_provisioning"
        return self._shell.run(f"test -e {file} && echo 1 > {file}").returncode == 0

    def bind(self, number: int, driver: str) -> None:
        """Bind VF `number` to `driver`, from whatever driver it has."""
        device = f"/sys/bus/pci/devices/{self.vf(number)}"
        self._sh(
            f"test -e {device}/driver && echo {self.vf(number)} > {device}/driver/unbind\n"
            f"echo {driver} > {device}/driver_override; echo {self.vf(number)} > /sys/bus/pci/drivers_probe\n"
            f'test "$(basename $(readlink {device}/driver))" = {driver}',
            timeout=_LOAD_TIMEOUT,
        )

    def open_vf(self, program: Program, name: str, number: int) -> None:
        """Open VF `number` through VFIO, and wait until the PF has cleaned it.

        Opening resets the VF, and the PF's driver clears its memory afterwards, at its leisure: what is written before
        that has ended may be lost.
        """
        program.step(f"vfio {name} {self.vf(number)}")
        self.settle(number)

    def settle(self, number: int) -> None:
        """Wait until no reset of VF `number` is going on.

        Raises:
            Unserved: one went on for too long.
        """
        try:
            self._wait(lambda: self.vf_state(number) in ("running", "absent"), f"VF {number}'s reset is not finished")
        except TimeoutError as error:
            raise Unserved(str(error), number) from None

    def served(self, number: int, seconds: float) -> bool:
        """Whether the GuC serves VF `number` within `seconds`."""
        deadline = time.monotonic() + seconds
        while self.vf_state(number) != "running":
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def vf_state(self, number: int) -> str:
        """What the GuCs think of VF `number`: running, flr, paused, stopped; "absent" without it.

        Of a card with two GTs that is the state of the GT on which it does not run.
        """
        clients = [client for gt in self.call("guc") for client in gt["clients"]]
        states = [str(client["state"]) for client in clients if client["function"] == f"vf{number}"]
        return next((state for state in states if state != "running"), states[0] if states else "absent")

    def lmtt(self, number: int) -> list[dict[str, int]]:
        """What LMTT gives VF `number`: ranges with "gdpa", "dpa" and "size" in bytes."""
        ranges: list[dict[str, int]] = self.call("vram_map")["vfs"].get(f"vf{number}", [])
        return ranges

    def dpa(self, number: int, gdpa: int) -> int | None:
        """Where VF `number`'s device address is in VRAM."""
        for block in self.lmtt(number):
            if block["gdpa"] <= gdpa < block["gdpa"] + block["size"]:
                return block["dpa"] + gdpa - block["gdpa"]
        return None

    def translations(self, start: int, end: int, function: str = "pf") -> list[dict[str, Any]]:
        """What the PPGTTs of user VMs map in [start, end) of virtual addresses."""
        found = self.call("ppgtt", function=function, start=start, end=end)
        return [range_ for space in found if space["asid"] for range_ in space["ranges"]]

    def paths(self, initiator: str, owner: str) -> dict[str, int]:
        """How often each way was taken since the ledger was cleared: "zero-copy" and "legacy"."""
        counts = {"zero-copy": 0, "legacy": 0}
        for path in self.call("verdicts")["paths"]:
            if path["initiator"] == initiator and path["owner"] in (owner, "unshared"):
                for way in counts:
                    counts[way] += path[way]
        return counts

    def vram_used(self) -> int:
        """Bytes of VRAM that xe on the PF has given away."""
        text = self._sh(f"cat {self.debugfs}/tile0/vram_mm 2>/dev/null || cat {self.debugfs}/vram0_mm")
        for line in text.splitlines():
            if "usage:" in line:
                return int(line.split("usage:")[1].split()[0])
        raise ValueError(f"no usage in vram_mm: {text}")

    @staticmethod
    def _wait(condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise} within {_PATIENCE:g} s")
            time.sleep(0.05)
